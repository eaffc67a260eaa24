"""Classifier-free, adaptive and linear adaptive guidance: vectors, invariants, counted work."""

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files

from ornstein.estimate import estimate_from_x0
from ornstein.guidance.adaptive import AdaptiveGuidance
from ornstein.guidance.classifier_free import ClassifierFreeGuidance, GuidanceInterval
from ornstein.guidance.counting import Counted
from ornstein.guidance.linear_adaptive import (
    LinearAdaptiveGuidance,
    LinearPrediction,
    fit_linear_prediction,
    record_guidance,
)
from ornstein.noise import SampleNoise
from ornstein.process.affine import as_time
from ornstein.process.rddm import RDDM
from ornstein.samplers.base import Sampler
from ornstein.samplers.churn import ChurnedHeun
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.ode_solvers import Euler, Heun
from ornstein.samplers.time_grids import UniformGrid
from tests.core.discrete import OneComponent, grid, mixture, nodes
from tests.core.guidance.setting import conditional_mixture, start

NONE = {"component": torch.tensor(-1)}


class Setting:
    def __init__(self, vectors: ReferenceFile) -> None:
        self.counted = Counted(OneComponent(mixture(vectors), nodes(vectors)))
        self.guidance = ClassifierFreeGuidance(self.counted, vectors.number("w"), NONE)
        self.grid = grid(vectors.tensor("t"))
        self.steps = len(vectors["t"])
        self.sampler = Euler(steps=self.steps, grid=self.grid)
        self.x = vectors.tensor("x_T")
        self.component = torch.ones(len(self.x), dtype=torch.long)

    def run(self, denoiser) -> torch.Tensor:
        self.counted.reset()
        return self.sampler(denoiser, self.x, component=self.component)


