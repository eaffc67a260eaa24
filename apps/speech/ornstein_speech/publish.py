"""Our checkpoints in the published layout, which the code of SGMSE+ and StoRM (and `import`) reads.

The layout has no place for everything that we can build. What is written is read back by the importer, and whatever
would come back different is refused.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ornstein.config import describe
from ornstein.errors import UserError
from ornstein.files import atomic_path
from ornstein_speech.published import CONDITIONING, SCORE_PREFIXES, STORM_PREFIXES, components
from ornstein_speech.published_options import BRIDGE_EPS

if TYPE_CHECKING:
    from torch import Tensor, nn

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

    model = _read(source, weights, average)
    try:
        options, remarks = _options(model, default_sampler)
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
    with atomic_path(target, overwrite) as temporary:
        torch.save(content, temporary)
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
        progress = tuple(int(loaded.info.get(name, 0)) for name in ("epoch", "global_step"))
        if weights == "ema" and loaded.weights != "ema":
            raise UserError(f"{source} has no averaged weights; write those of the last step with --weights raw")
        averaged = tensors if weights == "ema" else None
        return _Model(loaded.denoiser, loaded.representation, loaded.sampler, tensors, averaged, *progress)

    checkpoint = read_lightning(source)
    config = checkpoint.config
    if config is None or "problem" in config:
        raise UserError(
            f"{source} is no checkpoint of `ornstein speech fit`, or one without a description; give another"
        )
    with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away
        denoiser = build(config.get("denoiser"), Denoiser).eval()
    representation = None if config.get("representation") is None else build(config["representation"], object)
    sampler = None if config.get("sampler") is None else build(config["sampler"], Sampler)  # type: ignore[type-abstract]
    order = denoiser.state_dict()

    def ours(state: "dict[str, Tensor]") -> "dict[str, Tensor]":
        return {name: state[f"denoiser.{name}"] for name in order}

    averaged = ours(checkpoint.ema_state_dict(average=average)) if weights == "ema" else None
    raw, progress = ours(checkpoint.state_dict), (checkpoint.epoch, checkpoint.global_step)
    return _Model(denoiser, representation, sampler, raw, averaged, *progress)


# -- saying it in published options ------------------------------------------------------------------------------------


def _options(model: _Model, default_sampler: bool) -> tuple[dict[str, Any], list[str]]:
    """Flat options, and remarks about what they change.

    Raises:
        UserError: a component of which the published code has none.
    """
    from ornstein.process.prediction import Prediction
    from ornstein.regeneration import StochasticRegeneration

    denoiser, remarks = model.denoiser, list[str]()
    if isinstance(denoiser, StochasticRegeneration):
        conditions = {ours: theirs for theirs, ours in CONDITIONING.items()}
        options: dict[str, Any] = {
            "backbone_denoiser": "ncsnpp",
            "backbone_score": "ncsnpp",
            "condition": conditions[denoiser.conditioning],
            "mode": "regen-joint-training",
            "loss_type_denoiser": "mse",
            "loss_type_score": "mse",
            **_network(denoiser.network),
            "input_channels": 6 if denoiser.conditioning == "both" else 4,
            "discriminative": False,
        }
    elif isinstance(denoiser.process, Prediction):
        options = {"backbone": "ncsnpp", "loss_type": "mse", **_network(denoiser.network)}
        options |= {"input_channels": 2, "discriminative": True}
    else:
        loss, scalings = _parameterization(denoiser.parameterization)
        options = {"backbone": _backbone(denoiser), "loss_type": loss, **scalings, **_network(denoiser.network)}
    options |= _process(denoiser.process, remarks) | _representation(model.representation)
    if not isinstance(denoiser.process, Prediction):
        options |= {} if default_sampler else _sampler(model.sampler)
    return options, remarks


def _backbone(denoiser: "Denoiser") -> str:
    from ornstein.networks.dcunet import DCUNet
    from ornstein.parameterization import Score

    if isinstance(denoiser.network, DCUNet):
        return "dcunet"
    if denoiser.parameterization != Score(-1.0):
        return "ncsnpp_v2"
    return "ncsnpp_48k" if getattr(denoiser.network, "time_division", "none") == "output" else "ncsnpp"


def _network(network: "nn.Module") -> dict[str, Any]:
    from ornstein.networks import dcunet, ncsnpp

    if isinstance(network, dcunet.DCUNet):
        if not isinstance(network.architecture, str):
            raise _unsayable("an architecture of DCUNet without a name", "choose one of its named ones")
        return dcunet.published_options(network)
    if not isinstance(network, ncsnpp.NCSNpp):
        raise _unsayable(f"the network {type(network).__name__}", "NCSNpp and DCUNet can be written")
    names = ("nf", "num_res_blocks", "image_size", "fourier_scale", "dropout", "progressive", "progressive_input")
    sizes = {"ch_mult": list(network.ch_mult), "attn_resolutions": list(network.attn_resolutions)}
    flags = {"centered": network.centered, "scale_by_sigma": network.time_division != "none"}
    return {name: getattr(network, name) for name in names} | sizes | flags


def _parameterization(parameterization: "Parameterization") -> tuple[str, dict[str, Any]]:
    """loss_type and the scalings of ncsnpp_v2."""
    from ornstein.parameterization import Score

    if parameterization == Score(-1.0):
        return "score_matching", {}
    scaled = _scaled(parameterization)
    losses = {"x0": "data_prediction", "score": "score_matching", "mean": "denoiser"}
    names = ("c_in", "c_out", "c_skip", "sigma_data")
    scaling = None if scaled.network_scaling == "none" else scaled.network_scaling
    return losses[scaled.predicts], {name: getattr(scaled, name) for name in names} | {"network_scaling": scaling}


def _scaled(parameterization: "Parameterization") -> Any:
    """The parameterization as a `Preconditioned`, whose defaults scale nothing."""
    from ornstein.parameterization import X0, Mean, Score
    from ornstein_speech.preconditioning import Preconditioned

    plain: dict[Parameterization, Any] = {X0(): "x0", Score(): "score", Mean(): "mean"}
    if parameterization in plain:
        return Preconditioned(plain[parameterization])
    if not isinstance(parameterization, Preconditioned):
        raise _unsayable(
            f"the parameterization {parameterization}", "X0, Score, Mean and Preconditioned can be written"
        )
    return parameterization


def _process(process: "Process", remarks: list[str]) -> dict[str, Any]:
    from ornstein.process.bridge import SchroedingerBridge
    from ornstein.process.ouve import OUVE
    from ornstein.process.prediction import Prediction

    match process:
        case OUVE():
            return {
                "sde": "ouve",
                "theta": process.theta,
                "sigma_min": process.sigma_min,
                "sigma_max": process.sigma_max,
            }
        case SchroedingerBridge():
            if process.eps == 0:
                remarks.append(
                    f"the exact bridge becomes the published one, which adds {BRIDGE_EPS:g} to its variances"
                )
            return {"sde": "sbve", "k": process.k, "c": process.c, "eps": process.eps or BRIDGE_EPS}
        case Prediction():
            return {"sde": "ouve", "theta": 1.5, "sigma_min": 0.05, "sigma_max": 0.5}  # asked for, but not used
        case _:
            raise _unsayable(f"the process {process}", "OUVE and SchroedingerBridge can be written")


def _sampler(sampler: "Sampler | None") -> dict[str, Any]:
    from ornstein.samplers.compat_bridge import PublishedBridge
    from ornstein.samplers.ode import ProbabilityFlowODE
    from ornstein.samplers.predictor_corrector import AnnealedLangevin, Langevin, PredictorCorrector

    grid = getattr(sampler, "grid", None)
    end = {} if getattr(grid, "end", None) is None else {"t_eps": grid.end}  # type: ignore[union-attr]
    if isinstance(sampler, PredictorCorrector):
        match sampler.corrector:
            case AnnealedLangevin(snr):
                corrector = {"corrector": "ald", "snr": snr}
            case Langevin(snr):
                corrector = {"corrector": "langevin", "snr": snr}
            case _:
                corrector = {"corrector": "none"}
        steps = {"N": sampler.steps, "corrector_steps": sampler.corrector_steps}
        return {"sampler_type": "pc", **steps, **corrector, **end}
    if isinstance(sampler, ProbabilityFlowODE):
        return {"sampler_type": "ode", **end}
    if isinstance(sampler, PublishedBridge):
        return {"sampler_type": sampler.mode, "N": sampler.steps}
    name = "no sampler" if sampler is None else f"the sampler {type(sampler).__name__}"
    raise _unsayable(name, "--default_sampler leaves sampling to the published code")


def _representation(representation: Any) -> dict[str, Any]:
    names = {
        "n_fft": "n_fft",
        "hop_length": "hop",
        "window": "window",
        "transform_type": "transform",
        "spec_abs_exponent": "exponent",
        "spec_factor": "factor",
        "sr": "sample_rate",
    }
    return {theirs: getattr(representation, ours) for theirs, ours in names.items()}


def _unsayable(what: str, mend: str) -> UserError:
    return UserError(f"the published layout cannot say {what}; {mend}")


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
            raise _unsayable(f"its {name}", f"it would come back with {_difference(wanted, said)}{mend}")


def _regularised(process: "Process") -> "Process":
    """The process as the published code has it."""
    from ornstein.process.bridge import SchroedingerBridge

    exact = isinstance(process, SchroedingerBridge) and process.eps == 0
    return replace(process, eps=BRIDGE_EPS) if exact else process  # type: ignore[type-var]  # a dataclass


def _like(ours: "Parameterization", theirs: "Parameterization") -> "Parameterization":
    """A plain parameterization in the form of the published one, if that has another form."""
    scaled: Parameterization = ours if type(ours) is type(theirs) else _scaled(ours)
    return scaled


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
