"""The learning rate over the steps of a run."""

import math
from dataclasses import dataclass
from typing import Literal

from ornstein.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up over `warmup_steps`, then constant, or half a cosine down to `final` of the rate at the last step.

    `steps` is the length of the whole run in optimizer steps; None takes it from the Trainer.
    """

    warmup_steps: int = 0
    decay: Literal["constant", "cosine"] = "constant"
    final: float = 0.0
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise UserError(f"warmup_steps of the schedule is {self.warmup_steps}; it must be at least 0")
        if not 0 <= self.final <= 1:
            raise UserError(f"final of the schedule is {self.final:g}, a share of the learning rate; give 0 to 1")
        if self.steps is not None and self.steps < 1:
            raise UserError(f"steps of the schedule is {self.steps}; it must be at least 1, or null for the Trainer's")

    def factor(self, step: int, steps: int) -> float:
        """What multiplies the learning rate at `step` = 0, 1, ... of `steps`."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.decay == "constant":
            return 1.0
        done = min((step - self.warmup_steps) / max(steps - self.warmup_steps, 1), 1.0)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2
