"""What an evaluation compares: checkpoints, each with samplers and numbers of steps."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ornstein.errors import UserError
from ornstein.scoring import checkpoint_names
from ornstein_speech.solvers import GridName, SamplerName

if TYPE_CHECKING:
    from ornstein_speech.enhance import Enhancer


@dataclass(frozen=True)
class System:
    """A checkpoint (None: the shipped one) with a sampler, steps and time grid (None: as stored)."""

    checkpoint: Path | None = None
    sampler: SamplerName | None = None
    steps: int | None = None
    grid: GridName | None = None

    @classmethod
    def parse(cls, text: str) -> "System":
        """Read `CHECKPOINT:SAMPLER:STEPS:GRID`, of which every part may be empty or, from the right, left out.

        Raises:
            UserError: an unknown sampler or grid, or steps that are no number.
        """
        parts = [part or None for part in text.split(":")] + [None] * 3
        checkpoint, sampler, steps, grid = parts[:4]
        if text.count(":") > 3:
            raise UserError(f"system {text!r} has more than four parts; write CHECKPOINT:SAMPLER:STEPS:GRID")
        for value, kind, known in ((sampler, "sampler", get_args(SamplerName)), (grid, "grid", get_args(GridName))):
            if value is not None and value not in known:
                raise UserError(f"system {text!r}: there is no {kind} {value!r}; use {', '.join(known)}")
        if steps is not None and not steps.isdecimal():
            raise UserError(f"system {text!r}: {steps!r} is no number of steps; write CHECKPOINT:SAMPLER:STEPS:GRID")
        path = None if checkpoint in (None, "shipped") else Path(str(checkpoint))
        return cls(path, sampler, None if steps is None else int(steps), grid)  # type: ignore[arg-type]

    @property
    def model(self) -> str:
        """The checkpoint's name without folder and suffix."""
        return "shipped" if self.checkpoint is None else self.checkpoint.stem


def combine(
    checkpoint: Path | Sequence[Path] | None,
    sampler: SamplerName | Sequence[SamplerName] | None,
    steps: int | Sequence[int] | None,
) -> list[System]:
    """Every checkpoint with every sampler and every number of steps."""
    return [System(*parts) for parts in itertools.product(_several(checkpoint), _several(sampler), _several(steps))]


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def load(systems: Sequence[System], **options: Any) -> dict[str, "Enhancer"]:
    """Load every system under a name that tells it from the others; a checkpoint is loaded once, with `options` of
    `Enhancer`.

    The names hold what differs, and the number of network calls.

    Raises:
        UserError: a system cannot be loaded, or two of them are the same.
    """
    from ornstein_speech.enhance import Enhancer

    if not systems:
        raise UserError("no system to evaluate; leave --systems out or name one as CHECKPOINT:SAMPLER:STEPS")
    loaded: dict[Path | None, Enhancer] = {}
    enhancers: dict[str, Enhancer] = {}
    names = checkpoint_names(system.checkpoint for system in systems if system.checkpoint is not None)
    many_samplers, many_grids = (len({getattr(system, part) for system in systems}) > 1 for part in ("sampler", "grid"))
    for system in systems:
        settings: dict[str, Any] = {"sampler": system.sampler, "steps": system.steps, "grid": system.grid}
        if system.checkpoint in loaded:
            enhancer = loaded[system.checkpoint].having(**settings)
        else:
            enhancer = Enhancer(system.checkpoint, **settings, **options)
            loaded[system.checkpoint] = enhancer
        nfe = enhancer.evaluations
        parts = [
            "shipped" if system.checkpoint is None else names[system.checkpoint],
            *([system.sampler or "stored"] if many_samplers else []),
            *([system.grid] if many_grids and system.grid else []),
            *([f"NFE {nfe}"] if nfe is not None else []),
        ]
        name = ", ".join(parts)
        if name in enhancers:
            raise UserError(
                f"two systems would be called {name!r}; leave one out, or name settings that differ in more than steps "
                "with equal network calls (NFE)"
            )
        enhancers[name] = enhancer
    return enhancers


def digest(checkpoint: Path | None) -> str:
    """The first 16 digits of the SHA-256 of the weights file."""
    from ornstein_speech.enhance import SHIPPED

    with (checkpoint or SHIPPED).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
