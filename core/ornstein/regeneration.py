"""Stochastic regeneration: a predictor first, then diffusion towards its estimate (StoRM)."""

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ornstein.denoiser import Denoiser
from ornstein.estimate import Estimate
from ornstein.parameterization import Parameterization
from ornstein.process.affine import Process, as_time


class StochasticRegeneration(Denoiser):
    """A denoiser whose observation is D(y), the estimate of a predictor D, in place of the measured y (StoRM, Lemercier
    et al. 2023, arXiv 2212.11851).

    Any sampler runs on it: `observe` gives D(y) and, as condition `noisy`, y. The network is called as network(c_in x,
    t, conditioning), conditioning being y and D(y) as two channels, or one of them.

    Args:
        network: as for `Denoiser`.
        process: as for `Denoiser`.
        parameterization: as for `Denoiser`.
        predictor: gives D(y) in one call at its time T, where its state is y: a denoiser on `Prediction`, or a bridge.
        conditioning: what the network sees: `both` (published), `noisy` for y, `prediction` for D(y).
    """

    observe_evaluations: ClassVar[int] = 1

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        parameterization: Parameterization,
        predictor: Denoiser,
        conditioning: Literal["both", "noisy", "prediction"] = "both",
    ) -> None:
        super().__init__(network, process, parameterization)
        self.predictor = predictor
        self.conditioning = conditioning

    def observe(self, y: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        if y is None:
            raise ValueError("stochastic regeneration needs the observation y")
        last = torch.full((len(y),), self.predictor.process.T, dtype=torch.float64, device=y.device)
        prediction: Estimate = self.predictor(y, last, y)
        return prediction.x0, {"noisy": y}

    @property
    def networks(self) -> list[nn.Module]:
        return [self.network, *self.predictor.networks]

    def with_networks(self, change: Callable[[nn.Module], nn.Module]) -> "StochasticRegeneration":
        predictor = self.predictor.with_networks(change)
        network = change(self.network)
        return StochasticRegeneration(network, self.process, self.parameterization, predictor, self.conditioning)

    def forward(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        """Estimate for `x` (B, 1, *) at time `t`, () or (B,), given `y` = D(y) and the condition `noisy`, (B, 1, *)."""
        if y is None or set(condition) != {"noisy"}:
            raise ValueError("call stochastic regeneration with what its `observe` gives: y and the condition noisy")
        t = as_time(t)
        seen = {"both": (condition["noisy"], y), "noisy": (condition["noisy"],), "prediction": (y,)}
        output = self.output(x, t, torch.cat(seen[self.conditioning], dim=1))
        return self.parameterization.estimate(self.process, output, x, t, y)
