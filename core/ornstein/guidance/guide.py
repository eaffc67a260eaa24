"""Gradient guidance as data: terms, where their gradient enters and how strongly, bound to a batch when it is
sampled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.guidance.classifier_free import GuidanceInterval
from ornstein.guidance.injection import Energy, GradientGuidance, Injection, ShiftedMean, Treatment
from ornstein.guidance.references import Reference
from ornstein.guidance.terms import GuidanceTerm
from ornstein.latent import as_pictures


@dataclass(frozen=True)
class Guide:
    """What a run is guided by (DifIISR); for recipes, command lines and results.

    Raises:
        UserError: an interval that is empty.
    """

    term: GuidanceTerm
    strength: float = 1.0
    """lambda."""
    injection: Injection = ShiftedMean()
    treatments: Sequence[Treatment] = ()
    interval: tuple[float, float] | None = None
    """Times from and to which are guided, ends included, as shares of T (0 clean, 1 corrupted); None for all."""

    def __post_init__(self) -> None:
        if self.interval is not None and not 0 <= self.interval[0] <= self.interval[1] <= 1:
            raise UserError(f"guidance from {self.interval[0]} to {self.interval[1]} of T; give 0 <= low <= high <= 1")

    def on(
        self,
        denoiser: DenoiserLike,
        reference: Reference,
        times: Tensor | None = None,
        decode: Callable[[Tensor], Tensor] | None = None,
    ) -> DenoiserLike:
        """`denoiser` (that of a batch, as `prepare` gives it) guided towards `reference`.

        Args:
            denoiser: what is guided.
            reference: what its pictures are compared with: one of `ornstein.guidance.references`.
            times: of the sampler, `sampler.times(denoiser.process)`; None for all levels of a tabulated process.
            decode: x0 (B, *) to pictures (B, C, H, W), differentiable; None for that of a `LatentDenoiser`, or x0
                itself.
        """
        if self.strength == 0:
            return denoiser
        energy = picture_energy(self.term, reference, decode or (lambda x0: as_pictures(denoiser, x0)))
        guided = GradientGuidance(denoiser, energy, self.injection, self.strength, self.treatments, times)
        if self.interval is None:
            return guided
        low, high = (share * denoiser.process.T for share in self.interval)
        slack = 1e-9 * denoiser.process.T  # a share of T is rounded
        return GuidanceInterval(guided, denoiser, low - slack, high + slack)

    def described(self) -> dict[str, Any]:
        """Plain words for a results file: what is compared and with which weights, where and how strongly."""
        return {
            "term": self.term.name,
            "strength": self.strength,
            "injection": type(self.injection).__name__,
            "treatments": [repr(treatment) for treatment in self.treatments],
            "interval": None if self.interval is None else list(self.interval),
        }


def picture_energy(term: GuidanceTerm, reference: Reference, decode: Callable[[Tensor], Tensor]) -> Energy:
    """E(x0) = term(D(x0), g); D in float32 at least, outside of autocast: it is differentiated."""

    def energy(x0: Tensor) -> Tensor:
        with torch.autocast(x0.device.type, enabled=False):
            x0 = x0.float() if x0.dtype in (torch.float16, torch.bfloat16) else x0
            return term(*reference(decode(x0)))

    return energy
