"""Published SGMSE+ checkpoints: their options, translated into our components.

Such a file is a Lightning checkpoint whose `hyper_parameters` hold all options in one flat mapping; the network is
`dnn.`, its averaged weights a nameless list in parameter order. Options that a file lacks take the published defaults:
files of 2022 have neither `sampler_type` nor `sr`, and call score matching `mse` or `mae`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ornstein.config import Spec, build
from ornstein.errors import UserError
from ornstein.files import check_target

if TYPE_CHECKING:
    from torch import Tensor

    from ornstein.denoiser import Denoiser
    from ornstein.lightning_checkpoint import LightningCheckpoint
    from ornstein.samplers.base import Sampler
    from ornstein_speech.representation import CompressedSpectrogram

PREFIX = "dnn."
"""What the names of the network's weights begin with."""

SCORE_LOSSES = ("score_matching", "mse", "mae")

BRIDGE_END = 1e-4
"""Where the published bridge sampler stops; it does not use `t_eps`."""

BRIDGE_EPS = 1e-8
"""The published sampler keeps this regularisation, whatever was stored."""


def import_checkpoint(
    checkpoint: Path,
    output: Path,
    *,
    weights: Literal["ema", "raw"] = "ema",
    half: bool = False,
    overwrite: bool = False,
) -> Path:
    """Convert a published SGMSE+ checkpoint into a safetensors file for enhance.

    Supported are the backbones ncsnpp, ncsnpp_v2 and ncsnpp_48k with the processes ouve and sbve.

    Args:
        checkpoint: The .ckpt file. It is read without running anything in it; the training code is not needed.
        output: The .safetensors file to write.
        weights: The averaged weights (ema), with which published results were made, or those of the last step (raw).
        half: Store in float16, half the size; loaded as float32.
        overwrite: Replace an existing file.

    Returns:
        The file written.

    Raises:
        UserError: not such a checkpoint, one that is not supported, no averaged weights, or an unwritable target.
    """
    import torch

    from ornstein.checkpoint import save

    check_target(output, overwrite)
    denoiser, representation, sampler, info = read_published(checkpoint, weights)
    save(
        output,
        denoiser,
        app="speech",
        representation=representation,
        sampler=sampler,
        info=info,
        dtype=torch.float16 if half else None,
        weights=weights,
        overwrite=overwrite,
    )
    print(output)
    return output


def read_published(
    path: str | Path, weights: Literal["ema", "raw"] = "ema"
) -> "tuple[Denoiser, CompressedSpectrogram, Sampler, dict[str, Any]]":
    """Read a published SGMSE+ checkpoint.

    Returns:
        Denoiser in evaluation mode on the CPU, its representation, the sampler its results were made with, and notes.

    Raises:
        UserError: not such a checkpoint, one that is not supported, or no averaged weights.
    """
    from ornstein.lightning_checkpoint import read
    from ornstein.samplers.base import Sampler
    from ornstein_speech.representation import CompressedSpectrogram

    checkpoint = read(path)
    _refuse_others(checkpoint)
    options = {name: value for name, value in checkpoint.hyper_parameters.items() if value is not None}
    tensors = _network_weights(checkpoint, weights)
    try:
        denoiser = _denoiser(options, tensors)
        representation = build(_representation(options), CompressedSpectrogram)
        sampler = build(_sampler(options), Sampler)  # type: ignore[type-abstract]
    except UserError as error:
        raise UserError(f"{path} cannot be imported: {error}") from error
    info: dict[str, Any] = {name: options[name] for name in ("backbone", "sde", "loss_type") if name in options}
    info |= {"source": checkpoint.path.name, "epoch": checkpoint.epoch, "global_step": checkpoint.global_step}
    return denoiser, representation, sampler, info


def _refuse_others(checkpoint: "LightningCheckpoint") -> None:
    path, options = checkpoint.path, checkpoint.hyper_parameters
    if checkpoint.config is not None:
        raise UserError(f"{path} comes from `ornstein speech fit`; convert it with `ornstein speech export`")
    if any(name.startswith(("denoiser_net.", "score_net.")) for name in checkpoint.state_dict):
        raise UserError(f"{path} is a StoRM checkpoint, which is not supported yet; give one of SGMSE+")
    if options.get("backbone") == "dcunet":
        raise UserError(f"{path} has the backbone dcunet, which is not supported yet; give one with ncsnpp")
    if options.get("discriminative"):
        raise UserError(f"{path} is a predictive model without diffusion, which is not supported yet")
    if not all(isinstance(options.get(name), str) for name in ("backbone", "sde")):
        raise UserError(
            f"{path} is no SGMSE+ checkpoint: its options name no backbone and sde; give one of sp-uhh/sgmse"
        )


def _network_weights(checkpoint: "LightningCheckpoint", weights: str) -> "dict[str, Tensor]":
    """Weights by their name in the network; what else a checkpoint holds, such as a PESQ loss, stays behind."""
    if weights == "ema" and checkpoint.ema is None:
        raise UserError(f"{checkpoint.path} has no averaged weights; use those of the last step with --weights raw")
    state = checkpoint.ema_state_dict(PREFIX) if weights == "ema" else checkpoint.state_dict
    return {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}


