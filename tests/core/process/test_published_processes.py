"""Schedules, marginals, posteriors and samplers of published processes (restoration, infrared, training)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor

from ornstein.estimate import Estimate, estimate_from_x0
from ornstein.objectives.weighting import PosteriorWeighting
from ornstein.parameterization import X0, Noise, Parameterization, Residual, ResNoise, ScaledNoise, TwoOutput
from ornstein.process.affine import Process, as_time, combine, expand
from ornstein.process.betas import LinearBetas, ListedBetas
from ornstein.process.interpolant import (
    BrownianGamma,
    EncodingDecodingPath,
    Gamma,
    InterpolantPath,
    LinearPath,
    QuadraticGamma,
    SineSquaredGamma,
    StochasticInterpolant,
    TrigonometricPath,
)
from ornstein.process.rddm import RDDM, NormalIncrements, PowerIncrements
from ornstein.process.resfusion import CosinePro, LinearPro, Resfusion
from ornstein.process.residual_shift import DEFAULT15, JOURNAL4, ResidualShift
from ornstein.process.upsr import UPSR
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.ode_solvers import Euler
from ornstein.samplers.time_grids import UniformGrid
from ornstein.wrapped_parameterizations import ClippedX0, ScaledInput

EXACT = {"rtol": 1e-12, "atol": 1e-13}
SINGLE = {"rtol": 1e-5, "atol": 1e-5}


def replay(draws: Tensor) -> Callable[[Tensor], Tensor]:
    """A noise source that gives the file's draws in order."""
    remaining = iter(draws)
    return lambda like: next(remaining)


@dataclass(frozen=True)
class PixelwiseGaussian:
    """The denoiser of x0 ~ N(mean, std^2) in every pixel, as a network output and back."""

    process: Process
    mean: float
    std: float
    parameterization: Parameterization

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        t = as_time(t)
        a, b, s, _ = (expand(each, x) for each in self.process.coefficients(t))
        assert y is not None
        x0 = (self.mean / self.std**2 + a * (x - b * y) / s**2) / (1 / self.std**2 + a**2 / s**2)
        truth = estimate_from_x0(self.process, x, t, x0, y)
        return self.parameterization.estimate(self.process, self.parameterization.target(truth), x, t, y)


# -- residual shifting -----------------------------------------------------------------------------------------------

SHIFTS = {  # constants of the published configurations
    "upsr/upsr": UPSR(),
    "upsr/resshift15": ResidualShift(),
    "upsr/resshift4": ResidualShift(steps=4, min_noise=0.2),
    "default15": DEFAULT15,
    "journal4": JOURNAL4,
}


def shifts(v: ReferenceFile) -> list[str]:
    return [case for case in v.prefixes("_sqrt_etas") if case in SHIFTS]


def check_shift(v: ReferenceFile, case: str, x: str, x0: str) -> None:
    process = SHIFTS[case]
    t = torch.arange(1, process.levels + 1, dtype=torch.float64)
    torch.testing.assert_close(process.coefficients(t).b, v.tensor(f"{case}_etas"), **EXACT)
    w = process.step_weights(t, t - 1)
    torch.testing.assert_close(w.x, v.tensor(f"{case}_{x}"), **EXACT)
    torch.testing.assert_close(w.x0, v.tensor(f"{case}_{x0}"), **EXACT)
    torch.testing.assert_close(w.y, torch.zeros_like(t), rtol=0, atol=1e-13)
    torch.testing.assert_close(w.noise**2, v.tensor(f"{case}_posterior_variance"), **EXACT)


@reference_files("restoration", "schedules*.npz", cases=shifts, needs=["{case}_posterior_mean_coef1"])
def test_residual_shift(vectors: ReferenceFile, case: str) -> None:
    check_shift(vectors, case, "posterior_mean_coef1", "posterior_mean_coef2")


@reference_files("infrared", "schedule_*.npz", cases=shifts, needs=["{case}_coef_xt", "{case}_ddim_k"])
def test_residual_shift_of_difiisr(vectors: ReferenceFile, case: str) -> None:
    check_shift(vectors, case, "coef_xt", "coef_x0")
    process = SHIFTS[case]
    t = torch.arange(1, process.levels + 1, dtype=torch.float64)
    w = process.step_weights(t, t - 1, eta=0.0)
    for ours, name in ((w.x0, "k"), (w.x, "m"), (w.y, "j")):
        torch.testing.assert_close(ours, vectors.tensor(f"{case}_ddim_{name}"), **EXACT)
    torch.testing.assert_close(process.network_time(t), vectors.tensor(f"{case}_timestep_map").double())
    torch.testing.assert_close(PosteriorWeighting()(process, t), vectors.tensor(f"{case}_weight_mse"), **EXACT)


