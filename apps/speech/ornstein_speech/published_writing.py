"""Our components, said in the flat options of published checkpoints: the inverse of `published_options`."""

from typing import TYPE_CHECKING, Any

from ornstein.errors import UserError
from ornstein_speech.published_options import BRIDGE_EPS, CONDITIONING

if TYPE_CHECKING:
    from torch import nn

    from ornstein.denoiser import Denoiser
    from ornstein.parameterization import Parameterization
    from ornstein.process.affine import Process
    from ornstein.samplers.base import Sampler


def options_for(
    denoiser: "Denoiser", representation: Any, sampler: "Sampler | None", default_sampler: bool
) -> tuple[dict[str, Any], list[str]]:
    """Flat options, and remarks about what they change; with `default_sampler` they say nothing about the sampler.

    Raises:
        UserError: a component of which the published code has none.
    """
    from ornstein.process.prediction import Prediction
    from ornstein.regeneration import StochasticRegeneration

    remarks: list[str] = []
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
    options |= _process(denoiser.process, remarks) | _representation(representation)
    if not isinstance(denoiser.process, Prediction):
        options |= {} if default_sampler else _sampler(sampler)
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
            raise unsayable("an architecture of DCUNet without a name", "choose one of its named ones")
        return dcunet.published_options(network)
    if not isinstance(network, ncsnpp.NCSNpp):
        raise unsayable(f"the network {type(network).__name__}", "NCSNpp and DCUNet can be written")
    names = ("nf", "num_res_blocks", "image_size", "fourier_scale", "dropout", "progressive", "progressive_input")
    sizes = {"ch_mult": list(network.ch_mult), "attn_resolutions": list(network.attn_resolutions)}
    flags = {"centered": network.centered, "scale_by_sigma": network.time_division != "none"}
    return {name: getattr(network, name) for name in names} | sizes | flags


def _parameterization(parameterization: "Parameterization") -> tuple[str, dict[str, Any]]:
    """loss_type and the scalings of ncsnpp_v2."""
    from ornstein.parameterization import Score

    if parameterization == Score(-1.0):
        return "score_matching", {}
    full = scaled(parameterization)
    losses = {"x0": "data_prediction", "score": "score_matching", "mean": "denoiser"}
    names = ("c_in", "c_out", "c_skip", "sigma_data")
    scaling = None if full.network_scaling == "none" else full.network_scaling
    return losses[full.predicts], {name: getattr(full, name) for name in names} | {"network_scaling": scaling}


def scaled(parameterization: "Parameterization") -> Any:
    """The parameterization as a `Preconditioned`, whose defaults scale nothing.

    Raises:
        UserError: it is another one.
    """
    from ornstein.parameterization import X0, Mean, Score
    from ornstein_speech.preconditioning import Preconditioned

    plain: dict[Parameterization, Any] = {X0(): "x0", Score(): "score", Mean(): "mean"}
    if parameterization in plain:
        return Preconditioned(plain[parameterization])
    if not isinstance(parameterization, Preconditioned):
        raise unsayable(f"the parameterization {parameterization}", "X0, Score, Mean and Preconditioned can be written")
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
            raise unsayable(f"the process {process}", "OUVE and SchroedingerBridge can be written")


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
    raise unsayable(name, "--default_sampler leaves sampling to the published code")


def _representation(representation: Any) -> dict[str, Any]:
    from ornstein_speech.representation import CompressedSpectrogram

    if not isinstance(representation, CompressedSpectrogram):
        raise unsayable(f"the representation {representation}", "a CompressedSpectrogram can be written")
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


def unsayable(what: str, mend: str) -> UserError:
    return UserError(f"the published layout cannot say {what}; {mend}")
