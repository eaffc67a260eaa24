"""DDIM inversion against the sampler it inverts and against the exact flow."""

from dataclasses import replace

import pytest
import torch

from ornstein.analysis.class_mixture import ClassMixtureDenoiser
from ornstein.analysis.examples import BRIDGES, PROCESSES, weights_of
from ornstein.analysis.mixture import exact_flow
from ornstein.errors import UserError
from ornstein.inversion.ddim import DDIMInversion
from ornstein.process.prediction import Prediction
from ornstein.samplers.time_grids import LogSNRGrid, TimeGrid
from tests.core.inversion.exact import CLASSES, evenly, random

Y = torch.tensor([0.8, -1.2], dtype=torch.float64)


def between(name: str, low: float = 0.6, high: float = 12.0) -> TimeGrid:
    process = PROCESSES[name]
    return LogSNRGrid(start=float(process.time_at_kappa(low)), end=float(process.time_at_kappa(high)))


@pytest.mark.parametrize("name", PROCESSES)
def test_first_order_to_the_exact_flow(name: str) -> None:
    process, label = PROCESSES[name], torch.zeros(8, dtype=torch.long)
    first, last = (process.coefficients(process.time_at_kappa(kappa)) for kappa in (0.6, 12.0))
    x0 = CLASSES.given(0).sample(8, torch.Generator().manual_seed(0))
    w = last.a / last.s * x0 + random(8, 2)
    exact = exact_flow(CLASSES.given(0), w, 12.0, 0.6, weights=weights_of(process))
    errors = []
    for steps in (25, 50):
        inversion = DDIMInversion(steps, between(name))
        start = last.s * w + last.b * Y
        found = inversion(ClassMixtureDenoiser(CLASSES, process), start, Y.expand(8, 2), label=label)
        errors.append(((found - first.b * Y) / first.s - exact).square().mean().sqrt())
    assert 0.7 < float((errors[0] / errors[1]).log2()) < 1.3, errors


@pytest.mark.parametrize("name", PROCESSES)
def test_refined_inversion_inverts_the_sampler(name: str) -> None:
    """The fixed point of a step is its inverse: the sampler comes back to the signal, down to s = 0."""
    process, y = PROCESSES[name], Y.expand(3, 2)
    denoiser = ClassMixtureDenoiser(CLASSES, process)
    x0 = CLASSES.mixture.sample(3, torch.Generator().manual_seed(1))
    plain = DDIMInversion(20, evenly(process, 20, 0.98 if name in (*BRIDGES, "BBED") else 1.0))
    refined = replace(plain, refinements=40)
    errors = [float((i.sampler(denoiser, i(denoiser, x0, y), y) - x0).abs().max()) for i in (plain, refined)]
    assert errors[1] < 1e-6 < errors[0], errors


def test_states_are_the_pivot_in_the_order_of_the_grid() -> None:
    denoiser, x0 = ClassMixtureDenoiser(CLASSES, PROCESSES["VP"]), random(3, 2)
    inversion = DDIMInversion(5)
    states = inversion.states(denoiser, x0)
    assert len(states) == 6
    assert torch.equal(states[-1], x0)
    assert torch.equal(states[0], inversion(denoiser, x0))
    assert not torch.allclose(states[0], inversion(denoiser, x0, label=torch.zeros(3)))


def test_calls_are_counted() -> None:
    class Counting(ClassMixtureDenoiser):
        calls: list[float] = []  # noqa: RUF012

        def __call__(self, x, t, y=None, **condition):  # type: ignore[no-untyped-def]
            self.calls.append(float(t))
            return super().__call__(x, t, y, **condition)

    inversion = DDIMInversion(4, refinements=2)
    denoiser = Counting(CLASSES, PROCESSES["VP"])
    inversion(denoiser, random(2, 2))
    assert len(denoiser.calls) == inversion.evaluations() == 12
    assert denoiser.calls == sorted(denoiser.calls)


def test_where_the_state_holds_no_noise_it_says_so() -> None:
    for process in (PROCESSES["bridge"], Prediction()):
        with pytest.raises(UserError, match="has no noise"):
            DDIMInversion(4)(ClassMixtureDenoiser(CLASSES, process), random(2, 2), random(2, 2))


def test_one_step_over_everything_is_refused() -> None:
    with pytest.raises(UserError, match="take more steps"):
        DDIMInversion(1)(ClassMixtureDenoiser(CLASSES, PROCESSES["rectified flow"]), random(2, 2))


def test_nan_from_the_network_is_named() -> None:
    with pytest.raises(UserError, match="not finite"):
        DDIMInversion(3)(ClassMixtureDenoiser(CLASSES, PROCESSES["VP"]), random(2, 2) * torch.nan)
