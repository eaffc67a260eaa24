"""The learning rate over the steps of a run."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up over `warmup_steps`, then constant, or half a cosine down to `final` of the rate at the last step.

    `steps` is the length of the whole run in optimizer steps; None takes it from the Trainer.
    """

    warmup_steps: int = 0
    decay: Literal["constant", "cosine"] = "constant"
    final: float = 0.0
    steps: int | None = None

    def factor(self, step: int, steps: int) -> float:
        """What multiplies the learning rate at `step` = 0, 1, ... of `steps`."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.decay == "constant":
            return 1.0
        done = min((step - self.warmup_steps) / max(steps - self.warmup_steps, 1), 1.0)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2
