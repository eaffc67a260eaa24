"""The recordings of the set "prompts-16k": their packages, which files are taken, and for which split."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ornstein.errors import UserError
from ornstein_speech import audio

SPLITS = ("train", "valid", "test")
RATE = 16000
SALT = "prompts-16k"

# Recorded under the same name in every language, but not speech.
_NO_SPEECH = re.compile(r"^(silence/.*|beep(err)?|(a|de)scending-2tone|confbridge-(join|leave)|tt-monkeys)$")
_SHORTEST = 0.5  # seconds
_MUSIC = {  # whole tracks, so that no tune is heard in two splits
    "macroform-cold_day": "train",
    "macroform-the_simplicity": "train",
    "reno_project-system": "train",
    "macroform-robot_dity": "valid",
    "manolo_camp-morning_coffee": "test",
}
_QUIET_FLOOR_DB = 36.0  # loud (95 %) over quiet (5 %) 20 ms frames: acted dialogue without effects mixed in
_UNSEEN_SECONDS = 90.0  # per voice


@dataclass(frozen=True)
class Package:
    """A Debian package of the set, where its sounds lie, and its licence as the package states it."""

    name: str
    folder: str
    licence: str
    holder: str
    use: str


_SOUNDS = "usr/share/asterisk/sounds"
_BY_SA = "CC-BY-SA-3.0"
PACKAGES = (
    Package("asterisk-core-sounds-en-g722", _SOUNDS, _BY_SA, "2003-2010 Allison Smith", "speech/en"),
    Package("asterisk-core-sounds-fr-g722", _SOUNDS, _BY_SA, "2006-2008 June Wallack", "speech/fr"),
    Package("asterisk-core-sounds-it-g722", _SOUNDS, "CC-BY-3.0", "2012 Carlo Flora", "speech/it"),
    Package("asterisk-core-sounds-ru-g722", _SOUNDS, "CC-BY-3.0", "2010 Maxim Topal", "speech/ru"),
    Package("asterisk-core-sounds-es-g722", _SOUNDS, _BY_SA, "2003-2010 Allison Smith", "noise/babble"),
    Package(
        "asterisk-moh-opsound-g722",
        "usr/share/asterisk/moh",
        _BY_SA,
        "2009 Paul Shuler (Macroform), 2009 Manolo Camp, 2008 Reno Project",
        "noise/music",
    ),
    Package("sonic-pi-samples", "usr/share/sonic-pi/samples", "CC0-1.0", "freesound.org contributors", "noise/effects"),
    Package(
        "fillets-ng-data-cs",
        "usr/share/games/fillets-ng/sound",
        "GPL-2",
        "ALTAR interactive and others",
        "unseen/cs",
    ),
    Package(
        "pocketsphinx-testdata",
        "usr/share/pocketsphinx/test/data/librivox",
        "BSD-2-Clause (LibriVox readings are in the public domain)",
        "1995-2014 Carnegie Mellon University, 2014-2015 Alpha Cephei Inc.",
        "unseen/librivox",
    ),
    Package("alsa-utils", "usr/share/sounds/alsa", "GPL-2", "1998-2022 Jaroslav Kysela and others", "unseen/alsa"),
)


@dataclass(frozen=True)
class Clip:
    """One file to make: what it is made of, where it goes, and how long it may be."""

    source: Path
    target: str  # without suffix, below the set's folder
    package: str
    seconds: float
    keep: bool  # the source is G.722 already and may be copied


def split_of(name: str) -> str:
    """Return train, valid or test (80/10/10) for a prompt name such as `digits/1`, by its hash.

    The same prompt of all voices falls into one split: no sentence and no clip of a test voice is met in training.
    """
    share = int.from_bytes(name_hash(name)[:8], "big") / 2**64
    return "train" if share < 0.8 else "valid" if share < 0.9 else "test"


def plan(trees: dict[str, Path], minutes: float | None, noise_minutes: float | None) -> list[Clip]:
    """Return the files of the set, given the folders with the packages' sounds by package name."""
    clips: list[Clip] = []
    for package in PACKAGES:
        tree = trees[package.name]
        kind, _, group = package.use.partition("/")
        if package.name.startswith("asterisk-core-sounds"):
            clips += _prompts(package, tree, minutes if kind == "speech" else noise_minutes)
        elif group == "music":
            clips += _music(package, tree, noise_minutes)
        elif group == "effects":
            clips += _effects(package, tree)
        elif kind == "unseen":
            clips += _unseen(package, tree)
    return clips


