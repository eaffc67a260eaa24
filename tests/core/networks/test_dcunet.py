"""DCUNet against the published implementation, and its behaviour on its own."""

import copy
from typing import Any

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor

from ornstein.acceleration import Acceleration, accelerate
from ornstein.config import build, describe
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.dcunet import ARCHITECTURES, DCUNet, EncoderLayer, from_published, published_options
from ornstein.parameterization import Score
from ornstein.process.ouve import OUVE

TINY: tuple[EncoderLayer, ...] = (  # the architecture that the vectors call "tiny"
    (4, (4, 4), (1, 1), (1, 1)),
    (4, (4, 4), (1, 1), (1, 1)),
    (8, (4, 4), (2, 1), (2, 1)),
    (8, (4, 4), (2, 2), (4, 1)),
)


def published(config: dict[str, Any]) -> DCUNet:
    named = config.get("dcunet_architecture", "DilDCUNet-v2")
    return from_published({**config, "dcunet_architecture": TINY if named == "tiny" else named})


VECTORS = ["config", "x", "y", "t", "out", ".safetensors"]


@reference_files("speech", "dcunet_*.npz", needs=VECTORS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 5e-5)], ids=["float64", "float32"]
)
def test_output_is_the_published_one(vectors: ReferenceFile, dtype: torch.dtype, tolerance: float) -> None:
    network = published(vectors.json("config"))
    network.load_state_dict(vectors.weights())
    x, y = (vectors.tensor(name, dtype.to_complex()) for name in ("x", "y"))
    with torch.no_grad():
        out = network.to(dtype).eval()(x, vectors.tensor("t", dtype), y)
    assert out.dtype == dtype.to_complex()
    expected = vectors.tensor("out")
    assert float((out - expected).abs().max() / expected.abs().max()) < tolerance


@reference_files("speech", "dcunet_*.npz", needs=["config", "n_params"])
def test_number_of_parameters(vectors: ReferenceFile) -> None:
    assert sum(p.numel() for p in published(vectors.json("config")).parameters()) == int(vectors["n_params"])


@reference_files("speech", "keys_dcunet*.json", needs=["config", "tensors"])
def test_published_keys(vectors: ReferenceFile) -> None:
    network = published(vectors["config"])
    assert [[name, list(tensor.shape)] for name, tensor in network.state_dict().items()] == vectors["tensors"]
    if "parameters_in_order" in vectors and isinstance(vectors["parameters_in_order"], list):  # that of the EMA list
        assert [name for name, _ in network.named_parameters()] == vectors["parameters_in_order"]
    counts = {"n_parameters": sum(p.numel() for p in network.parameters())}
    counts["n_parameters_trainable"] = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert all(vectors[name] == count for name, count in counts.items() if name in vectors)


@pytest.mark.parametrize(
    ("options", "millions"),
    [
        ({"dcunet_architecture": "DCUNet-10", "dcunet_temb_layers_global": 1}, 1.59),
        ({"dcunet_architecture": "DCUNet-16", "dcunet_temb_layers_global": 1}, 2.63),
        ({"dcunet_architecture": "DCUNet-20", "dcunet_temb_layers_global": 1}, 3.85),
        ({}, 3.564994),  # the defaults of the published class
    ],
)
def test_sizes_of_the_architectures(options: dict[str, Any], millions: float) -> None:
    count = sum(p.numel() for p in from_published(options).parameters())
    assert count == pytest.approx(1e6 * millions, abs=5e3 if options else 0.5)


def test_the_defaults_are_the_published_network() -> None:
    assert sum(p.numel() for p in DCUNet().parameters()) == 3_531_970


def inputs(bins: int = 33, frames: int = 19, dtype: torch.dtype = torch.complex64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 1, bins, frames, dtype=dtype, generator=generator) for _ in range(2))
    return x, torch.tensor([0.2, 0.9], dtype=dtype.to_real()), y


@pytest.mark.parametrize("embedding", ["gfp", "ds", "none"])
@pytest.mark.parametrize("local", [1, 2])
def test_gradient_reaches_every_trainable_parameter(embedding: str, local: int) -> None:
    torch.manual_seed(0)
    network = DCUNet(TINY, embedding, 8, temb_layers_local=local)  # type: ignore[arg-type]
    x, t, y = inputs()
    out = network(x, None if embedding == "none" else t, y)
    assert out.shape == x.shape
    (out - x).abs().square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize(("embedding", "same"), [("gfp", False), ("ds", False), ("none", True)])
def test_only_a_time_embedding_sees_the_time(embedding: str, same: bool) -> None:
    torch.manual_seed(0)
    network = DCUNet(TINY, embedding, 8).eval()  # type: ignore[arg-type]
    x, t, y = inputs()
    with torch.no_grad():
        assert torch.equal(network(x, t, y), network(x, t / 2, y)) == same


