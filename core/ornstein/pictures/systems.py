"""What an evaluation compares: checkpoints, each with samplers and numbers of steps."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from ornstein.errors import UserError
from ornstein.pictures.solvers import SamplerName
from ornstein.scoring import checkpoint_names

if TYPE_CHECKING:
    from ornstein.pictures.restorer import PictureRestorer

P = TypeVar("P", bound="PictureRestorer[Any]")


@dataclass(frozen=True)
class System:
    """A checkpoint with a sampler and steps (None: as stored)."""

    checkpoint: Path
    sampler: SamplerName | None = None
    steps: int | None = None

    @classmethod
    def parse(cls, text: str) -> "System":
        """Read `CHECKPOINT:SAMPLER:STEPS`, of which the last two may be empty or left out.

        Raises:
            UserError: no checkpoint, an unknown sampler, or steps that are no number.
        """
        checkpoint, sampler, steps, *more = [*text.split(":"), "", ""]
        if not checkpoint or any(more):
            raise UserError(f"system {text!r} is not CHECKPOINT:SAMPLER:STEPS; write for example a.safetensors:2m:5")
        if sampler and sampler not in get_args(SamplerName):
            known = ", ".join(get_args(SamplerName))
            raise UserError(f"system {text!r}: there is no sampler {sampler!r}; use {known}")
        if steps and not steps.isdecimal():
            raise UserError(f"system {text!r}: {steps!r} is no number of steps; write CHECKPOINT:SAMPLER:STEPS")
        return cls(Path(checkpoint), sampler or None, int(steps) if steps else None)  # type: ignore[arg-type]


def combine(checkpoints: Any, samplers: Any, steps: Any) -> list[System]:
    """Every checkpoint with every sampler and every number of steps; each is one, several or None."""
    several = [list(value) if isinstance(value, (list, tuple)) else [value] for value in (checkpoints, samplers, steps)]
    return [System(*parts) for parts in itertools.product(*several) if parts[0] is not None]


def load(systems: Sequence[System], make: Callable[..., P]) -> dict[str, P]:
    """Load every system under a name that tells it from the others; a checkpoint is loaded once, by
    `make(checkpoint, sampler=..., steps=...)`.

    Raises:
        UserError: a system cannot be loaded, or two of them are the same.
    """
    loaded: dict[Path, P] = {}
    restorers: dict[str, P] = {}
    names = checkpoint_names(system.checkpoint for system in systems)
    many_samplers = len({system.sampler for system in systems}) > 1
    for system in systems:
        settings: dict[str, Any] = {"sampler": system.sampler, "steps": system.steps}
        if system.checkpoint in loaded:
            restorer = loaded[system.checkpoint].having(**settings)
        else:
            restorer = loaded[system.checkpoint] = make(system.checkpoint, **settings)
        calls = restorer.model.evaluations
        parts = [
            names[system.checkpoint],
            *([system.sampler or "stored"] if many_samplers else []),
            *([f"NFE {calls}"] if calls is not None else []),
        ]
        name = ", ".join(parts)
        if name in restorers:
            raise UserError(f"two systems would be called {name!r}: they are the same; leave one out")
        restorers[name] = restorer
    return restorers
