"""The default training set "prompts-16k": real speech and noise from Debian packages, fetched without root.

Layout below the target folder:

    speech/{train,valid,test}/{en,fr,it,ru}/...   prompts of four professional voices
    speech/unseen/{cs-m,cs-v,librivox,alsa}/...   voices that training never hears: the second test set
    noise/{train,valid,test}/{babble,music,effects}/...
    manifest.json                                 settings, packages with licences, every file with checksum and seconds
"""

import hashlib
import json
import lzma
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ornstein.errors import UserError
from ornstein.files import atomic_path, check_target
from ornstein_speech import audio

Form = Literal["g722", "flac"]
SPLITS = ("train", "valid", "test")
_RATE = 16000
_FORMAT = 1
_SALT = "prompts-16k"

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
class _Clip:
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
    share = int.from_bytes(_hash(name)[:8], "big") / 2**64
    return "train" if share < 0.8 else "valid" if share < 0.9 else "test"


def prepare(
    target: Path,
    packages: Path | None = None,
    source: Path | None = None,
    overwrite: bool = False,
    form: Form = "g722",
    minutes: float | None = None,
    noise_minutes: float | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Make the prompts-16k set: fetch, unpack, choose, split and describe.

    An interrupted run goes on where it stopped when it is started again with the same options.

    Args:
        target: folder of the set.
        packages: folder with the .deb files; without it and `source`, apt-get downloads them (no root needed).
        source: folder with unpacked packages: SOURCE/PACKAGE/usr/..., or one common SOURCE/usr/...
        overwrite: replace a set made with other options.
        form: `g722` keeps the prompts' own coding (8 kB/s) and codes the effects too; `flac` decodes all (20 kB/s).
            Unseen voices are FLAC in both.
        minutes: at most so many minutes per voice; by default all there is. 15, with 7 of noise, make 42 MB.
        noise_minutes: at most so many minutes of babble talkers and of music each.
        progress: show a progress bar.

    Returns:
        The manifest, as written to TARGET/manifest.json.

    Raises:
        UserError: a package is missing or damaged, no way to fetch or unpack, target in use or not writable.
    """
    target = Path(target)
    if form not in ("g722", "flac"):
        raise UserError(f"form is {form!r}; use g722 or flac")
    if any(limit is not None and limit <= 0 for limit in (minutes, noise_minutes)):
        raise UserError("minutes and noise_minutes have to be positive")
    settings = {"format": _FORMAT, "set": _SALT, "form": form, "minutes": minutes, "noise_minutes": noise_minutes}
    if (done := _open_target(target, settings, overwrite)) is not None:
        return done
    work = target / ".work"
    work.mkdir(exist_ok=True)
    trees = {}
    descriptions = []
    for package in _bar(PACKAGES, "packages", progress):
        tree, checksum = _tree(package, work, packages, source)
        trees[package.name] = tree
        descriptions.append(
            {
                "name": package.name,
                "sha256": checksum,
                "licence": package.licence,
                "copyright": package.holder,
                "use": package.use,
            }
        )
    clips = _plan(trees, minutes, noise_minutes)
    entries = {}
    for clip in _bar(clips, "files", progress):
        name, entry = _make(clip, target, form)
        entries[name] = entry
    manifest = {
        **settings,
        "rate": _RATE,
        "split": "sha256 of prompts-16k/NAME: 80/10/10; music by track; effects by name without number",
        "packages": descriptions,
        "minutes_made": _minutes(entries),
        "files": dict(sorted(entries.items())),
    }
    _write_json(target / "manifest.json", manifest)
    (target / ".settings.json").unlink(missing_ok=True)
    shutil.rmtree(work)
    return manifest


def verify(folder: Path) -> int:
    """Check every file of a set against its manifest; return the number of files.

    Raises:
        UserError: no manifest, a missing or a changed file.
    """
    folder = Path(folder)
    manifest = _read_json(folder / "manifest.json")
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing; run `ornstein speech prepare {folder} --overwrite`")
        if _checksum(path) != entry["sha256"]:
            raise UserError(f"{path} has changed; run `ornstein speech prepare {folder} --overwrite`")
    return len(manifest["files"])


def resample(source: Path, target: Path, rate: int = _RATE, overwrite: bool = False, progress: bool = True) -> int:
    """Write a copy of a folder of sound files at another rate, as 16-bit WAV under the same names; return their number.

    Example: VoiceBank-DEMAND from 48 to 16 kHz before training.

    Args:
        source: folder with sound files, any depth.
        target: new folder.
        rate: in Hz.
        overwrite: replace existing files; without it they are kept, so that an interrupted run can go on.
        progress: show a progress bar.
    """
    source, target = Path(source), Path(target)
    files = audio.find(source)
    if not files:
        raise UserError(f"{source} holds no sound files; check the folder")
    for path in _bar(files, "files", progress):
        goal = (target / path.relative_to(source)).with_suffix(".wav")
        if goal.exists() and not overwrite:
            continue
        header = audio.info(path)
        with audio.writer(goal, rate, header.channels, overwrite=overwrite) as put:
            for block in audio.blocks(path, 1 << 19, rate):
                put(np.clip(block, -1, 1))
    return len(files)


def demo_clips(prompts: Path, target: Path, overwrite: bool = False) -> None:
    """Make the real clips of `data/speech` from a prepared set (form g722): pairs, single clips, a tiny training set.

    Args:
        prompts: folder made by `prepare`.
        target: folder to fill with clean/, noisy/, clips/, tiny/ and manifest.json.
        overwrite: replace what is there.
    """
    from ornstein_speech.datasets import FixedMixes

    prompts, target = Path(prompts), Path(target)
    manifest = _read_json(prompts / "manifest.json")
    if manifest["form"] != "g722":
        raise UserError(f"{prompts} was prepared as {manifest['form']}; the clips are made from form g722")
    origin: dict[str, list[str]] = {}

    # Pairs from held-out clips: each voice and each kind of noise once.
    kinds, snrs = ("babble", "music", "pink", "effects"), (10.0, 5.0, 2.5, 0.0)
    for number, (voice, kind, snr) in enumerate(zip(("en", "fr", "it", "ru"), kinds, snrs, strict=True)):
        mixes = FixedMixes(
            prompts / "speech/test", prompts / "noise/test", length=4, snrs=(snr,), noises=(kind,), seed=2 + number
        )
        index = next(i for i in range(len(mixes)) if mixes.condition(i)[0] == voice)
        item = mixes[index]
        for side in ("clean", "noisy"):
            name = f"{side}/{voice}_{kind}_{snr:g}dB.flac"
            audio.write(target / name, item[side].numpy(), _RATE, overwrite=overwrite)
            origin[name] = [use for use in (f"speech/{voice}", f"noise/{kind}") if side == "noisy" or use[0] == "s"]

    def pick(folder: str, low: float, high: float, count: int) -> list[str]:
        names = [n for n, e in manifest["files"].items() if n.startswith(folder + "/") and low <= e["seconds"] <= high]
        if len(names) < count:
            raise UserError(f"{prompts / folder} has {len(names)} files of {low:g} to {high:g} s, {count} are needed")
        return sorted(sorted(names, key=_hash)[:count])

    singles = [(f"speech/test/{voice}", f"speech_{voice}", 3.0, 5.0) for voice in ("en", "fr", "it", "ru")]
    singles += [
        ("speech/unseen/librivox", "speech_librivox", 3.0, 8.0),
        ("noise/test/babble", "noise_babble", 3.0, 5.0),
        ("noise/test/music", "noise_music", 5.0, 1e4),
        ("noise/test/effects", "noise_effects", 1.0, 5.0),
    ]
    for folder, name, low, high in singles:
        found = pick(folder, low, high, 1)[0]
        samples, _ = audio.read(prompts / found, _RATE)
        goal = f"clips/{name}.flac"
        audio.write(target / goal, samples[:, : 5 * _RATE], _RATE, overwrite=overwrite)
        origin[goal] = [_use(found)]

    tiny = [
        (f"speech/{split}/{voice}", 1.0, 4.0, count)
        for split, count in (("train", 6), ("valid", 3), ("test", 3))
        for voice in ("en", "it")
    ]
    for split, count in (("train", 4), ("valid", 2), ("test", 2)):
        tiny += [(f"noise/{split}/babble", 1.0, 5.0, count), (f"noise/{split}/effects", 0.5, 4.0, count)]
        tiny += [(f"noise/{split}/music", 5.0, 1e4, 1)]
    for folder, low, high, count in tiny:
        for name in pick(folder, low, high, count):
            goal = f"tiny/{name}"
            with atomic_path(target / goal, overwrite=overwrite) as temporary:
                data = (prompts / name).read_bytes()
                temporary.write_bytes(data[: 15 * _RATE // 2] if "/music/" in name else data)
            origin[goal] = [_use(name)]

    by_use = {package["use"]: package for package in manifest["packages"]}
    files = {}
    for name, uses in sorted(origin.items()):
        made_of = [by_use[use] for use in uses if use in by_use]  # coloured noise has no package
        files[name] = {
            "sha256": _checksum(target / name),
            "seconds": round(audio.info(target / name).seconds, 3),
            "packages": [package["name"] for package in made_of],
            "licences": sorted({package["licence"] for package in made_of}),
            "copyright": [package["copyright"] for package in made_of],
        }
    _write_json(
        target / "manifest.json", {"format": _FORMAT, "made_by": "ornstein_speech.prepare.demo_clips", "files": files}
    )


# The target folder


def _open_target(target: Path, settings: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """Make the folder ready; return the manifest if the set is complete already."""
    manifest, started = target / "manifest.json", target / ".settings.json"
    check_target(manifest, overwrite=True)  # creates the folder, refuses an unwritable one
    found = _read_json(manifest) if manifest.exists() else _read_json(started) if started.exists() else None
    if found is None and any(target.iterdir()):
        raise UserError(f"{target} holds other files; give a new folder")
    same = found is not None and all(found.get(key) == value for key, value in settings.items())
    if found is not None and not same and not overwrite:
        raise UserError(f"{target} was prepared with other options; choose another folder or add --overwrite")
    if same and manifest.exists() and not overwrite:
        verify(target)
        return found
    if found is not None and (overwrite or not same):
        for name in ("speech", "noise", ".work"):
            shutil.rmtree(target / name, ignore_errors=True)
        manifest.unlink(missing_ok=True)
    _write_json(started, settings)
    return None


# Fetching and unpacking


def _tree(package: Package, work: Path, packages: Path | None, source: Path | None) -> tuple[Path, str | None]:
    """Folder with the package's sounds, and the checksum of its .deb where there is one."""
    if source is not None:
        for root in (Path(source) / package.name, Path(source)):
            if (root / package.folder).is_dir():
                return root / package.folder, None
        raise UserError(f"{source} holds no unpacked {package.name} ({package.name}/{package.folder}); unpack it there")
    deb = _find_deb(Path(packages), package.name) if packages is not None else None
    if deb is None and packages is not None:
        raise UserError(f"{packages} holds no {package.name}_*.deb; download it there, or leave out --packages")
    if deb is None:
        deb = _find_deb(work, package.name) or _download(package.name, work)
    tree = work / package.name
    if not tree.is_dir():
        partial = work / f"{package.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        unpack(deb, partial)
        partial.rename(tree)
    if not (tree / package.folder).is_dir():
        raise UserError(f"{deb} holds no {package.folder}; it is another version than this program knows")
    return tree / package.folder, _checksum(deb)


def _find_deb(folder: Path, name: str) -> Path | None:
    found = sorted(folder.glob(f"{name}_*.deb"))
    return found[-1] if found else None


def _download(name: str, work: Path) -> Path:
    if shutil.which("apt-get") is None:
        raise UserError(
            "there is no apt-get here; download the packages elsewhere and give their folder with --packages"
        )
    with tempfile.TemporaryDirectory(dir=work) as place:
        result = subprocess.run(["apt-get", "download", name], cwd=place, capture_output=True, text=True, check=False)
        deb = _find_deb(Path(place), name)
        if result.returncode != 0 or deb is None:
            lines = [line for line in result.stderr.splitlines() if line.startswith("E:")] or ["no file came"]
            raise UserError(
                f"apt-get cannot download {name} ({lines[-1]}); run `apt-get update`, or give the .deb files "
                "with --packages"
            )
        return deb.rename(work / deb.name)


def unpack(deb: Path, target: Path) -> None:
    """Unpack the data of a .deb file into a folder: with dpkg-deb where there is one, else with Python.

    Raises:
        UserError: not a .deb file, damaged, or compressed in a way that cannot be read here.
    """
    if shutil.which("dpkg-deb"):
        result = subprocess.run(["dpkg-deb", "-x", str(deb), str(target)], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise UserError(f"{deb} cannot be unpacked ({_last_line(result.stderr)}); download it again")
    else:
        unpack_with_python(deb, target)


def unpack_with_python(deb: Path, target: Path) -> None:
    """Unpack a .deb file, an `ar` archive with a compressed tar archive `data.tar.*` in it, without dpkg."""
    found = [member for member in _ar_members(deb) if member[0].startswith("data.tar")]
    if not found:
        raise UserError(f"{deb} holds no data.tar; download it again")
    name, data = found[0]
    if name.endswith(".zst"):  # the standard library reads it from Python 3.14 on
        if shutil.which("zstd") is None:
            raise UserError(
                f"{deb} is compressed with zstd; install dpkg or zstd, or give unpacked packages with --source"
            )
        result = subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=False)
        if result.returncode != 0:
            raise UserError(f"{deb} cannot be unpacked ({_last_line(result.stderr.decode())}); download it again")
        data = result.stdout
    try:
        with tarfile.open(fileobj=BytesIO(data)) as archive:
            archive.extractall(target, filter="data")
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise UserError(f"{deb} cannot be unpacked ({error}); download it again") from None


def _ar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as file:
        if file.read(8) != b"!<arch>\n":
            raise UserError(f"{path} is not a .deb file; download it again")
        while len(header := file.read(60)) == 60:
            name = header[:16].decode("ascii", "replace").strip().rstrip("/")
            size = int(header[48:58])
            data = file.read(size)
            if len(data) < size:
                raise UserError(f"{path} is truncated; download it again")
            yield name, data
            file.seek(size % 2, 1)


# Choosing


def _plan(trees: dict[str, Path], minutes: float | None, noise_minutes: float | None) -> list[_Clip]:
    clips: list[_Clip] = []
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


def _prompts(package: Package, tree: Path, minutes: float | None) -> list[_Clip]:
    found: dict[str, tuple[Path, float]] = {}
    contents: set[bytes] = set()
    for path in sorted(tree.rglob("*.g722")):
        parts = path.relative_to(tree).with_suffix("").parts[1:]  # the first is the voice
        name = "/".join(parts)
        seconds = path.stat().st_size * 2 / _RATE
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
        for name in sorted((name for name in found if split_of(name) == split), key=_hash):
            path, seconds = found[name]
            if seconds <= left:
                left -= seconds
                chosen.append(_Clip(path, f"{kind}/{split}/{group}/{name}", package.name, seconds, True))
    return chosen


def _music(package: Package, tree: Path, minutes: float | None) -> list[_Clip]:
    clips = []
    for name, split in _MUSIC.items():
        path = tree / f"{name}.g722"
        if not path.is_file():
            raise UserError(f"{package.name} holds no {path.name}; it is another version than this program knows")
        seconds = path.stat().st_size * 2 / _RATE
        if minutes is not None:
            seconds = min(seconds, minutes * 60 / len(_MUSIC))
        clips.append(_Clip(path, f"noise/{split}/music/{name}", package.name, seconds, True))
    return clips


def _effects(package: Package, tree: Path) -> list[_Clip]:
    clips = []
    for path in sorted(tree.glob("*.flac")):
        family = re.sub(r"\d+$", "", path.stem)  # numbered takes of one sound stay together
        seconds = audio.info(path).seconds
        clips.append(_Clip(path, f"noise/{split_of(family)}/effects/{path.stem}", package.name, seconds, False))
    return clips


def _unseen(package: Package, tree: Path) -> list[_Clip]:
    group = package.use.partition("/")[2]
    if group == "alsa":
        paths = [(path, "alsa") for path in sorted(tree.glob("*_*.wav"))]
    elif group == "librivox":
        paths = [(path, "librivox") for path in sorted(tree.glob("*.wav"))]
    else:  # the two leading actors: the small (m) and the big (v) fish
        named = [(path, re.match(r"[^-]+-([mv])-", path.name)) for path in tree.glob("*/cs/*.ogg")]
        paths = [(path, f"cs-{match.group(1)}") for path, match in named if match]
        paths.sort(key=lambda pair: _hash(f"{pair[0].parts[-3]}/{pair[0].stem}"))
    left: dict[str, float] = {}
    clips = []
    for path, voice in paths:
        seconds = audio.info(path).seconds
        room = left.setdefault(voice, _UNSEEN_SECONDS)
        if seconds > room or (group == "cs" and not (2 <= seconds <= 8 and _dynamic_range(path) > _QUIET_FLOOR_DB)):
            continue
        left[voice] = room - seconds
        clips.append(_Clip(path, f"speech/unseen/{voice}/{path.stem}", package.name, seconds, False))
    return clips


def _dynamic_range(path: Path) -> float:
    """Level of loud frames (95 %) over quiet ones (5 %) in dB, frames of 20 ms."""
    samples, rate = audio.read(path)
    size = rate // 50
    mono = samples.mean(0)[: samples.shape[1] // size * size].reshape(-1, size)
    loud, quiet = np.percentile(10 * np.log10(np.square(mono).mean(1) + 1e-12), [95, 5])
    return float(loud - quiet)


# Writing


def _make(clip: _Clip, target: Path, form: Form) -> tuple[str, dict[str, Any]]:
    """Write one file unless an earlier run did; files appear complete or not at all."""
    # Unseen voices stay lossless: coding them anew would make them more like the training voices.
    suffix = ".g722" if form == "g722" and "/unseen/" not in clip.target else ".flac"
    name = clip.target + suffix
    path = target / name
    if not path.exists():
        if suffix == ".g722":
            frames = round(clip.seconds * _RATE)
            data = clip.source.read_bytes()[: frames // 2] if clip.keep else _encoded(clip.source)
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
        else:
            samples, _ = audio.read(clip.source, _RATE)
            samples = samples.mean(0, keepdims=True)[:, : round(clip.seconds * _RATE)]
            audio.write(path, _peak_limited(samples), _RATE)
    return name, {
        "sha256": _checksum(path),
        "seconds": round(audio.info(path).seconds, 3),
        "package": clip.package,
        "source": clip.source.name,
    }


def _encoded(path: Path) -> bytes:
    from G722 import G722

    samples, _ = audio.read(path, _RATE)
    pcm = np.round(_peak_limited(samples.mean(0)) * 32767).astype(np.int16)
    return bytes(G722(_RATE, 64000).encode(pcm[: len(pcm) // 2 * 2]))


def _peak_limited(samples: audio.Samples) -> audio.Samples:
    """Scaled down where resampling lifted peaks beyond full scale."""
    return samples / max(1.0, float(np.abs(samples).max()))


def _minutes(entries: dict[str, dict[str, Any]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for name, entry in entries.items():
        group = "/".join(name.split("/")[:3])
        total[group] = total.get(group, 0.0) + entry["seconds"] / 60
    return {group: round(value, 2) for group, value in sorted(total.items())}


def _use(name: str) -> str:
    kind, split, group = name.split("/")[:3]
    return f"unseen/{group.split('-')[0]}" if split == "unseen" else f"{kind}/{group}"


def _hash(name: str) -> bytes:
    return hashlib.sha256(f"{_SALT}/{name}".encode()).digest()


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"there is no {path}; make the set with `ornstein speech prepare {path.parent}`")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and prepare the set again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a manifest; delete it and prepare the set again")
    return content


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


def _bar(items: Any, what: str, show: bool) -> Any:
    from tqdm import tqdm

    return tqdm(items, desc=what, unit="", disable=not show)
