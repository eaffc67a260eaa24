"""What --sampler NAME means: a solver on the grid of equal steps in time, which visits the levels of a table."""

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from ornstein.errors import UserError

if TYPE_CHECKING:
    from ornstein.process.affine import Process
    from ornstein.samplers.base import Sampler

SamplerName = Literal["sde", "ode", "2m", "heun", "unipc", "ghvb"]


def choose(stored: "Sampler | None", process: "Process", name: SamplerName | None, steps: int | None) -> "Sampler":
    """The stored sampler with what the user changed; another one takes over its number of steps.

    Raises:
        UserError: the sampler or the number of steps does not go with the process or the checkpoint.
    """
    from ornstein.process.prediction import Prediction

    if isinstance(process, Prediction) and (name is not None or steps not in (None, 1)):
        raise UserError("this checkpoint is a regression model of one call; leave --sampler and --steps out")
    if name is None and stored is None:
        raise UserError("the checkpoint names no sampler; choose one with --sampler")
    chosen: Any = stored if name is None else _named(stored, name)
    if steps is not None:
        levels = getattr(process, "levels", None)
        if steps < 1 or (levels is not None and steps > levels):
            most = "" if levels is None else f" and at most {levels}, the levels of this checkpoint"
            raise UserError(f"--steps {steps} must be at least 1{most}")
        if getattr(chosen.grid, "times", None) is not None and steps != chosen.steps:
            raise UserError("this checkpoint fixes the times of its steps; leave --steps out or choose a --sampler")
        chosen = dataclasses.replace(chosen, steps=steps)
    sampler: Sampler = chosen
    return sampler


def _named(stored: "Sampler | None", name: SamplerName) -> "Sampler":
    from ornstein.samplers.ancestral import Ancestral
    from ornstein.samplers.dpm_multistep import DPMSolverPP
    from ornstein.samplers.momentum import GHVB
    from ornstein.samplers.ode_solvers import Heun
    from ornstein.samplers.unipc import UniPC

    options: dict[str, Any] = {} if stored is None else {"steps": stored.steps}
    match name:
        case "sde":
            return Ancestral(eta=1.0, **options)
        case "ode":
            return Ancestral(eta=0.0, **options)
        case "2m":
            return DPMSolverPP(**options)
        case "heun":
            return Heun(**options)
        case "unipc":
            return UniPC(**options)
        case "ghvb":
            return GHVB(**options)
