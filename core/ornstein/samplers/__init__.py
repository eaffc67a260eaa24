"""Samplers: from a start point to a sample, on any process."""