def _denoiser(options: Mapping[str, Any], tensors: "dict[str, Tensor]") -> "Denoiser":
    import torch

    from ornstein.denoiser import Denoiser
    from ornstein.networks.ncsnpp import from_published
    from ornstein.parameterization import Parameterization
    from ornstein.process.affine import Process

    process = build(_process(options), Process)  # type: ignore[type-abstract]
    parameterization = build(_parameterization(options), Parameterization)  # type: ignore[type-abstract]
    try:
        with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away
            network = from_published(options["backbone"], options)
        network.load_state_dict(tensors)
    except (TypeError, ValueError, RuntimeError) as error:  # options of a wrong type, or not those of the weights
        raise UserError(f"its options and weights make no network: {str(error)[:200]}") from error
    return Denoiser(network, process, parameterization).eval()


def _process(options: Mapping[str, Any]) -> Spec:
    match options["sde"]:
        case "ouve":
            return _spec("ornstein.process.ouve.OUVE", options, {}, "theta", "sigma_min", "sigma_max")
        case "sbve":
            return _spec("ornstein.process.bridge.SchroedingerBridge", options, {"eps": BRIDGE_EPS}, "k", "c")
        case other:
            raise UserError(f"its process {other!r} is not supported; ouve and sbve are")


def _parameterization(options: Mapping[str, Any]) -> Spec:
    """ncsnpp and ncsnpp_48k give minus the score; what ncsnpp_v2 gives depends on its loss."""
    loss = options.get("loss_type", "score_matching")
    meanings = {"data_prediction": "x0", "denoiser": "mean"} | dict.fromkeys(SCORE_LOSSES, "score")
    if not isinstance(loss, str) or loss not in meanings:
        raise UserError(f"its loss_type {loss!r} is not supported; {', '.join(meanings)} are")
    if options["backbone"] == "ncsnpp_v2":
        names = ("c_in", "c_out", "c_skip", "network_scaling", "sigma_data")
        return _spec("ornstein_speech.preconditioning.Preconditioned", options, {"predicts": meanings[loss]}, *names)
    if loss == "data_prediction":
        raise UserError(f"data_prediction with {options['backbone']} is not supported; with ncsnpp_v2 it is")
    return _spec("ornstein.parameterization.Score", options, {"scale": -1.0})


def _sampler(options: Mapping[str, Any]) -> Spec:
    kind = str(options.get("sampler_type", "pc")).removeprefix("sb_")
    if options["sde"] == "sbve":
        if kind not in ("pc", "ode", "sde"):
            raise UserError(f"its sampler_type {kind!r} is not supported; ode and sde are for sbve")
        mode = "sde" if kind == "sde" else "ode"  # published inference takes pc, the general default, for ode
        bridge = {"mode": mode, "grid": _uniform(BRIDGE_END)}
        return _spec("ornstein.samplers.compat_bridge.PublishedBridge", options, bridge, steps="N")
    end = options.get("t_eps", 0.03)
    if kind == "ode":
        return _spec("ornstein.samplers.ode.ProbabilityFlowODE", options, {"grid": _uniform(end)})
    if kind != "pc":
        raise UserError(f"its sampler_type {kind!r} is not supported; pc and ode are for ouve")
    module = "ornstein.samplers.predictor_corrector"
    corrector: Spec | None
    match options.get("corrector", "ald"):
        case "ald":
            corrector = _spec(f"{module}.AnnealedLangevin", options, {}, "snr")
        case "langevin":
            corrector = _spec(f"{module}.Langevin", options, {}, "snr")
        case "none":
            corrector = None
        case other:
            raise UserError(f"its corrector {other!r} is not supported; ald, langevin and none are")
    fixed: Spec = {"grid": _uniform(end, to_zero=True), "corrector": corrector}
    # N of 2022 is a leftover of the training code; inference took 30 steps
    steps = {"steps": "N"} if "sampler_type" in options else {}
    return _spec(f"{module}.PredictorCorrector", options, fixed, "corrector_steps", **steps)


def _representation(options: Mapping[str, Any]) -> Spec:
    """Published inference fixes the padding by the backbone, and that ncsnpp_48k runs at 48 kHz whatever was stored."""
    backbone = options["backbone"]
    fixed = {
        "padding": "zero" if backbone == "ncsnpp" else "reflect",
        "sample_rate": 48000 if backbone == "ncsnpp_48k" else options.get("sr", 16000),
    }
    return _spec(
        "ornstein_speech.representation.CompressedSpectrogram",
        options,
        fixed,
        "n_fft",
        "window",
        hop="hop_length",
        transform="transform_type",
        exponent="spec_abs_exponent",
        factor="spec_factor",
    )


def _uniform(end: Any, to_zero: bool = False) -> Spec:
    return {"class_path": "ornstein.samplers.time_grids.UniformGrid", "init_args": {"end": end, "to_zero": to_zero}}


def _spec(path: str, options: Mapping[str, Any], fixed: Mapping[str, Any], *same: str, **renamed: str) -> Spec:
    """Spec of the class `path`: `fixed` arguments, and those that the options give, of the `same` name or `renamed`."""
    names = {name: name for name in same} | renamed
    given = {argument: options[name] for argument, name in names.items() if name in options}
    return {"class_path": path, "init_args": given | dict(fixed)}
