"""The real clips of `data/speech`, cut from a prepared set."""

from pathlib import Path

from ornstein.errors import UserError
from ornstein.files import atomic_path
from ornstein.manifest import checksum, read_json, write_json
from ornstein_speech import audio
from ornstein_speech.prompts import RATE, name_hash, use_of


def demo_clips(prompts: Path, target: Path, overwrite: bool = False) -> None:
    """Make the real clips of `data/speech` from a prepared set (form g722): pairs, single clips, a tiny training set.

    Args:
        prompts: folder made by `prepare`.
        target: folder to fill with clean/, noisy/, clips/, tiny/ and manifest.json.
        overwrite: replace what is there.
    """
    from ornstein_speech.datasets import FixedMixes

    prompts, target = Path(prompts), Path(target)
    manifest = read_json(prompts / "manifest.json", "ornstein speech prepare")
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
            audio.write(target / name, item[side].numpy(), RATE, overwrite=overwrite)
            origin[name] = [use for use in (f"speech/{voice}", f"noise/{kind}") if side == "noisy" or use[0] == "s"]

    def pick(folder: str, low: float, high: float, count: int) -> list[str]:
        names = [n for n, e in manifest["files"].items() if n.startswith(folder + "/") and low <= e["seconds"] <= high]
        if len(names) < count:
            raise UserError(f"{prompts / folder} has {len(names)} files of {low:g} to {high:g} s, {count} are needed")
        return sorted(sorted(names, key=name_hash)[:count])

    singles = [(f"speech/test/{voice}", f"speech_{voice}", 3.0, 5.0) for voice in ("en", "fr", "it", "ru")]
    singles += [
        ("speech/unseen/librivox", "speech_librivox", 3.0, 8.0),
        ("noise/test/babble", "noise_babble", 3.0, 5.0),
        ("noise/test/music", "noise_music", 5.0, 1e4),
        ("noise/test/effects", "noise_effects", 1.0, 5.0),
    ]
    for folder, name, low, high in singles:
        found = pick(folder, low, high, 1)[0]
        samples, _ = audio.read(prompts / found, RATE)
        goal = f"clips/{name}.flac"
        audio.write(target / goal, samples[:, : 5 * RATE], RATE, overwrite=overwrite)
        origin[goal] = [use_of(found)]

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
                temporary.write_bytes(data[: 15 * RATE // 2] if "/music/" in name else data)
            origin[goal] = [use_of(name)]

    by_use = {package["use"]: package for package in manifest["packages"]}
    files = {}
    for name, uses in sorted(origin.items()):
        made_of = [by_use[use] for use in uses if use in by_use]  # coloured noise has no package
        files[name] = {
            "sha256": checksum(target / name),
            "seconds": round(audio.info(target / name).seconds, 3),
            "packages": [package["name"] for package in made_of],
            "licences": sorted({package["licence"] for package in made_of}),
            "copyright": [package["copyright"] for package in made_of],
        }
    write_json(target / "manifest.json", {"format": 1, "made_by": "ornstein_speech.demo_clips", "files": files})
