"""Scores of checkpoints, and of classical baselines, on noisy recordings whose clean versions are known."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ornstein.errors import UserError
from ornstein.journal import Journal
from ornstein.report import text_table, write_json
from ornstein.scoring import FILES, begin, refuse_data_folder, refuse_two_ways
from ornstein_speech.enhance import PrecisionName
from ornstein_speech.results import NOISY, VERSION, Result, condition_tables, main_table, summarize, write_csv
from ornstein_speech.scoring import Method, Work
from ornstein_speech.solvers import SamplerName
from ornstein_speech.systems import System, combine, digest, load

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from ornstein_speech.enhance import Enhancer

MIXES = 48
"""How many are made of a prompts-16k set."""


def evaluate(
    data: Path,
    *,
    checkpoint: Path | list[Path] | None = None,
    output: Path | None = None,
    steps: int | list[int] | None = None,
    sampler: SamplerName | list[SamplerName] | None = None,
    systems: list[str] | None = None,
    baselines: bool = True,
    dnsmos: bool = False,
    rate: int | None = None,
    device: str = "auto",
    seed: int = 0,
    batch: int | None = None,
    precision: PrecisionName = "auto",
    compile: bool = False,
    mixes: int | None = None,
    limit: int | None = None,
    examples: int = 6,
    workers: int = 2,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Score noisy speech, two classical methods and checkpoints by PESQ, ESTOI, SI-SDR, SI-SIR and SI-SAR.

    Prints means with 95 % confidence intervals over files, also by SNR and kind of noise where the file names tell
    them. With --output every score is kept as soon as it is made: after an interruption the same command goes on.
    Started by torchrun or srun, the processes share the files, and the first one writes the results.

    Args:
        data: Folder with clean/ and noisy/ (same names), or with test/clean and test/noisy; a VoiceBank-DEMAND folder;
            or a prompts-16k set made by `prepare`, whose held-out speech and noise are mixed at 0, 5, 10 and 15 dB.
        checkpoint: Weights to score, one or several. Default: the shipped ones.
        output: Folder for scores.csv (one line per file and system), summary.json and report.html (players,
            spectrograms).
        steps: Numbers of sampler steps to compare, for example 1 5 15. Default: the number stored in the checkpoint.
        sampler: One or several, see `enhance`; all checkpoints, samplers and steps are combined. Default: stored in
            the checkpoint.
        systems: Instead of these three, a list of CHECKPOINT:SAMPLER:STEPS:GRID, for example a.safetensors:2m:5 :pc:30.
            Empty parts are as stored; without a checkpoint it is the shipped one. Grids: uniform, logsnr, karras,
            power.
        baselines: Score log-MMSE and RNNoise too.
        dnsmos: Score by DNSMOS too, which takes about a second a file.
        rate: Rate in Hz at which everything is compared; files of another rate are resampled. Default: that of the
            checkpoints.
        device: auto, cpu, cuda or cuda:N.
        seed: Of the random draws.
        batch: Chunks that go through the network at once. Default: 4 on a GPU, 1 on a CPU.
        precision: Of the network, see `enhance`.
        compile: Compile the network first, see `enhance`.
        mixes: Number of mixes from a prompts-16k set. Default: 48.
        limit: Use the first files only.
        examples: Files to listen to in the report, besides the worst, the median and the best one; 0 for none at all.
        workers: Processes for metrics and baselines beside the one that enhances; 0 works in this one, one thing after
            another, which measures the speed on a CPU undisturbed.
        overwrite: Replace the files of an earlier evaluation, finished or not.
        quiet: No progress bar and no table.

    Returns:
        What summary.json holds; nothing in the processes of torchrun or srun that do not write it.

    Raises:
        UserError: the data or an option cannot be used.
    """
    if min(*(1 if count is None else count for count in (mixes, limit)), 1 + workers, 1 + examples) < 1:
        raise UserError("--mixes and --limit must be at least 1, --workers and --examples at least 0")
    if rate is not None:
        from ornstein_speech import audio

        audio.require_rate(rate, "--rate", lowest=8000)  # of PESQ and ESTOI
    refuse_two_ways(systems, checkpoint, steps, sampler)
    chosen = [System.parse(text) for text in systems] if systems is not None else combine(checkpoint, sampler, steps)
    output = None if output is None else Path(output)
    refuse_data_folder(output, Path(data))
    own = begin(output, overwrite)
    if own is None:
        return {}
    enhancers = load(chosen, device=own.device(device), batch=batch, precision=precision, compile=compile)
    ran = next(iter(enhancers.values())).precision + (", compiled" if compile else "")
    rate = rate or _common_rate(list(enhancers.values()))
    items = held_out(Path(data), mixes, rate)
    total = len(items) if limit is None else min(limit, len(items))  # type: ignore[arg-type]
    methods = classical(baselines)
    with_dnsmos = dnsmos and _has_dnsmos()
    about = {name: about_system(system, enhancers[name]) for system, name in zip(chosen, enhancers, strict=True)}
    settings = {
        "version": VERSION,
        "data": str(data),
        "files": total,
        "names": getattr(items, "names", None),
        "mixes": mixes or MIXES,
        "rate": rate,
        "seed": seed,
        "precision": ran,
        "systems": about,
        "baselines": list(methods),
        "dnsmos": with_dnsmos,
        "examples": examples,
    }
    journal = Journal(Result, output, settings, own)
    work = Work(items, enhancers, methods, rate, seed, with_dnsmos, journal, sounds=examples > 0)
    everything = work.complete(total, own, output, workers, 8 * max(workers, 1), quiet)
    if everything is None:
        return {}
    failed = {result.index: f"{result.file}: {result.error}" for result in everything if result.error}
    for message in failed.values():
        print(f"failed: {message}", file=sys.stderr)
    results = [result for result in everything if result.index not in failed]
    if not results:
        raise UserError(f"all {total} files failed, see above")
    names = _metric_names(dnsmos)
    found = summarize(results, [name for name in names if name in results[0].scores])
    found["systems"] = {name: system | about.get(name, {}) for name, system in found["systems"].items()}
    machines = dict.fromkeys(result.machine for result in results if result.system in enhancers)
    summary = found | {
        "data": str(data),
        "rate": rate,
        "checkpoint": ", ".join(dict.fromkeys(system.model for system in chosen)),
        "machine": " and ".join(machines),
        "precision": ran,
        "workers": workers,
        "seed": seed,
        "failed": list(failed.values()),
    }
    missing = ["RNNoise"] if baselines and "RNNoise" not in methods else []
    notes = _notes(summary, names, missing, dnsmos and not with_dnsmos)
    if not quiet:
        _print(summary, names, missing, notes)
    if output is not None:
        from ornstein_speech.evaluation_report import write_report

        write_csv(output / "scores.csv", results, list(results[0].scores), overwrite=True)
        write_json(output / "summary.json", summary, overwrite=True)
        write_report(output / "report.html", summary, names, missing, notes, results, items, journal, examples)
        journal.remove()
        if not quiet:
            print(*(output / name for name in FILES), sep="\n")
    if failed:
        raise UserError(f"{len(failed)} of {total} files failed, see above; the others are scored")
    return summary


