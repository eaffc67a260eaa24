"""Objectives: how a denoiser learns."""
