"""Published checkpoints of SGMSE+, of StoRM and of the predictive model beside it, read into our components.

Such a file is a Lightning checkpoint whose `hyper_parameters` hold all options in one flat mapping; the network is
`dnn.` (`denoiser_net.` and `score_net.` in StoRM), its averaged weights a nameless list in parameter order.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ornstein.config import build
from ornstein.errors import UserError
from ornstein.files import check_target
from ornstein_speech import published_options as translate
from ornstein_speech.published_options import CONDITIONING, Options, StepRule

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ornstein.denoiser import Denoiser
    from ornstein.lightning_checkpoint import LightningCheckpoint
    from ornstein.process.affine import Process
    from ornstein.samplers.base import Sampler
    from ornstein_speech.representation import CompressedSpectrogram

SCORE_PREFIXES = {"dnn.": "network."}
"""What the names of the weights begin with in a file of one network, and in our Denoiser."""

STORM_PREFIXES = {"denoiser_net.": "predictor.network.", "score_net.": "network."}
"""The same in a file of StoRM, in the order of its averages."""

STORM_SIZES: dict[str, dict[str, Any]] = {  # what StoRM's backbones are; its files do not say it
    "ncsnpp": {"nf": 128, "ch_mult": [1, 2, 2, 2], "num_res_blocks": 1, "attn_resolutions": [0]},
    "ncsnpplarge": {"nf": 128, "ch_mult": [1, 1, 2, 2, 2, 2, 2], "num_res_blocks": 2, "attn_resolutions": [16]},
    "ncsnpp12M": {"nf": 96, "ch_mult": [1, 2, 2, 1], "num_res_blocks": 1, "attn_resolutions": [0]},
    "ncsnpp6M": {"nf": 96, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [0]},
}


def import_checkpoint(
    checkpoint: Path,
    output: Path,
    *,
    weights: Literal["ema", "raw"] = "ema",
    step_rule: StepRule = "current",
    steps: int | None = None,
    snr: float | None = None,
    half: bool = False,
    overwrite: bool = False,
) -> Path:
    """Convert a published checkpoint into a safetensors file for enhance.

    Supported are SGMSE+ with the backbones dcunet, ncsnpp, ncsnpp_v2 and ncsnpp_48k and the processes ouve and sbve;
    StoRM; and its predictive model.

    Args:
        checkpoint: The .ckpt file. It is read without running anything in it; the training code is not needed.
        output: The .safetensors file to write.
        weights: The averaged weights (ema), with which published results were made, or those of the last step (raw).
        step_rule: How the predictor-corrector steps: by the difference of the times (current), or by 1/N at every step
            (uniform), as the published code did before June 2024 and StoRM does: for the tables of 2022 and 2023.
        steps: Steps of the sampler to keep in the file. Default: as published.
        snr: Signal-to-noise ratio of the corrector to keep in the file. Default: as published.
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
    denoiser, representation, sampler, info = read_published(checkpoint, weights, step_rule)
    sampler = _with_settings(sampler, denoiser.process, steps, snr)
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


def _with_settings(sampler: "Sampler", process: "Process", steps: int | None, snr: float | None) -> "Sampler":
    """The sampler with what the user changed, and nothing else."""
    if steps is not None:
        if sampler.evaluations(process) is None:
            raise UserError(
                f"--steps {steps} has no effect on the sampler of this checkpoint, which adapts its step; leave it "
                "out, and choose another sampler with enhance, as --sampler pc --steps 30"
            )
        if steps < 1 or getattr(sampler.grid, "times", None) is not None:
            raise UserError(f"--steps {steps} does not fit this checkpoint; give at least 1, or leave --steps out")
        sampler = replace(sampler, steps=steps)
    if snr is not None:
        corrector = getattr(sampler, "corrector", None)
        if corrector is None:
            raise UserError(f"the sampler of this checkpoint has no corrector for --snr {snr:g}; leave --snr out")
        if not snr > 0:
            raise UserError(f"--snr {snr:g} must be above 0; give a number such as 0.5, or leave --snr out")
        sampler = replace(sampler, corrector=replace(corrector, snr=snr))  # type: ignore[call-arg]  # it has one
    return sampler


def read_published(
    path: str | Path, weights: Literal["ema", "raw"] = "ema", step_rule: StepRule = "current"
) -> "tuple[Denoiser, CompressedSpectrogram, Sampler, dict[str, Any]]":
    """Read a published checkpoint.

    Returns:
        Denoiser in evaluation mode on the CPU, its representation, the sampler its results were made with, and notes.

    Raises:
        UserError: not such a checkpoint, one that is not supported, or no averaged weights.
    """
    from ornstein.lightning_checkpoint import read

    checkpoint = read(path)
    _refuse_others(checkpoint)
    options = {name: value for name, value in checkpoint.hyper_parameters.items() if value is not None}
    tensors = _weights(checkpoint, weights)
    try:
        denoiser, representation, sampler = components(options, tensors, step_rule)
    except UserError as error:
        raise UserError(f"{path} cannot be imported: {error}") from error
    names = ("backbone", "backbone_denoiser", "backbone_score", "sde", "loss_type")
    info: dict[str, Any] = {name: options[name] for name in names if name in options}
    info |= {"source": checkpoint.path.name, "epoch": checkpoint.epoch, "global_step": checkpoint.global_step}
    return denoiser, representation, sampler, info


