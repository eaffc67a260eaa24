"""An hour of sound in one file: time, memory, and whether the joints of the chunks can be found.

A signal of --minutes is stitched from the real recordings in data/speech (or take --input). `ornstein speech enhance`
cleans it in a process of its own, whose peak memory the system tells, and does the same with the first --short minutes.
The result of a cut of --whole seconds is compared with that of the whole cut at once, without chunks. Writes
benchmarks/results/speech_long.json, which keeps the results of other checkpoints.

    python benchmarks/speech_long.py                    3 minutes through the shipped network, which takes longer
    python benchmarks/speech_long.py --minutes 60 --checkpoint runs/tiny.safetensors        see configs/speech/tiny.yaml
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from command import run

from ornstein.errors import UserError
from ornstein.files import atomic_path
from ornstein.hardware import machine
from ornstein_speech import audio
from ornstein_speech.enhance import SHIPPED, Enhancer
from ornstein_speech.streaming import ChunkPlan

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "speech_long.json"
RATE = 16000


def stitched(seconds: float) -> Iterator[np.ndarray]:
    """Noisy recordings one after another, in another order every round, with pauses of 0.2 s; (n,) float32 each."""
    clips = [audio.read(path, RATE)[0][0] for path in sorted((ROOT / "data" / "speech" / "noisy").glob("*.flac"))]
    generator, left = np.random.default_rng(0), round(seconds * RATE)
    while left > 0:
        for index in generator.permutation(len(clips)):
            piece = np.concatenate([clips[index], np.zeros(RATE // 5, np.float32)])[:left]
            left -= len(piece)
            yield piece


def write_input(path: Path, minutes: float, source: Path | None) -> float:
    """Write up to `minutes` of `source`, or of `stitched`, piece by piece; returns the seconds written."""
    rate = RATE if source is None else audio.info(source).rate
    pieces = stitched(60 * minutes) if source is None else (block[0] for block in audio.blocks(source, 10 * rate))
    left = round(60 * minutes * rate)
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as file:
        for piece in pieces:
            file.write(piece[:left])
            left = max(0, left - len(piece))
    return minutes * 60 - left / rate


def enhance_in_a_child(source: Path, target: Path, options: Sequence[str]) -> dict[str, float]:
    """Seconds and peak memory in MB of `ornstein speech enhance`, start of Python included.

    Raises:
        UserError: the command failed.
    """
    words = [sys.executable, "-m", "ornstein", "speech", "enhance", str(source), "-o", str(target), *options]
    begin = time.perf_counter()
    child = os.posix_spawn(sys.executable, words, os.environ)
    _, status, usage = os.wait4(child, 0)
    if status != 0:
        raise UserError("enhance failed, see above")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes here
    return {"seconds": time.perf_counter() - begin, "peak_mb": usage.ru_maxrss * unit / 2**20}


def roughness(signal: np.ndarray, places: Sequence[int], width: int) -> float:
    """Root mean square of the second difference in windows of `width` samples from `places` on: a jump or a bend stands
    out in it."""
    bends = np.diff(signal.astype(np.float64), 2)
    return float(np.sqrt(np.mean([np.mean(bends[place : place + width] ** 2) for place in places])))


def joints(enhancer: Enhancer, signal: np.ndarray) -> dict[str, float]:
    """Roughness in the cross-fades of a result at the network's rate, beside that halfway between them."""
    plan = ChunkPlan(len(signal), enhancer.representation.hop, enhancer.chunk_frames, enhancer.overlap_frames)
    fades = np.array(plan.fades())
    between = (fades[:-1] + fades[1:]) // 2
    return {
        "joints": len(fades),
        "roughness_at_joints": roughness(signal, fades, plan.fade),
        "roughness_between": roughness(signal, between, plan.fade),
    }


def against_the_whole(checkpoint: Path, steps: int | None, device: str, signal: np.ndarray) -> dict[str, float]:
    """How far chunks are from the whole signal at once: relative error everywhere and in the cross-fades."""
    chunked = Enhancer(checkpoint, steps=steps, device=device)
    whole = Enhancer(checkpoint, steps=steps, device=device, chunk_frames=1 << 30)
    wave = torch.from_numpy(signal)
    result, expected = (enhancer(wave, RATE).numpy() for enhancer in (chunked, whole))
    plan = ChunkPlan(len(signal), chunked.representation.hop, chunked.chunk_frames, chunked.overlap_frames)
    inside = np.concatenate([np.arange(start, start + plan.fade) for start in plan.fades()])
    error = result - expected
    return {
        "seconds": len(signal) / RATE,
        "relative_error": float(np.linalg.norm(error) / np.linalg.norm(expected)),
        "relative_error_at_joints": float(np.linalg.norm(error[inside]) / np.linalg.norm(expected[inside])),
        "roughness_at_joints": roughness(result, plan.fades(), plan.fade),
        "roughness_at_joints_without_chunks": roughness(expected, plan.fades(), plan.fade),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything about both lengths and the joints."""
    enhancer = Enhancer(options.checkpoint, steps=options.steps, device=options.device)
    words = ["--quiet", "--checkpoint", str(options.checkpoint), "--device", options.device]
    words += [] if options.steps is None else ["--steps", str(options.steps)]
    found: dict[str, Any] = {
        "checkpoint": options.checkpoint.stem,
        "nfe": enhancer.evaluations,
        "machine": machine(enhancer.device),
        "runs": [],
    }
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        for minutes in (options.short, options.minutes):
            source, target = Path(name) / f"{minutes:g}.flac", Path(name) / f"{minutes:g}.wav"
            length = write_input(source, minutes, options.input)
            run = enhance_in_a_child(source, target, words)
            found["runs"].append({"minutes": length / 60, **run, "rtf": run["seconds"] / length})
            print(f"{length / 60:.3g} minutes: {run['seconds']:.1f} s, peak memory {run['peak_mb']:.0f} MB", flush=True)
        if audio.info(target).rate == enhancer.sample_rate and options.minutes >= 0.5:
            found["long"] = joints(enhancer, audio.read(target)[0][0])
    signal = np.concatenate(list(stitched(options.whole)))
    return found | {"whole": against_the_whole(options.checkpoint, options.steps, options.device, signal)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--short", type=float, default=1, help="minutes to compare with")
    parser.add_argument("--whole", type=float, default=12, help="seconds to do with chunks and without")
    parser.add_argument("--input", type=Path, help="a recording of your own; its first channel is used")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--work", type=Path, help="folder for the sound files while they are needed")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    found, target = measure(options), options.result
    others = json.loads(target.read_text()) if target.exists() else {}
    with atomic_path(target, overwrite=True) as temporary:
        temporary.write_text(json.dumps(others | {found["checkpoint"]: found}, indent=1) + "\n")
    for part in ("long", "whole"):
        print(part, *(f"  {name}: {value:.4g}" for name, value in found.get(part, {}).items()), sep="\n")
    print(target)


if __name__ == "__main__":
    run(main)
