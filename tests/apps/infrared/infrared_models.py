"""Checkpoints of infrared models that are tiny, or known exactly."""

from pathlib import Path
from typing import Any

import torch

from ornstein import checkpoint
from ornstein.networks.unet import UNet
from ornstein.parameterization import Residual
from ornstein.process.prediction import Prediction
from ornstein.process.residual_shift import ResidualShift
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.time_grids import UserGrid
from ornstein.uncertainty import UncertaintyGuided
from ornstein.wrapped_parameterizations import HiddenObservation
from ornstein_infrared.representation import ThermalSpace

ONE_CALL = Ancestral(steps=1, eta=0.0, grid=UserGrid(times=(1.0, 0.0)))


def model(path: Path, scale: int = 1, size: float = 0.0, regression: bool = False, steps: int = 2) -> Path:
    """A network on pixels whose residual is 0 (the identity, or the bicubic enlargement), or random of a `size`."""
    torch.manual_seed(0)
    network = UNet(channels=1, width=8, levels=1)
    process: Any = Prediction() if regression else ResidualShift(steps=4, noise_scale=0.3)
    denoiser = UncertaintyGuided(network, process, HiddenObservation(Residual()), None, scale, 1)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.copy_(size * torch.randn_like(parameter))
    space = ThermalSpace(scale=scale, multiple=4)
    sampler = ONE_CALL if regression else Ancestral(steps=steps, eta=1.0)
    checkpoint.save(path, denoiser, app="infrared", representation=space, sampler=sampler)
    return path
