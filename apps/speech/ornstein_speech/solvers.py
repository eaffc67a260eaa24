"""What --sampler NAME means: a solver with a time grid that suits it.

A checkpoint stores the sampler it was tuned for. Another one takes over its number of steps, and its grid where that
serves: ancestral steps do. `Heun` and `DPMSolverPP` extrapolate in log(a/s), which runs away where a grid closes in
on s = 0 without reaching it, as the published bridge grid does (end 1e-4); theirs ends with a first-order step from
T_EPS to 0, as the grid of SGMSE+ does. tests/apps/speech/test_solvers.py measures it against the exact flow of a
Gaussian mixture.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from ornstein.errors import UserError

if TYPE_CHECKING:
    from ornstein.process.affine import Process
    from ornstein.samplers.base import Sampler
    from ornstein.samplers.time_grids import TimeGrid

SamplerName = Literal["sde", "ode", "2m", "heun", "pc", "published"]

GridName = Literal["uniform", "logsnr", "karras", "power"]

T_EPS = 0.03
"""Below this time the networks were not trained (t_eps of SGMSE+)."""


MOST_STEPS = 10000
"""Ten times what any published sampler takes; each is a call of the network for every 4 s of sound."""

NO_SPREAD = 1e-3
"""A bridge starts at y itself; the eps of the published ones gives a spread of 1e-4 there, which they do not draw."""


def starts_from_noise(process: "Process") -> bool:
    """Whether sampling starts from a draw; on a bridge it starts from y."""
    import torch

    return float(process.coefficients(torch.tensor(process.T, dtype=torch.float64)).s) > NO_SPREAD


def choose(
    stored: "Sampler | None", process: "Process", name: SamplerName | None, steps: int | None, grid: GridName | None
) -> "Sampler":
    """The stored sampler with what the user changed, see the head of this module.

    Asked for by the name it has, the stored sampler keeps all its settings.

    Raises:
        UserError: the sampler or the number of steps does not go with the process or the checkpoint.
    """
    from ornstein.process.prediction import Prediction
    from ornstein.samplers.compat_bridge import PublishedBridge

    if isinstance(process, Prediction) and (name is not None or steps not in (None, 1) or grid is not None):
        raise UserError("this checkpoint is a predictive model of one call; leave --sampler, --steps and --grid out")
    if steps is not None and steps < 1:
        raise UserError(f"--steps {steps} must be at least 1")
    if steps is not None and steps > MOST_STEPS:
        raise UserError(f"--steps {steps} would take for ever; give at most {MOST_STEPS}")
    chosen: Any = stored if name is None else _named(stored, name, process)
    if name == "pc" and not starts_from_noise(process):
        others = "sde, ode, 2m, heun or published" if hasattr(process, "variances") else "sde, ode, 2m or heun"
        raise UserError(
            f"pc needs a score at the start, where this checkpoint, a bridge, has none; use --sampler {others}"
        )
    if isinstance(chosen, PublishedBridge) and not hasattr(process, "variances"):
        raise UserError(
            "the sampler `published` is for bridges, which this checkpoint is not; use sde, ode, 2m or heun"
        )
    if steps is not None and _adapts(chosen, process):
        raise UserError(
            f"--steps {steps} has no effect on the sampler of this checkpoint, which adapts its step; leave it out, "
            f"or choose a sampler that takes steps: --sampler pc, sde, ode, 2m or heun with --steps {steps}"
        )
    if grid is not None and _adapts(chosen, process):
        raise UserError(
            f"the grid {grid} has no effect on the sampler of this checkpoint, which adapts its step; leave it out, or "
            "choose a sampler that takes steps: pc, sde, ode, 2m or heun"
        )
    if grid is not None:
        chosen = dataclasses.replace(chosen, grid=_grid(grid, process))
    if steps is not None:
        if getattr(chosen.grid, "times", None) is not None:
            raise UserError("this checkpoint fixes the times of its steps; leave --steps out or choose a --sampler")
        chosen = dataclasses.replace(chosen, steps=steps)
    sampler: Sampler = chosen
    return sampler


def _adapts(sampler: "Sampler", process: "Process") -> bool:
    """Whether it chooses its steps by itself, so that it has no number of them."""
    return sampler.evaluations(process) is None


def _named(stored: "Sampler | None", name: SamplerName, process: "Process") -> "Sampler":
    from ornstein.samplers.ancestral import Ancestral
    from ornstein.samplers.compat_bridge import PublishedBridge
    from ornstein.samplers.dpm_multistep import DPMSolverPP
    from ornstein.samplers.ode_solvers import Heun
    from ornstein.samplers.predictor_corrector import PredictorCorrector
    from ornstein.samplers.time_grids import UniformGrid

    kinds: dict[str, Any] = {
        "sde": Ancestral,
        "ode": Ancestral,
        "2m": DPMSolverPP,
        "heun": Heun,
        "pc": PredictorCorrector,
        "published": PublishedBridge,
    }
    kind = kinds[name]
    other_order = isinstance(stored, DPMSolverPP) and (stored.order, stored.eta) != (2, 0.0)
    if isinstance(stored, kind) and kind is not Ancestral and not other_order:
        return stored
    if stored is not None and _adapts(stored, process):
        stored = PredictorCorrector()  # its steps and its grid: one that adapts has no number of steps, nor an end at 0
    options: dict[str, Any] = {} if stored is None else {"steps": stored.steps}
    if kind is Ancestral:
        options |= {"eta": 1.0 if name == "sde" else 0.0} | ({} if stored is None else {"grid": stored.grid})
    elif name in ("2m", "heun"):
        kept = getattr(stored, "grid", None)
        ends_at_zero = isinstance(kept, UniformGrid) and kept.to_zero
        options["grid"] = kept if ends_at_zero else UniformGrid(end=T_EPS, to_zero=True)
    sampler: Sampler = kind(**options)
    return sampler


def _grid(name: GridName, process: "Process") -> "TimeGrid":
    """The grid called `name`, over all of the process; the last step goes from `T_EPS` to 0 but for `power`.

    Raises:
        UserError: the grid needs a finite log(a/s) at the start, and a bridge has none.
    """
    from ornstein.samplers.time_grids import KarrasGrid, LogSNRGrid, PowerGrid, UniformGrid

    if name in ("logsnr", "karras") and not starts_from_noise(process):
        raise UserError(f"the grid {name} does not exist on a bridge, which starts without noise; use uniform or power")
    match name:
        case "uniform":
            return UniformGrid(end=T_EPS, to_zero=True)
        case "logsnr":
            return LogSNRGrid(end=T_EPS, to_zero=True)
        case "karras":
            return KarrasGrid(sigma_min=float(1 / process.kappa(T_EPS)), sigma_max=1e9)
        case "power":
            return PowerGrid(power=2.0)
