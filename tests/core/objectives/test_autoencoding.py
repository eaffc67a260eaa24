"""Training of autoencoders: what each loss moves, the adaptive weight, codes that come back to life."""

import pytest
import torch
from torch import Tensor, nn

from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.patch_discriminator import PatchDiscriminator, frozen
from ornstein.networks.unet import UNet
from ornstein.networks.vq import VQAutoencoder, code_loss
from ornstein.objectives.autoencoding import Autoencoding
from ornstein.parameterization import OneShot
from ornstein.process.prediction import Prediction

PICTURES = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def model(n_embed: int = 16) -> Denoiser:
    torch.manual_seed(0)
    network = VQAutoencoder(1, 32, (1, 1), num_res_blocks=1, n_embed=n_embed)
    return Denoiser(network, Prediction(), OneShot())


def discriminator() -> PatchDiscriminator:
    torch.manual_seed(1)
    return PatchDiscriminator(1, 8, 2)


def losses(objective: Autoencoding, denoiser: Denoiser, pictures: Tensor = PICTURES) -> dict[str, Tensor]:
    return objective(denoiser, pictures, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("error", ["absolute", "squared"])
def test_reconstruction_and_codes(error: str) -> None:
    denoiser = model()
    network = denoiser.network
    found = losses(Autoencoding(error, code_weight=0.5, commitment=0.1), denoiser)  # type: ignore[arg-type]
    z = network.encode(PICTURES)
    codes, indices = network.quantize(z)
    difference = network.decode(codes, quantize=False) - PICTURES
    expected = difference.abs().mean() if error == "absolute" else difference.square().mean()
    torch.testing.assert_close(found["reconstruction"], expected.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["codes"], code_loss(z, codes, 0.1).detach())
    torch.testing.assert_close(found["loss"], found["reconstruction"] + 0.5 * found["codes"], check_stride=False)
    assert found["codes_used"] == len(indices.unique()) / 16
    # what is trained is what the denoiser gives
    torch.testing.assert_close(denoiser(PICTURES, 1.0, PICTURES).x0, network(PICTURES))


def test_grey_pictures_are_repeated_for_the_perceptual_network() -> None:
    class Mean(nn.Module):
        def forward(self, picture: Tensor, other: Tensor) -> Tensor:
            assert picture.shape == other.shape == (2, 3, 16, 16)
            return (picture - other).square().flatten(1).mean(1)

    found = losses(Autoencoding("squared", perceptual=Mean(), perceptual_weight=2.0, code_weight=0.0), model())
    torch.testing.assert_close(found["perceptual"], found["reconstruction"])
    torch.testing.assert_close(found["loss"].detach(), 3 * found["reconstruction"])


def test_the_adversary_and_the_autoencoder_learn_from_their_own_losses() -> None:
    denoiser, judge = model(), discriminator()
    network = denoiser.network
    objective = Autoencoding(discriminator=judge, discriminator_weight=0.5)
    losses(objective, denoiser)["loss"].backward()
    given = {name: weight.grad for name, weight in network.named_parameters()}
    judged = {name: weight.grad for name, weight in judge.named_parameters()}

    network.zero_grad()
    judge.zero_grad()
    z = network.encode(PICTURES)
    decoded = network.decode(z)
    visible = (decoded - PICTURES).abs().mean()
    fooled = -judge(decoded).mean()
    last = network.decoder.conv_out.weight
    norms = [torch.autograd.grad(part, last, retain_graph=True)[0].norm() for part in (visible, fooled)]
    weight = 0.5 * norms[0] / (norms[1] + 1e-4)
    own = torch.autograd.grad(visible + network.vq_loss(z) + weight * fooled, list(network.parameters()))
    for gradient, name in zip(own, given, strict=True):
        torch.testing.assert_close(given[name], gradient, rtol=1e-3, atol=1e-6)
    hinge = ((1 - judge(PICTURES)).relu().mean() + (1 + judge(decoded.detach())).relu().mean()) / 2
    for gradient, name in zip(torch.autograd.grad(hinge, list(judge.parameters())), judged, strict=True):
        torch.testing.assert_close(judged[name], gradient, rtol=1e-3, atol=1e-6)


def test_the_adversary_begins_late_and_takes_no_part_in_validation() -> None:
    denoiser = model()
    objective = Autoencoding(discriminator=discriminator(), discriminator_start=2)
    with torch.no_grad():
        assert "adversary" not in losses(objective, denoiser)
    assert objective.batches == 0
    assert [losses(objective, denoiser)["adversary"].item() != 0 for _ in range(3)] == [False, False, True]
    with torch.no_grad():
        assert "adversary" not in losses(objective, denoiser)
    again = Autoencoding(discriminator=discriminator(), discriminator_start=2)
    again.load_state_dict(objective.state_dict())
    assert losses(again, denoiser)["adversary"] != 0


def test_unused_codes_become_latents_and_used_ones_stay() -> None:
    denoiser = model(n_embed=64)
    book = denoiser.network.quantize.embedding.weight
    objective = Autoencoding(revive=3)
    before = book.detach().clone()
    first = losses(objective, denoiser)
    latents = denoiser.network.encode(PICTURES).detach().permute(0, 2, 3, 1).reshape(-1, 3)
    assert (torch.cdist(book.detach(), latents).amin(1) < 1e-3).all()  # the first batch places the whole book
    assert not torch.equal(book, before)
    assert first["codes_used"] > 0.2
    assert losses(Autoencoding(), model(n_embed=64))["codes_used"] < first["codes_used"]
    placed = book.detach().clone()
    for _ in range(2):
        losses(objective, denoiser)
    used = objective.used.clone() > 0
    assert torch.equal(book, placed)
    objective(denoiser, PICTURES, generator=torch.Generator().manual_seed(5))
    assert torch.equal(book[used], placed[used])
    assert 0 < used.sum() < 64
    assert not torch.equal(book[~used], placed[~used])
    with torch.no_grad():
        losses(objective, denoiser)
    assert objective.batches == 4
    again = Autoencoding(revive=3)
    again.load_state_dict(objective.state_dict())
    assert torch.equal(again.used, objective.used)


def test_it_learns_to_reconstruct() -> None:
    denoiser = model()
    objective = Autoencoding("squared", revive=5)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=4e-3)
    smooth = nn.functional.interpolate(PICTURES[..., :4, :4], size=(16, 16), mode="bilinear")
    history = []
    for _ in range(15):
        optimizer.zero_grad()
        found = losses(objective, denoiser, smooth)
        found["loss"].backward()
        optimizer.step()
        history.append(found["reconstruction"].item())
    assert history[-1] < 0.5 * history[0]


def test_frozen_networks_pass_gradients_on() -> None:
    judge = discriminator()
    x = PICTURES.clone().requires_grad_()
    frozen(judge, x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in judge.parameters())
    torch.testing.assert_close(frozen(judge, x), judge(x))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="VQAutoencoder"):
        losses(Autoencoding(), Denoiser(UNet(1, 8, 1), Prediction(), OneShot()))
    with pytest.raises(UserError, match="error"):
        Autoencoding("smooth")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="negative"):
        Autoencoding(revive=-1)
    with pytest.raises(UserError, match="multiple of 8"):
        PatchDiscriminator(1, 12)
    with pytest.raises(ValueError, match="hold no patch"):
        discriminator()(torch.zeros(1, 1, 4, 16))
