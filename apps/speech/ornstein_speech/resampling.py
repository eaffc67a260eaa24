"""Copies of a folder of recordings at another rate."""

from pathlib import Path

from ornstein.errors import UserError
from ornstein.files import make_folder, require_apart
from ornstein.manifest import bar
from ornstein_speech import audio

LENGTH_TOLERANCE = 0.1
"""Seconds by which a copy may be shorter or longer; lengths in the headers of MP3 files are near ones."""


def resample(source: Path, target: Path, rate: int = 16000, overwrite: bool = False, quiet: bool = False) -> int:
    """Write a copy of a folder of sound files at another rate, as 16-bit WAV under the same names; return their number.

    Example: VoiceBank-DEMAND from 48 to 16 kHz before training. A file that cannot be read does not stop the others.

    Args:
        source: folder with sound files, any depth.
        target: new folder.
        rate: in Hz.
        overwrite: replace existing files; without it copies of this rate are kept, so that an interrupted run can go
            on, and others refused.
        quiet: no progress bar and no summary.

    Raises:
        UserError: no sound files, the target lies inside the source, it holds files that are no copies of this rate,
            or some could not be copied; the others are there.
    """
    source, target = Path(source), Path(target)
    audio.require_rate(rate, "--rate")
    require_apart(source, target)
    goals: dict[Path, Path] = {}
    for path in audio.find(source):
        goal = (target / path.relative_to(source)).with_suffix(".wav")
        if goal in goals:
            raise UserError(f"{goals[goal]} and {path} would become the same file {goal}; rename one of them")
        goals[goal] = path
    if not goals:
        raise UserError(f"{source} holds no sound files; check the folder")
    made = {} if overwrite else {goal: path for goal, path in goals.items() if goal.exists()}
    for goal, path in made.items():
        _require_copy(path, goal, rate)
    make_folder(target)
    failures = []
    missing = {goal: path for goal, path in goals.items() if goal not in made}
    for goal, path in bar(missing.items(), "files", quiet):
        try:
            _copy(path, goal, rate, overwrite)
        except UserError as error:
            failures.append(str(error))
    if failures:
        raise UserError(
            f"{len(failures)} of {len(goals)} files could not be copied; mend or remove them and run this again: "
            + "; ".join(failures[:3])
            + ("; ..." if len(failures) > 3 else "")
        )
    if not quiet:
        print(f"{len(goals)} files in {target}")
    return len(goals)


def _require_copy(path: Path, goal: Path, rate: int) -> None:
    """Raise UserError if an existing file is not what `path` would become at this rate, by its header."""
    there, header = audio.info(goal), audio.info(path)
    if there.rate != rate:
        raise UserError(f"{goal} has {there.rate} Hz, not {rate}; choose another folder or add --overwrite")
    if there.channels != header.channels or abs(there.seconds - header.seconds) > LENGTH_TOLERANCE:
        raise UserError(
            f"{goal} is no copy of {path}, by its length or channels; choose another folder or add --overwrite"
        )


def _copy(path: Path, goal: Path, rate: int, overwrite: bool) -> None:
    header = audio.info(path)
    with audio.writer(goal, rate, header.channels, overwrite=overwrite) as put:
        for block in audio.blocks(path, 1 << 19, rate):
            put(block)
