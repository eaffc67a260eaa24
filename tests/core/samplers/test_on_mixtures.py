"""Every sampler on every process: ends in the right distribution, and converges at its order to the exact flow."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ornstein.analysis.examples import BRIDGES, MIXTURE, PROCESSES, Y, exact_between, weights_of
from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser, exact_flow
from ornstein.noise import SampleNoise
from ornstein.process.affine import Process
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.ouve import OUVE
from ornstein.process.residual_path import ResidualFirst
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler
from ornstein.samplers.compat_bridge import PublishedBridge
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.flow_matching import VelocityFlow
from ornstein.samplers.ode import ProbabilityFlowODE
from ornstein.samplers.ode_solvers import Euler, Heun
from ornstein.samplers.predictor_corrector import AnnealedLangevin, Langevin, PredictorCorrector
from ornstein.samplers.time_grids import KarrasGrid, LogSNRGrid, PowerGrid, TimeGrid, UniformGrid, UserGrid

SCALAR = [name for name, process in PROCESSES.items() if weights_of(process) is None]


def inside(process: Process) -> float:
    """A time near T where rates are finite and a > 0."""
    return 0.98 * process.T if process.kappa(0.98 * process.T) > 0 else float(process.time_at_kappa(0.02))


def start(process: Process, count: int, t: float | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Exact draws of x_t (t = T if None) and the observation beside them."""
    generator = torch.Generator().manual_seed(seed)
    x0 = MIXTURE.sample(count, generator)
    y = Y.expand(count, 2)
    z = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return process.sample(x0, process.T if t is None else t, z, y), y


def noise(count: int, seed: int = 100) -> SampleNoise:
    """One stream for all rows: the rows here are draws of one law, so they need no streams of their own."""

    class Rows(SampleNoise):
        def __call__(self, like: Tensor) -> Tensor:
            return torch.randn(like.shape, generator=self.generators[0], dtype=like.dtype)

    return Rows([seed])


# -- distribution ----------------------------------------------------------------------------------------------------

STOCHASTIC_AND_FLOW: dict[str, Sampler] = {
    "ancestral": Ancestral(),
    "ddim": Ancestral(eta=0.0),
    "half": Ancestral(eta=0.5),
    "euler": Euler(random_start=True),
    "heun": Heun(random_start=True),
    "2m": DPMSolverPP(random_start=True),
}


def grid_for(name: str) -> TimeGrid:
    """A grid a user of that process would take."""
    if name in ("EDM", "VE"):
        return KarrasGrid(sigma_min=2e-3, sigma_max=20.0)
    if name in ("ResShift", "UPSR"):  # fewer levels than steps: between them too
        return LogSNRGrid(end=float(PROCESSES[name].time_at_kappa(200.0)), to_zero=True)
    return PowerGrid() if name in BRIDGES else UniformGrid()


def assert_distribution(sample: Tensor, tolerance: float) -> None:
    """Mean, covariance and the weight of the first mode."""
    assert sample.isfinite().all()
    assert (sample.mean(0) - MIXTURE.mean()).abs().max() < tolerance
    assert (sample.T.cov() - MIXTURE.covariance()).abs().max() < tolerance
    nearer_first = (sample - MIXTURE.means[0]).norm(dim=1) < (sample - MIXTURE.means[1]).norm(dim=1)
    assert abs(nearer_first.double().mean() - MIXTURE.weights[0]) < tolerance


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("sampler", STOCHASTIC_AND_FLOW)
def test_ends_in_the_right_distribution(name: str, sampler: str) -> None:
    if name in BRIDGES and sampler in ("ddim", "half"):
        # from x_T = y alone an eta below 1 cannot reach the law (w_T = 0 is the published output): begin inside with
        # exact draws
        grid: TimeGrid = UniformGrid(start=0.95)
    else:
        grid = grid_for(name)
    process = PROCESSES[name]
    method = replace(STOCHASTIC_AND_FLOW[sampler], steps=40, grid=grid)
    x, y = start(process, 3000, t=float(method.grid(process, 40)[0]))
    assert_distribution(method(MixtureDenoiser(MIXTURE, process), x, y, noise(3000)), 0.08)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("corrector", [None, AnnealedLangevin(snr=0.16), Langevin(snr=0.16, batch_mean=True)], ids=repr)
