"""Tiles, their blending, and noise that belongs to places."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.parameterization import X0
from ornstein.pictures.sampling import Model, restore_picture
from ornstein.process.rddm import RDDM
from ornstein.process.residual_shift import ResidualShift
from ornstein.process.upsr import UPSR
from ornstein.samplers.ancestral import Ancestral
from ornstein.tiles import Tiling, tile_starts
from ornstein.uncertainty import UncertaintyGuided
from ornstein_restoration.representation import PictureSpace


class Local(nn.Module):
    """A small network that sees 3 x 3 pixels, of fixed random weights."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.last = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return y + 0.3 * self.last(torch.tanh(self.first(torch.cat([x, y], 1))))


class Moody(Local):
    """One whose colours depend on the mean of what it sees, as a network with attention does."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return super().forward(x, t, y) + y.mean((2, 3), keepdim=True)


def model(network: nn.Module, process: Any = None, scale: int = 1, eta: float = 1.0) -> Model:
    process = process or ResidualShift(steps=4, noise_scale=0.3)
    denoiser = Denoiser(network.eval(), process, X0())
    return Model(denoiser, Ancestral(steps=3, eta=eta), PictureSpace(scale=scale, multiple=8))


def picture(height: int = 72, width: int = 88) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("blending", ["outputs", "steps"])
@pytest.mark.parametrize("scale", [1, 2])
def test_result_does_not_depend_on_the_batch_of_tiles(blending: Any, scale: int) -> None:
    """To the rounding of convolutions, which differs with the batch; noise and blending are the same bits."""
    tiling = Tiling(32, 8, blending=blending)
    one, three, many = (
        restore_picture(model(Moody(), scale=scale), picture(), seed=5, tiling=tiling, batch=batch)
        for batch in (1, 3, 100)
    )
    assert one.shape == (3, 72 * scale, 88 * scale)
    torch.testing.assert_close(one, three, atol=2e-6, rtol=0)
    torch.testing.assert_close(one, many, atol=2e-6, rtol=0)
    other = restore_picture(model(Moody(), scale=scale), picture(), seed=6, tiling=tiling)
    assert (one - other).abs().mean() > 1e-4


class Pointwise(nn.Module):
    """A network without sums over pixels, which rounds alike in every batch."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return (x.tanh() + 2 * y) / 3


@pytest.mark.parametrize("blending", ["outputs", "steps"])
def test_noise_and_blending_are_the_same_bits_in_every_batch(blending: Any) -> None:
    tiling = Tiling(32, 8, blending=blending)
    results = [
        restore_picture(model(Pointwise()), picture(), seed=5, tiling=tiling, batch=batch) for batch in (1, 2, 5, 100)
    ]
    assert all(torch.equal(results[0], other) for other in results[1:])
    whole = restore_picture(model(Pointwise()), picture(), seed=5)
    torch.testing.assert_close(results[0], whole, atol=2e-6, rtol=0)  # nor does it depend on there being tiles


@pytest.mark.parametrize("blending", ["outputs", "steps"])
def test_tiles_of_a_local_network_give_the_whole_picture(blending: Any) -> None:
    """Noise is one field: but for the edges of tiles, whose padding the network sees, nothing differs."""
    whole = restore_picture(model(Local()), picture(), seed=2)
    tiled = restore_picture(model(Local()), picture(), seed=2, tiling=Tiling(40, 8, blending=blending))

    def away_from_edges(side: int) -> Tensor:
        starts = tile_starts(side, 40, 32)
        edges = [*starts[1:], *(start + 40 for start in starts[:-1])]
        return torch.tensor([all(i < edge - 3 or i >= edge + 3 for edge in edges) for i in range(side)])

    inside = away_from_edges(72)[:, None] & away_from_edges(88)[None, :]
    assert inside.sum() > 2000
    torch.testing.assert_close(tiled[:, inside], whole[:, inside], atol=2e-5, rtol=0)
    assert (tiled - whole).abs().mean() < 0.02


def seam(result: Tensor, lines: list[int]) -> float:
    """Mean jump between neighbouring columns at `lines`, over that elsewhere."""
    jumps = (result[..., 1:] - result[..., :-1]).abs().mean((0, 1))
    at = torch.zeros(len(jumps), dtype=torch.bool)
    at[[line - 1 for line in lines]] = True
    return float(jumps[at].mean() / jumps[~at].mean())


def test_feathering_hides_seams() -> None:
    """A flat ramp, restored by a network whose colour depends on the tile: the mean of tiles jumps at their edges."""
    ramp = torch.linspace(0.2, 0.5, 160).expand(3, 32, 160).contiguous()
    moody = model(Moody(), ResidualShift(steps=4, noise_scale=1e-4, min_noise=0.04), eta=0.0)
    starts = tile_starts(160, 64, 48)
    lines = sorted({*starts[1:], *(start + 64 for start in starts[:-1])})
    uniform, feathered = (
        seam(restore_picture(moody, ramp, tiling=Tiling(64, 16, weights=weights)), lines)  # type: ignore[arg-type]
        for weights in ("uniform", "feather")
    )
    assert uniform > 5
    assert feathered < 0.4 * uniform


