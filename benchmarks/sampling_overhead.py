"""What a sampler costs outside the network on a CPU: microseconds a network call, against 3 % of 10 ms.

    python benchmarks/sampling_overhead.py
    python benchmarks/sampling_overhead.py --only guidance      this part again; the other numbers stay

The network returns its input scaled, so that all the time is the sampler's and the denoiser's. Every pair is run
several times with the same process, so that what a process remembers of its schedule is remembered; the least time
counts. Writes benchmarks/results/sampling_overhead.json, with the load of the machine when it began: run it on a quiet
one.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ornstein.denoiser import Denoiser, DenoiserLike
from ornstein.files import atomic_path
from ornstein.guidance.adaptive import AdaptiveGuidance
from ornstein.guidance.classifier_free import ClassifierFreeGuidance, GuidanceInterval
from ornstein.guidance.experts import NoiseRangeExperts
from ornstein.guidance.gradient import ClassifierGuidance, EnergyGuidance, class_log_probability
from ornstein.guidance.linear_adaptive import LinearAdaptiveGuidance, fit_linear_prediction, record_guidance
from ornstein.guidance.minority import MinorityGuidance
from ornstein.guidance.thresholding import DynamicThreshold, StaticThreshold
from ornstein.noise import Noise as Draws
from ornstein.noise import SampleNoise
from ornstein.parameterization import (
    X0,
    EDMPreconditioning,
    Noise,
    Parameterization,
    Residual,
    ResNoise,
    Score,
    TwoOutput,
    V,
    Velocity,
)
from ornstein.process.affine import Process
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.ddpm import DDPM
from ornstein.process.ouve import OUVE
from ornstein.process.rddm import RDDM
from ornstein.process.rectified_flow import RectifiedFlow
from ornstein.process.resfusion import LinearPro, Resfusion
from ornstein.process.residual_shift import ResidualShift
from ornstein.process.upsr import UPSR
from ornstein.process.vp import VP
from ornstein.samplers.adams import DEIS, LMS, AdamsBashforth
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler
from ornstein.samplers.churn import ChurnedHeun
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.dpm_singlestep import DPMSolverPP2S, DPMSolverPP3S, DPMSolverPPSDE
from ornstein.samplers.evodiff import EVODiff
from ornstein.samplers.momentum import GHVB
from ornstein.samplers.ode_solvers import Euler, Heun
from ornstein.samplers.predictor_corrector import PredictorCorrector
from ornstein.samplers.time_grids import LogSNRGrid, TimeGrid, UniformGrid
from ornstein.samplers.unipc import UniPC

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "sampling_overhead.json"
LIMIT = 300.0
"""Microseconds: 3 % of a network call of 10 ms."""
SHAPE = (1, 3, 32, 32)

SAMPLERS: dict[str, Sampler] = {
    "ancestral": Ancestral(),
    "DDIM": Ancestral(eta=0.0),
    "Euler": Euler(),
    "Heun": Heun(),
    "Heun with churn": ChurnedHeun(),
    "DPM-Solver++ 2M": DPMSolverPP(),
    "DPM-Solver++ 3M": DPMSolverPP(order=3),
    "DPM-Solver++ 2M SDE": DPMSolverPP(eta=1.0),
    "DPM-Solver++ SDE": DPMSolverPPSDE(),
    "DPM-Solver++ 2S": DPMSolverPP2S(),
    "DPM-Solver++ 3S": DPMSolverPP3S(),
    "UniPC-3": UniPC(order=3),
    "AB-3 in kappa": AdamsBashforth(),
    "LMS-4": LMS(),
    "DEIS-3": DEIS(order=3),
    "GHVB 2.5": GHVB(),
    "EVODiff": EVODiff(),
    "predictor-corrector": PredictorCorrector(),
}


@dataclass(frozen=True)
class Case:
    """A process with a meaning of the output and times that every sampler of the table runs on."""

    process: Process
    meaning: Parameterization
    grid: TimeGrid
    steps: int = 30
    outputs: int = 1


WEIGHTS = 0.4 + 0.6 * torch.rand(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SGMSE = UniformGrid(end=0.03, to_zero=True)
NODES = UniformGrid()
CASES: dict[str, Case] = {
    "VP, x0": Case(VP(), X0(), SGMSE),
    "VP, noise": Case(VP(), Noise(), SGMSE),
    "VP, score": Case(VP(), Score(), SGMSE),
    "VP, v": Case(VP(), V(), SGMSE),
    "VP, EDM preconditioning": Case(VP(), EDMPreconditioning(), SGMSE),
    "VP, x0, grid in lambda": Case(VP(), X0(), LogSNRGrid(end=0.03)),
    "OUVE, x0": Case(OUVE(), X0(), SGMSE),
    "OUVE, score": Case(OUVE(), Score(), SGMSE),
    "rectified flow, velocity": Case(RectifiedFlow(), Velocity(), UniformGrid(start=0.98, end=0.03, to_zero=True)),
    "bridge, x0": Case(SchroedingerBridge(), X0(), UniformGrid(start=0.98, end=0.03, to_zero=True)),
    "DDPM, noise": Case(DDPM(), Noise(), NODES),
    "DDPM, EDM preconditioning": Case(DDPM(), EDMPreconditioning(), NODES),
    "DDPM, x0, grid in lambda": Case(DDPM(), X0(), LogSNRGrid(end=1.0)),
    "RDDM, residual": Case(RDDM(), Residual(), UniformGrid(start=980, end=0)),
    "RDDM, residual and noise": Case(RDDM(), TwoOutput(), UniformGrid(start=980, end=0), outputs=2),
    "Resfusion, resnoise": Case(Resfusion(LinearPro(273)), ResNoise(), NODES),
    "ResShift, x0": Case(ResidualShift(), X0(), NODES, steps=15),
    "UPSR, x0": Case(UPSR(), X0(), NODES, steps=5),
    "UPSR with weights, x0": Case(UPSR().weighted(WEIGHTS), X0(), NODES, steps=5),
}
"""A schedule of 15 or 5 levels is run in that many steps, which then carry all that a run does once."""


class Scaled(nn.Module):
    """A network that takes no time, and counts the samples that it is asked about."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.outputs, self.evaluations = outputs, 0

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, label: Tensor | None = None) -> Tensor:
        self.evaluations += len(x)
        return 0.1 * x if self.outputs == 1 else torch.cat([0.1 * x] * self.outputs, 1)