def test_time_frequencies_of_diffwave() -> None:
    network = DCUNet(TINY, "ds", 8)
    t = torch.tensor([0.3], dtype=torch.float64)
    angles = t * torch.tensor([1.0, 10 ** (4 / 3), 10 ** (8 / 3), 1e4], dtype=torch.float64)
    torch.testing.assert_close(network.embed[0](t)[0], torch.cat([angles.sin(), angles.cos()]))


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_any_number_of_frames_fits(name: str) -> None:
    """Frames are filled up with zeros inside, so a fitting number of frames that ends in zeros gives the same."""
    torch.manual_seed(0)
    network = DCUNet(name, embed_dim=8).double().eval()
    along_bins, along_frames = network._strides
    x, t, y = inputs(max(along_bins, 128) + 1, max(along_frames, 8), torch.complex128)
    filled = [torch.cat([signal, torch.zeros_like(signal[..., :1])], -1) for signal in (x, y)]
    with torch.no_grad():
        out = network(x, t, y)
        torch.testing.assert_close(network(filled[0], t, filled[1])[..., : x.shape[-1]], out)
    assert out.shape == x.shape


def test_multiplication_is_complex() -> None:
    """Without biases, norms and activations a layer commutes with a factor of i."""
    torch.manual_seed(0)
    network = DCUNet(TINY, "none")
    x = torch.randn(2, 2, 2, 17, 9)
    rotated = torch.stack([-x[:, 1], x[:, 0]], 1)
    encode, decode = network.encoders[2].conv, network.decoders[0].deconv
    one, other = encode(x.repeat(1, 1, 2, 1, 1)), encode(rotated.repeat(1, 1, 2, 1, 1))
    torch.testing.assert_close(other, torch.stack([-one[:, 1], one[:, 0]], 1))
    one, other = (decode(part.repeat(1, 1, 4, 1, 1), (42, 17)) for part in (x, rotated))
    torch.testing.assert_close(other, torch.stack([-one[:, 1], one[:, 0]], 1))


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_fast_copy_gives_the_same(channels_last: bool) -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(DCUNet(TINY, embed_dim=8), OUVE(), Score(-1.0)).eval()
    x, t, y = inputs()
    for precision, tolerance in (("float32", 1e-5), ("bfloat16", 0.05)):
        fast = accelerate(denoiser, Acceleration(precision, channels_last))  # type: ignore[arg-type]
        with torch.no_grad():
            expected, found = denoiser(x, t, y).score, fast(x, t, y).score
        assert found.dtype == torch.complex64
        assert float((found - expected).abs().max() / expected.abs().max()) < tolerance


def test_bfloat16_autocast_and_copies() -> None:
    torch.manual_seed(0)
    network = DCUNet(TINY, embed_dim=8).eval()
    x, t, y = inputs()
    with torch.no_grad():
        full = network(x, t, y)
        torch.testing.assert_close(copy.deepcopy(network)(x, t, y), full)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x, t, y)
    assert half.dtype == torch.complex64
    assert float((half - full).abs().max() / full.abs().max()) < 0.05


def test_forward_is_one_graph() -> None:
    torch.compiler.reset()
    network = DCUNet(TINY[:2], embed_dim=8).eval()
    x, t, y = inputs()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, t, y), network(x, t, y))


def test_described_and_built_again() -> None:
    network = DCUNet(TINY, "ds", 8, 2, 2, "relu", "silu")
    again = build(describe(network), DCUNet)
    assert describe(again) == describe(network)
    again.load_state_dict(network.state_dict())
    assert describe(from_published(published_options(network))) == describe(network)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 1, 33, 19)}, "does not fit|complex"),
        ({"x": torch.zeros(2, 33, 19, dtype=torch.complex64)}, "shape"),
        ({"y": torch.zeros(2, 1, 33, 20, dtype=torch.complex64)}, "does not fit"),
        ({"y": None}, "does not fit"),
        ({"t": None}, "t must have shape"),
        ({name: torch.zeros(2, 1, 33, 19, dtype=torch.complex128) for name in ("x", "y")}, "convert one"),
    ],
)
def test_bad_inputs_are_refused(change: dict[str, Any], message: str) -> None:
    x, t, y = inputs()
    with pytest.raises(ValueError, match=message):
        DCUNet(TINY, embed_dim=8)(**{"x": x, "t": t, "y": y, **change})


def test_bins_that_do_not_fit_are_the_user_s_to_mend() -> None:
    x, t, y = inputs(bins=32)
    with pytest.raises(UserError, match="multiple of 4; set n_fft to 512"):
        DCUNet(TINY, embed_dim=8)(x, t, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "DCUNet-12"}, "DCUNet-10, DCUNet-16"),
        ({"architecture": []}, "list of"),
        ({"architecture": [(4, (4, 4), (0, 1), (1, 1))]}, "at least 1"),
        ({"time_embedding": "learned"}, "not built"),
        ({"activation": "tanh"}, "not built"),
        ({"embed_dim": 7}, "must be even"),
        ({"temb_layers_local": 0}, "at least 1"),
    ],
)
def test_options_that_are_not_built_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DCUNet(**options)


@pytest.mark.parametrize(
    "options",
    [{"dcunet_norm_type": "CbN"}, {"dcunet_time_embedding_complex": True}, {"dcunet_fix_length": "trim"}],
)
def test_published_options_that_are_not_built_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="not built"):
        from_published(options)
