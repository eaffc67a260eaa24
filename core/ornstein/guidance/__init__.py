"""Guidance: denoisers that wrap a denoiser, for every sampler and process; they can be wrapped in each other."""
