"""NCSN++ against the published implementation, and its behaviour on its own."""

import copy
import re
from typing import Any

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein.networks.ncsnpp import NCSNpp, from_published

SMALL = {"nf": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (), "image_size": 16}


def published(config: dict[str, Any]) -> NCSNpp:
    name = re.findall(r"ncsnpp\w*", config["backbone"])[0]  # key lists of StoRM wrap the name in words
    return from_published(name, config)


def loaded(vectors: ReferenceFile, dtype: torch.dtype) -> NCSNpp:
    network = published(vectors.json("config"))
    network.load_state_dict(vectors.weights())
    return network.to(dtype).eval()


def run(network: NCSNpp, vectors: ReferenceFile, dtype: torch.dtype) -> Tensor:
    arrays = [vectors.tensor(name, dtype.to_complex()) for name in ("x", "y") if name in vectors]
    with torch.no_grad():
        return network(arrays[0], vectors.tensor("t", dtype), *arrays[1:])


def relative_error(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).abs().max() / expected.abs().max())


def formula_weights(network: nn.Module) -> dict[str, Tensor]:
    """Scaled 2 frac(|sin((i+1) 12.9898 + (k+1) 78.233) 43758.5453|) - 1 for entry i of tensor k of the state dict."""
    weights = {}
    for k, (name, old) in enumerate(network.state_dict().items()):
        i = torch.arange(1, old.numel() + 1, dtype=torch.float64)
        u = 2 * ((i * 12.9898 + (k + 1) * 78.233).sin() * 43758.5453).abs().frac() - 1
        if old.ndim >= 2:
            fan = old.shape[0] if name.endswith(".W") else old[0].numel()
            u = 1.5 * u / fan**0.5
        elif name.endswith(".W"):
            u = 16 * u
        elif name.endswith("weight"):
            u = 1 + 0.2 * u
        else:
            u = 0.2 * u
        weights[name] = u.reshape(old.shape).float()
    return weights


NETWORK = ["config", "x", "t", "out", ".safetensors"]


@reference_files("speech", "ncsnpp_*.npz", needs=NETWORK)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 5e-5)], ids=["float64", "float32"]
)
def test_output_is_the_published_one(vectors: ReferenceFile, dtype: torch.dtype, tolerance: float) -> None:
    out = run(loaded(vectors, dtype), vectors, dtype)
    assert out.dtype == dtype.to_complex()
    assert relative_error(out, vectors.tensor("out")) < tolerance


@reference_files("speech", "ncsnpp_*.npz", needs=[*NETWORK, "module_trace_absmean_first_last"])
def test_every_layer_gives_the_published_output(vectors: ReferenceFile) -> None:
    network = loaded(vectors, torch.float64)
    outputs: dict[int, Tensor] = {}
    for index, layer in enumerate(network.all_modules):
        layer.register_forward_hook(lambda _layer, _inputs, out, index=index: outputs.__setitem__(index, out))
    run(network, vectors, torch.float64)
    rows = []
    for index in range(len(network.all_modules)):
        flat = outputs[index].flatten()
        rows.append(torch.stack([flat.abs().mean(), flat[0], flat[-1]]))
    torch.testing.assert_close(
        torch.stack(rows), vectors.tensor("module_trace_absmean_first_last"), rtol=1e-8, atol=1e-9
    )


@reference_files("speech", "ncsnpp_*.npz", needs=["config", "n_params"])
def test_number_of_parameters(vectors: ReferenceFile) -> None:
    assert sum(p.numel() for p in published(vectors.json("config")).parameters()) == int(vectors["n_params"])


@reference_files("speech", "ncsnpp_*formula*.npz", needs=["x", "y", "t", "out"])
def test_full_network_on_formula_weights(vectors: ReferenceFile) -> None:
    config = (
        vectors.json("config") if "config" in vectors else {"backbone": "ncsnpp"}
    )  # without: the published defaults
    network = published(config)
    network.load_state_dict(formula_weights(network))
    assert relative_error(run(network.eval(), vectors, torch.float32), vectors.tensor("out")) < 5e-5


