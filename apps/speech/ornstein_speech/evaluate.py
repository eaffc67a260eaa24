"""Scores of a checkpoint, and of classical baselines, on noisy recordings whose clean versions are known."""

import csv
import json
import math
import multiprocessing
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ornstein.errors import UserError
from ornstein.files import atomic_path, check_target

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from ornstein_speech.enhance import Enhancer

Array = npt.NDArray[np.floating]

RATE = 16000
FILES = ("scores.csv", "summary.json", "report.html")


@dataclass(frozen=True)
class Result:
    """One file through one system: metrics by name, and seconds of work per second of sound."""

    file: str
    system: str
    scores: dict[str, float]
    rtf: float

    @property
    def snr(self) -> float | None:
        """SNR in dB that the file name tells, as in `03-en-pink-5dB`."""
        found = re.search(
            r"[-_](-?\d+(?:\.\d+)?)dB$", Path(self.file).stem if self.file.endswith(_SOUND) else self.file
        )
        return float(found.group(1)) if found else None


_SOUND = (".wav", ".flac", ".ogg", ".mp3", ".g722")


def evaluate(
    data: Path,
    *,
    checkpoint: Path | None = None,
    output: Path | None = None,
    steps: list[int] | None = None,
    sampler: Literal["sde", "ode", "2m", "heun", "pc"] | None = None,
    baselines: bool = True,
    device: str = "auto",
    seed: int = 0,
    batch: int | None = None,
    mixes: int = 48,
    limit: int | None = None,
    examples: int = 6,
    workers: int = 2,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Score noisy speech, two classical methods and a checkpoint by PESQ, ESTOI, SI-SDR, SI-SIR and SI-SAR.

    Prints means with 95 % confidence intervals over files, also by SNR where the file names tell it. Files of another
    rate are resampled to 16 kHz first.

    Args:
        data: Folder with clean/ and noisy/ (same names), or with test/clean and test/noisy; a VoiceBank-DEMAND folder;
            or a prompts-16k set made by `prepare`, whose held-out speech and noise are mixed at 0, 5, 10 and 15 dB.
        checkpoint: Weights to score. Default: the shipped ones.
        output: Folder for scores.csv (one line per file and system), summary.json and report.html (players,
            spectrograms).
        steps: Numbers of sampler steps to compare, for example [1,5,15]. Default: the number stored in the checkpoint.
        sampler: See `enhance`. Default: stored in the checkpoint.
        baselines: Score log-MMSE and RNNoise too.
        device: auto, cpu, cuda or cuda:N.
        seed: Of the random draws.
        batch: Chunks that go through the network at once. Default: 4 on a GPU, 1 on a CPU.
        mixes: Number of mixes from a prompts-16k set.
        limit: Use the first files only.
        examples: Files to listen to in the report.
        workers: Processes for metrics and baselines; 0 works in this one.
        overwrite: Replace the files of an earlier evaluation.
        quiet: No progress bar and no table.

    Returns:
        What summary.json holds.

    Raises:
        UserError: the data or an option cannot be used.
    """
    from ornstein_speech.enhance import Enhancer

    if min(mixes, 1 if limit is None else limit, 1 + workers, 1 + examples) < 1:
        raise UserError("--mixes and --limit must be at least 1, --workers and --examples at least 0")
    if output is not None:
        for name in FILES:
            check_target(Path(output) / name, overwrite)
    items = held_out(Path(data), mixes)
    enhancers: dict[str, Enhancer] = {}
    for count in [None] if steps is None else steps:
        enhancer = Enhancer(checkpoint, steps=count, sampler=sampler, device=device, batch=batch)
        nfe = enhancer.evaluations
        name = f"model, NFE {nfe}" if nfe is not None else "model"
        if name in enhancers:
            raise UserError(f"two systems would be called {name!r}; give --steps that differ in network calls (NFE)")
        enhancers[name] = enhancer
    total = len(items) if limit is None else min(limit, len(items))  # type: ignore[arg-type]

    results: list[Result] = []
    listened: list[tuple[str, dict[str, Array]]] = []
    with _executor(workers) as executor, _bar(total, quiet) as advance:
        pending: list[Future[tuple[Result, Array]]] = []
        for index in range(total):
            item = items[index]
            clean, noisy = item["clean"][0].numpy(), item["noisy"][0].numpy()
            keep: dict[str, Array] = {"clean": clean}
            jobs = []
            for name, method in _classical(baselines).items():
                jobs.append(executor.submit(_run, item["name"], name, method, clean, noisy))
            for name, enhancer in enhancers.items():
                estimate, rtf = timed(enhancer, noisy, seed)
                jobs.append(executor.submit(_score, item["name"], name, clean, noisy, estimate, rtf))
            if index < examples and output is not None:
                for job in jobs:
                    result, estimate = job.result()
                    keep[result.system] = estimate
                listened.append((item["name"], keep))
            pending += jobs
            while len(pending) > 64:  # arrays of long test sets must not pile up
                results.append(pending.pop(0).result()[0])
            advance()
        results += [job.result()[0] for job in pending]

    summary = summarize(results) | {
        "data": str(data),
        "rate": RATE,
        "checkpoint": str(checkpoint) if checkpoint is not None else "shipped",
        "machine": machine(next(iter(enhancers.values()))),
        "seed": seed,
    }
    for name, enhancer in enhancers.items():
        summary["systems"][name] |= {"nfe": enhancer.evaluations, "sampler": type(enhancer.sampler).__name__}
    header, rows = table(summary)
    missing = _missing(baselines)
    if not quiet:
        from ornstein_speech.report import text_table

        print(text_table(header, [*rows, *[[name, *["n/a"] * (len(header) - 1)] for name in missing]]))
        for note in _notes(summary, missing):
            print(note)
        for title, heads, lines in _snr_tables(summary):
            print(f"\n{title} by SNR", text_table(heads, lines), sep="\n")
    if output is not None:
        _write(Path(output), results, summary, listened, missing, overwrite)
        if not quiet:
            print(*(Path(output) / name for name in FILES), sep="\n")
    return summary


def held_out(data: Path, mixes: int = 48) -> "Dataset[dict[str, Any]]":
    """The test items in `data`, see `evaluate`: dicts of clean and noisy (1, L) at 16 kHz, and name.

    Raises:
        UserError: no layout that is known, or files that do not fit together.
    """
    from ornstein_speech.datasets import FixedMixes, PairedFolder, voicebank_demand

    if not data.is_dir():
        raise UserError(f"there is no folder {data}; give one with clean/ and noisy/ in it")
    if (data / "speech" / "test").is_dir():
        return FixedMixes(data / "speech" / "test", data / "noise" / "test", length=mixes)
    if (data / "clean_testset_wav").is_dir():
        return voicebank_demand(data, "test", samples=None, resample=True)
    for base in (data, data / "test"):
        if (base / "clean").is_dir() or (base / "anechoic").is_dir():
            return PairedFolder(base, None, samples=None, resample=True)
    raise UserError(f"{data} holds no test set: neither clean/ and noisy/, nor test/, nor speech/test and noise/test")


def summarize(results: Sequence[Result]) -> dict[str, Any]:
    """Means, 95 % intervals and real-time factors by system, and means by SNR."""
    from ornstein_speech.metrics import NAMES, interval

    systems: dict[str, Any] = {}
    for name in dict.fromkeys(result.system for result in results):
        own = [result for result in results if result.system == name]
        metrics = {}
        for metric in NAMES:
            found = interval(result.scores[metric] for result in own)
            metrics[metric] = {
                "mean": found.mean,
                "ci95": found.half_width,
                "std": found.std,
                "files": found.files,
            }
        steady = [result.rtf for result in own[1:] or own]  # the first call also warms up
        by_snr = {
            f"{snr:g}": {metric: interval(r.scores[metric] for r in own if r.snr == snr).mean for metric in NAMES}
            for snr in sorted({r.snr for r in own if r.snr is not None})
        }
        systems[name] = {"metrics": metrics, "rtf": sum(steady) / len(steady), "by_snr": by_snr}
    return {"files": len({result.file for result in results}), "systems": systems}


def table(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the main table."""
    from ornstein_speech.metrics import NAMES, Interval

    rows = []
    for name, system in summary["systems"].items():
        cells = [str(Interval(m["mean"], m["ci95"], m["std"], m["files"])) for m in system["metrics"].values()]
        rows.append([name, *cells, f"{system['rtf']:.3g}" if system["rtf"] > 0 else "-"])
    return ["", *NAMES.values(), "RTF"], rows


def _snr_tables(summary: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, header and rows of the main metrics by SNR; none where the file names tell no SNR."""
    from ornstein_speech.metrics import NAMES

    systems = summary["systems"]
    snrs = list(next(iter(systems.values()))["by_snr"])
    tables = []
    for metric in ("pesq", "estoi", "si_sdr") if snrs else ():
        rows = [[name, *(f"{system['by_snr'][snr][metric]:.3f}" for snr in snrs)] for name, system in systems.items()]
        tables.append((NAMES[metric], ["", *(f"{snr} dB" for snr in snrs)], rows))
    return tables


def machine(enhancer: "Enhancer") -> str:
    """What computed: processor, threads, and the GPU where one was used."""
    import torch

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        name = found.group(1) if found else name
    text = f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return f"{torch.cuda.get_device_name(enhancer.device)}; {text}" if enhancer.device.type == "cuda" else text


def _classical(wanted: bool) -> dict[str, Callable[[Array, int], Array] | None]:
    """Name and function of what needs no network; None returns its input."""
    from ornstein_speech import baselines

    found: dict[str, Callable[[Array, int], Array] | None] = {"noisy": None}
    if wanted:
        found["log-MMSE"] = baselines.log_mmse
        if baselines.has_rnnoise():
            found["RNNoise"] = baselines.rnnoise
    return found


def _missing(wanted: bool) -> list[str]:
    from ornstein_speech import baselines

    return ["RNNoise"] if wanted and not baselines.has_rnnoise() else []


def _notes(summary: dict[str, Any], missing: Sequence[str]) -> list[str]:
    notes = [
        f"{summary['files']} files, mean ± 95 % interval; SI-* in dB",
        f"RTF is computing time over duration, STFT included: {summary['machine']}",
    ]
    if missing:
        notes.append("RNNoise: n/a, needs the package pyrnnoise (ornstein-speech[rnnoise])")
    return notes


def _run(
    file: str, system: str, method: Callable[[Array, int], Array] | None, clean: Array, noisy: Array
) -> tuple[Result, Array]:
    """Baseline and its scores, in a worker."""
    begin = time.perf_counter()
    estimate = noisy if method is None else method(noisy, RATE)
    rtf = 0.0 if method is None else (time.perf_counter() - begin) / (len(noisy) / RATE)
    return _score(file, system, clean, noisy, estimate, rtf)


def _score(file: str, system: str, clean: Array, noisy: Array, estimate: Array, rtf: float) -> tuple[Result, Array]:
    """Scores of a finished estimate, in a worker."""
    from ornstein_speech.metrics import score

    return Result(file, system, score(clean, noisy, estimate, RATE), rtf), estimate


def timed(enhancer: "Enhancer", noisy: Array, seed: int) -> tuple[Array, float]:
    """The estimate of a waveform and the real-time factor; the result is on the CPU, so the device has finished."""
    import torch

    begin = time.perf_counter()
    estimate = enhancer(torch.from_numpy(noisy), RATE, seed=seed).numpy()
    return estimate, (time.perf_counter() - begin) / (len(noisy) / RATE)


@contextmanager
def _executor(workers: int) -> Iterator[Executor]:
    """Processes started afresh: forking a process that runs torch threads can hang. Without workers, one thread."""
    executor: Executor
    if workers > 0:
        executor = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    else:
        executor = ThreadPoolExecutor(1)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def _bar(total: int, quiet: bool) -> Iterator[Callable[[], object]]:
    from tqdm import tqdm

    with tqdm(total=total, unit="file", disable=True if quiet else None) as bar:
        yield bar.update


def _write(
    folder: Path,
    results: Sequence[Result],
    summary: dict[str, Any],
    listened: Sequence[tuple[str, dict[str, Array]]],
    missing: Sequence[str],
    overwrite: bool,
) -> None:
    from ornstein_speech.metrics import NAMES
    from ornstein_speech.report import Clip, Page

    with atomic_path(folder / "scores.csv", overwrite=overwrite) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "snr_db", "system", *NAMES, "rtf"])
        for result in results:
            snr = "" if result.snr is None else f"{result.snr:g}"
            writer.writerow(
                [result.file, snr, result.system, *(f"{result.scores[m]:.5f}" for m in NAMES), f"{result.rtf:.4f}"]
            )
    with atomic_path(folder / "summary.json", overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(_plain(summary), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    page = Page("Speech enhancement: evaluation")
    header, rows = table(summary)
    page.table(header, [*rows, *[[name, *["n/a"] * (len(header) - 1)] for name in missing]])
    for note in _notes(summary, missing):
        page.text(note)
    page.text(f"Data: {summary['data']}. Checkpoint: {summary['checkpoint']}.")
    for title, heads, lines in _snr_tables(summary):
        page.heading(f"{title} by SNR")
        page.table(heads, lines)
    scores = {(result.file, result.system): result.scores for result in results}
    for name, sounds in listened:
        page.heading(name)
        page.clips([Clip(system, sound, RATE, caption(scores.get((name, system)))) for system, sound in sounds.items()])
    page.write(folder / "report.html", overwrite)


def caption(scores: dict[str, float] | None) -> str:
    """The three main scores in a line, nothing for the clean recording."""
    if scores is None:
        return ""
    return f"PESQ {scores['pesq']:.2f}, ESTOI {scores['estoi']:.3f}, SI-SDR {scores['si_sdr']:.1f} dB"


def _plain(value: Any) -> Any:
    """JSON has no NaN: n/a becomes null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
