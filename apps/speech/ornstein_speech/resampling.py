"""Copies of a folder of recordings at another rate."""

from pathlib import Path

from ornstein.errors import UserError
from ornstein.manifest import bar
from ornstein_speech import audio


def resample(source: Path, target: Path, rate: int = 16000, overwrite: bool = False, quiet: bool = False) -> int:
    """Write a copy of a folder of sound files at another rate, as 16-bit WAV under the same names; return their number.

    Example: VoiceBank-DEMAND from 48 to 16 kHz before training. A file that cannot be read does not stop the others.

    Args:
        source: folder with sound files, any depth.
        target: new folder.
        rate: in Hz.
        overwrite: replace existing files; without it they are kept, so that an interrupted run can go on.
        quiet: no progress bar and no summary.

    Raises:
        UserError: no sound files, or some could not be copied; the others are there.
    """
    source, target = Path(source), Path(target)
    if rate < 1:
        raise UserError(f"rate is {rate}; give a positive number of Hz, such as 16000")
    goals: dict[Path, Path] = {}
    for path in audio.find(source):
        goal = (target / path.relative_to(source)).with_suffix(".wav")
        if goal in goals:
            raise UserError(f"{goals[goal]} and {path} would become the same file {goal}; rename one of them")
        goals[goal] = path
    if not goals:
        raise UserError(f"{source} holds no sound files; check the folder")
    failures = []
    for goal, path in bar(goals.items(), "files", quiet):
        if goal.exists() and not overwrite:
            continue
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


def _copy(path: Path, goal: Path, rate: int, overwrite: bool) -> None:
    header = audio.info(path)
    with audio.writer(goal, rate, header.channels, overwrite=overwrite) as put:
        for block in audio.blocks(path, 1 << 19, rate):
            put(block)
