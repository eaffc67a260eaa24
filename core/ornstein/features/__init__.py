"""Frozen networks that say what is alike in two pictures."""