class Means(nn.Module):
    """A classifier that takes no time: logits are the means of the channels."""

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        return x.mean((2, 3))


Guided = Callable[[Denoiser], DenoiserLike]


def classifier_free(denoiser: Denoiser, rescale: float = 0.0) -> ClassifierFreeGuidance:
    """With strength 3; the condition is there, though the network does not look at it."""
    return ClassifierFreeGuidance(denoiser, 3.0, {"label": torch.tensor(-1)}, rescale)


def linear_adaptive(denoiser: Denoiser, fallback: float | None = None) -> LinearAdaptiveGuidance:
    """Fitted on one run of the sampler and grid of the table; the default of the class is a `fallback` of 2."""
    guidance, x = classifier_free(denoiser), torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    sampler = replace(UNDER_GUIDANCE, grid=UniformGrid(end=0.03, to_zero=True))
    history = record_guidance(guidance, sampler, x, torch.zeros_like(x), label=LABEL)
    return LinearAdaptiveGuidance(guidance, fit_linear_prediction(history), fallback=fallback)


LABEL = torch.zeros(1, dtype=torch.long)
UNDER_GUIDANCE = DPMSolverPP()
GUIDANCE: dict[str, Guided] = {
    "none": lambda d: d,
    "classifier-free": classifier_free,
    "classifier-free, rescaled": lambda d: classifier_free(d, 0.7),
    "classifier-free, in an interval of t": lambda d: GuidanceInterval(classifier_free(d), d, 0.2, 0.8),
    "adaptive, never left": lambda d: AdaptiveGuidance(classifier_free(d), threshold=2.0),
    "adaptive, left at once": lambda d: AdaptiveGuidance(classifier_free(d), threshold=-1.5),
    "linear adaptive, guesses checked": lambda d: linear_adaptive(d, fallback=2.0),
    "linear adaptive, every guess taken": linear_adaptive,
    "static threshold": StaticThreshold,
    "dynamic threshold": DynamicThreshold,
    "classifier": lambda d: ClassifierGuidance(d, class_log_probability(Means(), 1)),
    "minority": lambda d: MinorityGuidance(d, Means(), 3),
    "experts (PPAP)": lambda d: ClassifierGuidance(d, class_log_probability(NoiseRangeExperts(Means(), rank=0), 1)),
    "energy of x0": lambda d: EnergyGuidance(d, lambda x0: x0.square().flatten(1).mean(1), scale=1e-6),
}
"""Guidance on a denoiser, each under DPM-Solver++ 2M; a classifier takes no time either."""

GUIDED_CASES = ("VP, noise", "OUVE, x0")