def test_predictor_corrector_ends_in_the_right_distribution(
    name: str, corrector: AnnealedLangevin | Langevin | None
) -> None:
    """Reverse Euler-Maruyama needs finite rates, so it begins below T; Langevin leaves the law alone only if its step
    does not depend on the sample."""
    process = PROCESSES[name]
    grid = LogSNRGrid(start=inside(process), end=float(process.time_at_kappa(60.0)), to_zero=True)
    method = PredictorCorrector(steps=120, grid=grid, corrector=corrector)
    x, y = start(process, 2500, t=inside(process))
    assert_distribution(method(MixtureDenoiser(MIXTURE, process), x, y, noise(2500)), 0.1)


@pytest.mark.parametrize("name", PROCESSES)
def test_adaptive_flow_ends_in_the_right_distribution(name: str) -> None:
    process = PROCESSES[name]
    first, last = inside(process), float(process.time_at_kappa(60.0))
    x, y = start(process, 1500, t=first)
    method = ProbabilityFlowODE(grid=UserGrid((first, last)))
    assert_distribution(method(MixtureDenoiser(MIXTURE, process), x, y), 0.1)


# -- order -----------------------------------------------------------------------------------------------------------


def flow_error(name: str, sampler: Sampler, first: float, last: float) -> float:
    """RMS distance to the exact flow between two values of kappa; the grid of `sampler` must run between their
    times."""
    process = PROCESSES[name]
    w, exact = exact_between(first, last, 32, weights_of(process))
    begin, end = (process.coefficients(process.time_at_kappa(kappa)) for kappa in (first, last))
    y = Y.expand(32, 2)
    final = sampler(MixtureDenoiser(MIXTURE, process), begin.s * w + begin.b * y, y)
    return float((final - end.b * y - end.s * exact).square().mean().sqrt())


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize(
    ("sampler", "order"), [(Euler(), 1), (Ancestral(eta=0.0), 1), (Heun(), 2), (DPMSolverPP(), 2)], ids=repr
)
def test_order(name: str, sampler: Sampler, order: int) -> None:
    process = PROCESSES[name]
    first, last = (float(process.time_at_kappa(k)) for k in (0.6, 8.0))
    grid = LogSNRGrid(start=first, end=last)
    errors = [flow_error(name, replace(sampler, steps=n, grid=grid), 0.6, 8.0) for n in (40, 80)]
    measured = torch.tensor(errors).log2().diff().neg()
    assert (measured - order).abs().max() < 0.25, f"errors {errors}, orders {measured.tolist()}"


@pytest.mark.parametrize("name", PROCESSES)
def test_euler_on_the_flow_in_time_is_first_order(name: str) -> None:
    """PredictorCorrector without noise and corrector is Euler on the velocity in t."""
    process = PROCESSES[name]
    first, last = (float(process.time_at_kappa(k)) for k in (0.6, 4.0))
    sampler = PredictorCorrector(corrector=None, noise_scale=0.0)
    errors = []
    for n in (100, 200):
        times = torch.linspace(first, last, n + 1, dtype=torch.float64)  # UniformGrid would visit nodes only
        if isinstance(process, ResidualFirst):  # its velocity jumps at the turn, which a step must not cross
            turn = process.process.T
            times[(times - turn).abs().argmin()] = turn
        errors.append(flow_error(name, replace(sampler, steps=n, grid=UserGrid(tuple(times.tolist()))), 0.6, 4.0))
    measured = torch.tensor(errors).log2().diff().neg()
    assert (measured - 1).abs().max() < 0.25, f"errors {errors}, orders {measured.tolist()}"