def test_rows_of_a_blended_estimate_belong_together() -> None:
    """x = a x0 + b y + s noise holds for the blend, as for each tile."""
    from ornstein.tiles import BlendedDenoiser

    process = RDDM(steps=10)
    tiled = BlendedDenoiser(Denoiser(Moody(), process, X0()), Tiling(16, 8))
    x, y = torch.randn(2, 1, 3, 32, 40, generator=torch.Generator().manual_seed(0)).unbind()
    t = torch.tensor(6.0, dtype=torch.float64)
    with torch.no_grad():
        estimate = tiled(x, t, y)
    a, b, s, _ = (float(c) for c in process.coefficients(t))
    torch.testing.assert_close(a * estimate.x0 + b * y + s * estimate.noise, x, atol=1e-5, rtol=0)


class Sharp(nn.Module):
    """A predictor whose picture differs from the bicubic enlargement at edges."""

    def forward(self, small: Tensor) -> Tensor:
        return nn.functional.interpolate(small, scale_factor=4.0, mode="nearest")


class Shown(nn.Module):
    """A local network in the place of UPSR's: the mean of what it sees, at full size."""

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle((x.tanh() + condition[:, :48] + condition[:, 48:]) / 3, 4)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("blending", ["outputs", "steps"])
def test_noise_weights_of_upsr_go_with_the_tiles(blending: Any, eta: float) -> None:
    """Inside tiles every pixel has the start and the noise that it has in the whole picture."""
    denoiser = UncertaintyGuided(Shown(), UPSR(), predictor=Sharp()).eval()
    upsr = Model(denoiser, Ancestral(steps=5, eta=eta), PictureSpace(scale=4, patch=4, multiple=8, enlarge=False))
    small = picture(40, 48)
    whole = restore_picture(upsr, small, seed=3)
    tiled = restore_picture(upsr, small, seed=3, tiling=Tiling(32, 16, blending=blending), batch=2)
    heavy = Model(
        UncertaintyGuided(Shown(), UPSR(floor=1.0), predictor=Sharp()).eval(), upsr.sampler, upsr.representation
    )
    assert (restore_picture(heavy, small, seed=3) - whole).abs().max() > 0.05  # the weights matter
    inside = (slice(None), slice(None, 4 * 4), slice(None, 4 * 12))  # in one tile, away from its borders
    torch.testing.assert_close(tiled[inside], whole[inside], atol=2e-5, rtol=0)
    assert (tiled - whole).abs().mean() < 0.01  # bicubic enlargement and blending differ at borders of tiles alone


@pytest.mark.parametrize("size", [(1, 1), (5, 90), (40, 33)])
def test_pictures_smaller_than_a_tile(size: tuple[int, int]) -> None:
    shares: list[float] = []
    result = restore_picture(model(Local(), scale=2), picture(*size), tiling=Tiling(64, 8), on_progress=shares.append)
    assert result.shape == (3, 2 * size[0], 2 * size[1])
    assert bool(result.isfinite().all())
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("settings", [{"size": 8, "overlap": 8}, {"overlap": -1}, {"weights": "x"}, {"blending": "x"}])
def test_impossible_tilings(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Tiling(**settings)


class Masked(nn.Module):
    """A network that darkens the marked region."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        return y * 0.5 - mask[:, -1:] * 0.25


@pytest.mark.parametrize("blending", ["outputs", "steps"])
@pytest.mark.parametrize("form", ["one_hot", "image"])
def test_masks_are_cut_with_the_picture(blending: Any, form: Any) -> None:
    mask = torch.zeros(1, 50, 45)
    mask[:, 20:, 13:] = 1
    masked = Model(
        Denoiser(Masked(), ResidualShift(steps=4), X0()), Ancestral(steps=2, eta=0.0), PictureSpace(mask=form)
    )
    whole = restore_picture(masked, picture(50, 45), mask)
    tiled = restore_picture(masked, picture(50, 45), mask, tiling=Tiling(24, 8, blending=blending), batch=3)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)
    outside = -1.0 if form == "one_hot" else 0.0
    signed = (2 * picture(50, 45) - 1) * 0.5 - 0.25 * torch.where(mask > 0, 1.0, outside)
    torch.testing.assert_close(whole, ((signed + 1) / 2).clamp(0, 1), atol=1e-5, rtol=0)


def test_equalisation_sees_the_whole_picture() -> None:
    equal = Model(Denoiser(Pointwise(), ResidualShift(steps=4), X0()), Ancestral(steps=2), PictureSpace(equalize=True))
    dark = picture(48, 48) * torch.linspace(0.05, 0.5, 48)
    whole = restore_picture(equal, dark)
    torch.testing.assert_close(restore_picture(equal, dark, tiling=Tiling(16, 8)), whole, atol=1e-5, rtol=0)
