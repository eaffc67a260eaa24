"""A denoiser whose noise is weaker where a regression network agrees with the observation (UPSR)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.parameterization import X0, Parameterization
from ornstein.pictures.sizes import upscale
from ornstein.process.affine import Process
from ornstein.process.upsr import UPSR
from ornstein.wrapped_parameterizations import ScaledInput, VarianceScaling

PUBLISHED_SCALING = ScaledInput(X0(), VarianceScaling(data=0.25, noise=0.3))
"""The network sees x/sqrt(0.3 s^2 + 0.25) and gives x0 (UPSR)."""


class UncertaintyGuided(Denoiser):
    """Super-resolution by residual shifting on pixels, guided by a regression network g (UPSR, Zhang et al. 2025, arXiv
    2503.18512).

    The process runs on pixel-unshuffled pictures, (B, 3 patch^2, H/patch, W/patch). `prepare` turns the small picture
    (B, 3, H/scale, W/scale) in [-1, 1] into y, its bicubic enlargement, yhat = 2 g((small + 1)/2) - 1, not clamped, and
    the process with the weights W of the batch, which sampler and objective then take. The network is called as
    network(c_in x, t, [yhat, y]), condition unshuffled too, and gives the picture (B, 3, H, W). Without g: W = 1, and
    the network sees y alone (ResShift on pixels).

    Args:
        network: gives the clean picture at full size.
        process: `UPSR`; without a predictor also `ResidualShift`.
        parameterization: what the network sees of x and means; published: `PUBLISHED_SCALING`.
        predictor: g, any network from pictures (B, 3, h, w) in [0, 1] to (B, 3, scale h, scale w); frozen.
        scale: how many times larger the result is; 1 where the measured picture has the full size.
        patch: factor of the pixel unshuffling; 1 for none.

    Raises:
        ValueError: a predictor with a process that takes no weights, or scale or patch below 1.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        parameterization: Parameterization = PUBLISHED_SCALING,
        predictor: nn.Module | None = None,
        scale: int = 4,
        patch: int = 4,
    ) -> None:
        super().__init__(network, process, parameterization)
        if predictor is not None and not isinstance(process, UPSR):
            raise ValueError(f"weights of a predictor need the process UPSR, not {type(process).__name__}")
        if scale < 1 or patch < 1:
            raise ValueError(f"scale and patch are {scale} and {patch}; both must be at least 1")
        self.predictor = predictor
        self.scale = scale
        self.patch = patch
        if predictor is not None:
            predictor.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "UncertaintyGuided":
        """As for every module; the predictor stays in evaluation mode."""
        super().train(mode)
        if self.predictor is not None:
            self.predictor.eval()
        return self

    def observe(self, y: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """y enlarged and unshuffled and, with a predictor, the condition `estimate`, its picture unshuffled, from the
        measured picture `y` (B, 3, h, w) in [-1, 1].

        Raises:
            UserError: the picture is missing or its enlargement no multiple of `patch`, or g gives another size.
        """
        if y is None or y.ndim != 4:
            raise UserError(f"{type(self).__name__} needs the measured picture (B, 3, h, w); give y")
        large = upscale(y, self.scale)
        if any(side % self.patch for side in large.shape[2:]):
            size = f"{large.shape[-2]} x {large.shape[-1]}"
            raise UserError(f"the sides of {size} pixels are no multiples of {self.patch}; pad the measured picture")
        if self.predictor is None:
            return self.unshuffled(large), {}
        with torch.no_grad():
            estimate = (2 * self.predictor((y + 1) / 2) - 1).to(y.dtype)
        if estimate.shape != large.shape:
            raise UserError(
                f"the predictor gives {tuple(estimate.shape)} for a picture of {tuple(large.shape)}; "
                f"take one for scale {self.scale}"
            )
        return self.unshuffled(large), {"estimate": self.unshuffled(estimate)}

    def seeing(self, observation: Tensor | None, condition: Mapping[str, Tensor]) -> Denoiser:
        """This denoiser on the process with the weights W of the observation and the condition `estimate`."""
        if observation is None or "estimate" not in condition or not isinstance(self.process, UPSR):
            return self
        weights = self.process.uncertainty_weights(observation, condition["estimate"])
        return self.with_process(self.process.weighted(weights))

    def unshuffled(self, picture: Tensor) -> Tensor:
        """Pictures (B, C, H, W) as the process has them, (B, C patch^2, H/patch, W/patch)."""
        return nn.functional.pixel_unshuffle(picture, self.patch)

    def shuffled(self, x: Tensor) -> Tensor:
        """Back to pictures."""
        return nn.functional.pixel_shuffle(x, self.patch)

    @property
    def networks(self) -> list[nn.Module]:
        return [self.network] if self.predictor is None else [self.network, self.predictor]

    def with_networks(self, change: Callable[[nn.Module], nn.Module]) -> "UncertaintyGuided":
        predictor = None if self.predictor is None else change(self.predictor)
        network = change(self.network)
        return UncertaintyGuided(network, self.process, self.parameterization, predictor, self.scale, self.patch)

    def output(self, x: Tensor, t: Tensor, y: Tensor | None = None, **condition: Tensor) -> Tensor:
        """The network's picture, unshuffled; `y` and the condition `estimate` are what `prepare` gives."""
        estimate = condition.pop("estimate", None)
        if y is None or (estimate is None) != (self.predictor is None):
            raise ValueError("call this denoiser with what its `prepare` gives: y and, with a predictor, estimate")
        if estimate is None:
            return self.unshuffled(super().output(x, t, y, **condition))
        if isinstance(self.process, UPSR) and self.process.weights is None:
            raise ValueError("the process has no weights yet; call the denoiser that `prepare` gives")
        return self.unshuffled(super().output(x, t, torch.cat([estimate, y], dim=1), **condition))
