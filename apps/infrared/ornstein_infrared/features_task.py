"""Training of the small encoder whose features the perceptual term compares."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.features.small_encoder import EncoderWithHeads
from ornstein.objectives.noise_strength import NoiseAndStrength, encoder_denoiser
from ornstein.samplers.ancestral import Ancestral
from ornstein.training.data import is_repeat
from ornstein.training.task import Batch, Task
from ornstein_infrared.representation import ThermalSpace


class FeaturesTask(Task):
    """Trains an `EncoderWithHeads` on crops of clean frames; `SmallEncoderFeatures` reads what `ornstein infrared
    export` writes of it.

    Args:
        network: the encoder with its heads, for pictures of 1 or 3 channels; grey is repeated.
        objective: the loss.
        optimizer: makes the optimizer from the weights.
    """

    app: ClassVar[str] = "infrared"

    def __init__(
        self,
        network: EncoderWithHeads,
        objective: NoiseAndStrength = NoiseAndStrength(),  # noqa: B008  # frozen
        optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer] = lambda weights: torch.optim.Adam(
            weights, lr=1e-3, fused=True
        ),
        **kwargs: Any,
    ) -> None:
        if network.channels not in (1, 3):
            raise UserError(f"the encoder takes {network.channels} channels; frames have 1, or 3 equal ones")
        super().__init__(
            denoiser=encoder_denoiser(network),
            objective=objective,
            sampler=Ancestral(1, eta=0.0),
            optimizer=optimizer,
            compile=False,
            **kwargs,
        )
        self.space = ThermalSpace(scale=1, channels=network.channels, multiple=1)

    def prepare_batch(self, batch: Batch) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """The pictures (B, C, H, W)."""
        return self.space.forward(batch["gt"]), None, {}

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The losses of validation, named test/..."""
        losses, size = self._losses(batch, self._draws("validate", *self._identities(batch, batch_idx)))
        self.log_means({f"test/{name}": value for name, value in losses.items()}, 0 if is_repeat(batch) else size)

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        """There is nothing to predict; raises UserError."""
        raise UserError("features predict nothing; export them and guide with them")
