"""The perceptual term: distances of the features that a frozen network sees."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.features.base import FeatureExtractor, seen_by
from ornstein.guidance.terms import GuidanceTerm


@dataclass(frozen=True)
class PerceptualTerm(GuidanceTerm):
    """sum_l w_l mean (phi_l(x) - phi_l(g))^2 of each sample, phi frozen.

    DifIISR (arXiv 2503.01187) takes VGG and SAM; its layers and weights have not been seen, and are ours.

    Raises:
        UserError: in a call, not one weight for every layer, or a picture that is too small for phi.
    """

    extractor: FeatureExtractor
    """phi; pictures get its channels: grey is repeated, colours are averaged."""
    weights: Sequence[float] | None = None
    """w_l, one a layer; None for 1 each."""

    @property
    def name(self) -> str:
        return f"perceptual {self.extractor.name}"

    def __call__(self, prediction: Tensor, reference: Tensor) -> Tensor:
        found, wanted = (self._features(picture) for picture in (prediction, reference))
        weights = [1.0] * len(found) if self.weights is None else self.weights
        if len(weights) != len(found) or not any(weights):
            raise UserError(
                f"{self.extractor.name} gives {len(found)} layers; give as many weights, not all 0, got {list(weights)}"
            )
        distances = [
            w * (f - g).square().flatten(1).mean(1) for w, f, g in zip(weights, found, wanted, strict=True) if w != 0
        ]
        return torch.stack(distances).sum(0)

    def _features(self, picture: Tensor) -> list[Tensor]:
        with torch.autocast(picture.device.type, enabled=False):
            return self.extractor.to(picture.device)(seen_by(self.extractor, picture))
