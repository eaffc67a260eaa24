"""Inverse problems: measurements r = H x0 + sigma n, operators H and samplers of the posterior."""
