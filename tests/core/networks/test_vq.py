"""The vector-quantised autoencoder: published layout and numbers, codes, gradients and what it refuses."""

from pathlib import Path

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from reference_weights import largest_error, parameters, shapes_of

from ornstein.config import build, describe
from ornstein.errors import UserError
from ornstein.networks import vq
from ornstein.networks.vq import VQAutoencoder, code_loss
from ornstein.published_shift import vq_autoencoder


def tiny(**arguments: object) -> VQAutoencoder:
    torch.manual_seed(0)
    return VQAutoencoder(**{"ch": 32, "ch_mult": (1, 1), "num_res_blocks": 1, "n_embed": 16} | arguments).eval()


@reference_files("infrared", "vq_full_keys.json")
def test_published_names(vectors: ReferenceFile) -> None:
    with torch.device("meta"):
        network = VQAutoencoder()
    assert shapes_of(network) == {name: tuple(vectors[name][0]) for name in vectors.names}
    assert len(vectors.names) == 205
    assert parameters(network) == 55_322_782
    assert (parameters(network.encoder), parameters(network.decoder)) == (22_337_411, 32_960_771)


@reference_files("infrared", "vq_tiny_*.npz", needs=["config", "x", "z", "zq", "indices", "grad_z_ste", ".safetensors"])
def test_published_numbers(vectors: ReferenceFile) -> None:
    network = vq.from_published(vectors.json("config")).eval()
    network.load_state_dict({name: weight.float() for name, weight in vectors.weights().items()})
    assert parameters(network) == int(vectors["nparams"])
    with torch.no_grad():
        assert largest_error(network.encode(vectors.tensor("x")), vectors.tensor("z")) < 1e-4
    z = vectors.tensor("z").requires_grad_()
    codes, indices = network.quantize(z)
    assert torch.equal(indices.flatten(), vectors.tensor("indices"))
    assert largest_error(codes.detach(), vectors.tensor("zq")) < 1e-4
    assert network.vq_loss(z).item() == pytest.approx(vectors.number("vq_loss"), rel=1e-4)
    decoded = network.decode(z)
    assert largest_error(decoded.detach(), vectors.tensor("dec")) < 1e-4
    assert largest_error(network.decode(z, quantize=False).detach(), vectors.tensor("dec_noquant")) < 1e-4
    (gradient,) = torch.autograd.grad(decoded.square().mean(), z)
    assert largest_error(gradient, vectors.tensor("grad_z_ste")) < 1e-4


def test_codes_are_the_nearest_whatever_the_precision() -> None:
    network = tiny()
    torch.nn.init.normal_(network.quantize.embedding.weight)
    z = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(1))
    book = network.quantize.embedding.weight
    distances = (z.permute(0, 2, 3, 1)[..., None, :] - book).square().sum(-1)
    codes, indices = network.quantize(z)
    assert torch.equal(indices, distances.argmin(-1))
    assert torch.equal(codes, book[indices].permute(0, 3, 1, 2))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network.quantize(z).indices, indices)


def test_codes_do_not_depend_on_the_pieces_of_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny()
    z = torch.randn(2, 3, 5, 4) / 20
    whole = network.quantize(z).indices
    monkeypatch.setattr(vq, "DISTANCES", 3 * 16)
    assert torch.equal(network.quantize(z).indices, whole)


def test_the_loss_moves_latents_and_codes_each_to_the_other() -> None:
    network = tiny()
    z = torch.randn(1, 3, 4, 4, requires_grad=True)
    codes, indices = network.quantize(z)
    z_gradient, book_gradient = torch.autograd.grad(network.vq_loss(z), (z, network.quantize.embedding.weight))
    torch.testing.assert_close(z_gradient, 2 * (z - codes) / z.numel())
    used = torch.zeros_like(book_gradient)
    pull = 0.25 * 2 * (codes - z) / z.numel()
    used.index_add_(0, indices.flatten(), pull.permute(0, 2, 3, 1).reshape(-1, 3).detach())
    torch.testing.assert_close(book_gradient, used)
    assert code_loss(codes, codes).item() == 0


@pytest.mark.parametrize(("mult", "factor"), [((1,), 1), ((1, 2), 2), ((1, 1, 2), 4)])
def test_any_size_and_channels(mult: tuple[int, ...], factor: int) -> None:
    network = tiny(in_channels=1, ch_mult=mult, z_channels=4, embed_dim=2)
    x = torch.randn(2, 1, 8, 12)
    z = network.encode(x)
    assert network.factor == factor
    assert z.shape == (2, 2, 8 // factor, 12 // factor)
    assert network(x).shape == x.shape
    assert describe(build(describe(network), VQAutoencoder)) == describe(network)


def test_what_does_not_fit_is_refused() -> None:
    network = tiny()
    with pytest.raises(ValueError, match="multiples of 2"):
        network.encode(torch.zeros(1, 3, 7, 8))
    with pytest.raises(ValueError, match="takes"):
        network.encode(torch.zeros(1, 1, 8, 8))
    for wrong in ({"ch": 48}, {"ch_mult": ()}, {"n_embed": 0}):
        with pytest.raises(UserError, match="multiple of 32"):
            tiny(**wrong)
    with pytest.raises(UserError, match="double_z"):
        vq.from_published({"ddconfig": {"in_channels": 3, "out_ch": 3, "double_z": True}})


def test_attention_at_a_level() -> None:
    options = {
        "embed_dim": 4,
        "n_embed": 16,
        "ddconfig": {
            "in_channels": 1, "out_ch": 1, "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 2, "z_channels": 4,
            "attn_resolutions": [16], "resolution": 32,
        },
    }  # fmt: skip
    network = vq.from_published(options)
    names = {name.rpartition(".attn.")[0] + ".attn." + name.rpartition(".attn.")[2][0] for name in network.state_dict()
             if ".attn." in name}  # fmt: skip
    ends = [f"encoder.down.1.attn.{i}" for i in range(2)] + [f"decoder.up.1.attn.{i}" for i in range(3)]
    assert names == set(ends)
    found = vq_autoencoder(network.state_dict(), Path("vq.pth"))
    x = torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(found(x), network(x))
        network.encoder.down[1].attn[0].proj_out.bias.add_(1.0)
        assert not torch.equal(found.encode(x), network.encode(x))
