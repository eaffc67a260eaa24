"""Networks in the layout of diffusers (Stable Diffusion's UNet, DiT, SD3) as denoisers; users bring the weights.

    config = load_scheduler_config("stable-diffusion-v1-5")
    model = load_model("stable-diffusion-v1-5", "unet")
    denoiser = diffusers_denoiser(model, scheduler_process(config), scheduler_prediction(config))
    estimate = denoiser(latent, t, encoder_hidden_states=encode_text(tokenizer, text_encoder, ["a photo of a cat"]))

Conditions go by the names of the model's own arguments: encoder_hidden_states, class_labels,
pooled_projections, text_embeds, time_ids.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.parameterization import X0, Noise, Parameterization, V, Velocity
from ornstein.process.affine import Process

ADDED = ("text_embeds", "time_ids", "image_embeds")
"""Conditions that SDXL's layout takes inside `added_cond_kwargs`."""
PREDICTIONS: dict[str, Parameterization] = {
    "epsilon": Noise(),
    "v_prediction": V(),
    "sample": X0(),
    "flow_prediction": Velocity(),
}
"""`prediction_type` of a scheduler's configuration."""


class DiffusersNetwork(nn.Module):
    """A model of diffusers called as the core calls its networks: network(x, t, y, **condition).

    The observation y, where there is one, is concatenated to the channels (inpainting and upscaling models). Of a model
    that also predicts a variance (twice the channels, as DiT) the mean is kept. The model runs in its own type.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, **condition: Tensor) -> Tensor:
        """The prediction, shape of `x` (B, C, H, W), at the network times `t` (B,)."""
        if x.ndim != 4 or x.is_complex():
            raise UserError(f"diffusers networks take real latents (B, C, H, W), got {tuple(x.shape)} {x.dtype}")
        dtype = next(self.model.parameters()).dtype
        given: dict[str, Any] = {
            name: value.to(dtype) if value.is_floating_point() else value for name, value in condition.items()
        }
        added = {name: given.pop(name) for name in ADDED if name in given}
        if added:
            given["added_cond_kwargs"] = added
        seen = x if y is None else torch.cat([x, y], 1)
        try:
            output: Tensor = self.model(seen.to(dtype), timestep=t, **given, return_dict=False)[0]
        except TypeError as error:
            raise UserError(
                f"{type(self.model).__name__} was called with the conditions {sorted(condition) or 'none'}: {error}; "
                "name them as the model's arguments"
            ) from error
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            shapes = {name: tuple(value.shape) for name, value in {"latent": seen, **condition}.items()}
            raise UserError(
                f"{type(self.model).__name__} cannot work with the shapes {shapes}: {str(error).splitlines()[0]}; "
                "give conditions with a row for each latent and the width of the model"
            ) from error
        if output.shape[1] == 2 * x.shape[1]:
            output = output.chunk(2, 1)[0]
        if output.shape != x.shape:
            raise UserError(f"the model gives {tuple(output.shape)} for a latent {tuple(x.shape)}; take the right one")
        return output.to(x.dtype)


def diffusers_denoiser(model: nn.Module, process: Process, prediction: str = "epsilon") -> Denoiser:
    """A Denoiser from a model of diffusers.

    Args:
        model: UNet2DConditionModel, UNet2DModel, DiTTransformer2DModel, SD3Transformer2DModel or another that takes a
            latent (B, C, H, W) first and a `timestep`.
        process: the process it was trained on; its `network_time` must give the model's time steps (`FlowMatching`,
            not `RectifiedFlow`, for models like SD3).
        prediction: `prediction_type` of the scheduler's configuration.

    Raises:
        UserError: the prediction type is unknown.
    """
    if prediction not in PREDICTIONS:
        raise UserError(f"the prediction type {prediction!r} is unknown; choose one of {', '.join(PREDICTIONS)}")
    return Denoiser(DiffusersNetwork(model), process, PREDICTIONS[prediction])


def load_model(folder: str | Path, part: str = "unet") -> nn.Module:
    """A part of a pipeline on disk in evaluation mode: "unet", "transformer" or "vae"; safetensors only, no download.

    Raises:
        UserError: diffusers is not installed, or the folder holds no such part.
    """
    try:
        import diffusers
    except ImportError as error:
        raise UserError("diffusers is not installed; run: pip install 'ornstein[diffusers]'") from error
    path = Path(folder) / part
    if not (path / "config.json").is_file():
        raise UserError(f"{path} has no config.json; give the folder of a pipeline and the name of its part")
    try:
        kind = getattr(diffusers, json.loads((path / "config.json").read_text())["_class_name"])
        if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
            raise UserError(f"{path} describes {kind}, which is no model of diffusers; give another part")
        model: nn.Module = kind.from_pretrained(path, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"cannot load {path}: {reason}; it needs a whole .safetensors file") from error
    return model.eval()


class LatentCodec:
    """Pictures to scaled latents and back, through an AutoencoderKL of diffusers."""

    def __init__(self, vae: nn.Module, scale: float | None = None, shift: float | None = None) -> None:
        config: Any = getattr(vae, "config", None)
        self.vae = vae
        self.scale = float(getattr(config, "scaling_factor", 0.18215)) if scale is None else scale
        self.shift = float(getattr(config, "shift_factor", None) or 0.0) if shift is None else shift

    def encode(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latent of an image (B, 3, H, W) in [-1, 1]: the mean of the posterior, or a draw if `generator` is given."""
        posterior: Any = self.vae.encode(image, return_dict=False)[0]  # type: ignore[operator]
        latent = posterior.mode() if generator is None else posterior.sample(generator)
        scaled: Tensor = (latent - self.shift) * self.scale
        return scaled

    def decode(self, latent: Tensor) -> Tensor:
        """Image (B, 3, H, W) of a latent, not clipped."""
        image: Tensor = self.vae.decode(latent / self.scale + self.shift, return_dict=False)[0]  # type: ignore[operator]
        return image


def encode_text(tokenizer: Any, encoder: nn.Module, prompts: Sequence[str]) -> Tensor:
    """encoder_hidden_states (B, tokens, width) of prompts, by a CLIP tokenizer and text encoder of transformers."""
    tokens = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        states: Tensor = encoder(tokens.input_ids)[0]
    return states