def guided_steps(guidance: Guided, case: Case, repeats: int) -> tuple[float, float]:
    """Least CPU time of a step in microseconds, and the evaluations of the network in it (NFE)."""
    network = Scaled()
    model = guidance(Denoiser(network, case.process, case.meaning))
    sampler = replace(UNDER_GUIDANCE, steps=case.steps, grid=case.grid)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    y, times, network.evaluations = torch.zeros_like(x), [], 0
    for _ in range(repeats):
        begin = time.process_time()
        sampler(model, x, y, label=LABEL)
        times.append(time.process_time() - begin)
    return 1e6 * min(times) / sampler.steps, network.evaluations / repeats / sampler.steps


def guidance_table(repeats: int) -> dict[str, dict[str, dict[str, float]]]:
    """For every guidance, on every case, the microseconds of a step and the evaluations of the network in it."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, guidance in GUIDANCE.items():
        found[name] = {}
        for case in GUIDED_CASES:
            us, evaluations = guided_steps(guidance, CASES[case], repeats)
            found[name][case] = {"us_per_step": round(us), "nfe_per_step": round(evaluations, 2)}
        print(f"{name:40} {found[name]}", flush=True)
    return found


def steps_only(
    sampler: Sampler, denoiser: DenoiserLike, x: Tensor, y: Tensor | None, noise: Draws, *_: object, **named: Tensor
) -> Tensor:
    """The sampler's steps without its look at the values at the end, which waits for a GPU on purpose."""
    with torch.no_grad():
        return list(sampler.trajectory(denoiser, x, y, noise, **named))[-1]


def steps_of(sampler: Sampler, case: Case, device: str) -> Callable[[], Tensor]:
    """A run with all that has the size of a signal, a map of weights too, on `device`."""
    process = case.process
    if isinstance(process, UPSR) and process.weights is not None:
        process = process.weighted(process.weights.to(device))
    denoiser = Denoiser(Scaled(case.outputs), process, case.meaning)
    x, y = torch.ones(SHAPE, device=device), torch.zeros(SHAPE, device=device)
    sampler = replace(sampler, steps=case.steps, grid=case.grid)
    return lambda: steps_only(sampler, denoiser, x, y, torch.randn_like)


def guided_steps_of(guidance: Guided, case: Case, device: str) -> Callable[[], Tensor]:
    """A guided run with all that has the size of a signal on `device`."""
    model = guidance(Denoiser(Scaled(), case.process, case.meaning))
    x, y, label = torch.ones(SHAPE, device=device), torch.zeros(SHAPE, device=device), LABEL.to(device)
    sampler = replace(UNDER_GUIDANCE, steps=case.steps, grid=case.grid)
    return lambda: steps_only(sampler, model, x, y, torch.randn_like, label=label)


def microseconds(sampler: Sampler, case: Case, repeats: int, *, first: bool = False) -> float:
    """Least CPU time of a call of the network over runs on a picture of 3 x 32 x 32; of runs each with a process of its
    own, which remembers nothing yet, if `first`."""
    sampler = replace(sampler, steps=case.steps, grid=case.grid)
    denoiser = Denoiser(Scaled(case.outputs), case.process, case.meaning)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    y = torch.zeros_like(x)
    calls = sampler.evaluations(case.process) or sampler.steps
    times = []
    for _ in range(repeats):
        if first:
            denoiser = denoiser.with_process(replace(case.process))  # type: ignore[type-var]
        begin = time.process_time()
        sampler(denoiser, x, y, SampleNoise([0]))
        times.append(time.process_time() - begin)
    return 1e6 * min(times) / calls


def table(repeats: int, *, first: bool = False) -> dict[str, dict[str, int]]:
    """Microseconds a call for every sampler, on every case."""
    found: dict[str, dict[str, int]] = {}
    for name, sampler in SAMPLERS.items():
        found[name] = {case: round(microseconds(sampler, CASES[case], repeats, first=first)) for case in CASES}
        worst = max(found[name], key=lambda case: found[name][case])
        print(f"{name:22} {min(found[name].values()):4} to {found[name][worst]:4} us ({worst})", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--only", choices=["samplers", "guidance"], help="measure this part; keep the other numbers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread"
    results = json.loads(options.output.read_text()) if options.only else {}
    results |= {"machine": machine, "limit_us": LIMIT}
    load = round(os.getloadavg()[0], 2)
    if options.only != "guidance":
        found = table(options.repeats)
        above = [f"{name} on {case}: {us}" for name, row in found.items() for case, us in row.items() if us > LIMIT]
        print(f"above {LIMIT:.0f} us: " + ("; ".join(above) or "none"))
        results |= {"load": load, "us_per_call": found, "us_per_call_in_a_first_run": table(3, first=True)}
    if options.only != "samplers":
        results |= {"guidance_load": load, "guidance": guidance_table(options.repeats)}
    with atomic_path(options.output, overwrite=True) as path:
        path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