@reference_files("infrared", "process_*.npz", needs=["x0", "y", "noise", "xt", "ts", "prior"])
def test_process_of_difiisr(vectors: ReferenceFile) -> None:
    process = ResidualShift()
    x0, y, z, x = (vectors.tensor(name) for name in ("x0", "y", "noise", "xt"))
    torch.testing.assert_close(process.start(z, y), vectors.tensor("prior"), **SINGLE)
    for index in vectors.tensor("ts").tolist():
        t = as_time(index + 1.0)
        torch.testing.assert_close(process.sample(x0, t, z, y), vectors.tensor(f"qsample_t{index}"), **SINGLE)
        mean = process.step(x, t, t - 1, x0, y, None, eta=1.0)
        torch.testing.assert_close(mean, vectors.tensor(f"postmean_t{index}"), **SINGLE)
        noise = estimate_from_x0(process, x, t, x0, y).noise
        torch.testing.assert_close(noise, vectors.tensor(f"eps_from_x0_t{index}"), rtol=1e-4, atol=1e-4)
        clean = Noise().estimate(process, z, x, t, y).x0
        torch.testing.assert_close(clean, vectors.tensor(f"x0_from_eps_t{index}"), rtol=1e-4, atol=1e-4)
        clean = ScaledNoise().estimate(process, z, x, t, y).x0
        torch.testing.assert_close(clean, vectors.tensor(f"x0_from_epsscale_t{index}"), rtol=1e-4, atol=1e-4)
        shown, time, _ = ScaledInput().inputs(process, x, t, y)
        torch.testing.assert_close(shown, vectors.tensor(f"scaled_t{index}"), **SINGLE)
        assert time == index
        w = process.step_weights(t.clamp(min=2), t.clamp(min=2) - 1)  # the file clips the variance at index 0
        torch.testing.assert_close(
            (w.noise**2).log().float().expand(x.shape), vectors.tensor(f"postlogvar_t{index}"), **SINGLE
        )


@reference_files("restoration", "upsr_process*.npz", needs=["un", "q_sample", "ddim_states", "anc_states"])
def test_upsr_with_its_map(vectors: ReferenceFile) -> None:
    def unshuffled(name: str) -> Tensor:
        return torch.nn.functional.pixel_unshuffle(vectors.tensor(name), 4)

    numbers = [vectors.number(n) for n in ("steps", "kappa", "power", "min_noise_level", "etas_end", "b_un", "un_max")]
    process = UPSR(int(numbers[0]), *numbers[1:])
    weights = process.uncertainty_weights(vectors.tensor("bicubic"), vectors.tensor("sr"))
    torch.testing.assert_close(weights, vectors.tensor("un"), **SINGLE)
    process = process.weighted(unshuffled("un"))
    x0, y, z = unshuffled("x0"), unshuffled("bicubic"), vectors.tensor("noise_unshuffled")
    t = torch.arange(1, process.levels + 1, dtype=torch.float64)
    for i, time in enumerate(t):
        x = process.sample(x0, time, z, y)
        torch.testing.assert_close(x, vectors.tensor("q_sample")[i], **SINGLE)
        mean = process.step(x, time, time - 1, x0, y, None, eta=1.0)
        torch.testing.assert_close(mean, vectors.tensor("posterior_mean")[i], **SINGLE)
        if i > 0:  # the file clips the variance at index 0, which no sampler uses
            variance = (process.step_weights(time, time - 1).noise ** 2).float().expand(x.shape)
            torch.testing.assert_close(variance, vectors.tensor("posterior_var")[i], **SINGLE)
    start = process.start(z, y)
    torch.testing.assert_close(start, vectors.tensor("prior_sample"), **SINGLE)
    denoiser = PixelwiseGaussian(process, vectors.number("analytic_m"), vectors.number("analytic_s"), Noise())
    steps = process.levels
    states = torch.stack(list(Euler(steps).trajectory(denoiser, start, y)))
    torch.testing.assert_close(states, vectors.tensor("ddim_states"), rtol=1e-4, atol=1e-4)
    states = torch.stack(list(Ancestral(steps).trajectory(denoiser, start, y, replay(vectors.tensor("anc_noises")))))
    torch.testing.assert_close(states, vectors.tensor("anc_states"), rtol=1e-4, atol=1e-4)


