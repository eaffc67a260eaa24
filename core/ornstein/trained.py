"""A trained model from either kind of our own files: a checkpoint of fit, or one that was exported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ornstein.checkpoint import load
from ornstein.config import build
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.lightning_checkpoint import read as read_lightning
from ornstein.samplers.base import Sampler


@dataclass(frozen=True)
class TrainedModel:
    """Components and weights, the latter by their names in the denoiser."""

    denoiser: Denoiser
    """Its own weights are those of a .safetensors file, and none for a .ckpt."""
    representation: Any
    sampler: Sampler | None
    raw: dict[str, Tensor]
    averaged: dict[str, Tensor] | None
    """None if not asked for."""
    epoch: int
    global_step: int


def read(source: Path, app: str, weights: str = "ema", average: str | None = None) -> TrainedModel:
    """Read a .ckpt of `ornstein APP fit` or a .safetensors file of the app.

    Args:
        source: the file.
        app: its app.
        weights: `ema` for the averaged weights beside the raw ones, `raw` for these alone. A .safetensors file has one
            set, which is then both.
        average: which average, where the run kept several; the first if None.

    Raises:
        UserError: not such a file, or no averaged weights.
    """
    if source.suffix == ".safetensors":
        loaded = load(source, app=app)
        tensors = dict(loaded.denoiser.state_dict())
        notes = [loaded.info.get(name) for name in ("epoch", "global_step")]
        progress = tuple(note if isinstance(note, int) else 0 for note in notes)
        if weights == "ema" and loaded.weights != "ema":
            raise UserError(f"{source} has no averaged weights; write those of the last step with --weights raw")
        averaged = tensors if weights == "ema" else None
        return TrainedModel(loaded.denoiser, loaded.representation, loaded.sampler, tensors, averaged, *progress)

    checkpoint = read_lightning(source)
    config = checkpoint.config
    if config is None or "problem" in config or config.get("app") != app:
        raise UserError(
            f"{source} is no checkpoint of `ornstein {app} fit`, or one without a description; give another"
        )
    with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away
        denoiser = build(config.get("denoiser"), Denoiser).eval()
    representation = None if config.get("representation") is None else build(config["representation"], object)
    sampler = None if config.get("sampler") is None else build(config["sampler"], Sampler)  # type: ignore[type-abstract]
    order = denoiser.state_dict()

    def ours(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: state[f"denoiser.{name}"] for name in order if f"denoiser.{name}" in state}

    averaged = ours(checkpoint.ema_state_dict(average=average)) if weights == "ema" else None
    raw, progress = ours(checkpoint.state_dict), (checkpoint.epoch, checkpoint.global_step)
    return TrainedModel(denoiser, representation, sampler, raw, averaged, *progress)


def difference(wanted: dict[str, Any], said: dict[str, Any]) -> str:
    """The first thing in which the spec `said` differs from `wanted`, in words: what it has instead."""
    if wanted["class_path"] != said["class_path"]:
        return str(said["class_path"].rpartition(".")[2])
    ours, theirs = wanted["init_args"], said["init_args"]
    name = next(name for name in ours if ours[name] != theirs[name])
    if isinstance(ours[name], dict) and isinstance(theirs[name], dict):
        return difference(ours[name], theirs[name])
    return f"{name} {theirs[name]!r} instead of {ours[name]!r}"
