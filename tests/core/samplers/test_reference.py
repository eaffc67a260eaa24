"""Published samplers step by step (speech, sampler_*), with the analytic models of the vectors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor

from ornstein.estimate import Estimate, estimate_from_x0
from ornstein.parameterization import Score
from ornstein.process.affine import Process, as_time, combine
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.ouve import OUVE
from ornstein.samplers.compat_bridge import PublishedBridge
from ornstein.samplers.ode import ProbabilityFlowODE
from ornstein.samplers.predictor_corrector import AnnealedLangevin, Langevin, PredictorCorrector
from ornstein.samplers.time_grids import UniformGrid

T64 = {"rtol": 0.0, "atol": 1e-9}


def replay(draws: Tensor) -> Callable[[Tensor], Tensor]:
    """A noise source that gives the file's draws in order."""
    remaining = iter(draws)
    return lambda like: next(remaining)


@dataclass(frozen=True)
class GaussianScore:
    """score = -(x - mu)/v, mu = a m + (1 - a) y, v = a^2 s0^2 + s^2."""

    process: Process
    m: Tensor
    s0: Tensor

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        assert y is not None
        t = as_time(t)
        a, _, s, _ = self.process.coefficients(t)
        score = -(x - a * self.m - (1 - a) * y) / (a**2 * self.s0**2 + s**2)
        return Score().estimate(self.process, score, x, t, y)


@dataclass(frozen=True)
class GaussianData:
    """x0 = m + w_x s0^2/(w_x^2 s0^2 + s^2 + 1e-12) (x - w_x m - w_y y)."""

    process: Process
    m: Tensor
    s0: Tensor

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        assert y is not None
        t = as_time(t)
        a, b, s, _ = self.process.coefficients(t)
        gain = a * self.s0**2 / (a**2 * self.s0**2 + s**2 + 1e-12)
        return estimate_from_x0(
            self.process, x, t, self.m + gain * combine(x, (torch.ones(()), x), (-a, self.m), (-b, y)), y
        )


def score_model(v: ReferenceFile) -> GaussianScore:
    return GaussianScore(OUVE(*v.tensor("theta_smin_smax").tolist()), v.tensor("m"), v.tensor("s0"))


@reference_files(
    "speech",
    "sampler_pc*.npz",
    cases=lambda v: v.prefixes("_cfg"),
    needs=["{case}_noise", "{case}_states", "{case}_result"],
)
def test_predictor_corrector(vectors: ReferenceFile, case: str) -> None:
    config, model, y = vectors.json(f"{case}_cfg"), score_model(vectors), vectors.tensor("y")
    corrector = {
        "ald": AnnealedLangevin(config["snr"]),
        "langevin": Langevin(config["snr"], batch_mean=True),
        "none": None,
    }[config["corrector"]]
    sampler = PredictorCorrector(
        config["N"], UniformGrid(end=config["eps"], to_zero=True), corrector, config["corrector_steps"]
    )
    noise = replay(vectors.tensor(f"{case}_noise"))
    x = model.process.start(noise(y), y)
    trajectory = list(sampler.trajectory(model, x, y, noise))
    # published states: (corrector x, corrector mean, predictor x, predictor mean) per step
    states = vectors.tensor(f"{case}_states").unflatten(0, (-1, 4))
    for ours, published in zip(trajectory[:-1], states[:, 2], strict=False):
        torch.testing.assert_close(ours, published, **T64)
    torch.testing.assert_close(trajectory[-1], states[-1, 3], **T64)
    torch.testing.assert_close(trajectory[-1], vectors.tensor(f"{case}_result"), **T64)
    assert sampler.evaluations(model.process) == vectors.number(f"{case}_nfe")


@reference_files("speech", "sampler_pc*.npz", needs=["ode_x1", "ode_exact", "ode_eps"])
def test_probability_flow(vectors: ReferenceFile) -> None:
    sampler = ProbabilityFlowODE(grid=UniformGrid(end=vectors.number("ode_eps")), final_step=False)
    ours = sampler(score_model(vectors), vectors.tensor("ode_x1"), vectors.tensor("y"))
    torch.testing.assert_close(ours, vectors.tensor("ode_exact"), rtol=0, atol=1e-4)


@reference_files("speech", "sampler_pc*.npz", needs=["ode_x1", "ode_eps", "pf_euler_N", "pf_euler_result"])
def test_euler_on_the_probability_flow(vectors: ReferenceFile) -> None:
    grid = UniformGrid(end=vectors.number("ode_eps"), to_zero=True)
    sampler = PredictorCorrector(int(vectors.number("pf_euler_N")), grid, corrector=None, noise_scale=0.0)
    ours = sampler(score_model(vectors), vectors.tensor("ode_x1"), vectors.tensor("y"))
    torch.testing.assert_close(ours, vectors.tensor("pf_euler_result"), **T64)


@reference_files(
    "speech",
    "sampler_sb*.npz",
    cases=lambda v: v.prefixes("_states"),
    needs=["{case}_N", "{case}_result", "k_c_eps", "t_eps"],
)
def test_bridge(vectors: ReferenceFile, case: str) -> None:
    process = SchroedingerBridge(*vectors.tensor("k_c_eps").tolist())
    model, y = GaussianData(process, vectors.tensor("m"), vectors.tensor("s0")), vectors.tensor("y")
    noise = replay(vectors.tensor(f"{case}_noise")) if f"{case}_noise" in vectors else None
    mode = "ode" if noise is None else "sde"
    sampler = PublishedBridge(int(vectors.number(f"{case}_N")), UniformGrid(end=vectors.number("t_eps")), mode=mode)
    trajectory = torch.stack([y, *sampler.trajectory(model, y, y, noise)])
    torch.testing.assert_close(trajectory, vectors.tensor(f"{case}_states"), **T64)
    torch.testing.assert_close(trajectory[-1], vectors.tensor(f"{case}_result"), **T64)
