"""EARS-WHAM and EARS-Reverb at 48 kHz, made from copies of EARS, of the 48 kHz WHAM! noise and of impulse responses.

The recipe is version 2 of the EARS benchmark (Richter et al., "EARS: An anechoic fullband speech dataset benchmarked
for speech enhancement and dereverberation", 2024): speakers p100 and p101 for validation, p102 to p107 for test, the
others for training; interjections, melodic, nonverbal and vegetative sounds left out; levels in loudness units (ITU-R
BS.1770). The draws are this project's own, so the sets equal the published ones in kind, not sample by sample.
"""

import csv
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein_speech import audio, mixing
from ornstein_speech.datasets import item_generator
from ornstein_speech.pairs import SPLITS, Job, Pair, job_seed, read_mono
from ornstein_speech.rooms import decay_time

RATE = 48000
VALID = ("p100", "p101")
TEST = ("p102", "p103", "p104", "p105", "p106", "p107")
LEFT_OUT = ("interjection", "melodic", "nonverbal", "vegetative")
SNR = (-2.5, 17.5)
"""Range in dB, of loudness."""
SNR_BINS = 12
"""Test: the recordings of a style go through so many equal parts of the range in turn."""
SHORTEST, PIECE, LONGEST_TEST = 4.0, 10.0, 29.0
"""Seconds: recordings below SHORTEST are left out, long ones cut to PIECE, test cuts above LONGEST_TEST left out."""
HIGH_PASS = 75.0
"""In Hz: rumble is taken from the speech."""
QUIETEST = -55.0
"""Pieces below this loudness are left out, unless they are whispered."""
RAMP = 0.01
"""Seconds of fade at both ends of test cuts."""
LONGEST_T60 = 2.0
"""In seconds: longer impulse responses are drawn again."""

EARS_TREE = "EARS/p001/*.wav to EARS/p107/*.wav at 48 kHz"
WHAM_TREE = "WHAM/high_res_metadata.csv with columns Filename and WHAM! Split, and WHAM/audio/*.wav at 48 kHz"
RESPONSES = {
    "train": ("ARNI", "DetmoldSRIR", "Palimpsest", "BRUDEX", "dEchorate"),
    "valid": ("AIR",),
    "test": ("ACE-Challenge",),
}
RESPONSES_TREE = (
    "RIRS/{ARNI,DetmoldSRIR,Palimpsest,BRUDEX,dEchorate}/**/*.wav for training, RIRS/AIR/**/*.wav for validation, "
    "RIRS/ACE-Challenge/**/*RIR.wav for test, or RIRS/{train,valid,test}/**/*.wav of your own; .mat and .sofa have to "
    "be converted to WAV"
)
_ARNI_LIMIT = 1000  # of 132037
_ARNI_DAMAGED = "IR_numClosed_28_numComb_2743_mic_4_sweep_5.wav"


def ears_jobs(ears: Path, seed: int, test_cuts: Path | None = None) -> list[Job]:
    """Return a job for every recording of the recipe.

    Args:
        ears: folder with p001 to p107.
        seed: of everything random.
        test_cuts: the benchmark's test_files.json: {speaker: {recording: [[first frame, end], ...]}}.

    Raises:
        UserError: speakers of a split are missing, or `test_cuts` is not such a file or names missing recordings.
    """
    if not ears.is_dir():
        raise UserError(f"there is no folder {ears}; give your copy of EARS: {EARS_TREE}")
    cuts = _cuts(test_cuts) if test_cuts is not None else None
    jobs = []
    counts: dict[str, int] = {}
    for speaker in sorted(path for path in ears.glob("p[0-9][0-9][0-9]") if path.is_dir()):
        split = "test" if speaker.name in TEST else "valid" if speaker.name in VALID else "train"
        for path in sorted(speaker.glob("*.wav")):
            name = f"{speaker.name}/{path.stem}"
            options: dict[str, Any] = {}
            if split == "test" and cuts is not None:
                if (found := cuts.pop(name, None)) is None:
                    continue
                style = style_of(path.stem)
                options = {"cuts": found, "bin": counts.get(style, 0) if style else None}
                counts[style] = counts.get(style, 0) + len(found)
            elif path.stem.split("_")[0] in LEFT_OUT:
                continue
            facts = {"speech": f"{name}.wav"}
            jobs.append(Job(split, name, job_seed(seed, f"{split}/{name}"), (path,), facts, options))
    if cuts:
        raise UserError(f"{ears} lacks {len(cuts)} recordings of {test_cuts}: {', '.join(list(cuts)[:3])}")
    for split, speakers in (("train", "p001 to p099"), ("valid", " and ".join(VALID)), ("test", "p102 to p107")):
        if not any(job.split == split for job in jobs):
            raise UserError(f"{ears} holds no recordings of {speakers}; expected: {EARS_TREE}")
    return jobs


def style_of(stem: str) -> str:
    """Return the emotion or reading style that a file name tells, such as anger or whisper; empty for free speech."""
    words = stem.split("_")
    if words[0] == "emo" and len(words) > 1:
        return words[1]
    return words[-1] if words[0] in ("rainbow", "sentences") else ""


