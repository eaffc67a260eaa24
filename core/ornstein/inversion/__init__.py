"""Inversion, editing, interpolation, gradients through the flow and optimisation of the noise, on every process."""
