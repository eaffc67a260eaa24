"""Our checkpoints in the published layout, which the code of SGMSE+ and StoRM (and `import`) reads.

The layout has no place for everything that we can build. What is written is read back by the importer, and whatever
would come back different is refused.
"""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ornstein.config import describe
from ornstein.errors import UserError
from ornstein.files import atomic_path, check_target
from ornstein_speech.published import SCORE_PREFIXES, STORM_PREFIXES, components
from ornstein_speech.published_options import BRIDGE_EPS
from ornstein_speech.published_writing import options_for, scaled, unsayable

if TYPE_CHECKING:
    from torch import Tensor

    from ornstein.denoiser import Denoiser
    from ornstein.parameterization import Parameterization
    from ornstein.process.affine import Process
    from ornstein.samplers.base import Sampler

EMA_DECAY = 0.999
LIGHTNING = "2.0.0"
"""What a file says it was written by; readers migrate from there."""


@dataclass(frozen=True)
class _Model:
    """One of our checkpoints, from either kind of file."""

    denoiser: "Denoiser"
    representation: Any
    sampler: "Sampler | None"
    raw: "dict[str, Tensor]"
    averaged: "dict[str, Tensor] | None"
    epoch: int
    global_step: int


def publish(
    source: Path,
    target: Path,
    *,
    weights: Literal["ema", "raw"] = "ema",
    average: str | None = None,
    note: str = "",
    default_sampler: bool = False,
    overwrite: bool = False,
) -> list[str]:
    """Write `source`, a .ckpt of fit or one of our .safetensors files, as a checkpoint in the published layout.

    The file holds plain data and tensors in float32 (`torch.load(..., weights_only=True)` reads it). A .ckpt gives the
    raw and the averaged weights; a .safetensors file has one set, which is then written as both. With `weights` raw
    there are no averages.

    Returns:
        Remarks: what is written differently, and why.

    Raises:
        UserError: not our file, something that the published layout cannot say, or an unwritable target.
    """
    import torch

    check_target(target, overwrite)
    model = _read(source, weights, average)
    try:
        options, remarks = options_for(model.denoiser, model.representation, model.sampler, default_sampler)
        prefixes = STORM_PREFIXES if "backbone_score" in options else SCORE_PREFIXES
        state = _renamed(model.raw, prefixes)
        _check(model, options, state, default_sampler)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    content: dict[str, Any] = {
        "epoch": model.epoch,
        "global_step": model.global_step,
        "pytorch-lightning_version": LIGHTNING,
        "state_dict": state,
        "loops": {},
        "callbacks": {},
        "optimizer_states": [],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": options | ({"note": note} if note else {}),
    }
    if model.averaged is not None:
        parameters = dict(model.denoiser.named_parameters())
        kept = {name: tensor for name, tensor in model.averaged.items() if name in parameters}  # no buffers
        shadows = list(_renamed(kept, prefixes).values())
        progress = {"decay": EMA_DECAY, "num_updates": model.global_step}  # only training on from the file reads these
        content["ema"] = {**progress, "shadow_params": shadows, "collected_params": None}
    buffer = io.BytesIO()  # torch has errors of its own for a full disk
    torch.save(content, buffer)
    with atomic_path(target, overwrite) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return remarks


# -- reading ours ------------------------------------------------------------------------------------------------------


