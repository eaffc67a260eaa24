"""What the speed benchmarks of pictures share: cases of one network call, variants, rows of what fails, the command.

Times are medians over CUDA events after warm-up; quality is the PSNR of the network's output, with random weights,
against float32 without TF32.
"""

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
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
    profile,
    random_network,
    show,
    write_json,
    write_table,
)
from torch import Tensor, nn

from ornstein.acceleration import Acceleration, accelerate
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.process.upsr import UPSR
from ornstein.residual_outputs import ResidualOutputs

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

Measure = Callable[[str], dict[str, Any]]
"""The row of a variant."""


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


def psnr(value: Tensor, reference: Tensor) -> float:
    """In dB, peak four standard deviations of the reference; 200 where they are equal, as JSON knows no infinity."""
    root = float((value.double() - reference.double()).square().mean().sqrt())
    return 20 * math.log10(4 * float(reference.double().std()) / root) if root > 0 else 200.0


@torch.no_grad()
def forward(case: Case, variant: str, *, profiled: bool = False) -> dict[str, Any]:
    """One call; with its kernels where it is `profiled`."""
    network = random_network(case.make).cuda().eval()
    denoiser = Denoiser(network, UPSR(), ResidualOutputs())  # only its network is called
    x, t, y = case.inputs("cuda")
    reference = exact(lambda: network(x, t, y))
    call = partial(accelerate(denoiser, VARIANTS[variant]).network, x, t, y)
    value, first = first_call(call)
    row = {"ms": milliseconds(call), "psnr": psnr(value, reference), "first_call_s": first}
    return row | ({"profile": profile(call, variant)} if profiled else {})


def attempt(measure: Measure, variant: str) -> dict[str, Any]:
    """The row of a variant, or why there is none."""
    try:
        return measure(variant)
    except Exception as problem:  # noqa: BLE001  # whatever a compiler or a driver raises: the other rows are worth having
        reason = next(iter(str(problem).splitlines()), "")
        return {"failed": f"{type(problem).__name__}: {reason}"[:200]}


def cells(variant: str, row: Mapping[str, Any], middle: Sequence[str] = ()) -> list[str]:
    """A line of a table: the variant, ms, what `middle` names, with one decimal, and seconds of the first call."""
    if "failed" in row:
        return [variant, "failed", row["failed"].replace("|", "/"), *("" for _ in middle)]
    return [variant, f"{row['ms']:.1f}", *(f"{row[name]:.1f}" for name in middle), f"{row['first_call_s']:.0f}"]


def options(
    description: str | None, cases: Sequence[str], result: Path, also: tuple[str, Sequence[str], Sequence[str], str]
) -> argparse.Namespace:
    """The command line; `also` is another option of variants: name, choices, default and help."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=cases, default=cases)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="of a call")
    name, choices, default, text = also
    parser.add_argument(f"--{name}", nargs="+", choices=choices, default=default, help=text)
    parser.add_argument("--profile", action="store_true", help="also show and keep the kernels of network calls")
    parser.add_argument("--output", type=Path, default=result)
    parser.add_argument("--table", action="store_true", help="only make the page again from the last results")
    return parser.parse_args()


def run(
    chosen: argparse.Namespace,
    result: Path,
    title: str,
    markdown: Callable[[dict[str, Any]], str],
    plan: Callable[[str], tuple[Measure, Sequence[str]]],
) -> None:
    """Measure what was chosen, a row at a time, or only make the table again.

    Args:
        chosen: of `options`.
        result: whose numbers the page shows.
        title: of the table in docs/speed.md.
        markdown: makes it.
        plan: of a case: how a variant is measured, and which are.

    Raises:
        UserError: no GPU, no results to show, or variants that failed.
    """
    if chosen.table:
        if not result.exists():
            raise UserError(f"there is no {result.name} yet; run this without --table on a machine with a GPU")
        write_table(title, markdown(json.loads(result.read_text())))
        return
    need_gpu()
    torch.backends.cudnn.benchmark = True
    results: dict[str, Any] = json.loads(chosen.output.read_text()) if chosen.output.exists() else {}
    failed = 0
    for name in chosen.cases:
        own = results.setdefault(name, {"rows": {}})
        own["machine"] = machine()
        measure, variants = plan(name)
        for variant in variants:
            row = own["rows"][variant] = attempt(measure, variant)
            failed += "failed" in row
            show(name, variant, {key: value for key, value in row.items() if key != "profile"})
            write_json(chosen.output, results)
            torch.compiler.reset()
            torch.cuda.empty_cache()
    print(chosen.output)
    if chosen.output == result:
        write_table(title, markdown(results))
    if failed:
        raise UserError(f"{failed} variants failed; their rows say why")
