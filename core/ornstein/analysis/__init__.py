"""Exact models to test against, and tools that look into trained ones."""