# -- Resfusion -------------------------------------------------------------------------------------------------------

CUT = {
    "resfusion/linearpro12": LinearPro(12),
    "resfusion/linearpro25": LinearPro(25),
    "resfusion/linearpro273": LinearPro(273),
    "resfusion/cosinepro50": CosinePro(50),
}


@reference_files("restoration", "schedules*.npz", cases=lambda v: [c for c in v.prefixes("_alphas_hat") if c in CUT])
def test_resfusion_schedule(vectors: ReferenceFile, case: str) -> None:
    process, last = Resfusion(CUT[case]), int(vectors.number(f"{case}_T_acc"))
    assert process.levels == last
    t = torch.arange(1, last + 1, dtype=torch.float64)
    torch.testing.assert_close(process.coefficients(t).phi ** 2, vectors.tensor(f"{case}_alphas_hat")[:last], **EXACT)
    variance = process.step_weights(t[1:], t[1:] - 1).noise ** 2
    torch.testing.assert_close(variance, vectors.tensor(f"{case}_betas_hat")[1:last], rtol=1e-10, atol=1e-13)


@reference_files("restoration", "schedules*.npz", needs=["resfusion/table_T", "resfusion/table_linear_Tacc"])
def test_resfusion_acceleration_steps(vectors: ReferenceFile) -> None:
    good = vectors.tensor("resfusion/table_linear_finite") == 1
    table = [
        vectors.tensor(f"resfusion/table_{n}")[good].tolist() for n in ("T", "linear_Tacc", "linear_sqrt_ah_at_Tacc")
    ]
    for steps, last, root in zip(*table, strict=True):
        betas = LinearPro(steps)()
        assert len(betas) == last
        assert abs(float((1 - betas).prod().sqrt()) - root) < 1e-12


@reference_files("restoration", "resfusion_process*.npz", needs=["betas", "x_t", "resnoise", "epsilon_states", "draws"])
def test_resfusion_process(vectors: ReferenceFile) -> None:
    process = Resfusion(ListedBetas(tuple(vectors.tensor("betas").tolist())))
    x0, y, z = vectors.tensor("x0"), vectors.tensor("x_hat"), vectors.tensor("noise")
    for i, (x, resnoise) in enumerate(zip(vectors.tensor("x_t"), vectors.tensor("resnoise"), strict=True)):
        t = as_time(i + 1.0)
        torch.testing.assert_close(process.sample(x0, t, z, y), x, **EXACT)
        truth = Estimate(process, x, t, x0, z, y)
        torch.testing.assert_close(ResNoise().target(truth), resnoise, rtol=1e-10, atol=1e-10)
        estimate = ResNoise().estimate(process, resnoise, x, t, y)
        torch.testing.assert_close(estimate.x0, x0, rtol=1e-10, atol=1e-10)
    denoiser = PixelwiseGaussian(process, vectors.number("analytic_m"), vectors.number("analytic_s"), ResNoise())
    draws, states = vectors.tensor("draws"), vectors.tensor("epsilon_states")
    start = process.start(draws[0], y)
    torch.testing.assert_close(start, states[0], rtol=1e-10, atol=1e-10)
    ours = torch.stack(list(Ancestral(process.levels).trajectory(denoiser, start, y, replay(draws[1:]))))
    torch.testing.assert_close(ours, states[1:], rtol=1e-9, atol=1e-9)


@reference_files(
    "restoration", "resfusion_process*.npz", cases=lambda v: ["sample", "residual"], needs=["{case}_states"]
)
def test_resfusion_with_clipped_x0(vectors: ReferenceFile, case: str) -> None:
    process = Resfusion(ListedBetas(tuple(vectors.tensor("betas").tolist())))
    y, draws, states = (vectors.tensor(name) for name in ("x_hat", "draws", f"{case}_states"))
    asked = ClippedX0({"sample": X0(), "residual": Residual()}[case])
    denoiser = PixelwiseGaussian(process, vectors.number("analytic_m"), vectors.number("analytic_s"), asked)
    ours = torch.stack(list(Ancestral(process.levels).trajectory(denoiser, states[0], y, replay(draws[1:]))))
    torch.testing.assert_close(ours, states[1:], rtol=1e-9, atol=1e-9)