def held_out(data: Path, mixes: int | None = None, rate: int = 16000) -> "Dataset[dict[str, Any]]":
    """The test items in `data`, see `evaluate`: dicts of clean and noisy (1, L) at `rate` Hz, and name.

    Raises:
        UserError: no layout that is known, files that do not fit together, or `mixes` of a set that is none of noise
            and speech.
    """
    from ornstein_speech.datasets import FixedMixes, PairedFolder, voicebank_demand

    if not data.is_dir():
        raise UserError(f"there is no folder {data}; give one with clean/ and noisy/ in it")
    if (data / "speech" / "test").is_dir():
        return FixedMixes(data / "speech" / "test", data / "noise" / "test", length=mixes or MIXES, rate=rate)
    if mixes is not None:
        raise UserError(
            f"{data} has no speech/test and noise/test to mix, so that --mixes means nothing; leave it out, or take "
            f"the first files only with --limit {mixes}"
        )
    if (data / "clean_testset_wav").is_dir():
        return voicebank_demand(data, "test", samples=None, rate=rate, resample=True)
    for base in (data, data / "test"):
        if (base / "clean").is_dir() or (base / "anechoic").is_dir():
            return PairedFolder(base, None, samples=None, rate=rate, resample=True)
    raise UserError(f"{data} holds no test set: neither clean/ and noisy/, nor test/, nor speech/test and noise/test")


