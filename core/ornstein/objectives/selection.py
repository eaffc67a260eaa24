"""One network learns residual and noise at once until it is seen which of them suits the data (RDDM's AOSA)."""

from typing import Literal

import torch
from torch import Tensor, nn

from ornstein.denoiser import DenoiserLike
from ornstein.objectives.denoising import Objective, squared_magnitude
from ornstein.objectives.outputs import corrupted, with_outputs
from ornstein.objectives.time_sampling import TimeSampling, UniformLevels
from ornstein.residual_outputs import ResidualOutputs, noise_of_residual, x0_of_noise

Choice = Literal["residual", "noise"]
UNDECIDED = -1
CHOICES: tuple[Choice, Choice] = ("noise", "residual")
"""By the number that `decided` holds: 0 is a choice like the other."""


class AutomaticObjectiveSelection(nn.Module, Objective):
    """Automatic objective selection (RDDM, Liu et al. 2024, arXiv 2308.13712, section 4.2 and its code).

    With o the network's output and lam, `balance`, learned with it from 1/2 on:

        Rhat = lam o + (1 - lam) (y - clip(x0 of the noise o)),   zhat = lam (noise of the residual o) + (1 - lam) o,
        loss = lam |Rhat - R| + (1 - lam) |zhat - z|,

    means over all values. Once |lam - 1/2| reaches `tolerance`, only the residual (lam above) or the noise is learned.
    `ornstein.training.selection.ObjectiveSelection`, a callback, then holds the choice and begins with new weights.

    Args:
        tolerance: how far lam goes from 1/2 before the choice.
        error: as published, or `squared`.
        time_sampling: as for `OutputObjective`.
    """

    balance: nn.Parameter
    decided: Tensor

    def __init__(
        self,
        tolerance: float = 0.01,
        error: Literal["absolute", "squared"] = "absolute",
        time_sampling: TimeSampling = UniformLevels(),  # noqa: B008  # frozen
    ) -> None:
        super().__init__()
        if not 0 < tolerance < 0.5:
            raise ValueError(f"the tolerance is {tolerance}; it must be above 0 and below 0.5")
        self.tolerance = tolerance
        self.error = error
        self.time_sampling = time_sampling
        self.balance = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("decided", torch.tensor(UNDECIDED))
        self._held: Choice | None = None  # `decided` on the host, which then need not wait for the device
        self.register_load_state_dict_post_hook(lambda module, _: module._recall())

    @property
    def choice(self) -> Choice | None:
        """What is learned alone, None while both are; looks at the device until the choice is held."""
        if self._held is not None:
            return self._held
        balance = float(self.balance.detach())
        if abs(balance - 0.5) < self.tolerance:
            return None
        return "residual" if balance > 0.5 else "noise"

    @property
    def held(self) -> bool:
        """Whether the choice is made for good."""
        return self._held is not None

    def decide(self) -> None:
        """Hold the present choice, whatever lam does."""
        choice = self.choice
        if choice is None:
            raise ValueError(f"lam is {float(self.balance.detach()):.4g}, still within {self.tolerance} of 1/2")
        self._held = choice
        self.decided.fill_(CHOICES.index(choice))

    @property
    def parameterization(self) -> ResidualOutputs | None:
        """What the output of the network means once the choice is made."""
        choice = self.choice
        return None if choice is None else ResidualOutputs("pred_res" if choice == "residual" else "pred_noise")

    def forward(
        self,
        denoiser: DenoiserLike,
        x0: Tensor,
        y: Tensor | None = None,
        *,
        generator: torch.Generator,
        **condition: Tensor,
    ) -> dict[str, Tensor]:
        denoiser, y, seen = with_outputs(denoiser).prepare(y)
        if y is None:
            raise ValueError("automatic objective selection needs the observation y")
        truth = corrupted(denoiser, x0, y, self.time_sampling, generator)
        output = denoiser.output(truth.x, truth.t, y, **seen, **condition)
        # lam is 1 or 0 after the choice, yet stays in the graph: DDP wants every weight in every step
        lam = self.balance if self.choice is None else 0 * self.balance + CHOICES.index(self.choice)
        process, x, t = truth.process, truth.x, truth.t
        of_noise = y - x0_of_noise(process, output, x, t, y).clamp(-1, 1)
        of_residual = noise_of_residual(process, output, x, t, y)
        residual = self._error(lam * output + (1 - lam) * of_noise, y - x0)
        noise = self._error(lam * of_residual + (1 - lam) * output, truth.noise)
        return {
            "loss": lam * residual + (1 - lam) * noise,
            "residual": residual.detach(),
            "noise": noise.detach(),
            "balance": lam.detach().clone(),
        }

    def _recall(self) -> None:
        decided = int(self.decided)
        self._held = None if decided == UNDECIDED else CHOICES[decided]

    def _error(self, found: Tensor, truth: Tensor) -> Tensor:
        difference = found - truth
        return (difference.abs() if self.error == "absolute" else squared_magnitude(difference)).mean()
