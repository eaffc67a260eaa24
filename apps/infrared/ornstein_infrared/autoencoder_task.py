"""Training of the autoencoder whose latents the diffusion runs on."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.networks.vq import VQAutoencoder
from ornstein.objectives.autoencoding import Autoencoding
from ornstein.published_shift import reconstruction
from ornstein.samplers.ancestral import Ancestral
from ornstein.training.data import is_repeat
from ornstein.training.task import Batch, Task
from ornstein_infrared.representation import ThermalSpace

SMALLEST_ERROR = 1e-10
"""Mean square that counts for a frame that comes back without error: 100 dB."""


class AutoencoderTask(Task):
    """Trains a `VQAutoencoder` on frames; validation encodes and decodes whole ones.

    Its checkpoints are exported by `ornstein infrared export` and serve as the autoencoder of latents. A seed, a
    compiled forward pass and averages work as for a denoiser, because it is one: `Denoiser(autoencoder, Prediction(),
    OneShot())`.

    Args:
        autoencoder: the network, for pictures of 1 or 3 channels; grey is repeated.
        objective: the loss.
        optimizer: makes the optimizer from the weights of the autoencoder and of its discriminator.
    """

    app: ClassVar[str] = "infrared"

    def __init__(
        self,
        autoencoder: VQAutoencoder,
        objective: Autoencoding,
        optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer] = lambda weights: torch.optim.Adam(
            weights, lr=1e-4, betas=(0.5, 0.9), fused=True
        ),
        **kwargs: Any,
    ) -> None:
        if autoencoder.in_channels not in (1, 3):
            raise UserError(f"the autoencoder takes {autoencoder.in_channels} channels; frames have 1, or 3 equal ones")
        super().__init__(
            denoiser=reconstruction(autoencoder),
            objective=objective,
            sampler=Ancestral(1, eta=0.0),
            optimizer=optimizer,
            compile=False,
            **kwargs,
        )
        self.space = ThermalSpace(scale=1, channels=autoencoder.in_channels, multiple=autoencoder.factor)

    def prepare_batch(self, batch: Batch) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """The pictures (B, C, H, W)."""
        return self.space.forward(batch["gt"]), None, {}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """PSNR in dB of the frames that come back, over their range, and the share of codes that a frame uses."""
        self._score(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The scores of validation, named test/..."""
        self._score(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        """There is nothing to predict; raises UserError."""
        raise UserError("an autoencoder predicts nothing; `ornstein infrared encode` writes its latents")

    def _score(self, batch: Batch, stage: str) -> None:
        network = self.denoiser.network
        assert isinstance(network, VQAutoencoder)
        clean = batch["gt"]
        z = network.encode(self.space.forward(self.space.pad(clean)))
        codes, indices = network.quantize(z)
        decoded = self.space.inverse(network.decode(codes.to(z.dtype), quantize=False).float(), clean.shape[-2:])
        error = (decoded - clean).square().mean().clamp(min=SMALLEST_ERROR)
        scores = {"psnr": -10 * torch.log10(error), "codes_used": indices.unique().numel() / network.n_embed}
        named = {f"{stage}/{name}": value for name, value in scores.items()}
        self.log_means(named, 0 if is_repeat(batch) else len(clean))
