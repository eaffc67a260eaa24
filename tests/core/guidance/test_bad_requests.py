"""Guidance and the training of guides: bad requests in one line, any number type and size, observations, progress."""

import pytest
import torch
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein.estimate import Estimate
from ornstein.guidance.adaptive import AdaptiveGuidance
from ornstein.guidance.classifier_free import ClassifierFreeGuidance, GuidanceInterval
from ornstein.guidance.experts import NoiseRangeExperts, distil
from ornstein.guidance.gradient import ClassifierGuidance, EnergyGuidance, class_log_probability
from ornstein.guidance.minority import train_noisy_classifier
from ornstein.guidance.thresholding import DynamicThreshold, StaticThreshold, quantile_of_each
from ornstein.process.affine import as_time
from ornstein.process.edm import EDM
from ornstein.process.ouve import OUVE
from ornstein.process.vp import VP


class Constant:
    """An estimate of x0 that is the state."""

    process = VP()

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        return Estimate(self.process, x, as_time(t), x, x, y)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        return self.layer(x)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("kind", [StaticThreshold, DynamicThreshold])
def test_thresholds_of_complex_signals_keep_the_phase(kind: type) -> None:
    x = torch.randn(2, 3, 5, dtype=torch.complex64, generator=generator()) * 3
    found = kind(Constant(), bound=1.0)(x, 0.5).x0
    assert float(found.abs().max()) <= 1 + 1e-6
    torch.testing.assert_close(found / found.abs(), x / x.abs())


class OfParts(nn.Module):
    """Logits (B, 2) of a complex signal, from the means of its two parts and the time."""

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        assert t is None or (t.dtype == torch.float32 and t.shape == x.shape[:1])
        return torch.view_as_real(x).flatten(1, -2).mean(1) * (2.0 if t is None else 1 + t[:, None])


@pytest.mark.parametrize("classifier", [OfParts(), NoiseRangeExperts(OfParts(), rank=0)], ids=["times", "experts"])
def test_the_times_of_complex_signals_are_real(classifier: nn.Module) -> None:
    """One time for all and one a sample, of a classifier of noisy states and of experts, move x0 towards the class."""
    x = torch.randn(2, 1, 3, 4, dtype=torch.complex64, generator=generator())
    towards = class_log_probability(classifier, torch.tensor([0, 1]))
    for t in (torch.tensor(0.5).double(), torch.tensor([0.5, 0.9]).double()):
        change = ClassifierGuidance(Constant(), towards)(x, t).x0 - x
        parts = torch.view_as_real(change).flatten(1, -2)
        assert bool((parts[0, :, 0] > 0).all() & (parts[1, :, 1] > 0).all())


def test_quantile_is_that_of_torch_and_has_no_size_limit() -> None:
    x = torch.rand(3, 4, 7, generator=generator(), dtype=torch.float64)
    for share in (0.01, 0.5, 0.995, 1.0):
        torch.testing.assert_close(quantile_of_each(x, share), torch.quantile(x.flatten(1), share, dim=1))
    large = torch.arange(2**24 + 1, dtype=torch.float64)[None]
    torch.testing.assert_close(quantile_of_each(large, 0.5), torch.tensor([2.0**23], dtype=torch.float64))


def test_requests_that_mean_nothing() -> None:
    with pytest.raises(ValueError, match="give low <= high"):
        GuidanceInterval(Constant(), Constant(), 0.6, 0.2)
    for target in (99, torch.tensor([0, -1])):
        with pytest.raises(UserError, match="the classifier has the classes 0 to 2"):
            class_log_probability(Linear(), target)(torch.zeros(2, 2), torch.zeros(()))
    signals, labels, teacher = torch.zeros(4, 2), torch.zeros(4).long(), Linear()
    with pytest.raises(UserError, match="0 steps train nothing"):
        train_noisy_classifier(Linear(), VP(), signals, labels, 0, generator())
    with pytest.raises(UserError, match="a batch of 0 signals"):
        train_noisy_classifier(Linear(), VP(), signals, labels, 1, generator(), batch=0)
    with pytest.raises(UserError, match="compares x0 or noise, not 'foo'"):
        AdaptiveGuidance(None, compare="foo")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="threshold of adaptive guidance is NaN"):
        AdaptiveGuidance(None, float("nan"))  # type: ignore[arg-type]
    for scale in (float("nan"), float("inf")):
        with pytest.raises(UserError, match=f"scale of guidance is {scale}; give a finite number"):
            ClassifierFreeGuidance(Constant(), scale, {"label": torch.tensor(-1)})
        with pytest.raises(UserError, match=f"scale of guidance is {scale}"):
            ClassifierGuidance(Constant(), class_log_probability(Linear(), 0), scale)
        with pytest.raises(UserError, match=f"scale of guidance is {scale}"):
            EnergyGuidance(Constant(), lambda x0: x0.sum(1), scale)
    with pytest.raises(UserError, match="4 signals and 3 labels"):
        train_noisy_classifier(Linear(), VP(), signals, labels[:3], 1, generator())
    with pytest.raises(UserError, match="0 steps train nothing"):
        distil(NoiseRangeExperts(teacher, 2), teacher, VP(), signals, 0, generator())
    with pytest.raises(UserError, match="up to 1, the process ends at 80"):
        distil(NoiseRangeExperts(teacher, 2), teacher, EDM(), signals, 1, generator())


def test_guides_of_a_process_with_an_observation() -> None:
    """The corruption contains y: a classifier of signals that are all alike learns it from y alone."""
    y = torch.eye(2).repeat(50, 1) * 4
    signals, labels = torch.zeros(100, 2), torch.tensor([0, 1] * 50)
    done: list[int] = []
    train_noisy_classifier(
        classifier := Linear(),
        OUVE(),
        signals,
        labels,
        150,
        generator(),
        learning_rate=0.05,
        observations=y,
        on_step=lambda i, n: done.append(i),
    )
    assert done == list(range(1, 151))
    x = OUVE().sample(signals, 0.8, torch.randn(100, 2, generator=generator()), y)
    assert float((classifier(x).argmax(1) == labels).float().mean()) > 0.9
    done.clear()
    losses = distil(
        NoiseRangeExperts(classifier, 2, rank=1),
        classifier,
        OUVE(),
        signals,
        3,
        generator(),
        observations=y,
        on_step=lambda i, n: done.append(i),
    )
    assert len(losses) == 2
    assert done == list(range(1, 7))