@reference_files("inference", "adaptive_guidance*.npz", needs=["cfg_final", "eps_cond", "cosine"])
def test_classifier_free_trajectory(vectors: ReferenceFile) -> None:
    s = Setting(vectors)
    history = record_guidance(s.guidance, s.sampler, s.x, component=s.component)
    torch.testing.assert_close(history.conditional, vectors.tensor("eps_cond"), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(history.unconditional, vectors.tensor("eps_uncond"), rtol=1e-9, atol=1e-9)
    cosine = torch.nn.functional.cosine_similarity(history.conditional, history.unconditional, dim=2)
    torch.testing.assert_close(cosine, vectors.tensor("cosine"), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(s.run(s.guidance), vectors.tensor("cfg_final"), rtol=1e-9, atol=1e-9)
    assert (s.counted.calls, s.counted.evaluations) == (s.steps, 2 * s.steps * len(s.x))


@reference_files(
    "inference", "adaptive_guidance*.npz", cases=lambda v: [n[4:-6] for n in v.names if n.startswith("skip")]
)
def test_guidance_of_the_first_steps_only(vectors: ReferenceFile, case: str) -> None:
    s = Setting(vectors)
    first = int(case)
    interval = GuidanceInterval(s.guidance, s.counted, s.grid.times[first - 1], s.grid.times[0])
    torch.testing.assert_close(s.run(interval), vectors.tensor(f"skip{case}_final"), rtol=1e-9, atol=1e-9)
    assert s.counted.evaluations == (s.steps + first) * len(s.x)


@reference_files("inference", "adaptive_guidance*.npz", needs=["cosine"])
def test_each_sample_leaves_guidance_when_its_cosine_says_so(vectors: ReferenceFile) -> None:
    """On the guided path a sample is guided up to and with the first step whose cosine exceeds the threshold."""
    s = Setting(vectors)
    cosine = vectors.tensor("cosine")
    threshold = float(cosine.sort(dim=0).values[len(cosine) // 2].median())
    over = cosine > threshold
    guided_steps = torch.where(over.any(0), over.float().argmax(0) + 1, len(cosine))
    assert len(guided_steps.unique()) > 1
    whole = s.run(AdaptiveGuidance(s.guidance, threshold, compare="noise"))
    assert s.counted.evaluations == int(guided_steps.sum()) + s.steps * len(s.x)
    assert s.counted.calls == s.steps
    for row, first in enumerate(guided_steps.tolist()):
        interval = GuidanceInterval(s.guidance, s.counted, s.grid.times[first - 1], s.grid.times[0])
        alone = s.sampler(interval, s.x[row, None], component=s.component[row, None])
        torch.testing.assert_close(whole[row, None], alone, rtol=1e-10, atol=1e-10)


@reference_files("inference", "adaptive_guidance*.npz", needs=["cfg_final"])
def test_thresholds_beyond_the_cosine_are_the_extremes(vectors: ReferenceFile) -> None:
    s = Setting(vectors)
    assert torch.equal(s.run(AdaptiveGuidance(s.guidance, 1.5)), s.run(s.guidance))
    never = AdaptiveGuidance(s.guidance, -1.5)
    assert torch.equal(s.run(never), s.run(s.counted))
    adaptive = AdaptiveGuidance(s.guidance, 0.99)
    assert torch.equal(s.run(adaptive), s.run(adaptive)), "a second run starts afresh"


@pytest.mark.parametrize("sampler", [DPMSolverPP, Heun])
def test_adaptive_guidance_serves_multistep_and_two_stage_samplers(sampler: type) -> None:
    denoiser, grid_ = conditional_mixture()
    counted = Counted(denoiser)
    guidance = ClassifierFreeGuidance(counted, 2.0, NONE)
    run = sampler(steps=20, grid=grid_)
    component = torch.ones(6, dtype=torch.long)
    full = run(guidance, start(6), component=component)
    spent = counted.evaluations
    counted.reset()
    saved = run(AdaptiveGuidance(guidance, 0.9999), start(6), component=component)
    assert counted.evaluations < 0.8 * spent
    assert float((saved - full).norm() / full.norm()) < 0.01


@pytest.mark.parametrize("sampler", [ChurnedHeun, Heun])
def test_a_sample_that_has_left_stays_out_whatever_the_times(sampler: type[Sampler]) -> None:
    """Churn raises the time of every step: it is no new run."""
    denoiser, grid_ = conditional_mixture()
    record = Counted(denoiser)
    guidance = ClassifierFreeGuidance(record, 2.0, NONE)
    asked: list[int] = []

    class Asked(AdaptiveGuidance):
        def __call__(self, x, t, y=None, **condition):  # type: ignore[no-untyped-def]
            before = record.evaluations
            estimate = super().__call__(x, t, y, **condition)
            asked.append(record.evaluations - before)
            return estimate

    sampler(20, grid_)(Asked(guidance, 0.9), start(6), None, SampleNoise(range(6)), component=torch.ones(6).long())
    assert asked == sorted(asked, reverse=True)
    assert (asked[0], asked[-1]) == (12, 6)


def test_every_call_of_a_sampler_is_a_run_of_its_own() -> None:
    """All leave in the first step. One step twice; then a run over late times and one over the early times below."""
    denoiser, _ = conditional_mixture()
    counted = Counted(denoiser)
    guidance, component = ClassifierFreeGuidance(counted, 2.0, NONE), torch.ones(6).long()
    adaptive, spent = AdaptiveGuidance(guidance, -0.9999), []
    for _ in range(2):
        counted.reset()
        Euler(1)(adaptive, start(6), component=component)
        spent.append(counted.evaluations)
    assert spent == [12, 12]
    late, early = Euler(10, UniformGrid(end=0.5)), Euler(10, UniformGrid(start=0.5))
    middle = late(adaptive, start(6), component=component)
    found = early(adaptive, middle, component=component)
    fresh = early(AdaptiveGuidance(guidance, -0.9999), middle, component=component)
    assert torch.equal(found, fresh)


def test_an_estimated_observation_is_guided_as_well() -> None:
    """x = a x0 + b y + s noise holds in all rows while some samples are guided and others have left."""
    process = RDDM()
    y_of = torch.tensor([[0.0, 0.0], [3.0, -1.0]], dtype=torch.float64)

    class Estimating:
        process = RDDM()

        def __call__(self, x, t, y=None, *, label):  # type: ignore[no-untyped-def]
            x0 = torch.where(label[:, None] > 1, 5.0, 0.1) * torch.ones_like(x) * torch.tensor([1.0, -1.0])
            observed = y_of[label.clamp(max=1)]
            return estimate_from_x0(self.process, x, as_time(t), x0 + 0.2 * label[:, None], observed)

    guidance = ClassifierFreeGuidance(Estimating(), 4.0, {"label": torch.tensor(0)})
    adaptive = AdaptiveGuidance(guidance, 0.5)
    adaptive._active = torch.tensor([True, False])
    estimate = adaptive(start(2), 0.5, None, label=torch.tensor([1, 1]))
    assert estimate.y is not None
    a, b, s, _ = process.coefficients(as_time(0.5))
    torch.testing.assert_close(a * estimate.x0 + b * estimate.y + s * estimate.noise, estimate.x)
    torch.testing.assert_close(estimate.y[0], 4 * y_of[1])
    torch.testing.assert_close(estimate.y[1], y_of[1])


@reference_files("inference", "adaptive_guidance*.npz", cases=lambda v: [n[10:] for n in v.names if "ols_coef_r" in n])
def test_linear_prediction_and_its_rollout(vectors: ReferenceFile, case: str) -> None:
    s = Setting(vectors)
    coefficients = vectors.tensor(f"ols_coef_r{case}")
    prediction = LinearPrediction(torch.tensor(s.grid.times[:-1]), coefficients, torch.zeros(s.steps))
    if float(case) == 0:  # without a ridge the guess feeds on itself and explodes, as the vectors show
        exploded = s.run(LinearAdaptiveGuidance(s.guidance, prediction, fallback=None))
        assert float((exploded - vectors.tensor("cfg_final")).square().mean().sqrt()) > 0.1
        return
    train = vectors.tensor("ols_train_xT")
    history = record_guidance(s.guidance, s.sampler, train, component=torch.ones(len(train), dtype=torch.long))
    if float(case) >= 1e-4:
        fitted = fit_linear_prediction(history, float(case))
        torch.testing.assert_close(fitted.coefficients, coefficients, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(fitted.error, vectors.tensor(f"linag_rel_mse_r{case}"), rtol=1e-5, atol=1e-5)
    half = s.steps // 2
    tolerance = {"rtol": 1e-5, "atol": 1e-5 if float(case) >= 1e-4 else 1e-4}
    first = LinearAdaptiveGuidance(s.guidance, prediction, fallback=None)
    wanted = vectors.tensor(f"linag_alt_firsthalf_final_r{case}")
    torch.testing.assert_close(s.run(first), wanted, **tolerance)
    assert s.counted.evaluations == (s.steps + half - half // 2) * len(s.x)
    guessed = [i for i in range(s.steps) if i >= half or i % 2]
    every = LinearAdaptiveGuidance(s.guidance, prediction, guessed, s.steps, fallback=None)
    torch.testing.assert_close(s.run(every), vectors.tensor(f"linag_alt_then_all_final_r{case}"), **tolerance)


@reference_files("inference", "adaptive_guidance*.npz", needs=["ols_coef_r0.0001"])
def test_a_bad_guess_is_replaced_by_a_call(vectors: ReferenceFile) -> None:
    s = Setting(vectors)
    wild = LinearPrediction(
        torch.tensor(s.grid.times[:-1]), 50 * vectors.tensor("ols_coef_r0.0001"), torch.zeros(s.steps)
    )
    guarded = LinearAdaptiveGuidance(s.guidance, wild, conditional_from=s.steps)
    torch.testing.assert_close(s.run(guarded), vectors.tensor("cfg_final"), rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="fitted to other times"):
        DPMSolverPP(steps=5)(guarded, s.x, component=s.component)
    with pytest.raises(ValueError, match="ridge"):
        fit_linear_prediction(record_guidance(s.guidance, s.sampler, s.x, component=s.component), 0.0)


def test_guidance_needs_its_condition() -> None:
    denoiser, _ = conditional_mixture()
    with pytest.raises(ValueError, match="needs the condition component"):
        ClassifierFreeGuidance(denoiser, 2.0, NONE)(start(2), 0.5)
