"""Clean and noisy speech as map-style datasets.

An item is {"clean": (1, frames), "noisy": (1, frames), "name": str}, float32 waveforms. Whatever is random in item i of
epoch e is a pure function of (seed, e, i): neither the number of workers nor the order of access changes it.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ornstein.errors import UserError
from ornstein_speech import audio, mixing
from ornstein_speech.banks import ClipBank, RoomBank, heard_in, load_banks

Normalize = Literal["noisy", "clean", "not"]
Crop = Literal["random", "centre"]
Item = dict[str, Any]

SAMPLES = 32640
"""(256 - 1) * 128: 256 STFT frames with a hop of 128, 2.04 s at 16 kHz."""


def item_generator(seed: int, epoch: int, index: int) -> torch.Generator:
    """Return the CPU generator of one item, seeded by a hash of (seed, epoch, index)."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def segment(
    clean: Tensor,
    noisy: Tensor,
    samples: int,
    start: int | torch.Generator | None = None,
    normalize: Normalize = "noisy",
) -> tuple[Tensor, Tensor]:
    """Cut a pair to `samples` frames, then divide both by one scalar.

    Shorter signals get zeros: floor(p/2) before, the rest after. The divisor is the peak of the cut noisy signal
    (`noisy`), of the cut clean signal (`clean`), or 1 (`not`); a silent segment is left as it is.

    Args:
        clean: (..., L).
        noisy: the same shape.
        samples: frames wanted.
        start: first frame; a generator draws floor(U(0, L - samples)); None takes the centre, floor((L - samples) / 2).
        normalize: which peak becomes 1.
    """
    clean, noisy = cut((clean, noisy), samples, start)
    return normalized(clean, noisy, normalize)


