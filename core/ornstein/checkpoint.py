"""Checkpoints that are shipped and loaded: safetensors with the specs of all components in the file.

The metadata entry "ornstein" is JSON: {"format": 1, "app", "denoiser": spec, "representation": spec or null,
"sampler": spec or null, "weights": "ema" or "raw", "info": {...}}; the tensors are the Denoiser's state dict. Nothing
in such a file is executed.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ornstein.config import Spec, build, describe
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.files import atomic_path
from ornstein.lightning_checkpoint import read as read_lightning
from ornstein.samplers.base import Sampler

FORMAT = 1
KEY = "ornstein"

__all__ = ["Checkpoint", "export", "fill", "load", "load_weights", "read_lightning", "save"]


@dataclass(frozen=True)
class Checkpoint:
    """A model ready for use: evaluation mode, on the CPU, weights in float32."""

    denoiser: Denoiser
    representation: Any = None
    """What turns a signal into the tensor that the process runs on, where the app has one."""
    sampler: Sampler | None = None
    """The sampler settings that belong to these weights."""
    info: dict[str, Any] = field(default_factory=dict)
    """Free notes: data, steps, scores, licence."""
    weights: str = "ema"
    """What the weights are: averaged (ema) or those of the last step (raw)."""


def save(
    path: str | Path,
    denoiser: Denoiser,
    *,
    app: str,
    representation: Any = None,
    sampler: Sampler | None = None,
    info: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    weights: Literal["ema", "raw"] = "ema",
    overwrite: bool = False,
) -> None:
    """Write `denoiser` with the weights that it has now.

    Args:
        path: the file to write, *.safetensors.
        denoiser: network, process and parameterization.
        app: the app that can use it.
        representation: the app's representation.
        sampler: the sampler settings that belong to the weights.
        info: notes for the file, plain JSON.
        dtype: type to store real weights in, torch.float16 halves the file; None keeps theirs.
        weights: what the weights are, averaged or raw; only noted in the file.
        overwrite: replace an existing file.

    Raises:
        UserError: the file exists or cannot be written, or the weights are not finite (in `dtype`).
    """
    config = {"denoiser": describe(denoiser), "representation": _spec(representation), "sampler": _spec(sampler)}
    _write(Path(path), denoiser.state_dict(), {"app": app, **config}, info or {}, dtype, weights, overwrite)


def load(path: str | Path, app: str | None = None) -> Checkpoint:
    """Read a file of `save` or `export`; `app` is the app that wants to use it.

    Raises:
        UserError: no such file, not ours, of another app, too new, damaged, or its tensors do not fit its network.
    """
    path = Path(path)
    config, tensors = _read(path, app)
    _refuse_other_app(config, path, app)
    try:
        with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away; the caller's generator stays put
            denoiser = build(config.get("denoiser"), Denoiser)
        representation = None if config.get("representation") is None else build(config["representation"], object)
        sampler = None if config.get("sampler") is None else build(config["sampler"], Sampler)  # type: ignore[type-abstract]
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    fill(denoiser, tensors, path, "its own network")
    weights = "raw" if config.get("weights") == "raw" else "ema"
    return Checkpoint(denoiser.eval(), representation, sampler, config.get("info") or {}, weights)


def load_weights(path: str | Path, denoiser: Denoiser, app: str | None = None) -> None:
    """Fill `denoiser` with the weights of a file of `save` or `export`, for training on from there.

    Raises:
        UserError: as `load`, and where the tensors do not fit the network of `denoiser`.
    """
    path = Path(path)
    config, tensors = _read(path, app)
    _refuse_other_app(config, path, app)
    fill(denoiser, tensors, path, "the network of this run")


def export(
    source: str | Path,
    target: str | Path,
    *,
    app: str | None = None,
    weights: Literal["ema", "raw"] = "ema",
    average: str | None = None,
    half: bool = False,
    note: str = "",
    overwrite: bool = False,
) -> None:
    """Turn a checkpoint of `fit` into a file for `load`.

    Args:
        source: the Lightning checkpoint, *.ckpt.
        target: the file to write, *.safetensors.
        app: refuse the checkpoints of other apps; None takes all.
        weights: the averaged weights or those of the last step.
        average: which average, where the run kept several; the first if None.
        half: store real weights in float16; else in their type.
        note: a line for the file, beside epoch and global_step.
        overwrite: replace an existing file.

    Raises:
        UserError: `source` is no checkpoint of `fit`, or that of another app, has no averaged weights, or `target`
            cannot be written.
    """
    checkpoint = read_lightning(source)
    config = checkpoint.config
    if config is None:
        raise UserError(f"{source} does not come from `ornstein ... fit`; published checkpoints have an import command")
    if "problem" in config:
        raise UserError(f"{source} cannot be exported: {config['problem']}")
    own = config.get("app", app)
    if app not in (None, own):
        raise UserError(f"{source} is a checkpoint of {own}, not of {app}; convert it with `ornstein {own} export`")
    state = checkpoint.ema_state_dict(average=average) if weights == "ema" else checkpoint.state_dict
    prefix = "denoiser."
    tensors = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    notes = {"epoch": checkpoint.epoch, "global_step": checkpoint.global_step, **({"note": note} if note else {})}
    _write(Path(target), tensors, config, notes, torch.float16 if half else None, weights, overwrite)


def _spec(component: Any) -> Spec | None:
    return None if component is None else describe(component)


def _write(
    path: Path,
    tensors: dict[str, Tensor],
    config: dict[str, Any],
    info: dict[str, Any],
    dtype: torch.dtype | None,
    weights: str,
    overwrite: bool,
) -> None:
    if path.suffix != ".safetensors":
        raise UserError(f"{path} is no name for a checkpoint; it has to end in .safetensors")
    metadata = {"format": FORMAT, **config, "weights": weights, "info": info}
    stored = {name: _stored(name, tensor, dtype) for name, tensor in tensors.items()}
    with atomic_path(path, overwrite) as temporary:
        save_file(stored, temporary, metadata={KEY: json.dumps(metadata, sort_keys=True)})


def _stored(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    kept = tensor.detach().to("cpu", dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype)
    if not bool(kept.isfinite().all()):
        overflow = bool(tensor.isfinite().all())
        mend = "store it in float32 or bfloat16" if overflow else "choose an earlier checkpoint"
        raise UserError(f"the weight {name} is not finite in {str(kept.dtype).removeprefix('torch.')}; {mend}")
    # safetensors refuses channels_last and shared memory: every tensor becomes a plain copy
    return torch.empty(kept.shape, dtype=kept.dtype).copy_(kept)


def _read(path: Path, app: str | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    importer = f"`ornstein {app or 'APP'} import`"
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the .safetensors file of a checkpoint")
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}; give the path of a .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
            if text is None:
                raise UserError(
                    f"{path} has no configuration of ornstein; {importer} converts published checkpoints (.ckpt)"
                )
            config = json.loads(text)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    except (SafetensorError, ValueError) as error:
        match path.suffix:
            case ".safetensors":
                raise UserError(f"{path} is damaged: it is no safetensors file inside; copy it again") from error
            case ".ckpt":
                mend = f"`ornstein {app or 'APP'} export` converts the .ckpt files of fit, {importer} published ones"
                raise UserError(f"{path} is no safetensors file; {mend}") from error
            case _:
                raise UserError(f"{path} is no checkpoint; give a .safetensors file") from error
    version = config.get("format") if isinstance(config, dict) else None
    if not isinstance(version, int) or version < 1:
        raise UserError(f"{path} has an unreadable configuration; download or export it again")
    if version > FORMAT:
        raise UserError(
            f"{path} was written by a newer ornstein (format {version}, known is {FORMAT}); update ornstein"
        )
    return config, tensors


def _refuse_other_app(config: dict[str, Any], path: Path, app: str | None) -> None:
    if app is not None and config.get("app") != app:
        raise UserError(f"{path} is a checkpoint of {config.get('app')}, not of {app}; give a checkpoint of {app}")


def fill(network: nn.Module, tensors: dict[str, Tensor], path: Path, name: str) -> None:
    """Put `tensors`, read from `path`, into `network`, which the message calls `name`.

    Raises:
        UserError: tensors that are missing, of no use or of another shape; it names them and both shapes.
    """
    wanted = network.state_dict()
    problems = {
        "missing": [key for key in wanted if key not in tensors],
        "unexpected": [key for key in tensors if key not in wanted],
        "of the wrong shape": [
            f"{key} {tuple(tensors[key].shape)} instead of {tuple(wanted[key].shape)}"
            for key in wanted
            if key in tensors and tensors[key].shape != wanted[key].shape
        ],
    }
    found = [f"{len(names)} {kind} ({', '.join(names[:3])})" for kind, names in problems.items() if names]
    if found:
        raise UserError(f"{path} does not fit {name}: tensors {'; '.join(found)}; give the file that belongs to it")
    network.load_state_dict(tensors)
