"""How a vector-quantised autoencoder learns (VQ-VAE, VQGAN)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.networks.patch_discriminator import PatchDiscriminator, frozen
from ornstein.networks.vq import VQAutoencoder, code_loss, straight_through
from ornstein.objectives.denoising import Objective
from ornstein.objectives.outputs import with_outputs

SMALLEST = 1e-4
"""Added to the norm that the adaptive weight is divided by, and its largest value inverted (Esser et al. 2021)."""


class Autoencoding(nn.Module, Objective):
    """Reconstruction + perceptual + codes + adversary (VQGAN, Esser et al. 2021, arXiv 2012.09841, section 3.1).

        loss = |xhat - x| + w_p LPIPS(xhat, x) + w_c code_loss(z, q) - lam w_d D(xhat) + hinge loss of D,
        lam = |grad_L (first two)| / (|grad_L D(xhat)| + 1e-4), at most 1e4; L the last layer of the decoder.

    One optimizer learns both: D has a gradient from its own loss only, and the autoencoder from the others only. VQGAN
    takes two optimizers with equal settings that step in turn.

    Its denoiser is `Denoiser(VQAutoencoder(...), Prediction(), OneShot())`; `x0` are pictures (B, C, H, W) in [-1, 1].

    Args:
        error: of the reconstruction, |.| or |.|^2.
        code_weight: w_c.
        commitment: factor of the term that moves the codes (`code_loss`).
        perceptual: called with two batches of pictures of 3 channels, gives distances (`LPIPS`); grey is
            repeated.
        perceptual_weight: w_p.
        discriminator: D; None for no adversary.
        discriminator_weight: w_d.
        discriminator_start: training batches before the adversary begins.
        revive: every so many training batches, codes that were nearest to nothing since become random latents of the
            batch; 0 for never, as published. A small run otherwise uses a few codes only.
    """

    def __init__(
        self,
        error: Literal["absolute", "squared"] = "absolute",
        code_weight: float = 1.0,
        commitment: float = 0.25,
        perceptual: nn.Module | None = None,
        perceptual_weight: float = 1.0,
        discriminator: PatchDiscriminator | None = None,
        discriminator_weight: float = 0.75,
        discriminator_start: int = 0,
        revive: int = 0,
    ) -> None:
        super().__init__()
        if error not in ("absolute", "squared"):
            raise UserError(f"error is {error!r}; choose absolute or squared")
        if min(code_weight, commitment, perceptual_weight, discriminator_weight, discriminator_start, revive) < 0:
            raise UserError("weights, discriminator_start and revive of Autoencoding must not be negative")
        self.error, self.code_weight, self.commitment = error, code_weight, commitment
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight
        self.discriminator, self.discriminator_weight = discriminator, discriminator_weight
        self.discriminator_start, self.revive = discriminator_start, revive
        self.batches: Tensor
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.used: Tensor
        self.register_buffer("used", torch.zeros(0))
        self.register_load_state_dict_pre_hook(_make_room)

    def __call__(
        self,
        denoiser: DenoiserLike,
        x0: Tensor,
        y: Tensor | None = None,
        *,
        generator: torch.Generator,
        **condition: Tensor,
    ) -> dict[str, Tensor]:
        network = with_outputs(denoiser).network
        if not isinstance(network, VQAutoencoder):
            raise UserError(f"Autoencoding trains a VQAutoencoder, not a {type(network).__name__}; change the network")
        learning = torch.is_grad_enabled() and self.training
        z = network.encode(x0)
        if learning and self.revive:
            self._revive(network, z, generator)
        codes, indices = network.quantize(z)
        found = network.decode(straight_through(z, codes), quantize=False)
        difference = found.float() - x0.float()
        reconstruction = difference.abs().mean() if self.error == "absolute" else difference.square().mean()
        losses = {"reconstruction": reconstruction, "codes": code_loss(z, codes, self.commitment)}
        visible = reconstruction
        if self.perceptual is not None:
            losses["perceptual"] = self._distance(found, x0)
            visible = visible + self.perceptual_weight * losses["perceptual"]
        loss = visible + self.code_weight * losses["codes"]
        if self.discriminator is not None and learning:
            if int(self.batches) >= self.discriminator_start:
                losses |= self._adversary(self.discriminator, network, visible, found, x0)
                loss = loss + losses["adversary"] + losses["discriminator"]
            else:  # every step of a run logs the same, and gives each weight a gradient, as DDP wants
                loss = loss + 0 * sum(weight.sum() for weight in self.discriminator.parameters())
                losses |= dict.fromkeys(("adversary", "discriminator", "adaptive_weight"), torch.zeros_like(loss))
        if learning:
            self.batches += 1
            if len(self.used):
                self.used[indices.flatten()] = 1.0
        used = torch.zeros(network.n_embed, device=indices.device).index_fill_(0, indices.flatten(), 1.0)
        return {"loss": loss, **{name: value.detach() for name, value in losses.items()}, "codes_used": used.mean()}

    def _distance(self, found: Tensor, truth: Tensor) -> Tensor:
        assert self.perceptual is not None
        with torch.autocast(found.device.type, enabled=False):
            pictures = [p.float().expand(-1, 3, -1, -1) if p.shape[1] == 1 else p.float() for p in (found, truth)]
            distance: Tensor = self.perceptual(*pictures).mean()
        return distance

    def _adversary(
        self, discriminator: PatchDiscriminator, network: VQAutoencoder, visible: Tensor, found: Tensor, truth: Tensor
    ) -> dict[str, Tensor]:
        fooled = -frozen(discriminator, found).mean()
        last = network.decoder.conv_out.weight
        wanted, given = (torch.autograd.grad(part, last, retain_graph=True)[0].norm() for part in (visible, fooled))
        weight = (wanted / (given + SMALLEST)).clamp(max=1 / SMALLEST).detach() * self.discriminator_weight
        real, decoded = discriminator(truth), discriminator(found.detach())
        hinge = (F.relu(1 - real).mean() + F.relu(1 + decoded).mean()) / 2
        return {"adversary": weight * fooled, "discriminator": hinge, "adaptive_weight": weight}

    @torch.no_grad()
    def _revive(self, network: VQAutoencoder, z: Tensor, generator: torch.Generator) -> None:
        """Move codes that were of no use for `revive` batches onto latents; all ranks move the same ones."""
        if len(self.used) == 0:  # of no use until seen: the first batch places the whole book
            self.used = torch.zeros(network.n_embed, device=z.device)
        elif int(self.batches) % self.revive:
            return
        alike = distributed.is_available() and distributed.is_initialized()
        if alike:
            distributed.all_reduce(self.used, distributed.ReduceOp.MAX)
        latents = z.detach().float().permute(0, 2, 3, 1).reshape(-1, network.embed_dim)
        drawn = torch.randint(len(latents), (network.n_embed,), generator=generator, device=generator.device)
        book = network.quantize.embedding.weight
        moved = torch.where(self.used[:, None] > 0, book.float(), latents[drawn.to(z.device)]).to(book.dtype)
        if alike:
            distributed.broadcast(moved, 0)
        book.copy_(moved)
        self.used.zero_()


def _make_room(objective: Autoencoding, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """The codebook's length is known from the first batch on, and to a checkpoint."""
    if (stored := state.get(f"{prefix}used")) is not None:
        objective.used = torch.zeros_like(stored, device=objective.used.device)
