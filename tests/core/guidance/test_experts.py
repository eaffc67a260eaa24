"""PPAP: adapters, routing and distillation, against the published modules."""

import copy

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from torch import nn

from ornstein.digits.data import digits
from ornstein.digits.model import digit_classifier
from ornstein.errors import UserError
from ornstein.guidance.adapters import (
    LowRankAdapter,
    adapter_state,
    add_adapters,
    load_adapter_state,
    merge_adapters,
)
from ornstein.guidance.experts import NoiseRangeExperts, distil, distillation_loss
from ornstein.process.vp import VP

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@reference_files("inference", "ppap*.npz", needs=["conv_w", "lin_w"])
def test_adapters(vectors: ReferenceFile) -> None:
    """Upstream leaves alpha/r out of a linear layer in training (lin_y_train); ours has it always."""
    w, a, b, x = (vectors.tensor(f"conv_{n}") for n in ("w", "A", "B", "x"))
    base = nn.Conv2d(w.shape[1], w.shape[0], w.shape[2], stride=2, padding=1, bias=False).double()
    layer = filled(LowRankAdapter(base, a.shape[0] // w.shape[2], 8.0), w, a, b)
    torch.testing.assert_close(layer(x), vectors.tensor("conv_y"), **CLOSE)
    torch.testing.assert_close(layer.merge()(x), vectors.tensor("conv_y_eval"), **CLOSE)
    torch.testing.assert_close(layer.base.weight, vectors.tensor("conv_w_merged"), **CLOSE)
    w, a, b, x = (vectors.tensor(f"lin_{n}") for n in ("w", "A", "B", "x"))
    linear = nn.Linear(w.shape[1], w.shape[0]).double()
    linear.bias.data.copy_(vectors.tensor("lin_b"))
    layer = filled(LowRankAdapter(linear, len(a), 8.0), w, a, b)
    for mode in (True, False):
        torch.testing.assert_close(layer.train(mode)(x), vectors.tensor("lin_y_eval"), **CLOSE)
    assert not torch.allclose(vectors.tensor("lin_y_train"), vectors.tensor("lin_y_eval"), atol=0.05)


def filled(layer: LowRankAdapter, w: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> LowRankAdapter:
    layer.base.weight.data.copy_(w)
    layer.A.data.copy_(a)
    layer.B.data.copy_(b)
    return layer


@reference_files("inference", "ppap*.npz", needs=["kd", "student", "teacher"])
def test_distillation_loss(vectors: ReferenceFile) -> None:
    loss = distillation_loss(vectors.tensor("student"), vectors.tensor("teacher"))
    torch.testing.assert_close(loss, vectors.tensor("kd"), **CLOSE)


def test_routing_is_half_open_and_per_sample() -> None:
    experts = NoiseRangeExperts(nn.Linear(3, 2), count=5, T=1.0, rank=0)
    t = torch.tensor([0.0, 0.199, 0.2, 0.999, 1.0])
    assert experts.route(t).tolist() == [0, 0, 1, 4, 4]
    with pytest.raises(UserError, match="divide times from 0 to 1, and t is 500; give them that T"):
        experts.route(torch.tensor([0.5, 500.0]))
    with pytest.raises(UserError, match="and t is -1;"):
        experts.at_time(torch.zeros(5, 3), -1.0)
    for index, expert in enumerate(experts.experts):
        nn.init.constant_(expert.bias, index)
        nn.init.zeros_(expert.weight)
    assert experts(torch.zeros(5, 3), t)[:, 0].tolist() == [0, 0, 1, 4, 4]
    for one, index in zip(t.tolist(), (0, 0, 1, 4, 4), strict=True):
        assert experts.at_time(torch.zeros(2, 3), one)[:, 0].tolist() == [index] * 2


def test_experts_start_as_the_model_and_merge_to_the_same() -> None:
    model, x = digit_classifier(), digits("test").images[:8]
    experts = NoiseRangeExperts(model, count=2, rank=4)
    t = torch.linspace(0, 1, 8)
    torch.testing.assert_close(experts(x, t), model(x))
    expert = experts.experts[0]
    state = adapter_state(expert)
    assert not any(name.endswith("base.weight") for name in state)
    for tensor in state.values():
        nn.init.normal_(tensor.detach(), std=0.1)
    changed = expert(x)
    assert not torch.allclose(changed, model(x), atol=0.01)
    other = add_adapters(copy.deepcopy(model), 4)
    load_adapter_state(other, state)
    torch.testing.assert_close(other(x), changed)
    torch.testing.assert_close(merge_adapters(other)(x), changed, rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="do not fit"):
        load_adapter_state(expert, {})
    with pytest.raises(UserError, match="no linear layer"):
        add_adapters(nn.Sequential(nn.ReLU()))


def test_distilled_experts_know_noisy_digits_better_than_the_model() -> None:
    torch.manual_seed(0)  # the adapters' first weights
    model, train, test = digit_classifier(), digits(), digits("test")
    experts = NoiseRangeExperts(model, count=2, rank=4)
    generator = torch.Generator().manual_seed(0)
    fits = distil(experts, model, VP(), train.images, 150, generator, learning_rate=3e-3)
    assert [0 < fit.step <= 150 for fit in fits] == [True, True]
    assert all(fit.validation is not None and 0 < fit.validation < 1.2 * fit.training for fit in fits)
    t = torch.full((len(test.images),), 0.3)
    z = torch.randn(test.images.shape, generator=torch.Generator().manual_seed(5))
    x = VP().sample(test.images, t.double(), z)
    with torch.no_grad():
        right = [float((logits.argmax(1) == test.labels).float().mean()) for logits in (model(x), experts(x, t))]
    assert right[1] > right[0] + 0.05
