"""Frames to pictures and back, with and without an autoencoder, of any size."""

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from ornstein.denoiser import Denoiser
from ornstein.latent import LatentDenoiser, as_pictures
from ornstein.networks.vq import VQAutoencoder
from ornstein.parameterization import X0
from ornstein.pictures.sampling import Model, restore_picture
from ornstein.process.residual_shift import ResidualShift
from ornstein.samplers.ancestral import Ancestral
from ornstein.tiles import Tiling
from ornstein.uncertainty import UncertaintyGuided
from ornstein.wrapped_parameterizations import RangeScaling, ScaledInput
from ornstein_infrared.representation import ThermalSpace


class Last(torch.nn.Module):
    """Gives what it is shown of y."""

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y


def frames(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2


@given(channels=st.sampled_from([1, 3]), patch=st.sampled_from([1, 2]), height=st.integers(1, 5))
def test_there_and_back(channels: int, patch: int, height: int) -> None:
    space = ThermalSpace(channels=channels, patch=patch)
    clean = frames(2, 1, 4 * height, 8)
    pictures = space.forward(clean)
    assert pictures.shape == (2, channels * patch**2, 4 * height // patch, 8 // patch)
    torch.testing.assert_close(space.inverse(pictures), clean)
    assert torch.equal(space.inverse(pictures, (3, 7)), space.inverse(pictures)[..., :3, :7])


@given(height=st.integers(1, 140), width=st.integers(1, 40), padding=st.sampled_from(["reflect", "replicate"]))
def test_frames_of_any_size_are_padded(height: int, width: int, padding: Any) -> None:
    measured = frames(1, height, width)
    padded = ThermalSpace(padding=padding).pad(measured)
    assert padded.shape == (1, height + -height % 64, width + -width % 64)
    assert torch.equal(padded[:, :height, :width], measured)
    if padding == "reflect" and height - -height % 64 > 1 and -height % 64:
        assert torch.equal(padded[:, height, :width], measured[:, height - 2])
    if height == 30 or padding == "replicate":  # too short to be mirrored
        assert torch.equal(padded[:, -1, :width], measured[:, -1])


def test_the_mean_of_three_decoded_channels_is_the_frame() -> None:
    pictures = torch.stack([torch.full((4, 4), v) for v in (0.1, 0.2, 0.6)])[None]
    torch.testing.assert_close(ThermalSpace(channels=3).inverse(pictures), torch.full((1, 1, 4, 4), 0.65))


def test_values_far_outside_are_cut() -> None:
    space, wild = ThermalSpace(), torch.tensor([[[[-9.0, 0.5, 1.25, 9.0]]]])
    assert torch.equal(space.forward(wild).flatten(), torch.tensor([-1.5, 0.0, 1.5, 1.5]))
    assert torch.equal(space.inverse(wild).flatten(), torch.tensor([-0.25, 0.75, 1.125, 1.25]))


@pytest.mark.parametrize("channels", [1, 3])
def test_with_an_autoencoder(channels: int) -> None:
    torch.manual_seed(0)
    autoencoder = VQAutoencoder(channels, 32, (1, 1, 1), num_res_blocks=1, n_embed=16)
    space = ThermalSpace(channels=channels, factor=autoencoder.factor, multiple=8)
    denoiser = LatentDenoiser(Last(), ResidualShift(3), autoencoder, scale=space.scale)
    measured = space.pad(frames(1, 1, 6, 7))
    ready, y, condition = denoiser.prepare(space.observation(measured))
    assert y is not None
    assert y.shape == (1, 3, 4 * 8 // space.shrink, 4 * 8 // space.shrink)
    assert condition["measured"].shape == (1, channels, 8, 8)
    with torch.no_grad():
        assert space.inverse(as_pictures(ready, y), (24, 28)).shape == (1, 1, 24, 28)
    assert denoiser.latents(space.forward(frames(1, 1, 32, 32))).shape == y.shape


def test_without_one_the_process_runs_on_pixels() -> None:
    space = ThermalSpace(multiple=8)
    denoiser = UncertaintyGuided(Last(), ResidualShift(3), ScaledInput(X0(), RangeScaling()), patch=space.patch)
    measured = frames(1, 1, 8, 8)
    ready, y, condition = denoiser.prepare(space.observation(measured))
    sample = Ancestral(3, eta=0.0)(ready, ready.process.start(torch.zeros_like(y), y), y, None, None, **condition)
    expected = torch.nn.functional.interpolate(measured, scale_factor=4, mode="bicubic")
    torch.testing.assert_close(space.inverse(sample), expected.clamp(-0.25, 1.25))


@pytest.mark.parametrize("latents", [False, True])
def test_frames_are_enlarged_whole_or_in_tiles(latents: bool) -> None:
    """A network that gives what it is shown works pixel by pixel, so tiles have to agree with the whole frame."""

    class Blocks(VQAutoencoder):
        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.avg_pool2d(x, 4).expand(-1, 3, -1, -1)

        def decode(self, z: torch.Tensor, quantize: bool = True) -> torch.Tensor:
            return z[:, :1].repeat_interleave(4, -1).repeat_interleave(4, -2)

    if latents:
        autoencoder = Blocks(1, 32, (1, 1, 1), num_res_blocks=1, n_embed=16)
        denoiser: Denoiser = LatentDenoiser(Last(), ResidualShift(3), autoencoder)
        space = ThermalSpace(factor=4, multiple=8)
    else:
        denoiser = UncertaintyGuided(Last(), ResidualShift(3), ScaledInput(X0(), RangeScaling()), patch=1)
        space = ThermalSpace(multiple=8)
    model = Model(denoiser, Ancestral(3), space)
    frame = torch.full((1, 20, 40), 0.3) if not latents else frames(1, 20, 40)
    whole = restore_picture(model, frame)
    assert whole.shape == (1, 80, 160)
    tiles = restore_picture(model, frame, tiling=Tiling(size=16, overlap=8))
    torch.testing.assert_close(tiles, whole)
    if latents:
        torch.testing.assert_close(whole, frame.repeat_interleave(4, -1).repeat_interleave(4, -2))
    with pytest.raises(ValueError, match="mask"):
        restore_picture(model, frame, torch.ones(1, 20, 40))


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": 2}, {"padding": "zeros"}, {"scale": 0}, {"factor": 4, "patch": 2}, {"multiple": 1, "factor": 8},
        {"bound": 0.5},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|channels|padding|latents"):
        ThermalSpace(**wrong)
    with pytest.raises(ValueError, match="batch of frames"):
        ThermalSpace().observation(torch.zeros(1, 3, 8, 8))
