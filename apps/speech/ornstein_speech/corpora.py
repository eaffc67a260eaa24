"""The published corpora of speech enhancement, made from the user's copies of what they consist of."""

from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from ornstein.errors import UserError
from ornstein.manifest import checksum
from ornstein_speech.pairs import fingerprint, make_pairs

Corpus = Literal["wsj0-chime3", "wsj0-reverb", "ears-wham", "ears-reverb"]

_NEEDS = {
    "wsj0-chime3": ("wsj0", "chime3"),
    "wsj0-reverb": ("wsj0",),
    "ears-wham": ("ears", "wham"),
    "ears-reverb": ("ears", "rirs"),
}


def prepare_corpus(
    corpus: Corpus,
    target: Path,
    wsj0: Path | None = None,
    chime3: Path | None = None,
    ears: Path | None = None,
    wham: Path | None = None,
    rirs: Path | None = None,
    test_cuts: Path | None = None,
    seed: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Make a published corpus from your copies of its parts.

    wsj0-chime3 needs --wsj0 and --chime3, wsj0-reverb needs --wsj0, ears-wham needs --ears and --wham, ears-reverb
    needs --ears and --rirs. Writes TARGET/{train,valid,test}/{clean,noisy}, or {anechoic,reverb}, and a manifest. A run
    that was stopped goes on when started again.

    Args:
        corpus: wsj0-chime3, wsj0-reverb, ears-wham or ears-reverb.
        target: new folder.
        wsj0: folder of WSJ0 with si_tr_s, si_dt_05 and si_et_05.
        chime3: folder of CHiME-3 with backgrounds.
        ears: folder of EARS with p001 to p107.
        wham: folder high_res_wham of the 48 kHz WHAM! noise.
        rirs: folder with the folders of room impulse responses that EARS-Reverb names.
        test_cuts: test_files.json of the EARS benchmark, which says where test recordings are cut; without it they are
            cut like the others, and results do not compare with published ones.
        seed: of noises, levels and rooms.
        workers: processes; one per core by default.
        overwrite: replace a set made with other options.
        quiet: no progress bar and no summary.

    Returns:
        The manifest, as written to TARGET/manifest.json.
    """
    if corpus not in get_args(Corpus):
        raise UserError(f"corpus is {corpus!r}; use one of {', '.join(get_args(Corpus))}")
    given = {"wsj0": wsj0, "chime3": chime3, "ears": ears, "wham": wham, "rirs": rirs}
    folders = {}
    for name in _NEEDS[corpus]:
        if (folder := given[name]) is None:
            raise UserError(f"{corpus} is made of --{' and --'.join(_NEEDS[corpus])}; --{name} is missing")
        folders[name] = Path(folder)
    settings: dict[str, Any] = {"set": corpus, "seed": seed}
    options: dict[str, Any] = {"workers": workers, "overwrite": overwrite, "quiet": quiet}
    make = _wsj0 if corpus.startswith("wsj0") else partial(_ears, test_cuts=test_cuts)
    manifest = make(corpus, Path(target), folders, settings, options)
    if not quiet:
        print(f"{len(manifest['files'])} pairs in {target}")
    return manifest


def _wsj0(
    corpus: str, target: Path, folders: dict[str, Path], settings: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    from ornstein_speech import reverb, rooms, wsj0

    jobs = wsj0.wsj0_jobs(folders["wsj0"], settings["seed"])
    if corpus == "wsj0-reverb":
        rooms.require_simulator()
        room = reverb.ReverbRecipe(wsj0.RATE, strict=True)
        return make_pairs(target, settings, jobs, room, folders=reverb.FOLDERS, **options)
    noises = wsj0.chime3_noises(folders["chime3"])
    settings["noises"] = fingerprint({"all": noises}, folders["chime3"])
    noise = wsj0.NoiseRecipe(noises, folders["chime3"])
    return make_pairs(target, settings, jobs, noise, **options)


def _ears(
    corpus: str,
    target: Path,
    folders: dict[str, Path],
    settings: dict[str, Any],
    options: dict[str, Any],
    test_cuts: Path | None,
) -> dict[str, Any]:
    from ornstein_speech import ears, reverb

    jobs = ears.ears_jobs(folders["ears"], settings["seed"], test_cuts)
    settings["test_cuts"] = checksum(Path(test_cuts)) if test_cuts is not None else None
    if corpus == "ears-wham":
        noises = ears.wham_noises(folders["wham"])
        files = {split: [path for path, _ in found] for split, found in noises.items()}
        settings["noises"] = fingerprint(files, folders["wham"])
        noise = ears.WhamRecipe(noises, folders["wham"])
        return make_pairs(target, settings, jobs, noise, **options)
    responses = ears.responses(folders["rirs"], settings["seed"])
    settings["responses"] = fingerprint(responses, folders["rirs"])
    room = ears.ResponseRecipe(responses, folders["rirs"])
    return make_pairs(target, settings, jobs, room, folders=reverb.FOLDERS, **options)
