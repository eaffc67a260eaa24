"""The input and output scalings of NCSN++ v2 (Richter et al. 2024, `ncsnpp_v2` models)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ornstein.estimate import Estimate, estimate_from_noise, estimate_from_x0
from ornstein.parameterization import Mean, Parameterization
from ornstein.process.affine import Process, combine, expand


@dataclass(frozen=True)
class Preconditioned(Parameterization):
    """out = c_skip x_t + c_out F(c_in x_t, c_in y, t), where F may be divided by s or t first; what `out` means is
    `predicts`.

    With d = sigma_data: c_in 1 or 1/sqrt(s^2 + d^2); c_out 1, s, 1/s or s d/sqrt(s^2 + d^2); c_skip 0 or d^2/(s^2 +
    d^2). `predicts` x0 (data prediction), the score (score matching) or the mean (denoiser loss; there F is the mean
    itself and c_skip, c_out are unused, as published).
    """

    predicts: Literal["x0", "score", "mean"] = "x0"
    c_in: Literal["1", "edm"] = "1"
    c_out: Literal["1", "sigma", "1/sigma", "edm"] = "1"
    c_skip: Literal["0", "edm"] = "0"
    network_scaling: Literal["none", "1/sigma", "1/t"] = "none"
    sigma_data: float = 0.1

    def weights(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_in, c_out, c_skip at time `t`, float64."""
        s, d = process.coefficients(t).s, self.sigma_data
        n = s**2 + d**2
        one = torch.ones_like(s)
        c_in = 1 / n.sqrt() if self.c_in == "edm" else one
        c_out = {"1": one, "sigma": s, "1/sigma": 1 / s, "edm": s * d / n.sqrt()}[self.c_out]
        c_skip = d**2 / n if self.c_skip == "edm" else 0 * one
        return c_in, c_out, c_skip

    def inputs(
        self, process: Process, x: Tensor, t: Tensor, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        c_in = expand(self.weights(process, t)[0], x)
        return c_in * x, process.network_time(t), None if y is None else c_in * y

    def estimate(self, process: Process, output: Tensor, x: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        scaled = combine(x, (1 / self._divisor(process, t), output))
        if self.predicts == "mean":
            return Mean().estimate(process, scaled, x, t, y)
        _, c_out, c_skip = self.weights(process, t)
        out = combine(x, (c_skip, x), (c_out, scaled))
        if self.predicts == "x0":
            return estimate_from_x0(process, x, t, out, y)
        return estimate_from_noise(process, x, t, combine(x, (-process.coefficients(t).s, out)), y)

    def target(self, truth: Estimate) -> Tensor:
        divisor = self._divisor(truth.process, truth.t)
        if self.predicts == "mean":
            return combine(truth.x, (divisor, truth.mean))
        _, c_out, c_skip = self.weights(truth.process, truth.t)
        out = truth.x0 if self.predicts == "x0" else truth.score
        return combine(truth.x, (divisor / c_out, out), (-divisor * c_skip / c_out, truth.x))

    def _divisor(self, process: Process, t: Tensor) -> Tensor:
        if self.network_scaling == "1/sigma":
            return process.coefficients(t).s
        return t if self.network_scaling == "1/t" else torch.ones_like(t)