def key_lists(pattern: str) -> Any:
    return reference_files("speech", pattern, needs=["backbone", "config", "tensors"])


@key_lists("keys_ncsnpp_*.json")
def test_published_keys(vectors: ReferenceFile) -> None:
    check_keys(vectors)


@key_lists("keys_storm_*.json")
def test_published_keys_of_storm(vectors: ReferenceFile) -> None:
    check_keys(vectors)


def check_keys(vectors: ReferenceFile) -> None:
    with torch.device("meta"):
        network = published({"backbone": vectors["backbone"], **vectors["config"]})
    assert [[name, list(tensor.shape)] for name, tensor in network.state_dict().items()] == vectors["tensors"]
    assert [name for name, _ in network.named_parameters()] == list(network.state_dict())  # the order of the EMA list
    counts = {"n_parameters": sum(p.numel() for p in network.parameters())}
    counts["n_parameters_trainable"] = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert all(vectors[name] == count for name, count in counts.items() if name in vectors)


def inputs(batch: int = 2, bins: int = 16, frames: int = 8, channels: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 1, bins, frames, dtype=torch.complex64, generator=generator)
    y = torch.randn(batch, channels, bins, frames, dtype=torch.complex64, generator=generator)
    return x, torch.linspace(0.1, 1.0, batch), y


