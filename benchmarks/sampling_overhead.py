"""What a sampler costs outside the network on a CPU: microseconds a network call, against 3 % of 10 ms.

    python benchmarks/sampling_overhead.py

The network returns its input scaled, so that all the time is the sampler's and the denoiser's. Writes
benchmarks/results/sampling_overhead.json.
"""

import argparse
import json
import os
import platform
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ornstein.denoiser import Denoiser
from ornstein.files import atomic_path
from ornstein.noise import SampleNoise
from ornstein.parameterization import X0, Noise, Parameterization, Score
from ornstein.process.affine import Process
from ornstein.process.ouve import OUVE
from ornstein.process.vp import VP
from ornstein.samplers.adams import DEIS, LMS, AdamsBashforth
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.dpm_singlestep import DPMSolverPP2S
from ornstein.samplers.momentum import GHVB
from ornstein.samplers.ode_solvers import Euler, Heun
from ornstein.samplers.predictor_corrector import PredictorCorrector
from ornstein.samplers.time_grids import UniformGrid
from ornstein.samplers.unipc import UniPC

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "sampling_overhead.json"
LIMIT = 300.0
"""Microseconds: 3 % of a network call of 10 ms."""

SAMPLERS: dict[str, Sampler] = {
    "ancestral": Ancestral(),
    "Euler": Euler(),
    "Heun": Heun(),
    "DPM-Solver++ 2M": DPMSolverPP(),
    "DPM-Solver++ 3M": DPMSolverPP(order=3),
    "DPM-Solver++ 2M SDE": DPMSolverPP(eta=1.0),
    "DPM-Solver++ 2S": DPMSolverPP2S(),
    "UniPC-3": UniPC(order=3),
    "AB-3 in kappa": AdamsBashforth(),
    "LMS-4": LMS(),
    "DEIS-3": DEIS(order=3),
    "GHVB 2.5": GHVB(),
    "predictor-corrector": PredictorCorrector(),
}
MEANINGS: dict[str, Parameterization] = {"x0": X0(), "noise": Noise(), "score": Score()}
PROCESSES: dict[str, Process] = {"VP": VP(), "OUVE": OUVE()}


class Scaled(nn.Module):
    """A network that takes no time."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return 0.1 * x


def microseconds(sampler: Sampler, process: Process, meaning: Parameterization, repeats: int) -> float:
    """Least CPU time of a call of the network over runs of 30 steps on a picture of 3 x 32 x 32."""
    sampler = replace(sampler, steps=30, grid=UniformGrid(end=0.03, to_zero=True))
    denoiser = Denoiser(Scaled(), process, meaning)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y = torch.zeros_like(x)
    calls = sampler.evaluations(process) or sampler.steps
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        sampler(denoiser, x, y, SampleNoise([0]))
        times.append(time.process_time() - begin)
    return 1e6 * min(times) / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table: dict[str, dict[str, float]] = {}
    for name, sampler in SAMPLERS.items():
        table[name] = {
            f"{process}, {meaning}": round(
                microseconds(sampler, PROCESSES[process], MEANINGS[meaning], options.repeats)
            )
            for process in PROCESSES
            for meaning in MEANINGS
        }
        worst = max(table[name].values())
        print(f"{name:22} {table[name]}  {'within' if worst <= LIMIT else 'ABOVE'} {LIMIT:.0f} us")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread"
    with atomic_path(options.output, overwrite=True) as path:
        path.write_text(json.dumps({"machine": machine, "us_per_call": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