@pytest.mark.parametrize("name", ["rectified flow", "trigonometric", "cosine VP"])
def test_no_noise_where_its_rate_is_infinite(name: str) -> None:
    """g is infinite at T, where a = 0; the probability flow is not."""
    denoiser = MixtureDenoiser(MIXTURE, PROCESSES[name])
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = UniformGrid(end=0.03, to_zero=True)
    flow = PredictorCorrector(30, grid, corrector=None, noise_scale=0.0)(denoiser, x)
    torch.testing.assert_close(flow, VelocityFlow(30, grid=grid)(denoiser, x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", SCALAR)
def test_ancestral_sampling_is_weakly_first_order_or_better(name: str) -> None:
    """For Gaussian data the law of the sample is known at every step: its variance converges to the data's."""
    process = PROCESSES[name]
    gaussian = GaussianMixture(
        torch.ones(1, dtype=torch.float64), torch.zeros(1, 1).double(), torch.full((1, 1, 1), 0.25).double()
    )
    grid = LogSNRGrid(start=float(process.time_at_kappa(0.05)), end=float(process.time_at_kappa(200.0)))

    def variance_error(steps: int) -> float:
        times = grid(process, steps)
        a, _, s, _ = process.coefficients(times[0])
        variance = a**2 * 0.25 + s**2
        for t, earlier in pairwise(times):
            w = process.step_weights(t, earlier)
            a, _, s, _ = process.coefficients(t)
            gain = a * 0.25 / (a**2 * 0.25 + s**2)  # x0 = gain u, the exact denoiser
            variance = (w.x + w.x0 * gain) ** 2 * variance + w.noise**2
        a, _, s, _ = process.coefficients(times[-1])
        denoiser = MixtureDenoiser(gaussian, process)
        u = torch.ones(1, 1, dtype=torch.float64)
        estimate = denoiser(u, times[-1], torch.zeros_like(u))
        torch.testing.assert_close(estimate.x0[0, 0], a * 0.25 / (a**2 * 0.25 + s**2))
        return float((variance - (a**2 * 0.25 + s**2)).abs())

    errors = torch.tensor([variance_error(n) for n in (100, 200, 400)])
    assert (errors.log2().diff() < -0.8).all(), errors


def test_bridge_flow_is_first_order_on_a_uniform_grid_and_second_on_a_quadratic_one() -> None:
    """kappa ~ sqrt(T - t) at the start of a bridge (DESIGN, equation 2)."""
    process, last = SchroedingerBridge(), 0.05
    x = Y.expand(64, 2)
    w_start = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    c = process.coefficients(torch.tensor(last, dtype=torch.float64))
    exact = exact_flow(MIXTURE, w_start, 0.0, float(c.a / c.s)) * c.s + c.b * Y

    def order(grid: TimeGrid) -> float:
        errors = []
        for steps in (64, 128):
            sampler = Heun(steps=steps, grid=grid, random_start=True)
            final = sampler(MixtureDenoiser(MIXTURE, process), x, x, lambda like: w_start)
            errors.append((final - exact).square().mean().sqrt())
        return float((errors[0] / errors[1]).log2())

    assert abs(order(UniformGrid(end=last)) - 1) < 0.3
    assert abs(order(PowerGrid(end=last)) - 2) < 0.3


# -- counting, noise, starts -----------------------------------------------------------------------------------------


class Counting(MixtureDenoiser):
    calls = 0

    def __call__(self, *args: object, **kwargs: object):  # type: ignore[no-untyped-def]
        Counting.calls += 1
        return super().__call__(*args, **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "sampler",
    [
        Ancestral(steps=5),
        Euler(steps=5),
        Heun(steps=5),
        DPMSolverPP(steps=5),
        PredictorCorrector(steps=5),
        PublishedBridge(steps=5),
    ],
    ids=repr,
)
def test_evaluations_are_counted_right(sampler: Sampler) -> None:
    process = PROCESSES["bridge" if isinstance(sampler, PublishedBridge) else "OUVE"]
    x, y = start(process, 3)
    Counting.calls = 0
    steps: list[tuple[int, int]] = []
    sampler(Counting(MIXTURE, process), x, y, SampleNoise([1, 2, 3]), on_step=lambda i, n: steps.append((i, n)))
    assert Counting.calls == sampler.evaluations(process)
    assert steps == [(i, 5) for i in range(1, 6)]


def test_samples_do_not_depend_on_their_batch() -> None:
    process = OUVE()
    x, y = start(process, 4)
    denoiser = MixtureDenoiser(MIXTURE, process)
    together = PredictorCorrector(steps=6)(denoiser, x, y, SampleNoise([5, 6, 7, 8]))
    alone = torch.cat(
        [PredictorCorrector(steps=6)(denoiser, x[i : i + 1], y[i : i + 1], SampleNoise([5 + i])) for i in range(4)]
    )
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-12)


def test_a_stochastic_sampler_without_noise_says_so() -> None:
    x, y = start(OUVE(), 2)
    with pytest.raises(ValueError, match="stochastic"):
        Ancestral(steps=3)(MixtureDenoiser(MIXTURE, OUVE()), x, y)


def test_flow_from_a_bridge_end_without_random_start_is_the_published_ode() -> None:
    process = SchroedingerBridge()
    y = Y.expand(4, 2)
    grid = UniformGrid(end=1e-4)
    ours = Euler(steps=8, grid=grid)(MixtureDenoiser(MIXTURE, process), y, y)

    class AskedAtTheOldTime(PublishedBridge):
        """The published weights with the network asked at t instead of s."""

        def trajectory(self, denoiser, x, y=None, noise=None, **condition):  # type: ignore[no-untyped-def]
            times = dict(
                zip(
                    *(t.tolist() for t in (self.grid(denoiser.process, 8)[1:], self.grid(denoiser.process, 8)[:-1])),
                    strict=True,
                )
            )

            class Shifted:
                process = denoiser.process

                def __call__(self, x, t, y=None, **condition):  # type: ignore[no-untyped-def]
                    return denoiser(x, times[float(t)], y, **condition)

            yield from super().trajectory(Shifted(), x, y, noise, **condition)

    published = AskedAtTheOldTime(steps=8, mode="ode")(MixtureDenoiser(MIXTURE, process), y, y)
    torch.testing.assert_close(ours, published, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("bridge", PredictorCorrector()),
        ("rectified flow", PredictorCorrector()),
        ("cosine VP", PredictorCorrector()),
        ("bridge", ProbabilityFlowODE()),
    ],
    ids=repr,
)
def test_singular_rates_at_the_start_are_named(name: str, sampler: Sampler) -> None:
    """Instead of NaN; the velocity of rectified flow is finite at T, its g is not."""
    x, y = start(PROCESSES[name], 2)
    with pytest.raises(ValueError, match="begin below T"):
        sampler(MixtureDenoiser(MIXTURE, PROCESSES[name]), x, y, noise(2))