def cut(signals: Sequence[Tensor], samples: int, start: int | torch.Generator | None = None) -> list[Tensor]:
    """Cut signals of one shape (..., L) to `samples` frames, as `segment` does."""
    if len({signal.shape for signal in signals}) != 1:
        raise ValueError(f"shapes differ: {', '.join(str(tuple(signal.shape)) for signal in signals)}")
    spare = signals[0].shape[-1] - samples
    if spare >= 0:
        begin = first_frame(spare, start)
        if not 0 <= begin <= spare:
            raise ValueError(f"start {begin} is outside 0..{spare}")
        return [signal[..., begin : begin + samples] for signal in signals]
    pad = (-spare // 2, -spare - (-spare // 2))
    return [torch.nn.functional.pad(signal, pad) for signal in signals]


def first_frame(spare: int, start: int | torch.Generator | None) -> int:
    """First frame of a cut out of a signal that is `spare` frames longer, as `segment` chooses it; 0 if it is not."""
    if spare < 0 or start is None:
        return max(0, spare) // 2
    return int(mixing.uniform(0.0, float(spare), start)) if isinstance(start, torch.Generator) else start


def normalized(clean: Tensor, noisy: Tensor, normalize: Normalize) -> tuple[Tensor, Tensor]:
    """Divide both signals by the peak that `normalize` names, as `segment` does."""
    if normalize not in get_args(Normalize):
        raise UserError(f"normalize is {normalize!r}; use one of {', '.join(get_args(Normalize))}")
    if normalize == "not":
        return clean, noisy
    peak = (noisy if normalize == "noisy" else clean).abs().max()
    scale = torch.where(peak > 0, peak, torch.ones_like(peak))
    return clean / scale, noisy / scale


class PairedFolder(Dataset[Item]):
    """Pairs of clean and noisy files with the same relative path below two folders.

    The folders are ROOT/SPLIT/clean and ROOT/SPLIT/noisy, or anechoic and reverb; further directory levels are allowed.
    Every pair is checked when the dataset is made.

    Args:
        root: folder of the set.
        split: train, valid or test; None when ROOT itself holds the two folders.
        samples: length of an item in frames; None gives whole files (different lengths: batch size 1).
        crop: `random` (training) or `centre` (validation).
        normalize: see `segment`; used only where items are cut.
        rate: rate in Hz of the items; other rates are refused unless `resample`.
        resample: convert files of another rate while loading.
        seed: of the random cuts.
        folders: names of the two folders, clean first.
        speakers: keep only files whose name starts with one of these and an underscore.
        without_speakers: leave these out.

    Raises:
        UserError: missing folder or partner, unequal length, wrong rate, more than one channel, no files.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | None = "train",
        *,
        samples: int | None = SAMPLES,
        crop: Crop = "random",
        normalize: Normalize = "noisy",
        rate: int = 16000,
        resample: bool = False,
        seed: int = 0,
        folders: tuple[str, str] | None = None,
        speakers: Sequence[str] | None = None,
        without_speakers: Sequence[str] = (),
    ) -> None:
        base = Path(root) / split if split else Path(root)
        if folders is None:
            folders = ("anechoic", "reverb") if (base / "anechoic").is_dir() else ("clean", "noisy")
        self.clean, self.noisy = base / folders[0], base / folders[1]
        self.samples, self.crop, self.normalize = samples, crop, normalize
        self.rate, self.resample, self.seed, self.epoch = rate, resample, seed, 0
        if crop not in get_args(Crop):
            raise UserError(f"crop is {crop!r}; use one of {', '.join(get_args(Crop))}")

        def chosen(name: str) -> bool:
            speaker = Path(name).name.split("_")[0]
            return speaker not in without_speakers and (speakers is None or speaker in speakers)

        self.names = [name for name in _paired_names(self.clean, self.noisy) if chosen(name)]
        if not self.names:
            raise UserError(f"{self.clean} holds no sound files; check the folder")
        for name in self.names:
            self._check(name)

    def _check(self, name: str) -> None:
        clean, noisy = audio.info(self.clean / name), audio.info(self.noisy / name)
        if clean.rate != noisy.rate:
            raise UserError(
                f"{name} has {clean.rate} Hz in {self.clean} but {noisy.rate} Hz in {self.noisy}; make them equal"
            )
        if clean.frames != noisy.frames:
            raise UserError(
                f"{name} has {clean.frames} frames in {self.clean} but {noisy.frames} in {self.noisy}; "
                "pairs have to be equally long"
            )
        if clean.channels != 1 or noisy.channels != 1:
            raise UserError(f"{name} has {max(clean.channels, noisy.channels)} channels; pairs have to be mono")
        if clean.rate != self.rate and not self.resample:
            raise UserError(
                f"{self.clean / name} has {clean.rate} Hz, not {self.rate}; convert the set with "
                f"`ornstein speech resample FOLDER NEW_FOLDER --rate {self.rate}`, or set resample: true"
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose random cuts are drawn."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Item:
        name = self.names[index]
        start = item_generator(self.seed, self.epoch, index) if self.crop == "random" else None
        header = audio.info(self.clean / name)
        if self.samples is None or header.rate != self.rate or header.format not in ("WAV", "WAVEX", "FLAC"):
            clean, noisy = self._read(name)
        else:  # only the cut; of long recordings the rest would cost most of the time
            begin = first_frame(header.frames - self.samples, start)
            clean, noisy = self._read(name, begin, self.samples)
        if self.samples is not None:
            clean, noisy = segment(clean, noisy, self.samples, start, self.normalize)
        return {"clean": clean, "noisy": noisy, "name": name}

    def _read(self, name: str, start: int = 0, frames: int | None = None) -> tuple[Tensor, Tensor]:
        clean, noisy = (
            torch.from_numpy(audio.read(folder / name, self.rate, start=start, frames=frames)[0])
            for folder in (self.clean, self.noisy)
        )
        return clean, noisy


VOICEBANK_VALIDATION_SPEAKERS = ("p226", "p287")


def voicebank_demand(
    root: str | Path, split: Literal["train", "valid", "test"], *, speakers: Literal[28, 56] = 28, **options: Any
) -> PairedFolder:
    """Open VoiceBank-DEMAND as distributed: folders {clean,noisy}_trainset_28spk_wav and {clean,noisy}_testset_wav.

    Validation takes the training speakers p226 and p287. The distributed files have 48 kHz: they are refused with the
    command that resamples them, unless `resample=True`. Further options are those of `PairedFolder`.
    """
    if split not in ("train", "valid", "test"):
        raise UserError(f"split is {split!r}; use train, valid or test")
    part = "testset" if split == "test" else f"trainset_{speakers}spk"
    options.setdefault("crop", "random" if split == "train" else "centre")
    if split == "test":
        options.setdefault("samples", None)
    if split == "train":
        options.setdefault("without_speakers", VOICEBANK_VALIDATION_SPEAKERS)
    if split == "valid":
        options.setdefault("speakers", VOICEBANK_VALIDATION_SPEAKERS)
    return PairedFolder(root, None, folders=(f"clean_{part}_wav", f"noisy_{part}_wav"), **options)


class MixedOnTheFly(Dataset[Item]):
    """Speech and noise mixed while training: joined clips of one voice, one noise, one SNR, one random cut.

    Args:
        speech: folder with one sub-folder per voice, such as prompts-16k/speech/train.
        noise: folder with sub-folders babble, music, effects or others, such as prompts-16k/noise/train.
        length: items per epoch.
        snr_range: SNR in dB ~ U(low, high) over the joined item.
        noises: kinds and their weights; default: coloured noise 2, every recorded kind 1.
        seconds: length before the cut.
        samples: length of an item in frames.
        normalize: see `segment`.
        level: RMS level of the noisy signal in dB re full scale ~ U(low, high), visible with normalize `not` only.
        rooms: folder of a `RoomBank`: the speech is heard in one of these rooms, and the target is its direct sound.
        rate: in Hz.
        seed: of everything random.
    """

    def __init__(
        self,
        speech: str | Path,
        noise: str | Path,
        *,
        length: int = 8000,
        snr_range: tuple[float, float] = (0.0, 15.0),
        noises: dict[str, float] | None = None,
        seconds: float = 4.0,
        samples: int = SAMPLES,
        normalize: Normalize = "noisy",
        level: tuple[float, float] = (-35.0, -15.0),
        rooms: str | Path | None = None,
        rate: int = 16000,
        seed: int = 0,
    ) -> None:
        self.voices = load_banks(speech, rate)
        self.recordings = load_banks(noise, rate)
        self.rooms = RoomBank(rooms, rate) if rooms is not None else None
        self.noises = noises or {"coloured": 2.0, **dict.fromkeys(self.recordings, 1.0)}
        self.length, self.snr_range, self.level = length, snr_range, level
        self.frames, self.samples, self.normalize = max(samples, round(seconds * rate)), samples, normalize
        self.rate, self.seed, self.epoch = rate, seed, 0
        _check_kinds(self.noises, self.recordings)
        if length < 1 or not snr_range[0] <= snr_range[1] or not any(w > 0 for w in self.noises.values()):
            raise UserError("length has to be positive, snr_range ascending and one noise weight above 0")

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose items are drawn."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(index)
        generator = item_generator(self.seed, self.epoch, index)
        voice = list(self.voices)[mixing.integer(0, len(self.voices) - 1, generator)]
        weights = torch.tensor(list(self.noises.values()), dtype=torch.float64)
        kind = list(self.noises)[int(torch.multinomial(weights, 1, generator=generator))]
        snr = mixing.uniform(*self.snr_range, generator)
        clean, heard, noise = _parts(
            self.voices[voice], kind, self.recordings, self.rooms, self.frames, generator, self.rate, fast=True
        )
        noise_gain = float(mixing.noise_gain(heard, noise, snr))
        gain = 1.0
        if self.normalize == "not":  # else the peak undoes it
            gain = mixing.level_gain(torch.add(heard, noise, alpha=noise_gain), generator, *self.level)
        # Ratio and level hold for the joined item; only the samples of the cut are added up.
        clean, heard, noise = cut((clean[None], heard[None], noise[None]), self.samples, generator)
        clean, noisy = normalized(clean * gain, torch.add(heard, noise, alpha=noise_gain) * gain, self.normalize)
        return {"clean": clean, "noisy": noisy, "name": f"{self.epoch}/{index}-{voice}-{kind}-{snr:.1f}dB"}


class FixedMixes(Dataset[Item]):
    """A fixed list of mixes for validation and test, going evenly through SNRs, noise kinds and voices.

    Item i has SNR i mod S and noise (i // S) mod N, and the voices rotate. It is a function of (files, seed, i); other
    machines get the same up to float32 rounding. Peaks above .95 are scaled down, both signals alike.

    Args:
        speech: as in `MixedOnTheFly`, of the held-out split.
        noise: likewise.
        length: number of mixes.
        snrs: in dB.
        noises: kinds; default: babble, music and effects where there are such folders, white, pink, brown.
        seconds: length of a mix.
        samples: cut each mix to its centre (validation of the loss); None: whole.
        normalize: see `segment`; used only with `samples`.
        rooms: as in `MixedOnTheFly`.
        rate: in Hz.
        seed: of the mixes.
    """

    def __init__(
        self,
        speech: str | Path,
        noise: str | Path,
        *,
        length: int = 48,
        snrs: Sequence[float] = (0.0, 5.0, 10.0, 15.0),
        noises: Sequence[str] | None = None,
        seconds: float = 4.0,
        samples: int | None = None,
        normalize: Normalize = "noisy",
        rooms: str | Path | None = None,
        rate: int = 16000,
        seed: int = 0,
    ) -> None:
        self.voices = load_banks(speech, rate)
        self.recordings = load_banks(noise, rate)
        self.rooms = RoomBank(rooms, rate) if rooms is not None else None
        self.noises = tuple(noises) if noises else (*self.recordings, *mixing.COLOURS)
        self.length, self.snrs, self.frames = length, tuple(snrs), round(seconds * rate)
        self.samples, self.normalize, self.rate, self.seed = samples, normalize, rate, seed
        _check_kinds(self.noises, self.recordings)
        if length < 1 or not self.snrs or self.frames < 1:
            raise UserError("length, snrs and seconds must not be empty")

    def __len__(self) -> int:
        return self.length

    def condition(self, index: int) -> tuple[str, str, float]:
        """Voice, noise kind and SNR in dB of item `index`."""
        per_voice = len(self.snrs) * len(self.noises)
        voice = (index + index // len(self.snrs) + index // per_voice) % len(self.voices)
        kind = self.noises[index // len(self.snrs) % len(self.noises)]
        return list(self.voices)[voice], kind, self.snrs[index % len(self.snrs)]

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(index)
        voice, kind, snr = self.condition(index)
        generator = item_generator(self.seed, 0, index)
        clean, heard, noise = _parts(
            self.voices[voice], kind, self.recordings, self.rooms, self.frames, generator, self.rate
        )
        clean, noisy = clean[None], mixing.mix(heard, noise, snr)[None]
        scale = 0.95 / max(0.95, float(clean.abs().max()), float(noisy.abs().max()))
        clean, noisy = clean * scale, noisy * scale
        if self.samples is not None:
            clean, noisy = segment(clean, noisy, self.samples, None, self.normalize)
        return {"clean": clean, "noisy": noisy, "name": f"{index:03d}-{voice}-{kind}-{snr:g}dB"}


def _parts(
    voice: ClipBank,
    kind: str,
    recordings: dict[str, ClipBank],
    rooms: RoomBank | None,
    frames: int,
    generator: torch.Generator,
    rate: int,
    fast: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Target, speech as it is heard, and noise at any level, each (frames,)."""
    clean = mixing.join(voice, frames, generator, rate)
    noise = mixing.make_noise(kind, recordings, frames, generator, rate, fast)
    if rooms is None:
        return clean, clean, noise
    return *heard_in(clean, rooms[mixing.integer(0, len(rooms) - 1, generator)]), noise


def _check_kinds(kinds: Iterable[str], recordings: dict[str, ClipBank]) -> None:
    known = ["coloured", *mixing.COLOURS, *recordings]
    for kind in kinds:
        if kind not in known:
            raise UserError(f"no noise of kind {kind!r}; use {', '.join(known)}")


def _paired_names(clean: Path, noisy: Path) -> list[str]:
    found = [[path.relative_to(folder).as_posix() for path in audio.find(folder)] for folder in (clean, noisy)]
    for own, other, folder in ((found[0], found[1], noisy), (found[1], found[0], clean)):
        missing = sorted(set(own) - set(other))
        if missing:
            raise UserError(
                f"{len(missing)} files have no partner in {folder}: {', '.join(missing[:3])}; "
                "pairs have the same relative path"
            )
    return found[0]
