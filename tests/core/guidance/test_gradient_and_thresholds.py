"""Gradient guidance against Bayes' rule, thresholds against their definition."""

import pytest
import torch

from ornstein.guidance.classifier_free import ClassifierFreeGuidance
from ornstein.guidance.gradient import ClassifierGuidance, EnergyGuidance, class_log_probability
from ornstein.guidance.thresholding import DynamicThreshold, StaticThreshold
from ornstein.process.affine import as_time
from tests.core.guidance.setting import conditional_mixture, start


def test_the_exact_classifier_turns_the_mixture_into_its_component() -> None:
    denoiser, _ = conditional_mixture()
    data, process = denoiser.whole.mixture, denoiser.process

    def classifier(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a, _, s, _ = (c[:, None, None] for c in process.coefficients(t.double()))
        distance = ((x[:, None] - a * data.means) ** 2).sum(-1)
        return data.weights.log() - distance / (2 * (a[..., 0] ** 2 * 0.15 + s[..., 0] ** 2))

    x, component = start(5), torch.full((5,), 1)
    guided = ClassifierGuidance(denoiser.whole, class_log_probability(classifier, component))
    for t in (0.2, 0.6):
        estimate = guided(x, t)
        assert not estimate.x0.requires_grad
        torch.testing.assert_close(estimate.x0, denoiser(x, t, component=component).x0)


def test_an_energy_falls_and_the_estimate_stays_consistent() -> None:
    denoiser, _ = conditional_mixture()
    target = torch.tensor([1.2, 1.6], dtype=torch.float64)
    guided = EnergyGuidance(denoiser.whole, lambda x0: ((x0 - target) ** 2).sum(1), scale=0.3)
    x = start(6)
    before, after = denoiser.whole(x, 0.4), guided(x, 0.4)
    assert bool((((after.x0 - target) ** 2).sum(1) < ((before.x0 - target) ** 2).sum(1)).all())
    torch.testing.assert_close(denoiser.process.sample(after.x0, 0.4, after.noise), x)


@pytest.mark.parametrize("wrap", [StaticThreshold, DynamicThreshold])
def test_thresholds_bound_x0_and_recompute_the_noise(wrap: type) -> None:
    denoiser, _ = conditional_mixture()
    x = start(6)
    estimate = wrap(denoiser.whole, bound=1.0)(x, 0.3)
    plain = denoiser.whole(x, 0.3).x0
    assert float(estimate.x0.abs().max()) <= 1 + 1e-12
    assert float(plain.abs().max()) > 1
    torch.testing.assert_close(denoiser.process.sample(estimate.x0, 0.3, estimate.noise), x)
    wide = wrap(denoiser.whole, bound=10.0)(x, as_time(0.3)).x0
    torch.testing.assert_close(wide, plain)


def test_rescaling_restores_the_deviation() -> None:
    denoiser, _ = conditional_mixture()
    x, component = start(4), torch.full((4,), 2)
    none = {"component": torch.tensor(-1)}
    full = ClassifierFreeGuidance(denoiser, 4.0, none, rescale=1.0)(x, 0.4, component=component)
    wanted = denoiser(x, 0.4, component=component).x0.std(1)
    torch.testing.assert_close(full.x0.std(1), wanted)
