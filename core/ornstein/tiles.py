"""Large pictures in tiles: where tiles begin, how they blend, and noise that belongs to the place and not to the tile.

Legend: h, w sides of the measured picture, H, W those of the result (H = scale h), p the patch of the representation.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.estimate import Estimate
from ornstein.training.seeds import derive_seed

Weights = Literal["feather", "uniform"]
Blending = Literal["outputs", "steps"]
Place = tuple[int, int]
"""First row and first column."""

BLOCK = 64
"""Sides of the squares of the noise field that have a generator each."""


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut, in pixels of the measured picture, and put together again.

    Published for UPSR at scale 4: size 512, overlap 64, uniform weights, of the outputs. Feathered weights and the
    shared noise are what avoids seams.
    """

    size: int = 512
    overlap: int = 64
    weights: Weights = "feather"
    """`feather`: falling linearly towards the edges of a tile over `overlap`; `uniform`: the plain mean."""
    blending: Blending = "outputs"
    """`outputs`: every tile is sampled by itself, in memory that does not grow with the picture but for the result;
    `steps`: one state, whose estimates are blended in every step (MultiDiffusion, Bar-Tal et al. 2023,
    arXiv 2302.08113, equation 5)."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.size:
            raise UserError(f"tiles of {self.size} with an overlap of {self.overlap}: give a size above the overlap")
        for name, choice, known in (
            ("weights", self.weights, get_args(Weights)),
            ("blending", self.blending, get_args(Blending)),
        ):
            if choice not in known:
                raise UserError(f"{name} of tiles are {choice!r}; use {' or '.join(known)}")

    def fitting(self, multiple: int) -> "Tiling":
        """This tiling with size and overlap rounded up to what the network takes."""
        size = self.size + -self.size % multiple
        return replace(self, size=size, overlap=min(self.overlap + -self.overlap % multiple, size - multiple))

    def starts(self, length: int) -> list[int]:
        """Where the tiles of a side begin."""
        return tile_starts(length, self.size, self.size - self.overlap)

    def places(self, height: int, width: int) -> list[Place]:
        """Where all tiles begin, row by row."""
        return [(top, left) for top in self.starts(height) for left in self.starts(width)]

    def profile(self, size: int, scale: int) -> Tensor:
        """Weights along a tile's side of `size` pixels times `scale`, positive, (scale size,), float32."""
        count = size * scale
        if self.weights == "uniform":
            return torch.ones(count)
        distance = torch.minimum(torch.arange(1, count + 1), torch.arange(count, 0, -1)).float()
        return distance.clamp(max=self.overlap * scale + 1) / (self.overlap * scale + 1)


def tile_starts(length: int, size: int, stride: int) -> list[int]:
    """0, stride, 2 stride, ...; the first start whose tile would overrun becomes length - size, the last one (UPSR)."""
    if length <= size:
        return [0]
    whole = range(0, length - size, stride)
    return [*whole, length - size]


class Blend:
    """The weighted mean of tiles, gathered on the CPU; the result does not depend on how tiles are batched.

    Args:
        size: (H, W) of the whole.
        tile: (height, width) of a tile before scaling.
        places: of all tiles, before scaling.
        scale: result pixels per pixel of the tiles.
        tiling: gives the weights.
    """

    def __init__(
        self, size: tuple[int, int], tile: tuple[int, int], places: Sequence[Place], scale: int, tiling: Tiling
    ) -> None:
        self.size, self.scale = size, scale
        self.rows, self.columns = (tiling.profile(side, scale) for side in tile)
        self.total_rows = self._total(size[0], self.rows, sorted({top for top, _ in places}))
        self.total_columns = self._total(size[1], self.columns, sorted({left for _, left in places}))
        self.sum: Tensor | None = None

    def _total(self, length: int, profile: Tensor, starts: Sequence[int]) -> Tensor:
        total = torch.zeros(length)
        for start in starts:
            part = total[start * self.scale :][: len(profile)]
            part += profile[: len(part)]
        return total

    def add(self, place: Place, tile: Tensor) -> None:
        """Put `tile` (C, height, width) at `place`; what lies outside the whole is left away."""
        if self.sum is None:
            self.sum = torch.zeros(tile.shape[0], *self.size, dtype=tile.dtype)
        top, left = (start * self.scale for start in place)
        height, width = min(tile.shape[1], self.size[0] - top), min(tile.shape[2], self.size[1] - left)
        weight = (self.rows[:height, None] * self.columns[None, :width]).to(tile.dtype)
        self.sum[:, top : top + height, left : left + width] += weight * tile[:, :height, :width].cpu()

    def result(self) -> Tensor:
        """The whole, (C, H, W); raises ValueError if there was no tile."""
        if self.sum is None:
            raise ValueError("no tile was added")
        mean = self.sum
        mean /= self.total_rows[:, None].to(mean.dtype)
        mean /= self.total_columns[None, :].to(mean.dtype)
        return mean