def _common_rate(enhancers: Sequence["Enhancer"]) -> int:
    rates = {enhancer.sample_rate for enhancer in enhancers}
    if len(rates) > 1:
        listed = " and ".join(str(rate) for rate in sorted(rates))
        raise UserError(f"the checkpoints work at {listed} Hz; choose one rate for the comparison with --rate")
    return rates.pop()


def about_system(system: System, enhancer: "Enhancer") -> dict[str, Any]:
    """What the results of a system depend on, as plain JSON."""
    from ornstein.config import describe

    return {
        "checkpoint": system.model,
        "sha256": digest(system.checkpoint),
        "nfe": enhancer.evaluations,
        "steps": enhancer.sampler.steps,
        "sampler": type(enhancer.sampler).__name__,
        "settings": describe(enhancer.sampler)["init_args"],
    }


def classical(wanted: bool) -> dict[str, Method | None]:
    """Name and function of what needs no network; None returns its input."""
    from ornstein_speech import baselines

    found: dict[str, Method | None] = {NOISY: None}
    if wanted:
        found["log-MMSE"] = baselines.log_mmse
        if baselines.has_rnnoise():
            found["RNNoise"] = baselines.rnnoise
    return found


def _has_dnsmos() -> bool:
    from ornstein_speech import dnsmos

    return dnsmos.available()


def _metric_names(dnsmos: bool) -> dict[str, str]:
    from ornstein_speech import metrics
    from ornstein_speech.dnsmos import NAMES

    return metrics.NAMES | (NAMES if dnsmos else {})


def _notes(summary: Mapping[str, Any], names: Mapping[str, str], missing: Sequence[str], no_dnsmos: bool) -> list[str]:
    from ornstein_speech.dnsmos import NEEDS

    notes = [
        f"{summary['files']} files at {summary['rate']} Hz, mean ± 95 % interval; SI-* in dB",
        f"RTF is computing time over duration, STFT included: {summary['machine']}",
    ]
    if summary["workers"]:
        notes[1] += f"; {summary['workers']} processes scored at the same time"
    for metric, name in names.items():
        undefined = max(system["metrics"].get(metric, {}).get("undefined", 0) for system in summary["systems"].values())
        if undefined:
            notes.append(f"{name} is not defined, and left out, for up to {undefined} files")
    if summary["failed"]:
        notes.append(f"{len(summary['failed'])} files failed, and are left out")
    if missing:
        notes.append(
            "RNNoise: n/a, needs the package pyrnnoise (pip install -c constraints.txt -e 'apps/speech[rnnoise]')"
        )
    if no_dnsmos:
        notes.append(f"DNSMOS: n/a, needs {NEEDS}")
    return notes


def _print(summary: Mapping[str, Any], names: Mapping[str, str], missing: Sequence[str], notes: Sequence[str]) -> None:
    print(text_table(*main_table(summary, names, missing)), *notes, sep="\n")
    for title, table in condition_tables(summary, names):
        print(f"\n{title}", text_table(*table), sep="\n")
