"""Affine Gaussian processes: how a clean signal is corrupted."""