def _read(source: Path, weights: str, average: str | None) -> _Model:
    import torch

    from ornstein.checkpoint import load, read_lightning
    from ornstein.config import build
    from ornstein.denoiser import Denoiser
    from ornstein.samplers.base import Sampler

    if source.suffix == ".safetensors":
        loaded = load(source, app="speech")
        tensors = dict(loaded.denoiser.state_dict())
        notes = [loaded.info.get(name) for name in ("epoch", "global_step")]
        progress = tuple(note if isinstance(note, int) else 0 for note in notes)
        if weights == "ema" and loaded.weights != "ema":
            raise UserError(f"{source} has no averaged weights; write those of the last step with --weights raw")
        averaged = tensors if weights == "ema" else None
        return _Model(loaded.denoiser, loaded.representation, loaded.sampler, tensors, averaged, *progress)

    checkpoint = read_lightning(source)
    config = checkpoint.config
    if config is None or "problem" in config or config.get("app") != "speech":
        raise UserError(
            f"{source} is no checkpoint of `ornstein speech fit`, or one without a description; give another"
        )
    with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away
        denoiser = build(config.get("denoiser"), Denoiser).eval()
    representation = None if config.get("representation") is None else build(config["representation"], object)
    sampler = None if config.get("sampler") is None else build(config["sampler"], Sampler)  # type: ignore[type-abstract]
    order = denoiser.state_dict()

    def ours(state: "dict[str, Tensor]") -> "dict[str, Tensor]":
        return {name: state[f"denoiser.{name}"] for name in order if f"denoiser.{name}" in state}

    averaged = ours(checkpoint.ema_state_dict(average=average)) if weights == "ema" else None
    raw, progress = ours(checkpoint.state_dict), (checkpoint.epoch, checkpoint.global_step)
    return _Model(denoiser, representation, sampler, raw, averaged, *progress)


# -- checking ------------------------------------------------------------------------------------------------------


def _check(model: _Model, options: dict[str, Any], state: "dict[str, Tensor]", default_sampler: bool) -> None:
    """Read the options back; whatever differs was not said.

    Raises:
        UserError: it names the first component that differs.
    """
    from ornstein.regeneration import StochasticRegeneration

    known = {name: value for name, value in options.items() if value is not None}
    denoiser, representation, sampler = components(known, state)
    pairs: dict[str, tuple[Any, Any]] = {
        "network": (model.denoiser.network, denoiser.network),
        "process": (_regularised(model.denoiser.process), denoiser.process),
        "parameterization": (
            _like(model.denoiser.parameterization, denoiser.parameterization),
            denoiser.parameterization,
        ),
        "representation": (model.representation, representation),
    }
    if isinstance(model.denoiser, StochasticRegeneration) and isinstance(denoiser, StochasticRegeneration):
        pairs["predictor"] = (model.denoiser.predictor, denoiser.predictor)
    if not default_sampler:
        pairs["sampler"] = (model.sampler, sampler)
    for name, (ours, theirs) in pairs.items():
        wanted, said = describe(ours), describe(theirs)
        if wanted != said:
            mend = "; --default_sampler leaves it out" if name == "sampler" else ""
            raise unsayable(f"its {name}", f"it would come back with {_difference(wanted, said)}{mend}")


def _regularised(process: "Process") -> "Process":
    """The process as the published code has it."""
    from ornstein.process.bridge import SchroedingerBridge

    exact = isinstance(process, SchroedingerBridge) and process.eps == 0
    return replace(process, eps=BRIDGE_EPS) if exact else process  # type: ignore[type-var]  # a dataclass


def _like(ours: "Parameterization", theirs: "Parameterization") -> "Parameterization":
    """A plain parameterization in the form of the published one, if that has another form."""
    full: Parameterization = ours if type(ours) is type(theirs) else scaled(ours)
    return full


def _difference(wanted: dict[str, Any], said: dict[str, Any]) -> str:
    if wanted["class_path"] != said["class_path"]:
        return said["class_path"].rpartition(".")[2]
    ours, theirs = wanted["init_args"], said["init_args"]
    name = next(name for name in ours if ours[name] != theirs[name])
    if isinstance(ours[name], dict) and isinstance(theirs[name], dict):
        return _difference(ours[name], theirs[name])
    return f"{name} {theirs[name]!r} instead of {ours[name]!r}"


def _renamed(tensors: "dict[str, Tensor]", prefixes: dict[str, str]) -> "dict[str, Tensor]":
    """`tensors` under their published names, in the published order, as plain copies."""
    import torch

    def copy(tensor: "Tensor") -> "Tensor":
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        return torch.empty(tensor.shape, dtype=dtype).copy_(tensor)

    return {
        theirs + name.removeprefix(ours): copy(tensor)
        for theirs, ours in prefixes.items()
        for name, tensor in tensors.items()
        if name.startswith(ours)
    }
