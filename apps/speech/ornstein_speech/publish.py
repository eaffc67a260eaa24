"""Our checkpoints in the published layout, which the code of SGMSE+ and StoRM (and `import`) reads.

The layout has no place for everything that we can build. What is written is read back by the importer, and whatever
would come back different is refused.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ornstein.config import describe
from ornstein.errors import UserError
from ornstein.files import check_target
from ornstein_speech.published import SCORE_PREFIXES, STORM_PREFIXES, components
from ornstein_speech.published_options import BRIDGE_EPS
from ornstein_speech.published_writing import options_for, scaled, unsayable

if TYPE_CHECKING:
    from torch import Tensor

    from ornstein.parameterization import Parameterization
    from ornstein.process.affine import Process
    from ornstein.trained import TrainedModel

EMA_DECAY = 0.999
LIGHTNING = "2.0.0"
"""What a file says it was written by; readers migrate from there."""


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
    from ornstein.published_files import write
    from ornstein.trained import read

    if target.suffix != ".ckpt":
        raise UserError(f"{target} is no name for a published file; these end in .ckpt")
    check_target(target, overwrite)
    model = read(source, "speech", weights, average)
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
    write(target, content, overwrite)
    return remarks


def _check(model: "TrainedModel", options: dict[str, Any], state: "dict[str, Tensor]", default_sampler: bool) -> None:
    """Read the options back; whatever differs was not said.

    Raises:
        UserError: it names the first component that differs.
    """
    from ornstein.regeneration import StochasticRegeneration
    from ornstein.trained import difference

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
            raise unsayable(f"its {name}", f"it would come back with {difference(wanted, said)}{mend}")


def _regularised(process: "Process") -> "Process":
    """The process as the published code has it."""
    from ornstein.process.bridge import SchroedingerBridge

    exact = isinstance(process, SchroedingerBridge) and process.eps == 0
    return replace(process, eps=BRIDGE_EPS) if exact else process  # type: ignore[type-var]  # a dataclass


def _like(ours: "Parameterization", theirs: "Parameterization") -> "Parameterization":
    """A plain parameterization in the form of the published one, if that has another form."""
    full: Parameterization = ours if type(ours) is type(theirs) else scaled(ours)
    return full


def _renamed(tensors: "dict[str, Tensor]", prefixes: dict[str, str]) -> "dict[str, Tensor]":
    """`tensors` under their published names, in the published order, as plain copies."""
    from ornstein.published_files import plain_copy

    return {
        theirs + name.removeprefix(ours): plain_copy(tensor)
        for theirs, ours in prefixes.items()
        for name, tensor in tensors.items()
        if name.startswith(ours)
    }
