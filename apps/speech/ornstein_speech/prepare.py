"""The default training set "prompts-16k": real speech and noise from Debian packages, fetched without root.

Layout below the target folder:

    speech/{train,valid,test}/{en,fr,it,ru}/...   prompts of four professional voices
    speech/unseen/{cs-m,cs-v,librivox,alsa}/...   voices that training never hears: the second test set
    noise/{train,valid,test}/{babble,music,effects}/...
    manifest.json                                 settings, packages with licences, every file with checksum and seconds
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from ornstein.debian import unpacked
from ornstein.errors import UserError
from ornstein.files import atomic_path
from ornstein.manifest import WORK, announce, bar, checksum, close_folder, open_folder, verify
from ornstein_speech import audio
from ornstein_speech.prompts import PACKAGES, RATE, SALT, Clip, plan

Form = Literal["g722", "flac"]
COMMAND = "ornstein speech prepare"
_FORMAT = 1


def prepare(
    target: Path,
    packages: Path | None = None,
    source: Path | None = None,
    overwrite: bool = False,
    form: Form = "g722",
    minutes: float | None = None,
    noise_minutes: float | None = None,
    quiet: bool = False,
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
        quiet: no progress bar and no summary.

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
    settings = {"format": _FORMAT, "set": SALT, "form": form, "minutes": minutes, "noise_minutes": noise_minutes}
    if (done := open_folder(target, settings, ("speech", "noise"), overwrite)) is not None:
        count = verify(target, COMMAND)
        if not quiet:
            print(f"{count} files in {target}, complete and unchanged")
        return done
    trees = {}
    descriptions = []
    for package in bar(PACKAGES, "packages", quiet):
        trees[package.name], deb = unpacked(package.name, package.folder, target / WORK, packages, source)
        descriptions.append(
            {
                "name": package.name,
                "sha256": checksum(deb) if deb else None,
                "licence": package.licence,
                "copyright": package.holder,
                "use": package.use,
            }
        )
    clips = plan(trees, minutes, noise_minutes)
    entries = {}
    for clip in bar(clips, "files", quiet):
        name, entry = _make(clip, target, form)
        entries[name] = entry
    manifest = {
        **settings,
        "rate": RATE,
        "split": "sha256 of prompts-16k/NAME: 80/10/10; music by track; effects by name without number",
        "packages": descriptions,
        "minutes_made": _minutes(entries),
        "files": dict(sorted(entries.items())),
    }
    close_folder(target, manifest)
    if not quiet:
        print(f"{len(entries)} files in {target}")
    return manifest


def _make(clip: Clip, target: Path, form: Form) -> tuple[str, dict[str, Any]]:
    """Write one file unless an earlier run did; files appear complete or not at all."""
    # Unseen voices stay lossless: coding them anew would make them more like the training voices.
    suffix = ".g722" if form == "g722" and "/unseen/" not in clip.target else ".flac"
    name = clip.target + suffix
    path = target / name
    if not path.exists():
        announce(target, [name])
        if suffix == ".g722":
            frames = round(clip.seconds * RATE)
            data = clip.source.read_bytes()[: frames // 2] if clip.keep else _encoded(clip.source)
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
        else:
            samples, _ = audio.read(clip.source, RATE)
            samples = samples.mean(0, keepdims=True)[:, : round(clip.seconds * RATE)]
            audio.write(path, _peak_limited(samples), RATE)
    return name, {
        "sha256": checksum(path),
        "seconds": round(audio.info(path).seconds, 3),
        "package": clip.package,
        "source": clip.source.name,
    }


def _encoded(path: Path) -> bytes:
    from G722 import G722

    samples, _ = audio.read(path, RATE)
    pcm = np.round(_peak_limited(samples.mean(0)) * 32767).astype(np.int16)
    return bytes(G722(RATE, 64000).encode(pcm[: len(pcm) // 2 * 2]))


def _peak_limited(samples: audio.Samples) -> audio.Samples:
    """Scaled down where resampling lifted peaks beyond full scale."""
    return samples / max(1.0, float(np.abs(samples).max()))


def _minutes(entries: dict[str, dict[str, Any]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for name, entry in entries.items():
        group = "/".join(name.split("/")[:3])
        total[group] = total.get(group, 0.0) + entry["seconds"] / 60
    return {group: round(value, 2) for group, value in sorted(total.items())}
