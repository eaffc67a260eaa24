"""How a small encoder learns features of pictures: it takes noise away, and says how strong the noise was."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ornstein.denoiser import Denoiser, DenoiserLike
from ornstein.errors import UserError
from ornstein.features.small_encoder import EncoderWithHeads
from ornstein.objectives.denoising import Objective
from ornstein.objectives.outputs import with_outputs
from ornstein.parameterization import OneShot
from ornstein.process.prediction import Prediction


@dataclass(frozen=True)
class NoiseAndStrength(Objective):
    """|picture - x0|^2 + weight (strength - u)^2 for x = blur(x0) + noise, both as strong as u ~ U(0, 1).

    The deviation of the noise is `largest` u^2, that of the Gaussian blur `blur` u pixels. `x0` are clean pictures (B,
    C, H, W) in [-1, 1]; the denoiser is `encoder_denoiser`.
    """

    largest: float = 0.5
    blur: float = 2.0
    weight: float = 0.1

    def __post_init__(self) -> None:
        if not (self.largest > 0 and self.blur >= 0 and self.weight >= 0):
            raise UserError(
                "NoiseAndStrength needs largest above 0, and blur and weight of at least 0, got "
                f"{self.largest}, {self.blur} and {self.weight}"
            )

    def __call__(
        self,
        denoiser: DenoiserLike,
        x0: Tensor,
        y: Tensor | None = None,
        *,
        generator: torch.Generator,
        **condition: Tensor,
    ) -> dict[str, Tensor]:
        network = with_outputs(denoiser).network
        if not isinstance(network, EncoderWithHeads):
            raise UserError(f"NoiseAndStrength trains an EncoderWithHeads, not a {type(network).__name__}")
        u = torch.rand(len(x0), generator=generator, device=generator.device).to(x0)
        z = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=generator.device).to(x0.device)
        x = blurred(x0, self.blur * u) + self.largest * u.square()[:, None, None, None] * z
        picture, strength = network.both(x)
        errors = {"picture": (picture.float() - x0).square().mean(), "strength": (strength.float() - u).square().mean()}
        loss = errors["picture"] + self.weight * errors["strength"]
        return {"loss": loss, **{name: value.detach() for name, value in errors.items()}}


def encoder_denoiser(network: EncoderWithHeads) -> Denoiser:
    """The encoder as a predictive model, which is how it is trained and kept in a file."""
    return Denoiser(network, Prediction(), OneShot())


def blurred(picture: Tensor, deviation: Tensor) -> Tensor:
    """Pictures (B, C, H, W) under Gaussians of `deviation` (B,) pixels, one a sample, cut at 6 pixels; 0 for none."""
    count, channels = picture.shape[:2]
    margin = min(6, min(picture.shape[-2:]) - 1)
    place = torch.arange(-margin, margin + 1, device=picture.device, dtype=picture.dtype)
    kernel = torch.exp(-(place**2) / (2 * deviation.clamp(min=1e-3)[:, None] ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None, None]
    sides = [side + 2 * margin for side in picture.shape[-2:]]
    x = F.pad(picture, (margin,) * 4, mode="reflect").reshape(1, count * channels, *sides)
    with torch.autocast(picture.device.type, enabled=False):
        for weights in (kernel, kernel.transpose(2, 3)):
            x = F.conv2d(x, weights, groups=count * channels)
    return x.reshape(picture.shape)
