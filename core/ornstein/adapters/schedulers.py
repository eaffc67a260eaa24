"""Processes and time grids from the scheduler configurations of diffusers (scheduler/scheduler_config.json)."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.process.affine import Process
from ornstein.process.betas import (
    BetaSchedule,
    CosineBetas,
    LinearBetas,
    ListedBetas,
    ScaledLinearBetas,
    ZeroTerminalSNR,
)
from ornstein.process.ddpm import DDPM
from ornstein.process.rectified_flow import RectifiedFlow
from ornstein.samplers.time_grids import TimeGrid

Config = Mapping[str, Any]
Spacing = Literal["uniform", "karras", "exponential", "beta"]

FLOW_CLASSES = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")
"""Schedulers of straight paths between clean signal and noise."""
OTHER_CLASSES = {
    "EDMEulerScheduler": "take the process EDM and a Denoiser with EDMPreconditioning",
    "EDMDPMSolverMultistepScheduler": "take the process EDM and a Denoiser with EDMPreconditioning",
    "ScoreSdeVeScheduler": "take the process VE",
    "UnCLIPScheduler": "take DDPM(CosineBetas())",
}
"""Schedulers that are not read, with what to take."""


@dataclass(frozen=True)
class FlowMatching(RectifiedFlow):
    """Rectified flow whose network is told `train_steps` t: Stable Diffusion 3 (Esser et al. 2024) and others of that
    layout."""

    train_steps: int = 1000

    def __post_init__(self) -> None:
        if self.train_steps < 1:
            raise UserError(f"train_steps is {self.train_steps}; it must be at least 1")

    def network_time(self, t: Tensor) -> Tensor:
        return self.train_steps * t


@dataclass(frozen=True)
class FlowMatchGrid(TimeGrid):
    """The times of FlowMatchEulerDiscreteScheduler: `steps` times from `start` to `end`, each k t/(1 + (k - 1) t)
    (Esser et al. 2024, equation 23), then 0; of a process with T = 1.

    Unlike `ShiftedGrid` the last step goes from the shifted `end` to 0.
    """

    shift: float = 1.0
    """k."""
    start: float = 1.0
    end: float | None = None
    """None takes 1/steps, as the pipelines of FLUX do."""
    terminal: float | None = None
    """The noise times are stretched about t = 1 so that the last one before 0 is this."""
    spacing: Spacing = "uniform"
    """Other spacings keep the first and the last of the shifted times: those of Karras et al. 2022 (rho = 7) in t,
    equal steps in log t, or quantiles of the Beta(0.6, 0.6) distribution (Lee et al. 2024)."""

    def __post_init__(self) -> None:
        if not (self.shift > 0 and math.isfinite(self.shift)):
            raise UserError(f"the shift is {self.shift}; it must be positive and finite")
        if not 0 < self.start <= 1 or (self.end is not None and not 0 < self.end <= self.start):
            raise UserError(f"the grid runs from {self.start} to {self.end}; it needs 0 < end <= start <= 1")
        if self.terminal is not None and not 0 < self.terminal < 1:
            raise UserError(f"the terminal time is {self.terminal}; it must lie between 0 and 1")
        if self.spacing not in ("uniform", "karras", "exponential", "beta"):
            raise UserError(f"the spacing {self.spacing!r} is unknown; take uniform, karras, exponential or beta")

    def __call__(self, process: Process, steps: int) -> Tensor:
        if process.T != 1:
            raise UserError(f"the grid is one of flows with T = 1, {process} has T = {process.T:g}")
        if steps < 1:
            raise UserError(f"a grid needs at least one step, got {steps}")
        end = min(1 / steps, self.start) if self.end is None else self.end
        t = torch.linspace(self.start, end, steps, dtype=torch.float64)
        t = self.shift * t / (1 + (self.shift - 1) * t)
        if self.terminal is not None:
            if float(t[-1]) >= 1:
                raise UserError("one step has no last time to stretch; take two steps or more, or terminal=None")
            t = 1 - (1 - t) * (1 - self.terminal) / (1 - t[-1])
        return torch.cat([self._spaced(t), t.new_zeros(1)])

    def _spaced(self, t: Tensor) -> Tensor:
        first, last = float(t[0]), float(t[-1])
        ramp = torch.linspace(0, 1, len(t), dtype=torch.float64)
        match self.spacing:
            case "karras":
                return (first ** (1 / 7) + ramp * (last ** (1 / 7) - first ** (1 / 7))) ** 7
            case "exponential":
                return (math.log(first) + ramp * (math.log(last) - math.log(first))).exp()
            case "beta":
                from scipy.stats import beta

                return last + torch.from_numpy(beta.ppf(1 - ramp.numpy(), 0.6, 0.6)) * (first - last)
        return t


def load_scheduler_config(folder: str | Path) -> dict[str, Any]:
    """The scheduler's configuration of a pipeline on disk.

    Raises:
        UserError: there is none, or it is no JSON object.
    """
    path = Path(folder) / "scheduler" / "scheduler_config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; give the folder of a pipeline") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no scheduler configuration; give the folder of a pipeline")
    return config


def is_flow(config: Config) -> bool:
    """Whether the scheduler is one of straight paths, by its class, its prediction or `use_flow_sigmas`."""
    return (
        config.get("_class_name") in FLOW_CLASSES
        or bool(config.get("use_flow_sigmas"))
        or config.get("prediction_type") == "flow_prediction"
        or (config.get("_class_name") is None and "shift" in config and "beta_schedule" not in config)
    )


def scheduler_process(config: Config) -> Process:
    """The process of a scheduler's configuration: `FlowMatching`, or `DDPM` with t = i + 1 for time step i.

    Raises:
        UserError: the network of that scheduler is told another time, or its schedule is not known or not usable.
    """
    name = str(config.get("_class_name") or "the scheduler")
    if name in OTHER_CLASSES:
        raise UserError(f"{name} cannot be read as a table of betas or a flow; {OTHER_CLASSES[name]}")
    if config.get("snr_shift_scale") not in (None, 1.0):
        raise UserError(f"{name} shifts its betas after the table (snr_shift_scale); list them with ListedBetas")
    if config.get("timestep_type") == "continuous":
        raise UserError(f"{name} tells its network log(sigma)/4; take the process EDM and EDMPreconditioning")
    try:
        steps = int(config.get("num_train_timesteps", 1000))
        if steps < 1:
            raise ValueError(f"{steps} is less than 1")
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} has no usable num_train_timesteps: {error}; check the file") from error
    if is_flow(config):
        if config.get("invert_sigmas"):
            raise UserError(f"{name} counts time from noise to signal (invert_sigmas), which is not read")
        return FlowMatching(steps)
    kind, listed = config.get("beta_schedule"), config.get("trained_betas")
    schedules: dict[Any, Callable[[], BetaSchedule]] = {
        "linear": lambda: LinearBetas(steps, float(config["beta_start"]), float(config["beta_end"])),
        "scaled_linear": lambda: ScaledLinearBetas(steps, float(config["beta_start"]), float(config["beta_end"])),
        "squaredcos_cap_v2": lambda: CosineBetas(steps),
    }
    if listed is None and kind is None:
        raise UserError(
            f"{name} has neither betas nor a flow; read are schedulers with beta_schedule ({', '.join(schedules)}) or "
            f"trained_betas, those with use_flow_sigmas, and {', '.join(FLOW_CLASSES)}; or make a process by hand"
        )
    if listed is None and kind not in schedules:
        raise UserError(f"the beta schedule {kind!r} is unknown; make a process from its betas with ListedBetas")
    try:
        schedule = schedules[kind]() if listed is None else ListedBetas(tuple(float(beta) for beta in listed))
        process = DDPM(ZeroTerminalSNR(schedule) if config.get("rescale_betas_zero_snr") else schedule)
        process.levels  # noqa: B018  # makes the table, which finds betas that are none
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"the scheduler's configuration has no usable betas: {error}; check the file") from error
    return process


def scheduler_prediction(config: Config) -> str:
    """What the network predicts, for `diffusers_denoiser`: the prediction_type, or what the scheduler takes without."""
    usual = "flow_prediction" if is_flow(config) else "epsilon"
    return str(config.get("prediction_type") or usual)


def flow_grid(config: Config, tokens: int | None = None) -> FlowMatchGrid:
    """The grid of a FlowMatchEulerDiscreteScheduler.

    A fixed shift acts twice, on the table and on the steps chosen from it, as in the scheduler itself. The pipelines of
    FLUX end at 1/steps instead: `dataclasses.replace(grid, end=None)`.

    Args:
        config: its configuration.
        tokens: length of the latent as the transformer sees it, (H/patch)(W/patch); a dynamic shift rests on it.

    Raises:
        UserError: another scheduler, or a dynamic shift without `tokens`.
    """
    name = config.get("_class_name")
    if not is_flow(config) or name not in (None, FLOW_CLASSES[0]):
        raise UserError(f"{name} is not {FLOW_CLASSES[0]}; choose a grid of ornstein.samplers.time_grids")
    process = scheduler_process(config)
    assert isinstance(process, FlowMatching)
    chosen = [s for s in ("karras", "exponential", "beta") if config.get(f"use_{s}_sigmas")]
    if len(chosen) > 1:
        raise UserError(f"the scheduler asks for {' and '.join(chosen)} spacing at once; keep one of them")
    end = 1 / process.train_steps
    try:
        if config.get("use_dynamic_shifting"):
            shift = _dynamic_shift(config, tokens)
        else:
            shift = float(config.get("shift", 1.0))
            end = shift * end / (1 + (shift - 1) * end)
        terminal = config.get("shift_terminal")
        stretched = float(terminal) if terminal else None
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise UserError(f"the scheduler's configuration has no usable shift: {error}; check the file") from error
    spacing: Any = chosen[0] if chosen else "uniform"
    return FlowMatchGrid(shift, 1.0, end, stretched, spacing)


def _dynamic_shift(config: Config, tokens: int | None) -> float:
    """k of a picture of `tokens`: mu is linear in them, k is e^mu or mu."""
    if tokens is None or tokens < 1:
        raise UserError("the shift of this scheduler depends on the size of the picture; give tokens, at least 1")
    low, high = int(config.get("base_image_seq_len", 256)), int(config.get("max_image_seq_len", 4096))
    base, largest = float(config.get("base_shift", 0.5)), float(config.get("max_shift", 1.15))
    mu = base + (largest - base) * (tokens - low) / (high - low)
    kind = config.get("time_shift_type", "exponential")
    if kind not in ("exponential", "linear"):
        raise UserError(f"the time shift {kind!r} is unknown; it is exponential or linear")
    return math.exp(mu) if kind == "exponential" else mu