def wham_noises(wham: Path) -> dict[str, list[tuple[Path, int]]]:
    """Return the recordings of WHAM! noise and their frames, by split as its metadata say.

    Raises:
        UserError: metadata or recordings are missing.
    """
    folder = wham / "high_res_wham" if (wham / "high_res_wham").is_dir() else wham
    metadata = folder / "high_res_metadata.csv"
    if not metadata.is_file():
        raise UserError(f"there is no {metadata}; give your copy of the 48 kHz WHAM! noise: {WHAM_TREE}")
    with metadata.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"Filename", "WHAM! Split"} <= rows[0].keys():
        raise UserError(f"{metadata} lacks the columns Filename and WHAM! Split; copy it again: {WHAM_TREE}")
    found: dict[str, list[tuple[Path, int]]] = {split: [] for split in SPLITS}
    for row in rows:
        path = folder / "audio" / row["Filename"]
        split = row["WHAM! Split"].strip().lower()
        if split in found:
            if not path.is_file():
                raise UserError(f"{path} is missing, which {metadata} names; copy it again: {WHAM_TREE}")
            found[split].append((path, audio.info(path).frames))
    for split, noises in found.items():
        if not noises:
            raise UserError(f"{metadata} names no recordings for {split}; expected: {WHAM_TREE}")
    return found


def responses(rirs: Path, seed: int) -> dict[str, list[Path]]:
    """Return the impulse responses by split; of ARNI a draw of 1000.

    Raises:
        UserError: a split has none.
    """
    if not rirs.is_dir():
        raise UserError(f"there is no folder {rirs}; give a folder with impulse responses: {RESPONSES_TREE}")
    found: dict[str, list[Path]] = {}
    for split, sets in RESPONSES.items():
        files: list[Path] = audio.find(rirs / split) if (rirs / split).is_dir() else []
        for name in sets:
            own = audio.find(rirs / name) if (rirs / name).is_dir() else []
            if name == "ACE-Challenge":
                own = [path for path in own if path.name.endswith("RIR.wav")]
            if name == "DetmoldSRIR":  # single sources, not the arrays
                own = [path for path in own if "SetA_SingleSources" in path.parts] or own
            if name == "ARNI":
                own = [path for path in own if path.name != _ARNI_DAMAGED]
                own = sorted(own, key=lambda path: _hash(seed, path.relative_to(rirs)))[:_ARNI_LIMIT]
            files += own
        if not files:
            raise UserError(f"{rirs} holds no impulse responses for {split}; expected: {RESPONSES_TREE}")
        found[split] = sorted(files)
    return found


@dataclass(frozen=True)
class WhamRecipe:
    """One cut of one noise for each recording, at U(-2.5, 17.5) dB of loudness, raised by 1 dB while the sum clips."""

    noises: dict[str, list[tuple[Path, int]]]
    root: Path

    def __call__(self, job: Job) -> list[Pair]:
        generator = item_generator(job.seed, 0, 0)
        pairs = []
        for number, (part, first, speech) in enumerate(_speech(job)):
            level = loudness(speech)
            if not math.isfinite(level):
                continue
            path, begin, noise = self._noise(job.split, speech.shape[0], generator)
            snr = _snr(job.options, number, generator)
            noise = noise * 10 ** ((level - snr - loudness(noise)) / 20)
            while float((speech + noise).abs().max()) >= 1.0:
                if float(speech.abs().max()) >= 1.0:
                    raise UserError(f"{job.sources[0]} reaches full scale; export it again with less gain")
                noise, snr = noise * 10 ** (-1 / 20), snr + 1
            facts = {"snr_db": snr, "noise": path.relative_to(self.root).as_posix()}
            for piece, start, clean, noisy in _pieces(job, part, speech, speech + noise):
                where = {"start": first + start, "noise_start": begin + start}
                pairs.append(Pair(clean.numpy(), noisy.numpy(), RATE, facts | where, piece))
        return pairs

    def _noise(self, split: str, frames: int, generator: torch.Generator) -> tuple[Path, int, Tensor]:
        """A noise, its first frame and the cut; of a random channel."""
        fit = [(path, length) for path, length in self.noises[split] if length >= frames]
        if not fit:
            raise UserError(f"no noise of {self.root} for {split} lasts {frames / RATE:.1f} s; copy the set again")
        for _ in range(20):
            path, length = fit[mixing.integer(0, len(fit) - 1, generator)]
            begin = mixing.integer(0, length - frames, generator)
            samples, rate = audio.read(path, start=begin, frames=frames)
            if rate != RATE:
                raise UserError(f"{path} has {rate} Hz, not {RATE}; use the 48 kHz WHAM! noise")
            noise = torch.from_numpy(samples[mixing.integer(0, len(samples) - 1, generator)]).double()
            if math.isfinite(loudness(noise)):
                return path, begin, noise
        raise UserError(f"the noises of {self.root} are silent; copy the set again")