def _prompts(package: Package, tree: Path, minutes: float | None) -> list[Clip]:
    found: dict[str, tuple[Path, float]] = {}
    contents: set[bytes] = set()
    for path in sorted(tree.rglob("*.g722")):
        parts = path.relative_to(tree).with_suffix("").parts[1:]  # the first is the voice
        name = "/".join(parts)
        seconds = path.stat().st_size * 2 / RATE
        if _NO_SPEECH.match(name) or seconds < _SHORTEST:
            continue
        content = hashlib.sha256(path.read_bytes()).digest()
        if content not in contents:  # the same recording under two names could fall into two splits
            contents.add(content)
            found[name] = (path, seconds)
    kind, _, group = package.use.partition("/")
    chosen = []
    for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        left = float("inf") if minutes is None else minutes * 60 * share
        for name in sorted((name for name in found if split_of(name) == split), key=name_hash):
            path, seconds = found[name]
            if seconds <= left:
                left -= seconds
                chosen.append(Clip(path, f"{kind}/{split}/{group}/{name}", package.name, seconds, True))
    return chosen


def _music(package: Package, tree: Path, minutes: float | None) -> list[Clip]:
    clips = []
    for name, split in _MUSIC.items():
        path = tree / f"{name}.g722"
        if not path.is_file():
            raise UserError(f"{package.name} holds no {path.name}; it is another version than this program knows")
        seconds = path.stat().st_size * 2 / RATE
        if minutes is not None:
            seconds = min(seconds, minutes * 60 / len(_MUSIC))
        clips.append(Clip(path, f"noise/{split}/music/{name}", package.name, seconds, True))
    return clips


def _effects(package: Package, tree: Path) -> list[Clip]:
    clips = []
    for path in sorted(tree.glob("*.flac")):
        family = re.sub(r"\d+$", "", path.stem)  # numbered takes of one sound stay together
        seconds = audio.info(path).seconds
        clips.append(Clip(path, f"noise/{split_of(family)}/effects/{path.stem}", package.name, seconds, False))
    return clips


def _unseen(package: Package, tree: Path) -> list[Clip]:
    group = package.use.partition("/")[2]
    if group == "alsa":
        paths = [(path, "alsa") for path in sorted(tree.glob("*_*.wav"))]
    elif group == "librivox":
        paths = [(path, "librivox") for path in sorted(tree.glob("*.wav"))]
    else:  # the two leading actors: the small (m) and the big (v) fish
        named = [(path, re.match(r"[^-]+-([mv])-", path.name)) for path in tree.glob("*/cs/*.ogg")]
        paths = [(path, f"cs-{match.group(1)}") for path, match in named if match]
        paths.sort(key=lambda pair: name_hash(f"{pair[0].parts[-3]}/{pair[0].stem}"))
    left: dict[str, float] = {}
    clips = []
    for path, voice in paths:
        seconds = audio.info(path).seconds
        room = left.setdefault(voice, _UNSEEN_SECONDS)
        if seconds > room or (group == "cs" and not (2 <= seconds <= 8 and _dynamic_range(path) > _QUIET_FLOOR_DB)):
            continue
        left[voice] = room - seconds
        clips.append(Clip(path, f"speech/unseen/{voice}/{path.stem}", package.name, seconds, False))
    return clips


def _dynamic_range(path: Path) -> float:
    """Level of loud frames (95 %) over quiet ones (5 %) in dB, frames of 20 ms."""
    samples, rate = audio.read(path)
    size = rate // 50
    mono = samples.mean(0)[: samples.shape[1] // size * size].reshape(-1, size)
    loud, quiet = np.percentile(10 * np.log10(np.square(mono).mean(1) + 1e-12), [95, 5])
    return float(loud - quiet)


def use_of(name: str) -> str:
    """Return the `use` of the package that a file of the set comes from, given the file's name in the set."""
    kind, split, group = name.split("/")[:3]
    return f"unseen/{group.split('-')[0]}" if split == "unseen" else f"{kind}/{group}"


def name_hash(name: str) -> bytes:
    """Return the SHA-256 of prompts-16k/NAME: it splits, shuffles and picks."""
    return hashlib.sha256(f"{SALT}/{name}".encode()).digest()
