"""A small real picture model that ships with the project: handwritten digits of 8x8 pixels.

Guidance, inversion and inverse problems are tested and shown on it; `python -m ornstein.digits.train` makes it.
"""
