"""The predictor-corrector sampler of SGMSE+ before June 2024, with which the tables of 2022 and 2023 were made."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.samplers.predictor_corrector import PredictorCorrector


@dataclass(frozen=True)
class PublishedUniformSteps(PredictorCorrector):
    """Every step moves by dt = 1/N, while the times it is computed at are linspace(1, t_eps, N).

    So the state and the time that the network is told drift apart: after N - 1 steps one has moved by (N - 1)/N, the
    other by 1 - t_eps. `PredictorCorrector` moves by the difference of the times.
    """

    @property
    def convergence_order(self) -> int | None:
        return None

    def step_length(self, t: Tensor, s: Tensor) -> Tensor:
        return torch.full_like(t, 1 / self.steps)
