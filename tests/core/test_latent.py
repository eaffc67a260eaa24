"""Residual shifting on latents: what the network sees, where gradients go, and what is refused."""

import pytest
import torch
from torch import Tensor, nn

from ornstein.acceleration import Acceleration, accelerate
from ornstein.config import build, describe
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.latent import LatentDenoiser, as_pictures
from ornstein.networks.swin_unet import SwinUNet
from ornstein.networks.vq import Attention, VQAutoencoder
from ornstein.objectives.outputs import OutputObjective
from ornstein.objectives.pictures import PictureObjective
from ornstein.pictures.sizes import upscale
from ornstein.process.residual_shift import ResidualShift
from ornstein.samplers.ancestral import Ancestral


class Seen(nn.Module):
    """A network that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.given: tuple[Tensor, ...] = ()

    def forward(self, *given: Tensor) -> Tensor:
        self.given = given
        return given[0] * (0.5 + self.weight)


def autoencoder(**arguments: object) -> VQAutoencoder:
    torch.manual_seed(0)
    sizes = {"in_channels": 1, "ch": 32, "ch_mult": (1, 1, 1), "num_res_blocks": 1, "n_embed": 16}
    return VQAutoencoder(**sizes | arguments)


def pictures(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_process_runs_on_latents_and_the_network_sees_the_measured_picture() -> None:
    network, vq = Seen(), autoencoder()
    denoiser = LatentDenoiser(network, ResidualShift(), vq)
    measured = pictures(2, 1, 4, 8)
    same, y, condition = denoiser.prepare(measured)
    assert same is denoiser
    assert y is not None
    with torch.no_grad():
        torch.testing.assert_close(y, vq.encode(upscale(measured, 4)))
    assert y.shape == (2, 3, 4, 8)
    x = pictures(2, 3, 4, 8)
    estimate = denoiser(x, 15.0, y, **condition)
    shown, index, seen = network.given
    s = denoiser.process.coefficients(torch.tensor(15.0).double()).s.float()
    torch.testing.assert_close(shown, x / (1 + s**2).sqrt())
    assert index.tolist() == [14, 14]
    assert torch.equal(seen, measured)
    torch.testing.assert_close(estimate.x0, shown / 2)
    with torch.no_grad():
        assert torch.equal(denoiser.pictures(x), vq.decode(x))
        assert torch.equal(as_pictures(denoiser, x), vq.decode(x))
        assert not torch.equal(LatentDenoiser(network, ResidualShift(), vq, quantize=False).pictures(x), vq.decode(x))
    assert as_pictures(Denoiser(network, ResidualShift(), denoiser.parameterization), x) is x


def test_only_the_network_learns_and_the_autoencoder_stays_in_evaluation() -> None:
    denoiser = LatentDenoiser(Seen(), ResidualShift(), autoencoder(dropout=0.5)).train()
    assert not denoiser.autoencoder.training
    assert [name for name, weight in denoiser.named_parameters() if weight.requires_grad] == ["network.weight"]
    clean = pictures(2, 1, 16, 16)
    x0 = denoiser.latents(clean)
    loss = OutputObjective()(denoiser, x0, pictures(2, 1, 4, 4), generator=torch.Generator().manual_seed(0))["loss"]
    loss.backward()
    assert denoiser.network.weight.grad is not None


def test_the_perceptual_loss_sees_decoded_pictures_and_reaches_the_network() -> None:
    class Mean(nn.Module):
        def forward(self, picture: Tensor, other: Tensor) -> Tensor:
            assert picture.shape == other.shape == (2, 1, 16, 16)
            return (picture - other).abs().flatten(1).mean(1)

    denoiser = LatentDenoiser(Seen(), ResidualShift(), autoencoder())
    found = PictureObjective(Mean(), weight=1.0)(
        denoiser, denoiser.latents(pictures(2, 1, 16, 16)), pictures(2, 1, 4, 4),
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    torch.testing.assert_close(found["loss"], found["squared"] + found["perceptual"])
    (gradient,) = torch.autograd.grad(found["perceptual"], denoiser.network.weight)
    assert gradient != 0


def test_latents_that_were_made_before_give_the_same_loss() -> None:
    denoiser = LatentDenoiser(Seen(), ResidualShift(), autoencoder())
    x0, measured = denoiser.latents(pictures(2, 1, 16, 16)), pictures(2, 1, 4, 4)
    y = denoiser.latents(upscale(measured, 4))
    whole = OutputObjective()(denoiser, x0, measured, generator=torch.Generator().manual_seed(0))["loss"]
    cached = OutputObjective()(
        denoiser.on_latents(), x0, y, generator=torch.Generator().manual_seed(0), measured=measured
    )["loss"]
    assert torch.equal(whole, cached)
    assert torch.equal(denoiser.prepare(measured).observation, y)  # the other one is as it was


def test_samples_with_the_network_of_resshift() -> None:
    network = SwinUNet(
        3, 1, model_channels=32, channel_mult=(1, 2), num_res_blocks=(1, 1), attention_resolutions=(8, 4), image_size=8,
        swin_embed_dim=32, window_size=4,
    )  # fmt: skip
    denoiser = LatentDenoiser(network, ResidualShift(), autoencoder()).eval()
    copy = build(describe(denoiser), LatentDenoiser)
    copy.load_state_dict(denoiser.state_dict())
    fast = accelerate(denoiser, Acceleration(channels_last=False))
    results = []
    for each in (denoiser, copy, fast):
        ready, y, condition = each.eval().prepare(pictures(1, 1, 8, 8))
        start = ready.process.start(torch.zeros(1, 3, 8, 8), y)
        results.append(as_pictures(ready, Ancestral(3, eta=0.0)(ready, start, y, **condition)).detach())
    assert results[0].shape == (1, 1, 32, 32)
    assert torch.equal(results[0], results[1])
    torch.testing.assert_close(results[0], results[2])


def test_low_precision_reaches_the_attention_of_the_autoencoder_and_no_more() -> None:
    denoiser = LatentDenoiser(Seen(), ResidualShift(), autoencoder(), scale=4)
    fast = accelerate(denoiser, Acceleration("bfloat16"))
    assert isinstance(fast, LatentDenoiser)
    assert [m.in_float16 for m in fast.autoencoder.modules() if isinstance(m, Attention)].count(True) > 0
    assert not any(m.in_float16 for m in denoiser.autoencoder.modules() if isinstance(m, Attention))
    assert {weight.dtype for weight in fast.autoencoder.parameters()} == {torch.float32}
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        exact, low = denoiser.pictures(x), fast.pictures(x)
    assert 0 < float((exact - low).norm() / exact.norm()) < 1e-3
    assert accelerate(denoiser).autoencoder is denoiser.autoencoder  # type: ignore[attr-defined]


def test_what_does_not_fit_is_refused() -> None:
    denoiser = LatentDenoiser(Seen(), ResidualShift(), autoencoder())
    with pytest.raises(UserError, match="measured picture"):
        denoiser.prepare(None)
    with pytest.raises(UserError, match="takes"):
        denoiser.prepare(pictures(1, 3, 4, 4))
    with pytest.raises(UserError, match="pad the picture"):
        denoiser.latents(pictures(1, 1, 6, 8))
    with pytest.raises(ValueError, match="prepare"):
        denoiser(pictures(1, 3, 4, 4), 3.0, pictures(1, 3, 4, 4))
    with pytest.raises(ValueError, match="scale"):
        LatentDenoiser(Seen(), ResidualShift(), autoencoder(), scale=0)