@reference_files("restoration", "schedules*.npz", cases=lambda v: [c for c in v.prefixes("_T_acc") if c in CUT])
def test_resfusion_tells_its_acceleration_step(vectors: ReferenceFile, case: str) -> None:
    last = int(vectors.number(f"{case}_T_acc"))
    assert Resfusion(CUT[case]).acceleration_step == last
    if case == "resfusion/linearpro273":  # not cut, it runs on
        whole = Resfusion(LinearBetas(273, 0.1 / 273, 20 / 273))
        assert whole.levels == 273
        assert abs(whole.acceleration_step - last) <= 1


def test_resfusion_starts_with_or_without_the_observation_for_the_clean_image() -> None:
    y, z = torch.full((1, 1, 2, 2), 0.8).double(), torch.zeros(1, 1, 2, 2).double()
    end = Resfusion(LinearPro(1000)).coefficients(as_time(368.0))
    published, own = (Resfusion(LinearPro(1000), start).start(z, y) for start in (True, False))
    torch.testing.assert_close(published, end.phi * y, **EXACT)
    torch.testing.assert_close(own, end.b * y, **EXACT)
    assert not torch.equal(published, own)
    assert torch.equal(Resfusion(LinearPro(12)).start(z, y), Resfusion(LinearPro(12), False).start(z, y))


# -- RDDM ------------------------------------------------------------------------------------------------------------