def components(
    options: Options, tensors: "Mapping[str, Tensor]", step_rule: StepRule = "current"
) -> "tuple[Denoiser, CompressedSpectrogram, Sampler]":
    """Our components for the published `options`, filled with `tensors` under their published names.

    Raises:
        UserError: options that are not supported, or not those of the weights.
    """
    from ornstein.samplers.base import Sampler
    from ornstein_speech.representation import CompressedSpectrogram

    regeneration, predictive = is_regeneration(tensors), bool(options.get("discriminative"))
    if regeneration:
        options = {"corrector": "none", **options, "backbone": options["backbone_score"], "loss_type": "score_matching"}
        denoiser = _regeneration(options, tensors)
        sampler = translate.sampler(options, step_rule, translate.STORM_STEPS)
    elif predictive:
        denoiser, sampler = _predictive(options, tensors), translate.PREDICTION_SAMPLER
    else:
        denoiser = _score(options, tensors)
        steps = translate.STORM_SCORE_STEPS if "input_channels" in options else None
        sampler = translate.sampler(options, step_rule, steps)
    representation = build(translate.representation(options), CompressedSpectrogram)
    return denoiser.eval(), representation, build(sampler, Sampler)  # type: ignore[type-abstract]


def is_regeneration(tensors: "Mapping[str, Tensor]") -> bool:
    """Whether the weights are those of StoRM: two networks."""
    return any(name.startswith(tuple(STORM_PREFIXES)) for name in tensors)


def _refuse_others(checkpoint: "LightningCheckpoint") -> None:
    path, options = checkpoint.path, checkpoint.hyper_parameters
    if checkpoint.config is not None:
        raise UserError(f"{path} comes from `ornstein speech fit`; convert it with `ornstein speech export`")
    storm = is_regeneration(checkpoint.state_dict)
    wanted = ["backbone_denoiser", "backbone_score", "sde"] if storm else ["backbone", "sde"]
    if not all(isinstance(options.get(name), str) for name in wanted):
        kind, names = "StoRM" if storm else "SGMSE+", f"{', '.join(wanted[:-1])} and {wanted[-1]}"
        raise UserError(
            f"{path} is no {kind} checkpoint: its options name no {names}; give one of sp-uhh/sgmse or sp-uhh/storm"
        )


def _weights(checkpoint: "LightningCheckpoint", weights: str) -> "dict[str, Tensor]":
    """Weights by their published names; what else a checkpoint holds, such as a PESQ loss, stays behind."""
    if weights == "ema" and checkpoint.ema is None:
        raise UserError(f"{checkpoint.path} has no averaged weights; use those of the last step with --weights raw")
    prefixes = tuple(STORM_PREFIXES if is_regeneration(checkpoint.state_dict) else SCORE_PREFIXES)
    state = checkpoint.ema_state_dict(prefixes) if weights == "ema" else checkpoint.state_dict
    return {name: tensor for name, tensor in state.items() if name.startswith(prefixes)}


def _score(options: Options, tensors: "Mapping[str, Tensor]") -> "Denoiser":
    from ornstein.denoiser import Denoiser
    from ornstein.parameterization import Parameterization
    from ornstein.process.affine import Process

    process = build(translate.process(options), Process)  # type: ignore[type-abstract]
    parameterization = build(translate.parameterization(options), Parameterization)  # type: ignore[type-abstract]
    return Denoiser(_network(options["backbone"], options, tensors, "dnn."), process, parameterization)


def _predictive(options: Options, tensors: "Mapping[str, Tensor]", prefix: str = "dnn.") -> "Denoiser":
    from ornstein.denoiser import Denoiser
    from ornstein.parameterization import OneShot
    from ornstein.process.prediction import Prediction

    backbone = options["backbone_denoiser" if prefix == "denoiser_net." else "backbone"]
    options = {**options, "discriminative": True, "input_channels": 2}
    return Denoiser(_network(backbone, options, tensors, prefix), Prediction(), OneShot())


def _regeneration(options: Options, tensors: "Mapping[str, Tensor]") -> "Denoiser":
    from ornstein.parameterization import Score
    from ornstein.process.affine import Process
    from ornstein.regeneration import StochasticRegeneration

    condition = options.get("condition", "both")
    if not isinstance(condition, str) or condition not in CONDITIONING:
        raise UserError(f"its condition {condition!r} is not supported; {', '.join(CONDITIONING)} are")
    channels = {"discriminative": False, "input_channels": 6 if condition == "both" else 4}
    network = _network(options["backbone_score"], {**options, **channels}, tensors, "score_net.")
    return StochasticRegeneration(
        network,
        build(translate.process(options), Process),  # type: ignore[type-abstract]
        Score(-1.0),
        _predictive(options, tensors, "denoiser_net."),
        CONDITIONING[condition],  # type: ignore[arg-type]  # a Literal, as just checked
    )


def _network(backbone: str, options: Options, tensors: "Mapping[str, Tensor]", prefix: str) -> "nn.Module":
    """The network `backbone` with the weights whose names begin with `prefix`."""
    import torch

    from ornstein.networks import dcunet, ncsnpp

    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    storm = "discriminative" in options or "input_channels" in options
    if storm and (options.get("spatial_channels", 1) != 1 or options.get("return_time")):
        raise UserError("it works on several microphones or on waveforms, which is not supported; give another")
    if storm and backbone == "dcunet":
        raise UserError("dcunet without y, or with more, is not supported; give a file with the backbone ncsnpp")
    if storm and backbone in STORM_SIZES:
        backbone, options = "ncsnpp", STORM_SIZES[backbone] | dict(options)
    try:
        with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away
            network = (
                dcunet.from_published(options) if backbone == "dcunet" else ncsnpp.from_published(backbone, options)
            )
        network.load_state_dict(own)
    except (TypeError, ValueError, RuntimeError) as error:  # options of a wrong type, or not those of the weights
        raise UserError(f"its options and weights make no network: {str(error)[:200]}") from error
    return network