def noisy(network: NCSNpp) -> NCSNpp:
    """The network with weights that are nowhere nearly zero, so that every layer matters."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


def test_arguments_are_kept_as_attributes() -> None:
    network = NCSNpp(**SMALL, dropout=0.1, time_division="output", centered=False)
    arguments = {**SMALL, "dropout": 0.1, "time_division": "output", "centered": False, "progressive": "output_skip"}
    assert {name: getattr(network, name) for name in arguments} == arguments


def test_items_of_a_batch_do_not_see_each_other() -> None:
    x, t, y = (tensor.to(torch.complex128 if tensor.is_complex() else torch.float64) for tensor in inputs(3))
    network = noisy(NCSNpp(**{**SMALL, "attn_resolutions": (8,)})).double().eval()
    whole = network(x, t, y)
    for i in range(3):
        torch.testing.assert_close(
            network(x[i : i + 1], t[i : i + 1], y[i : i + 1]), whole[i : i + 1], rtol=0, atol=1e-12
        )


@pytest.mark.parametrize(
    "options",
    [
        {"attn_resolutions": (8, 16)},
        {"progressive": "none", "progressive_input": "none", "time_division": "output"},
        {"time_division": "pyramid", "centered": False, "dropout": 0.1},
        {"input_channels": 6},
        {"input_channels": 2, "time_conditioned": False},
    ],
)
def test_gradient_reaches_every_trainable_parameter(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = noisy(NCSNpp(**{**SMALL, **options}))
    x, t, y = inputs(channels=max(network.input_channels // 2 - 1, 1))
    out = network(x, t, y) if network.input_channels > 2 else network(x, None)
    assert out.shape == x.shape
    out.abs().square().sum().backward()
    without = [
        n for n, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)
    ]
    assert without == []
    fixed = [n for n, p in network.named_parameters() if not p.requires_grad]
    assert all(n == "all_modules.0.W" or (".Dense_0." in n and not network.time_conditioned) for n in fixed)


def test_initial_output_is_nearly_the_bias() -> None:
    x, t, y = inputs()
    assert NCSNpp(**SMALL)(x, t, y).abs().max() < 1e-3


def test_bfloat16_autocast_returns_complex64_close_to_float32() -> None:
    network = noisy(NCSNpp(**{**SMALL, "attn_resolutions": (8,)})).eval()
    x, t, y = inputs()
    with torch.no_grad():
        full = network(x, t, y)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x, t, y)
    assert half.dtype == torch.complex64
    assert relative_error(half, full) < 0.05


def test_channels_last_and_copies_give_the_same_output() -> None:
    network = noisy(NCSNpp(**SMALL)).eval()
    x, t, y = inputs()
    expected = network(x, t, y)
    twin = copy.deepcopy(network).to(memory_format=torch.channels_last)
    torch.testing.assert_close(twin(x, t, y), expected, rtol=1e-4, atol=1e-5)


def test_forward_is_one_graph() -> None:
    torch.compiler.reset()
    network = noisy(NCSNpp(**{**SMALL, "attn_resolutions": (8,), "time_division": "pyramid"})).double().eval()
    x, t, y = (tensor.to(torch.complex128 if tensor.is_complex() else torch.float64) for tensor in inputs())
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, t, y), network(x, t, y))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 1, 16, 8)}, "x must be complex"),
        ({"y": torch.zeros(2, 1, 16, 8)}, "y must be complex"),
        ({"x": torch.zeros(2, 16, 8, dtype=torch.complex64)}, "shape"),
        ({"x": torch.zeros(2, 2, 16, 8, dtype=torch.complex64)}, "shape"),
        ({"y": torch.zeros(1, 1, 16, 8, dtype=torch.complex64)}, "does not fit"),
        ({"y": torch.zeros(2, 2, 16, 8, dtype=torch.complex64)}, "complex channels"),
        ({"y": None}, "complex channels"),
        ({"t": torch.ones(1)}, "t must have shape"),
        ({"t": None}, "t must have shape"),
        ({"x": torch.zeros(2, 1, 16, 8, dtype=torch.complex128)}, "convert one"),
        ({name: torch.zeros(2, 1, 16, 7, dtype=torch.complex64) for name in ("x", "y")}, "multiples of 2"),
        ({name: torch.zeros(2, 1, 15, 8, dtype=torch.complex64) for name in ("x", "y")}, "multiples of 2"),
        ({name: torch.zeros(2, 1, 32, 8, dtype=torch.complex64) for name in ("x", "y")}, "placed for 16 bins"),
    ],
)
def test_bad_inputs_are_refused(change: dict[str, Any], message: str) -> None:
    x, t, y = inputs()
    with pytest.raises((ValueError, UserError), match=message):
        NCSNpp(**{**SMALL, "attn_resolutions": (8,)})(**{"x": x, "t": t, "y": y, **change})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"progressive": "residual"}, "progressive"),
        ({"progressive_input": "residual"}, "progressive_input"),
        ({"time_division": "sigma"}, "time_division"),
        ({"time_division": "output", "time_conditioned": False}, "needs t"),
        ({"nf": 48, "ch_mult": (1, 2)}, "normalise 144 channels"),
        ({"nf": 2}, "normalise 2 channels"),
        ({"nf": 0}, "at least 1"),
        ({"ch_mult": ()}, "needs an entry"),
        ({"input_channels": 3}, "choose 2, 4 or 6"),
    ],
)
def test_combinations_that_are_not_built_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        NCSNpp(**{**SMALL, **options})


@pytest.mark.parametrize(
    ("backbone", "options", "expected"),
    [
        ("ncsnpp", {}, {"time_division": "pyramid", "centered": True, "attn_resolutions": (16,)}),
        ("ncsnpp", {"centered": False, "lr": 1e-4}, {"time_division": "pyramid", "centered": False}),
        ("ncsnpp", {"scale_by_sigma": False}, {"time_division": "none"}),
        ("ncsnpp", {"input_channels": 6}, {"time_division": "pyramid", "centered": False, "attn_resolutions": (0,)}),
        ("ncsnpp", {"discriminative": True}, {"time_division": "none", "time_conditioned": False, "input_channels": 2}),
        ("ncsnpp_v2", {"centered": False}, {"time_division": "none", "centered": True, "progressive": "output_skip"}),
        ("ncsnpp_48k", {}, {"time_division": "output", "progressive": "none", "attn_resolutions": ()}),
    ],
)
def test_published_options(backbone: str, options: dict[str, Any], expected: dict[str, Any]) -> None:
    with torch.device("meta"):
        network = from_published(backbone, options)
    assert {name: getattr(network, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("dcunet", {}),
        ("ncsnpp", {"resblock_type": "ddpm"}),
        ("ncsnpp", {"fir": False}),
        ("ncsnpp", {"progressive": "residual"}),
    ],
)
def test_published_options_that_are_not_built_are_refused(backbone: str, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="not built"):
        from_published(backbone, options)