@reference_files("restoration", "schedules*.npz", needs=["rddm/restore_s1_alphas_cumsum", "rddm/gen_power_normal"])
def test_rddm_schedules(vectors: ReferenceFile) -> None:
    t = torch.arange(1, 1001, dtype=torch.float64)
    c = RDDM().coefficients(t)
    torch.testing.assert_close(c.b.float(), vectors.tensor("rddm/restore_s1_alphas_cumsum"), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(c.s.float(), vectors.tensor("rddm/restore_s1_betas_cumsum"), rtol=1e-5, atol=1e-7)
    w = RDDM().step_weights(t, t - 1)
    variance = vectors.tensor("rddm/restore_s1_posterior_variance")
    torch.testing.assert_close(w.noise.float() ** 2, variance, rtol=1e-4, atol=1e-8)
    for increments, name in (
        (PowerIncrements(1.0, decreasing=True), "dec_r1"),
        (PowerIncrements(1.0), "inc_r1"),
        (PowerIncrements(0.3, decreasing=True), "dec_r03"),
        (PowerIncrements(0.0), "avg"),
        (NormalIncrements(), "normal"),
    ):
        expected = vectors.tensor(f"rddm/gen_power_{name}", torch.float64)
        torch.testing.assert_close(increments(1000), expected, rtol=1e-5, atol=1e-8)


@reference_files("restoration", "rddm_process*.npz", needs=["q_sample", "posterior_mean", "ddim_pred_res_noise", "ts"])
def test_rddm_process(vectors: ReferenceFile) -> None:
    steps = int(vectors.number("T"))
    process = RDDM(steps, sum_scale=vectors.number("sum_scale"))
    x0, y, z = (vectors.tensor(name)[0] for name in ("x0", "x_in", "noise"))
    for i, index in enumerate(vectors.tensor("ts").tolist()):
        t = as_time(index + 1.0)
        x = process.sample(x0, t, z, y)
        torch.testing.assert_close(x, vectors.tensor("q_sample")[i], **SINGLE)
        mean = process.step(x, t, t - 1, x0, y, None, eta=1.0)
        torch.testing.assert_close(mean, vectors.tensor("posterior_mean")[i], rtol=1e-4, atol=1e-4)
    denoiser = PixelwiseGaussian(process, vectors.number("analytic_m"), vectors.number("analytic_s"), TwoOutput())
    y = vectors.tensor("x_in").double()
    start = process.start(vectors.tensor("init_noise").double(), y)
    sampler = Euler(int(vectors.number("S")), UniformGrid())
    states = torch.cat([start, *sampler.trajectory(denoiser, start, y)])
    expected = vectors.tensor("ddim_pred_res_noise", torch.float64)
    torch.testing.assert_close((states[:-1] + 1) / 2, expected[:-1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close((states[-1].clamp(-1, 1) + 1) / 2, expected[-1], rtol=1e-4, atol=1e-4)


# -- interpolants ----------------------------------------------------------------------------------------------------

PATHS: dict[str, InterpolantPath] = {
    "linear": LinearPath(),
    "trig": TrigonometricPath(),
    "encoding-decoding": EncodingDecodingPath(),
}
GAMMAS: dict[str, Gamma] = {
    "brownian": BrownianGamma(),
    "bsquared": QuadraticGamma(),
    "sinesquared": SineSquaredGamma(),
}


def both_ends(v: ReferenceFile, process: Process, x: Tensor, t: Tensor) -> Estimate:
    """The exact Estimate where neither end is known: their time 1 - t, their x1 our x0, their x0 our y."""
    a, b, s, _ = process.coefficients(t)
    w0, m0, c0, w1, m1, c1 = (v.tensor(name) for name in ("p0", "mu0", "C0", "p1", "mu1", "C1"))
    cov = b**2 * c0[:, None] + a**2 * c1[None] + s**2 * torch.eye(2).double()
    off = x[:, None, None] - b * m0[:, None] - a * m1[None]
    solved = torch.einsum("ijkl,bijl->bijk", cov.inverse(), off)
    log = (w0[:, None] * w1[None]).log() - cov.logdet() / 2 - (off * solved).sum(-1) / 2
    share = log.flatten(1).softmax(1).reshape(log.shape)

    def mean(value: Tensor) -> Tensor:
        return torch.einsum("bij,bijk->bk", share, value)

    base = mean(m0[:, None] + b * torch.einsum("ikl,bijl->bijk", c0, solved))
    data = mean(m1[None] + a * torch.einsum("jkl,bijl->bijk", c1, solved))
    return Estimate(process, x, t, data, mean(s * solved), base)


@reference_files("training", "interpolants*.npz", cases=lambda v: v.prefixes("_coef"), needs=["ts", "xs", "{case}_b"])
def test_interpolants_between_two_unseen_ends(vectors: ReferenceFile, case: str) -> None:
    path, gamma = str(vectors[f"{case}_path"]).split("|")
    process, x = StochasticInterpolant(PATHS[path], GAMMAS[gamma]), vectors.tensor("xs")
    for i, t in enumerate(1 - vectors.tensor("ts")):
        c, d = process.coefficients(t), process.derivatives(t)
        coefficients = torch.stack([c.b, -d.b, c.a, -d.a, c.s, -d.s, -process.variance_rate(t) / 2])
        torch.testing.assert_close(coefficients, vectors.tensor(f"{case}_coef")[i], rtol=1e-10, atol=1e-12)
        truth = both_ends(vectors, process, x, t)
        torch.testing.assert_close(truth.velocity, -vectors.tensor(f"{case}_b")[i], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(truth.score, vectors.tensor(f"{case}_score")[i], rtol=1e-9, atol=1e-9)
        again = TwoOutput().estimate(process, TwoOutput().target(truth), x, t)
        for name in ("x0", "noise", "y", "velocity"):
            torch.testing.assert_close(getattr(again, name), getattr(truth, name), rtol=1e-9, atol=1e-9)


@reference_files("training", "interpolants*.npz", needs=["p0", "mu0", "C0", "p1", "mu1", "C1"])
def test_generation_from_an_unseen_base(vectors: ReferenceFile) -> None:
    """From draws of the base, known to nobody but the network, the flow ends in the law of the data."""

    class Network:
        process: Process = StochasticInterpolant()

        def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
            truth = both_ends(vectors, self.process, x, as_time(t))
            return TwoOutput().estimate(self.process, TwoOutput().target(truth), x, as_time(t))

    generator = torch.Generator().manual_seed(0)
    component = torch.multinomial(vectors.tensor("p0"), 4000, replacement=True, generator=generator)
    z = torch.randn(4000, 2, 1, dtype=torch.float64, generator=generator)
    base = vectors.tensor("mu0")[component] + (torch.linalg.cholesky(vectors.tensor("C0"))[component] @ z)[..., 0]
    sample = Euler(100)(Network(), base)
    weights, means, covariances = (vectors.tensor(name) for name in ("p1", "mu1", "C1"))
    mean = weights @ means
    spread = torch.einsum("k,kij->ij", weights, covariances + (means - mean)[:, :, None] * (means - mean)[:, None])
    torch.testing.assert_close(sample.mean(0), mean, rtol=0, atol=0.1)
    torch.testing.assert_close(sample.T.cov(), spread, rtol=0.05, atol=0.1)


def test_combine_reads_a_map_as_a_map() -> None:
    x = torch.ones(2, 3, 4)
    pixels = torch.rand(1, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(combine(x, (pixels, x)), pixels.float().expand(2, 3, 4))
