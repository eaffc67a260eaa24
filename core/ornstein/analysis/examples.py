"""What methods are compared on: one mixture, one observation and an instance of every process."""

from functools import lru_cache

import torch
from torch import Tensor

from ornstein.analysis.mixture import GaussianMixture, exact_flow
from ornstein.process.affine import Process
from ornstein.process.bbed import BBED
from ornstein.process.betas import LinearBetas
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.ddpm import DDPM
from ornstein.process.edm import EDM
from ornstein.process.interpolant import BrownianGamma, StochasticInterpolant, TrigonometricPath
from ornstein.process.ouve import OUVE
from ornstein.process.ouvp import OUVP
from ornstein.process.rddm import RDDM
from ornstein.process.rectified_flow import RectifiedFlow
from ornstein.process.resfusion import LinearPro, Resfusion
from ornstein.process.residual_path import ResidualFirst
from ornstein.process.residual_shift import ResidualShift
from ornstein.process.sub_vp import SubVP
from ornstein.process.trigonometric import Trigonometric
from ornstein.process.upsr import UPSR
from ornstein.process.ve import VE
from ornstein.process.vp import VP, CosineVP

MIXTURE = GaussianMixture(
    weights=torch.tensor([0.3, 0.7], dtype=torch.float64),
    means=torch.tensor([[-1.0, 0.5], [0.6, -0.4]], dtype=torch.float64),
    covariances=torch.tensor([[[0.10, 0.03], [0.03, 0.08]], [[0.06, -0.02], [-0.02, 0.12]]], dtype=torch.float64),
)
Y = torch.tensor([0.8, -1.2], dtype=torch.float64)
"""The observation, (2,)."""

PROCESSES: dict[str, Process] = {
    "VP": VP(),
    "cosine VP": CosineVP(),
    "sub-VP": SubVP(),
    "trigonometric": Trigonometric(),
    "DDPM": DDPM(),
    "VE": VE(sigma_min=1e-3, sigma_max=20.0),
    "EDM": EDM(sigma_max=20.0),
    "rectified flow": RectifiedFlow(),
    "OUVE": OUVE(),
    "OUVP": OUVP(beta_min=0.1, beta_max=4.0),
    "BBED": BBED(),
    "bridge": SchroedingerBridge(),
    "ResShift": ResidualShift(),
    "UPSR": UPSR().weighted(torch.tensor([[0.4, 1.3]], dtype=torch.float64)),
    "RDDM": RDDM(),
    "residual first": ResidualFirst(),
    "Resfusion": Resfusion(LinearPro(273)),
    "Resfusion, a < 0": Resfusion(LinearBetas(steps=100, first=1e-3, last=0.08)),
    "interpolant": StochasticInterpolant(memory=1.0),
    "trig. interpolant": StochasticInterpolant(TrigonometricPath(), BrownianGamma(0.5)),
}
"""Every process but `Prediction`, which has no noise; UPSR with a map of weights W, the last Resfusion not cut."""
BRIDGES = ("bridge", "interpolant", "trig. interpolant")
"""s = 0 at T."""


def weights_of(process: Process) -> Tensor | None:
    """W where s is a map."""
    return process.weights if isinstance(process, UPSR) else None


@lru_cache
def exact_between(first: float, last: float, count: int = 16, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Exact draws of w at kappa = `first`, (count, 2), and where the flow, the same for every process, takes them at
    `last`; `weights` as for `exact_flow`."""
    generator = torch.Generator().manual_seed(0)
    kappa = first if weights is None else first / weights
    w = kappa * MIXTURE.sample(count, generator) + torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return w, exact_flow(MIXTURE, w, first, last, weights=weights)