class NoiseField:
    """Unit noise on an endless plane of pixels: a pixel of a draw has one value, whichever tiles and batches it is in.

    A call gives the noise of the tiles at `places` (pixels of the clean picture), unshuffled by `patch` like the state;
    every call is a new draw. Blocks of 64 x 64 pixels have a generator each, seeded by (seed, draw, place).
    """

    def __init__(self, seed: int, places: Sequence[Place], patch: int = 1) -> None:
        self.seed, self.places, self.patch, self.draw = seed, places, patch, 0

    def __call__(self, like: Tensor) -> Tensor:
        """Noise like `like` (B, C p^2, H/p, W/p), one place an item."""
        if len(like) != len(self.places):
            raise ValueError(f"{len(self.places)} places for a batch of {len(like)}")
        channels, height, width = like.shape[1] // self.patch**2, like.shape[2] * self.patch, like.shape[3] * self.patch
        tiles = [self._cut(top, left, channels, height, width) for top, left in self.places]
        self.draw += 1
        return F.pixel_unshuffle(torch.stack(tiles), self.patch).to(device=like.device, dtype=like.dtype)

    def _cut(self, top: int, left: int, channels: int, height: int, width: int) -> Tensor:
        rows, columns = (range(first // BLOCK, -(-(first + n) // BLOCK)) for first, n in ((top, height), (left, width)))
        strips = [torch.cat([self._block(row, column, channels) for column in columns], dim=2) for row in rows]
        top, left = top - rows.start * BLOCK, left - columns.start * BLOCK
        return torch.cat(strips, dim=1)[:, top : top + height, left : left + width]

    def _block(self, row: int, column: int, channels: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "noise", self.draw, row, column))
        return torch.randn(channels, BLOCK, BLOCK, generator=generator)


class BlendedDenoiser:
    """A denoiser of a large state that asks another one about tiles of it and blends the estimates (MultiDiffusion).

    The three fields of an Estimate are blended alike, so x = a x0 + b y + s noise goes on to hold.

    Args:
        denoiser: treats the items of a batch one by one; conditions are maps with the sides of the state.
        tiling: in pixels of the state.
        batch: tiles a call.
    """

    def __init__(
        self, denoiser: Denoiser, tiling: Tiling, batch: int = 1, on_tiles: Callable[[int], None] | None = None
    ) -> None:
        self.denoiser, self.tiling, self.batch, self.on_tiles = denoiser, tiling, batch, on_tiles
        self.process = denoiser.process

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        """Estimate of the one state `x` (1, C, H, W)."""
        if len(x) != 1:
            raise ValueError(f"one state at a time, got {len(x)}")
        size = (x.shape[2], x.shape[3])
        tile = tile_size(self.tiling, *size)
        places = self.tiling.places(*size)
        blends: dict[str, Blend] = {}
        for part in batched(places, self.batch):

            def cut(whole: Tensor, part: Sequence[Place] = part) -> Tensor:
                return torch.cat([crop(whole, place, tile) for place in part])

            seen, given = None if y is None else cut(y), {name: cut(value) for name, value in condition.items()}
            estimate = self.denoiser.seeing(seen, given)(cut(x), t, seen, **given)
            for name in ("x0", "noise", "y"):
                if (field := getattr(estimate, name)) is None:
                    continue
                blend = blends.setdefault(name, Blend(size, tile, places, 1, self.tiling))
                for place, one in zip(part, field, strict=True):
                    blend.add(place, one)
            if self.on_tiles is not None:
                self.on_tiles(len(part))
        fields = {name: blend.result()[None].to(x.device) for name, blend in blends.items()}
        return Estimate(self.process, x, torch.as_tensor(t), fields["x0"], fields["noise"], fields.get("y"))


def tile_size(tiling: Tiling, height: int, width: int) -> tuple[int, int]:
    """Sides of the tiles of a picture, which may be smaller than one."""
    return min(tiling.size, height), min(tiling.size, width)


def crop(whole: Tensor, place: Place, tile: tuple[int, int]) -> Tensor:
    """The tile of `whole` (..., H, W) that begins at `place`."""
    top, left = place
    return whole[..., top : top + tile[0], left : left + tile[1]]


def batched(places: Sequence[Place], count: int) -> Iterator[Sequence[Place]]:
    """The places, `count` at a time."""
    for begin in range(0, len(places), count):
        yield places[begin : begin + count]
