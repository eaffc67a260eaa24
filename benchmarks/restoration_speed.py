"""Speed of the restoration networks on one GPU: one call eager, in low precision, compiled, as a CUDA graph; one
training step. It needs a GPU; nothing of it can be measured without one.

    python benchmarks/restoration_speed.py
    python benchmarks/restoration_speed.py --cases "RDDM UNet, 256 x 256" --variants "compiled graph bfloat16"

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

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timing import (
    exact,
    first_call,
    machine,
    milliseconds,
    need_gpu,
    one_step,
    random_network,
    rows,
    show,
    write_json,
    write_table,
)
from torch import Tensor, nn

from ornstein.acceleration import Acceleration, accelerate
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.residual_unet import ResidualUNet
from ornstein.networks.swin_unet import SwinUNet
from ornstein.objectives.outputs import OutputObjective
from ornstein.process.rddm import RDDM
from ornstein.process.upsr import UPSR
from ornstein.residual_outputs import ResidualOutputs

RESULT = Path(__file__).parent / "results" / "restoration_speed.json"
TRAINING = "RDDM UNet, training step"
BATCH, SIDE = 16, 256


@dataclass(frozen=True)
class Case:
    """One network call on a batch of one."""

    make: Callable[[], nn.Module]
    state: tuple[int, int, int]
    """Channels, height and width of x."""
    condition: int
    """Channels of y."""
    published_ms: float
    goal_ms: float

    def inputs(self, device: str) -> tuple[Tensor, Tensor, Tensor]:
        """x, t, y."""
        generator = torch.Generator(device).manual_seed(1)
        channels, *sides = self.state
        x, y = (
            0.5 * torch.randn(1, count, *sides, generator=generator, device=device)
            for count in (channels, self.condition)
        )
        return x, torch.full((1,), 2.0, device=device), y


CASES = {
    "RDDM UNet, 256 x 256": Case(ResidualUNet, (3, 256, 256), 3, 25.9, 4),
    "RDDM UNet, 400 x 592": Case(ResidualUNet, (3, 400, 592), 3, 70.5, 10),
    "UPSR Swin-UNet, 256 x 256": Case(
        partial(SwinUNet, in_channels=48, condition_channels=96, num_feat=128), (48, 64, 64), 96, 60.7, 8
    ),
}
VARIANTS: dict[str, Acceleration] = {
    "eager float32": Acceleration(channels_last=False),
    "eager bfloat16": Acceleration("bfloat16"),
    "compiled float32": Acceleration(compile=True),
    "compiled bfloat16": Acceleration("bfloat16", compile=True),
    "graph float32": Acceleration(graphs=1),
    "graph bfloat16": Acceleration("bfloat16", graphs=1),
    "compiled graph bfloat16": Acceleration("bfloat16", compile=True, graphs=1),
    "compiled graph float16": Acceleration("float16", compile=True, graphs=1),
}
STEPS = [
    "eager float32",
    "eager bfloat16",
    "eager bfloat16, channels last",
    "compiled bfloat16",
    "compiled bfloat16, channels last",
    "compiled graph bfloat16, channels last",
]
PUBLISHED_STEP, GOAL_STEP = 279, 80


def psnr(value: Tensor, reference: Tensor) -> float:
    """In dB, peak four standard deviations of the reference; 200 where they are equal, as JSON knows no infinity."""
    root = float((value.double() - reference.double()).square().mean().sqrt())
    return 20 * math.log10(4 * float(reference.double().std()) / root) if root > 0 else 200.0


@torch.no_grad()
def forward(case: Case, variant: str) -> dict[str, Any]:
    """One call."""
    network = random_network(case.make).cuda().eval()
    denoiser = Denoiser(network, UPSR(), ResidualOutputs())  # only its network is called
    x, t, y = case.inputs("cuda")
    reference = exact(lambda: network(x, t, y))
    call = partial(accelerate(denoiser, VARIANTS[variant]).network, x, t, y)
    value, first = first_call(call)
    return {"ms": milliseconds(call), "psnr": psnr(value, reference), "first_call_s": first}


def training(variant: str) -> dict[str, Any]:
    """One step of the published recipe on BATCH x SIDE x SIDE."""
    torch.cuda.reset_peak_memory_stats()
    network = random_network(ResidualUNet).cuda()
    denoiser = Denoiser(network, RDDM(), ResidualOutputs("pred_res"))
    generator = torch.Generator("cuda").manual_seed(1)
    x0, y = (torch.randn(BATCH, 3, SIDE, SIDE, generator=generator, device="cuda") / 2 for _ in range(2))
    step = one_step(denoiser, OutputObjective("absolute"), x0, y, variant)
    _, first = first_call(step)
    taken = milliseconds(step, 15, 5)
    return {"ms": taken, "memory_gib": torch.cuda.max_memory_allocated() / 2**30, "first_call_s": first}


def attempt(measure: Callable[[str], dict[str, Any]], variant: str) -> dict[str, Any]:
    """The row of a variant, or why there is none."""
    try:
        return measure(variant)
    except Exception as problem:  # noqa: BLE001  # whatever a compiler or a driver raises: the other rows are worth having
        reason = next(iter(str(problem).splitlines()), "")
        return {"failed": f"{type(problem).__name__}: {reason}"[:200]}


def markdown(results: dict[str, Any]) -> str:
    """The tables of docs/speed.md."""
    lines: list[str] = []
    for name, own in results.items():
        trains = name == TRAINING
        published, goal = (PUBLISHED_STEP, GOAL_STEP) if trains else (CASES[name].published_ms, CASES[name].goal_ms)
        heads = [name, "ms", "GiB" if trains else "PSNR (dB)", "first call (s)"]
        cells = []
        for variant, row in own["rows"].items():
            if "failed" in row:
                cells.append([variant, "failed", row["failed"].replace("|", "/"), ""])
                continue
            second = f"{row['memory_gib']:.1f}" if trains else f"{row['psnr']:.1f}"
            cells.append([variant, f"{row['ms']:.1f}", second, f"{row['first_call_s']:.0f}"])
        lines += [*rows(heads, cells), "", f"Published: {published} ms; goal: {goal} ms. On {own['machine']}.", ""]
    return "\n".join(lines)


def main() -> None:
    cases = [*CASES, TRAINING]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=cases, default=cases)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="of a call")
    parser.add_argument("--training", nargs="+", choices=STEPS, default=STEPS, help="variants of a training step")
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true", help="only make the page again from the last results")
    options = parser.parse_args()
    if options.table:
        if not RESULT.exists():
            raise UserError(f"there is no {RESULT.name} yet; run this without --table on a machine with a GPU")
        write_table("restoration speed", markdown(json.loads(RESULT.read_text())))
        return
    need_gpu()
    torch.backends.cudnn.benchmark = True
    results: dict[str, Any] = json.loads(options.output.read_text()) if options.output.exists() else {}
    failed = 0
    for name in options.cases:
        own = results.setdefault(name, {"rows": {}})
        own["machine"] = machine()
        measure = training if name == TRAINING else partial(forward, CASES[name])
        for variant in options.training if name == TRAINING else options.variants:
            row = own["rows"][variant] = attempt(measure, variant)
            failed += "failed" in row
            show(name, variant, row)
            write_json(options.output, results)
            torch.compiler.reset()
            torch.cuda.empty_cache()
    print(options.output)
    if options.output == RESULT:
        write_table("restoration speed", markdown(results))
    if failed:
        raise UserError(f"{failed} variants failed; their rows say why")


if __name__ == "__main__":
    try:
        main()
    except UserError as problem:
        print("ornstein:", problem, file=sys.stderr)
        sys.exit(2)
