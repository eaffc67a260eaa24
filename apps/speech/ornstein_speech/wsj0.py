"""WSJ0-CHiME3 and WSJ0-REVERB, made from copies of WSJ0 (LDC93S6A) and CHiME-3 (LDC2017S24)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ornstein.errors import UserError
from ornstein_speech import audio, mixing
from ornstein_speech.datasets import item_generator
from ornstein_speech.pairs import Job, Pair, job_seed, read_mono

RATE = 16000
PARTS = {"train": "si_tr_s", "valid": "si_dt_05", "test": "si_et_05"}
SNR = (0.0, 20.0)
"""Range in dB."""

WSJ0_TREE = "WSJ0/**/{si_tr_s,si_dt_05,si_et_05}/SPEAKER/*.wav for training, validation and test"
CHIME3_TREE = "CHIME3/**/backgrounds/*.CH1.wav, noise recorded by channel 1"
_SPHERE = (
    "it is compressed NIST SPHERE, as on the discs; convert them all with sph2pipe of the LDC: "
    "find WSJ0 -name '*.wv1' -exec sh -c 'sph2pipe -f wav \"$1\" \"${1%.wv1}.wav\"' _ {} \\;"
)


def wsj0_jobs(wsj0: Path, seed: int) -> list[Job]:
    """Return a job for every utterance of the close-talking microphone.

    Raises:
        UserError: a part is missing, or its files are compressed.
    """
    jobs = []
    for split, part in PARTS.items():
        found: dict[str, Path] = {}
        for folder in sorted(path for path in _folder(wsj0, "WSJ0", WSJ0_TREE).rglob(part) if path.is_dir()):
            for path in sorted(folder.rglob("*")):
                suffix = path.suffix.lower()
                # The discs hold X.wv1, NIST SPHERE; a converted copy of the same name goes before it.
                if suffix in (".wav", ".flac") or (suffix == ".wv1" and path.stem.lower() not in found):
                    found[path.stem.lower()] = path
        if not found:
            raise UserError(f"{wsj0} holds no recordings in {part}; expected: {WSJ0_TREE}")
        _refuse_compressed(next(iter(found.values())))
        for stem, path in sorted(found.items()):
            facts = {"speech": path.relative_to(wsj0).as_posix()}
            jobs.append(Job(split, stem, job_seed(seed, f"{split}/{stem}"), (path,), facts))
    return jobs


def chime3_noises(chime3: Path) -> list[Path]:
    """Return the background recordings of channel 1.

    Raises:
        UserError: there are none.
    """
    folder = _folder(chime3, "CHIME3", CHIME3_TREE)
    found = sorted(path for path in folder.rglob("backgrounds/*") if path.name.upper().endswith("CH1.WAV"))
    if not found:
        raise UserError(f"{chime3} holds no background noise; expected: {CHIME3_TREE}")
    return found


@dataclass(frozen=True)
class NoiseRecipe:
    """One cut of one noise for each utterance, at an SNR ~ U(`snr`) dB on the power of the full signals.

    The level of the utterance stays as it is.

    Args:
        noises: recordings of noise.
        root: folder that the manifest names them from.
        snr: range in dB.
    """

    noises: Sequence[Path]
    root: Path
    snr: tuple[float, float] = SNR

    def __call__(self, job: Job) -> list[Pair]:
        generator = item_generator(job.seed, 0, 0)
        snr = mixing.uniform(*self.snr, generator)
        clean = read_mono(job.sources[0], RATE)
        path = self.noises[mixing.integer(0, len(self.noises) - 1, generator)]
        spare = audio.info(path).frames - clean.shape[0]
        if spare < 0:
            raise UserError(f"{path} is shorter than {job.sources[0]}; remove it from the noises")
        start = mixing.integer(0, spare, generator)
        noise = read_mono(path, RATE, start, clean.shape[0])
        noisy = mixing.mix(clean, noise, snr)
        facts = {"snr_db": snr, "noise": path.relative_to(self.root).as_posix(), "noise_start": start}
        return [Pair(clean.numpy(), noisy.numpy(), RATE, facts)]


def _folder(folder: Path, name: str, tree: str) -> Path:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give your copy of {name}: {tree}")
    return folder


def _refuse_compressed(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(1024)
    if head.startswith(b"NIST_1A") and b"shorten" in head:
        raise UserError(f"{path} cannot be read: {_SPHERE}")
