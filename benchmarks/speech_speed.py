"""Speed of the speech networks on one GPU: eager, low precision, compiled, as CUDA graphs; training steps; a profile.

    python benchmarks/speech_speed.py                    every part; the published network takes minutes to compile
    python benchmarks/speech_speed.py --parts forward --networks full --variants "eager float32" "graph bfloat16"

Times are medians over CUDA events after warm-up. The reference of every error is the same network in float32 without
TF32. Writes benchmarks/results/speech_speed.json (parts that are not run keep their last numbers) and docs/speed.md.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from timing import (
    error,
    exact,
    first_call,
    machine,
    milliseconds,
    need_gpu,
    one_step,
    profile,
    random_network,
    show,
    write_json,
    write_table,
)
from torch import Tensor

from ornstein.acceleration import Acceleration, GraphedSampler, accelerate
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.ncsnpp import NCSNpp
from ornstein.noise import SampleNoise
from ornstein.objectives.denoising import DenoisingObjective
from ornstein.parameterization import X0, Score
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.ouve import OUVE
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.predictor_corrector import PredictorCorrector
from ornstein.samplers.time_grids import PowerGrid, UniformGrid
from ornstein_speech.representation import CompressedSpectrogram

Row = dict[str, Any]

RESULT = Path(__file__).parent / "results" / "speech_speed.json"
SECONDS = 4.08  # 511 hops of 128 samples at 16 kHz: 512 frames
FRAMES = 512

NETWORKS: dict[str, dict[str, Any]] = {
    "full": {},  # the published NCSN++, 65.6 M parameters
    "shipped": {"nf": 64, "ch_mult": (1, 2, 2, 2), "num_res_blocks": 1, "attn_resolutions": ()},
}
VARIANTS: dict[str, Acceleration] = {
    "eager float32": Acceleration(channels_last=False),
    "eager bfloat16": Acceleration("bfloat16", channels_last=False),
    "eager bfloat16, channels last": Acceleration("bfloat16"),
    "graph float32": Acceleration(graphs=4),
    "graph bfloat16": Acceleration("bfloat16", graphs=4),
    "graph float16": Acceleration("float16", graphs=4),
    "compiled float32": Acceleration(compile=True),
    "compiled bfloat16": Acceleration("bfloat16", compile=True),
    "compiled graph bfloat16": Acceleration("bfloat16", compile=True, graphs=4),
    "compiled graph float16": Acceleration("float16", compile=True, graphs=4),
}


def network(name: str, **options: Any) -> NCSNpp:
    """A network with random weights that are large enough everywhere to show rounding errors."""
    return random_network(lambda: NCSNpp(**NETWORKS[name], **options)).cuda()


def signals(batch: int, frames: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator("cuda").manual_seed(1)
    shape = (batch, 1, 256, frames)
    x, y = (torch.randn(shape, generator=generator, device="cuda", dtype=torch.complex64) for _ in range(2))
    return 0.4 * x, 0.4 * y


@torch.no_grad()
def forward(name: str, variants: list[str], batch: int = 1) -> Iterator[tuple[str, Row]]:
    """One network call on 4.1 s of sound."""
    x, y = signals(batch, FRAMES)
    denoiser = Denoiser(network(name), SchroedingerBridge(), X0()).eval()
    reference = exact(lambda: denoiser(x, 0.5, y).x0)
    for variant in variants:
        call = partial(accelerate(denoiser, VARIANTS[variant]), x, 0.5, y)
        value, first = first_call(call)
        row = {"ms": milliseconds(call), "error": error(value.x0, reference), "first_call_s": first}
        show(f"forward {name} batch {batch}", variant, row)
        yield variant, row


@torch.no_grad()
def sampling(name: str, variant: str, wanted: list[str]) -> Iterator[tuple[str, Row]]:
    """Whole enhancement of 4.1 s: STFT, sampler, inverse STFT; the loop as one graph beside one graph per call."""
    representation = CompressedSpectrogram()
    wave = torch.randn(1, 1, round(SECONDS * 16000), device="cuda", generator=torch.Generator("cuda").manual_seed(2))
    wave = wave / wave.abs().max()
    plain = network(name, time_division="pyramid")
    models = {
        "score": Denoiser(plain, OUVE(), Score(scale=-1.0)).eval(),
        "bridge": Denoiser(network(name), SchroedingerBridge(), X0()).eval(),
    }
    how = VARIANTS[variant]
    runs = {
        "PC-30": ("score", PredictorCorrector()),
        "DPM-Solver++ 2M, 15": ("score", DPMSolverPP(steps=15, grid=UniformGrid(end=0.03, to_zero=True))),
        "DPM-Solver++ 2M, 5": ("score", DPMSolverPP(steps=5, grid=UniformGrid(end=0.03, to_zero=True))),
        "bridge, 5": ("bridge", Ancestral(steps=5, eta=0.0, grid=PowerGrid(end=1e-4))),
        "bridge, 1": ("bridge", Ancestral(steps=1, eta=0.0, grid=UniformGrid(end=1e-4))),
    }
    by_call = {kind: accelerate(models[kind], how) for kind in wanted}
    without = Acceleration(how.precision, how.channels_last, how.compile, graphs=0)
    by_loop = {kind: accelerate(models[kind], without) for kind in wanted}

    def run(sample: Callable[..., Tensor], denoiser: Denoiser) -> Tensor:
        noise = SampleNoise([0], "cuda")
        spec = representation.pad_frames(representation.forward(wave))
        start = denoiser.process.start(noise(spec), spec)
        return representation.inverse(sample(denoiser, start, spec, noise), wave.shape[-1])

    for title, (kind, sampler) in runs.items():
        if kind not in wanted:
            continue
        by_one = milliseconds(partial(run, sampler, by_call[kind]), 5, 2)
        by_all = milliseconds(partial(run, GraphedSampler(sampler), by_loop[kind]), 5, 2)
        row = {
            "calls": sampler.evaluations(models[kind].process),
            "graph per call, ms": by_one,
            "graph of the loop, ms": by_all,
            "rtf": min(by_one, by_all) / 1000 / SECONDS,
        }
        show(f"sampling {name} ({variant})", title, row)
        yield title, row


def training(name: str, batch: int, variants: list[str]) -> Iterator[tuple[str, Row]]:
    """One step of score matching on batch x 256 x 256 with Adam and gradient clipping: what `fit` does."""
    for variant in variants:
        torch.compiler.reset()
        training_step.cache_clear()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        step = training_step(name, batch, variant)
        _, first = first_call(step)
        show(f"training {name} batch {batch}", variant, {"first_call_s": first})
        taken = milliseconds(step, 15, 5)
        memory = torch.cuda.max_memory_allocated() / 2**30
        row = {"ms": taken, "memory_gib": memory, "first_call_s": first, "samples_per_s": 1000 * batch / taken}
        show(f"training {name} batch {batch}", variant, row)
        yield variant, row


TRAINING = [
    "eager float32",
    "eager bfloat16",
    "graph bfloat16, channels last",
    "compiled bfloat16, channels last",
    "compiled graph bfloat16, channels last",
]


@lru_cache(maxsize=1)  # a profile takes the step that was timed, compiled as it is
def training_step(name: str, batch: int, variant: str) -> Callable[[], None]:
    denoiser = Denoiser(network(name, time_division="pyramid"), OUVE(), Score(scale=-1.0))
    objective = DenoisingObjective(compare="noise", reduction="half_mean")
    return one_step(denoiser, objective, *signals(batch, 256), variant)


@torch.no_grad()
def profile_forward(name: str, variant: str) -> Iterator[tuple[str, list[Row]]]:
    x, y = signals(1, FRAMES)
    how = VARIANTS[variant]
    denoiser = Denoiser(network(name), SchroedingerBridge(), X0()).eval()
    fast = accelerate(denoiser, Acceleration(how.precision, how.channels_last, how.compile))
    yield "forward", profile(lambda: fast(x, 0.5, y), f"forward {name}, {variant}")


def profile_training(name: str, batch: int, variant: str) -> Iterator[tuple[str, list[Row]]]:
    yield "training", profile(training_step(name, batch, variant), f"training {name}, {variant}")


def markdown(results: dict[str, Any]) -> str:
    """The tables of docs/speed.md."""
    lines = []
    for name, own in results.items():
        if own.get("forward"):
            lines += [f"| {name}: one call, 4.1 s of sound | ms | error | first call (s) |", "| --- " * 4 + "|"]
            for variant, row in own["forward"].items():
                lines.append(f"| {variant} | {row['ms']:.1f} | {row['error']:.1%} | {row['first_call_s']:.0f} |")
            lines.append("")
        if own.get("training"):
            lines += [f"| {name}: training step, 256 frames | ms | samples/s | GiB |", "| --- " * 4 + "|"]
            for variant, row in own["training"].items():
                cells = f"{row['ms']:.1f} | {row['samples_per_s']:.0f} | {row['memory_gib']:.1f}"
                lines.append(f"| {variant} | {cells} |")
            lines.append("")
        for variant, rows in own.get("sampling", {}).items():
            lines += [f"| {name}: enhancing 4.1 s, {variant} | calls | ms | RTF |", "| --- " * 4 + "|"]
            for title, row in rows.items():
                ms = min(row["graph per call, ms"], row["graph of the loop, ms"])
                lines.append(f"| {title} | {row['calls']} | {ms:.1f} | {row['rtf']:.4f} |")
            lines.append("")
        lines += [f"{name} on {own['machine']}.", ""]
    return "\n".join(lines)


def main() -> None:
    parts = ["forward", "sampling", "training", "profile_forward", "profile_training"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--training", nargs="+", choices=TRAINING, default=TRAINING)
    parser.add_argument("--sampling", choices=list(VARIANTS), default="compiled graph bfloat16")
    parser.add_argument("--models", nargs="+", choices=["score", "bridge"], default=["score", "bridge"])
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true", help="only make the page again from the last results")
    options = parser.parse_args()
    if options.table:
        write_table("speed", markdown(json.loads(RESULT.read_text())))
        return
    need_gpu()
    torch.backends.cudnn.benchmark = True
    results: dict[str, Any] = json.loads(options.output.read_text()) if options.output.exists() else {}
    for name in options.networks:
        own = results.setdefault(name, {})
        own["machine"] = machine()
        batch = 8 if name == "full" else 16
        measures: dict[str, Iterator[tuple[str, Any]]] = {
            "forward": forward(name, options.variants),
            "training": training(name, batch, options.training),
            "sampling": sampling(name, options.sampling, options.models),
            "profile_forward": profile_forward(name, options.sampling),
            "profile_training": profile_training(name, batch, options.training[-1]),
        }
        for part in options.parts:
            rows = own.setdefault(part.partition("_")[0], {})
            if part == "sampling":
                rows = rows.setdefault(options.sampling, {})
            for title, row in measures[part]:
                rows[title] = row
                write_json(options.output, results)  # what is measured is kept, whatever happens to the rest
    print(options.output)
    if options.output == RESULT:
        write_table("speed", markdown(results))


if __name__ == "__main__":
    try:
        main()
    except UserError as problem:
        print("ornstein:", problem, file=sys.stderr)
        sys.exit(2)