@dataclass(frozen=True)
class ResponseRecipe:
    """One measured impulse response for each recording, from its direct sound on, T60 up to 2 s, at equal loudness."""

    responses: dict[str, list[Path]]
    root: Path

    def __call__(self, job: Job) -> list[Pair]:
        generator = item_generator(job.seed, 0, 0)
        pairs = []
        for part, first, speech in _speech(job):
            level = loudness(speech)
            if not math.isfinite(level):
                continue
            path, channel, t60, reverb = self._reverberant(job.split, speech, generator)
            reverb = reverb * 10 ** ((level - loudness(reverb)) / 20)
            reverb = reverb / max(1.0, float(reverb.abs().max()))
            facts = {"response": path.relative_to(self.root).as_posix(), "channel": channel, "t60_measured": t60}
            for piece, start, clean, noisy in _pieces(job, part, speech, reverb):
                pairs.append(Pair(clean.numpy(), noisy.numpy(), RATE, facts | {"start": first + start}, piece))
        return pairs

    def _reverberant(self, split: str, speech: Tensor, generator: torch.Generator) -> tuple[Path, int, float, Tensor]:
        from torchaudio.functional import fftconvolve

        files = self.responses[split]
        for _ in range(100):
            path = files[mixing.integer(0, len(files) - 1, generator)]
            samples, _ = audio.read(path, RATE)
            channel = mixing.integer(0, len(samples) - 1, generator)
            response = torch.from_numpy(samples[channel]).double()
            response = response[int(response.abs().argmax()) :]
            t60 = decay_time(response.numpy(), RATE, -5.0, -35.0) if float(response[0].abs()) > 0 else math.nan
            if not t60 <= LONGEST_T60:
                continue
            reverb = fftconvolve(speech, response)[: speech.shape[0]]
            if math.isfinite(loudness(reverb)):
                return path, channel, t60, reverb
        raise UserError(f"no impulse response of {self.root} for {split} has a T60 below {LONGEST_T60:g} s")


def loudness(sound: Tensor) -> float:
    """Return the integrated loudness (ITU-R BS.1770-4) of a signal (frames,) at 48 kHz in LUFS; NaN for silence."""
    from torchaudio.functional import loudness as integrated

    return float(integrated(sound[None].double(), RATE))


def _speech(job: Job) -> Iterator[tuple[str, int, Tensor]]:
    """What of a recording is used: (part of the name, first frame, float64 signal without rumble)."""
    from torchaudio.functional import highpass_biquad

    speech = read_mono(job.sources[0], RATE).double()
    if "cuts" not in job.options and speech.shape[0] < SHORTEST * RATE:
        return
    speech = highpass_biquad(speech, RATE, HIGH_PASS)
    if "cuts" not in job.options:
        yield "", 0, speech
        return
    for number, (begin, end) in enumerate(job.options["cuts"]):
        cut = speech[begin : None if end < 0 else end]
        if cut.shape[0] <= LONGEST_TEST * RATE:
            yield f"_{number:02d}", begin, cut


def _pieces(job: Job, part: str, clean: Tensor, noisy: Tensor) -> Iterator[tuple[str, int, Tensor, Tensor]]:
    """Pieces of a pair: (part of the name, first frame, clean, noisy). Test cuts stay whole and are faded."""
    frames = clean.shape[0]
    if part:
        ramp = torch.linspace(0, 1, round(RAMP * RATE), dtype=clean.dtype)
        fade = torch.ones(frames, dtype=clean.dtype)
        fade[: len(ramp)] *= ramp[:frames]
        fade[-len(ramp) :] *= ramp.flip(0)[-frames:]
        yield part, 0, clean * fade, noisy * fade
        return
    size = round(PIECE * RATE)
    count = max(1, (frames - round(SHORTEST * RATE)) // size + 1)
    for number in range(count):
        start, stop = number * size, frames if number == count - 1 else (number + 1) * size
        if "whisper" in job.name or loudness(clean[start:stop]) > QUIETEST:
            yield f"_{number:02d}", start, clean[start:stop], noisy[start:stop]


def _snr(options: Any, number: int, generator: torch.Generator) -> float:
    """An SNR in dB, rounded to .1: of the whole range, or of the part of it that the style has come to."""
    low, high = SNR
    if options.get("bin") is not None:
        width = (high - low) / SNR_BINS
        low = low + (options["bin"] + number) % SNR_BINS * width
        high = low + width
    return round(mixing.uniform(low, high, generator), 1)


def _cuts(path: Path) -> dict[str, list[list[int]]]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return {
            f"{speaker}/{name}": [[int(begin), int(end)] for begin, end in cuts]
            for speaker, recordings in content.items()
            for name, cuts in recordings.items()
        }
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path} does not say where test recordings are cut ({error}); give test_files.json of the EARS benchmark"
        ) from None


def _hash(seed: int, path: Path) -> bytes:
    return hashlib.sha256(f"{seed}/{path.as_posix()}".encode()).digest()
