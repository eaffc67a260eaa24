"""Class-conditional Gaussian mixtures: exact conditional and unconditional estimates for guidance and editing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser
from ornstein.errors import UserError
from ornstein.estimate import Estimate
from ornstein.process.affine import Process, as_time, combine, expand

UNCONDITIONAL = -1
"""The label that stands for no class."""


@dataclass(frozen=True)
class ClassMixture:
    """A mixture whose component k belongs to the class `classes[k]`, a whole number from 0 on; `classes` is (K,)."""

    mixture: GaussianMixture
    classes: Tensor

    def __post_init__(self) -> None:
        if self.classes.shape != self.mixture.weights.shape or int(self.classes.min()) < 0:
            raise UserError(
                f"classes {self.classes.tolist()} do not label {len(self.mixture.weights)} components; "
                "give one whole number from 0 on for each"
            )

    def given(self, label: int) -> GaussianMixture:
        """The data distribution of one class, or of all for `UNCONDITIONAL`: for `sample` and `exact_flow`."""
        if label == UNCONDITIONAL:
            return self.mixture
        own = self.classes == label
        if not bool(own.any()):
            raise UserError(f"the mixture has no class {label}; its classes are {sorted(set(self.classes.tolist()))}")
        weights = self.mixture.weights[own]
        return GaussianMixture(weights / weights.sum(), self.mixture.means[own], self.mixture.covariances[own])

    def log_class_posterior(self, x: Tensor, process: Process, t: Tensor | float, y: Tensor | None = None) -> Tensor:
        """log p(class | x_t), (B, classes), for `x` (B, *) at time `t`: component k of u = x - b y is N(a m, a^2 C +
        s^2)."""
        a, b, s, _ = process.coefficients(as_time(t))
        u = combine(x, (torch.ones_like(b), x), (-b, process.require(y))).flatten(1).double()
        a, s = ((expand(c, x) * torch.ones_like(x)).flatten(1).double()[:, None] for c in (a, s))
        means, covariances = self.mixture.means.to(u), self.mixture.covariances.to(u)
        spread = a[..., None] * covariances * a[..., None, :] + torch.diag_embed(s**2)
        marginal = torch.distributions.MultivariateNormal(a * means, spread)
        joint = self.mixture.weights.to(u).log() + marginal.log_prob(u[:, None])
        own = self.classes[:, None] == torch.arange(int(self.classes.max()) + 1)
        by_class = torch.where(own.to(u.device), joint[..., None], -torch.inf).logsumexp(1)
        return by_class.log_softmax(-1)


@dataclass(frozen=True)
class ClassMixtureDenoiser:
    """The exact denoiser of a class-conditional mixture; the condition `label` (B,) holds classes, or `UNCONDITIONAL`.

    Without a label every sample is unconditional.
    """

    mixture: ClassMixture
    process: Process

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        """Exact Estimate at `x` (B, *) and time `t`, () or (B,)."""
        t = as_time(t)
        label = condition.get("label", torch.full((len(x),), UNCONDITIONAL))
        x0, noise = torch.zeros_like(x), torch.zeros_like(x)
        for value in label.unique().tolist():
            rows = (label.expand(len(x)) == value).nonzero()[:, 0].to(x.device)
            exact = MixtureDenoiser(self.mixture.given(int(value)), self.process)
            part = exact(x[rows], t if t.ndim == 0 else t[rows], None if y is None else y[rows])
            x0, noise = x0.index_copy(0, rows, part.x0), noise.index_copy(0, rows, part.noise)
        return Estimate(self.process, x, t, x0, noise, y)