@pytest.mark.parametrize("name", ["DDPM", "RDDM", "Resfusion", "Resfusion, a < 0", "ResShift"])
@pytest.mark.parametrize("sampler", [PredictorCorrector(15), ProbabilityFlowODE()], ids=lambda s: type(s).__name__)
def test_defaults_run_on_tables(name: str, sampler: Sampler) -> None:
    """t_eps = 0.03 is the first level there; they end in the law of the data."""
    process = PROCESSES[name]
    x, y = start(process, 600)
    result = sampler(MixtureDenoiser(MIXTURE, process), x, y, noise(600))
    tolerance = 0.07 if isinstance(sampler, ProbabilityFlowODE) else 0.15
    assert (result.mean(0) - MIXTURE.mean()).abs().max() < tolerance
    assert (result.T.cov() - MIXTURE.covariance()).abs().max() < tolerance


@pytest.mark.parametrize("name", ["DDPM", "RDDM", "Resfusion", "ResShift", "VP", "rectified flow"])
def test_an_end_without_score_is_named(name: str) -> None:
    """Instead of NaN or divergence."""
    x, y = start(PROCESSES[name], 2)
    with pytest.raises(ValueError, match="has no finite score at the last time 0 of the grid; end above"):
        ProbabilityFlowODE(grid=UniformGrid())(MixtureDenoiser(MIXTURE, PROCESSES[name]), x, y)


def test_more_steps_than_levels_are_named() -> None:
    x, y = start(PROCESSES["ResShift"], 2)
    with pytest.raises(ValueError, match="15 levels of noise here, but got 30 steps; take fewer steps, at most 15"):
        PredictorCorrector()(MixtureDenoiser(MIXTURE, PROCESSES["ResShift"]), x, y, noise(2))


def test_a_grid_beyond_the_process_is_clipped_or_named() -> None:
    process = OUVE()
    x, y = start(process, 2)
    assert DPMSolverPP(steps=6, grid=KarrasGrid())(MixtureDenoiser(MIXTURE, process), x, y).isfinite().all()
    with pytest.raises(ValueError, match="do not decrease"):
        Euler(steps=6, grid=UniformGrid(start=0.1, end=0.5))(MixtureDenoiser(MIXTURE, process), x, y)
