"""From a measured picture to the restored one, whole or in tiles: what validation and the verbs of an app share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from ornstein.denoiser import Denoiser, DenoiserLike
from ornstein.errors import UserError
from ornstein.latent import as_pictures
from ornstein.pictures.sizes import Padding, pad_to_multiple
from ornstein.samplers.base import Sampler
from ornstein.tiles import (
    Blend,
    BlendedDenoiser,
    NoiseField,
    Place,
    Tiling,
    batched,
    crop,
    tile_size,
)


class PictureRepresentation(Protocol):
    """What an app's pictures are to its models."""

    @property
    def scale(self) -> int:
        """How many times larger the clean picture is than the measured one."""

    @property
    def multiple(self) -> int:
        """What sides of measured pictures are padded to."""

    @property
    def padding(self) -> Padding:
        """How they are padded."""

    @property
    def factor(self) -> int:
        """How many times shorter the sides of latents are; 1 without an autoencoder."""

    @property
    def shrink(self) -> int:
        """How many times shorter the sides of the state are than those of the clean picture."""

    @property
    def patch(self) -> int:
        """Of the pixel unshuffling."""

    def measured(self, picture: Tensor) -> Tensor:
        """The whole measured picture (..., C, h, w) as `observation` takes its tiles."""

    def observation(self, measured: Tensor) -> Tensor:
        """What the denoiser's `prepare` takes, of (B, C, h, w) with padded sides."""

    def condition(self, mask: Tensor | None) -> dict[str, Tensor]:
        """The condition of the denoiser's calls, of a mask (B, 1, h, w)."""

    def pad(self, picture: Tensor) -> Tensor:
        """(..., h, w) with padded sides."""

    def inverse(self, x0: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """The picture of x0, or of decoded latents, cut to `size`."""


R = TypeVar("R", bound=PictureRepresentation)


@dataclass(frozen=True)
class Model(Generic[R]):
    """What samples a picture."""

    denoiser: Denoiser
    sampler: Sampler
    representation: R

    @property
    def evaluations(self) -> int | None:
        """Network calls a tile (NFE), None where the step size adapts."""
        calls = self.sampler.evaluations(self.denoiser.process)
        return None if calls is None else calls + self.denoiser.observe_evaluations


class Guidance(Protocol):
    """Guides the denoiser of a batch of tiles, such as `ornstein.guidance.guide.TileGuide`."""

    def __call__(
        self, denoiser: DenoiserLike, measured: Tensor, places: Sequence[Place], times: Tensor
    ) -> DenoiserLike: ...


def restore_picture(
    model: Model[Any],
    picture: Tensor,
    mask: Tensor | None = None,
    *,
    seed: int = 0,
    tiling: Tiling | None = None,
    batch: int = 1,
    device: torch.device | str = "cpu",
    guidance: Guidance | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Tensor:
    """The restored picture (C, scale h, scale w), float32 on the CPU.

    Args:
        model: the network, how it samples, and what it runs on.
        picture: (C, h, w) as the representation takes it: in [0, 1].
        mask: (1, h, w) in [0, 1], where the model wants one.
        seed: of the noise field; the same one gives the same noise in every pixel, whatever the tiles.
        tiling: None for the whole picture at once.
        batch: tiles that go through the network at once.
        device: where the denoiser is.
        guidance: of every tile while it is sampled.
        on_progress: is told the share done since its last call.

    Raises:
        UserError: guidance of tiles that are blended in every step.
    """
    space = model.representation
    picture = space.measured(picture)
    if tiling is None:
        tiling = Tiling(size=max(*picture.shape[-2:], space.multiple), overlap=0)
    tiling = tiling.fitting(space.multiple)
    if guidance is not None and tiling.blending == "steps":
        raise UserError("guided tiles are blended when they are done; set the blending to outputs")
    run = _Run(model, seed, batch, torch.device(device), guidance, on_progress or (lambda share: None))
    return run.steps(picture, mask, tiling) if tiling.blending == "steps" else run.outputs(picture, mask, tiling)


@dataclass(frozen=True)
class _Run:
    model: Model[Any]
    seed: int
    batch: int
    device: torch.device
    guidance: Guidance | None
    on_progress: Callable[[float], None]

    def outputs(self, picture: Tensor, mask: Tensor | None, tiling: Tiling) -> Tensor:
        """Every tile sampled by itself."""
        model, space = self.model, self.model.representation
        height, width = picture.shape[-2:]
        tile, places = tile_size(tiling, height, width), tiling.places(height, width)
        blend = Blend((height * space.scale, width * space.scale), tile, places, space.scale, tiling)
        for part in batched(places, self.batch):
            denoiser, y, condition = self._prepared(picture, mask, part, tile)
            guided: DenoiserLike = denoiser
            if self.guidance is not None:
                measured = space.observation(self._tiles(picture, part, tile))
                guided = self.guidance(denoiser, measured, part, model.sampler.times(denoiser.process))
            noise = NoiseField(self.seed, [_on_noise(place, space) for place in part], space.patch)
            share = len(part) / len(places)

            def on_step(done: int, steps: int, share: float = share) -> None:
                self.on_progress(share / steps)

            x = model.sampler(guided, denoiser.process.start(noise(y), y), y, noise, on_step, **condition)
            for place, result in zip(part, space.inverse(as_pictures(denoiser, x)).float(), strict=True):
                blend.add(place, result)
        return blend.result()

    def steps(self, picture: Tensor, mask: Tensor | None, tiling: Tiling) -> Tensor:
        """One state, the estimates blended in every step."""
        model, space = self.model, self.model.representation
        size = (picture.shape[-2] * space.scale, picture.shape[-1] * space.scale)
        picture = pad_to_multiple(picture, space.multiple, space.padding)
        mask = None if mask is None else pad_to_multiple(mask, space.multiple, space.padding)
        height, width = picture.shape[-2:]
        tile, places = tile_size(tiling, height, width), tiling.places(height, width)
        size_overlap = _on_state((tiling.size, tiling.overlap), space)
        scaled = replace(tiling, size=size_overlap[0], overlap=size_overlap[1])
        whole, sides = _on_state((height, width), space), _on_state(tile, space)
        at = [_on_state(place, space) for place in places]
        blends: dict[str, Blend] = {}
        for part in batched(places, self.batch):
            _, y, condition = self._prepared(picture, mask, part, tile)
            if any(c.shape[-2:] != y.shape[-2:] for c in condition.values()):
                raise UserError(
                    "this model has a condition of another size than its state; "
                    "blend the outputs of its tiles, not its steps"
                )
            for name, maps in {"": y, **condition}.items():
                blend = blends.setdefault(name, Blend(whole, sides, at, 1, scaled))
                for place, one in zip(part, maps, strict=True):
                    blend.add(_on_state(place, space), one)
        whole_maps = {name: blend.result()[None].to(self.device) for name, blend in blends.items()}
        y = whole_maps.pop("")
        whole_denoiser = model.denoiser.seeing(y, whole_maps)
        calls = (model.sampler.evaluations(model.denoiser.process) or model.sampler.steps) * len(places)
        tiled = BlendedDenoiser(
            whole_denoiser, scaled, self.batch, lambda count: self.on_progress(min(1.0, count / calls))
        )
        noise = NoiseField(self.seed, [(0, 0)], space.patch)
        x = model.sampler(tiled, whole_denoiser.process.start(noise(y), y), y, noise, None, **whole_maps)
        return space.inverse(as_pictures(model.denoiser, x), size)[0].float().cpu()

    def _prepared(
        self, picture: Tensor, mask: Tensor | None, part: Sequence[Place], tile: tuple[int, int]
    ) -> tuple[Denoiser, Tensor, dict[str, Tensor]]:
        """The denoiser for a batch of tiles, its observation and its condition."""
        space = self.model.representation
        tiles = self._tiles(picture, part, tile)
        masks = None if mask is None else torch.stack([space.pad(crop(mask, place, tile)) for place in part])
        condition = space.condition(None if masks is None else masks.to(self.device))
        denoiser, y, seen = self.model.denoiser.prepare(space.observation(tiles))
        if y is None:
            raise ValueError(f"{type(denoiser).__name__} gives no observation")
        return denoiser, y, seen | condition

    def _tiles(self, picture: Tensor, part: Sequence[Place], tile: tuple[int, int]) -> Tensor:
        """Tiles of the measured picture with padded sides, (B, C, h, w)."""
        space = self.model.representation
        return torch.stack([space.pad(crop(picture, place, tile)) for place in part]).to(self.device)


def _on_state(pixels: tuple[int, int], space: PictureRepresentation) -> tuple[int, int]:
    """Two lengths in pixels of the picture, in those of the state."""
    return pixels[0] * space.scale // space.shrink, pixels[1] * space.scale // space.shrink


def _on_noise(pixels: tuple[int, int], space: PictureRepresentation) -> tuple[int, int]:
    """Two lengths in pixels of the picture, in those of the plane of the noise: the state before it is unshuffled."""
    return pixels[0] * space.scale // space.factor, pixels[1] * space.scale // space.factor
