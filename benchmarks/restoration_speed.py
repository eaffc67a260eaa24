"""Speed of the restoration networks on one GPU: one call eager, in low precision, compiled, as a CUDA graph; one
training step. It needs a GPU; nothing of it can be measured without one.

    python benchmarks/restoration_speed.py
    python benchmarks/restoration_speed.py --cases "RDDM UNet, 256 x 256" --variants "compiled graph bfloat16" --profile

What is measured, the published time, and the goal:

    RDDM UNet, one call, 256 x 256              25.9 ms    4 ms
    RDDM UNet, one call, 400 x 592              70.5 ms   10 ms
    Swin-UNet of UPSR, one call, 256 x 256      60.7 ms    8 ms
    RDDM UNet, training step, 16 x 256 x 256     279 ms   80 ms

with a PSNR of at least 45 dB of the network's output, with random weights, against float32 without TF32; the peak is
four standard deviations of the output, which is what a picture spans. Times are medians over CUDA events after warm-up.

Writes benchmarks/results/restoration_speed.json after every row (what is not run keeps its last numbers) and then the
table of docs/speed.md. A variant that fails has the reason in its row, and the others go on.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from speed_rows import Case, Measure, cells, forward, options, run
from timing import (
    first_call,
    milliseconds,
    one_step,
    profile,
    random_network,
    rows,
)

from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.residual_unet import ResidualUNet
from ornstein.networks.swin_unet import SwinUNet
from ornstein.objectives.outputs import OutputObjective
from ornstein.process.rddm import RDDM
from ornstein.residual_outputs import ResidualOutputs

RESULT = Path(__file__).parent / "results" / "restoration_speed.json"
TRAINING = "RDDM UNet, training step"
BATCH, SIDE = 16, 256


CASES = {
    "RDDM UNet, 256 x 256": Case(ResidualUNet, (3, 256, 256), 3, 25.9, 4),
    "RDDM UNet, 400 x 592": Case(ResidualUNet, (3, 400, 592), 3, 70.5, 10),
    "UPSR Swin-UNet, 256 x 256": Case(
        partial(SwinUNet, in_channels=48, condition_channels=96, num_feat=128), (48, 64, 64), 96, 60.7, 8
    ),
}
STEPS = [
    "eager float32",
    "eager bfloat16",
    "eager bfloat16, channels last",
    "compiled bfloat16",
    "compiled bfloat16, channels last",
    "graph bfloat16, channels last",
    "compiled graph bfloat16, channels last",
]
PUBLISHED_STEP, GOAL_STEP = 279, 80


def training(variant: str, *, profiled: bool = False) -> dict[str, Any]:
    """One step of the published recipe on BATCH x SIDE x SIDE."""
    torch.cuda.reset_peak_memory_stats()
    network = random_network(ResidualUNet).cuda()
    denoiser = Denoiser(network, RDDM(), ResidualOutputs("pred_res"))
    generator = torch.Generator("cuda").manual_seed(1)
    x0, y = (torch.randn(BATCH, 3, SIDE, SIDE, generator=generator, device="cuda") / 2 for _ in range(2))
    step = one_step(denoiser, OutputObjective("absolute"), x0, y, variant)
    _, first = first_call(step)
    taken = milliseconds(step, 15, 5)
    row = {"ms": taken, "memory_gib": torch.cuda.max_memory_allocated() / 2**30, "first_call_s": first}
    return row | ({"profile": profile(step, variant)} if profiled else {})


def markdown(results: dict[str, Any]) -> str:
    """The tables of docs/speed.md."""
    lines: list[str] = []
    for name, own in results.items():
        trains = name == TRAINING
        published, goal = (PUBLISHED_STEP, GOAL_STEP) if trains else (CASES[name].published_ms, CASES[name].goal_ms)
        heads = [name, "ms", "GiB" if trains else "PSNR (dB)", "first call (s)"]
        shown = [cells(variant, row, ["memory_gib" if trains else "psnr"]) for variant, row in own["rows"].items()]
        lines += [*rows(heads, shown), "", f"Published: {published} ms; goal: {goal} ms. On {own['machine']}.", ""]
    return "\n".join(lines)


def main() -> None:
    also = ("training", STEPS, STEPS, "variants of a training step")
    chosen = options(__doc__, [*CASES, TRAINING], RESULT, also)

    def plan(name: str) -> tuple[Measure, list[str]]:
        if name == TRAINING:
            return partial(training, profiled=chosen.profile), chosen.training
        return partial(forward, CASES[name], profiled=chosen.profile), chosen.variants

    run(chosen, RESULT, "restoration speed", markdown, plan)


if __name__ == "__main__":
    try:
        main()
    except UserError as problem:
        print("ornstein:", problem, file=sys.stderr)
        sys.exit(2)
