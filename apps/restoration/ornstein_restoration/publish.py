"""Our models in the layouts of the published code of UPSR, ATD, Resfusion, RDDM and ResShift.

Such a file holds weights and hardly anything else. What is written is read back by the importer with the options that
it needs; whatever would come back different is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ornstein.config import describe
from ornstein.errors import UserError
from ornstein.files import check_target
from ornstein_restoration.published_components import Options, components, resfusion_steps
from ornstein_restoration.published_networks import Kind

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ornstein.denoiser import Denoiser
    from ornstein.process.rddm import RDDM
    from ornstein.trained import TrainedModel

SUFFIX: dict[Kind, str] = {"upsr": ".pth", "atd": ".pth", "resshift": ".pth", "resfusion": ".ckpt", "rddm": ".pt"}
FREE = ("dropout", "attention_resolutions", "out_channels")
"""Arguments of networks that the names and shapes of the tensors say, or that the result does not depend on."""


def publish(
    source: Path,
    target: Path,
    weights: str = "ema",
    average: str | None = None,
    predictor: Path | None = None,
    autoencoder: Path | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Write `source`, a .ckpt of fit or one of our .safetensors files, as its method's published code would.

    Args:
        source: our file.
        target: .pth (UPSR, ATD, ResShift), .ckpt (Resfusion) or .pt (RDDM).
        weights: `ema` writes the averages beside the raw weights, `raw` these alone.
        average: which average, where the run kept several.
        predictor: where UPSR's g goes.
        autoencoder: where the autoencoder of ResShift's latents goes.
        overwrite: replace existing files.

    Returns:
        Remarks: what the file does not say.

    Raises:
        UserError: not our file, something that the published layout cannot say, or an unwritable target.
    """
    from ornstein.latent import LatentDenoiser
    from ornstein.published_files import write
    from ornstein.trained import read
    from ornstein.uncertainty import UncertaintyGuided

    check_target(target, overwrite)
    model = read(source, "restoration", weights, average)
    denoiser = model.denoiser
    try:
        kind, options = kind_and_options(denoiser, model.representation)
        if target.suffix != SUFFIX[kind]:
            raise UserError(f"{target} is no name for {kind}; published files end in {SUFFIX[kind]}")
        guide = denoiser.predictor if isinstance(denoiser, UncertaintyGuided) else None
        latents = denoiser.autoencoder if isinstance(denoiser, LatentDenoiser) else None
        for name, path, part in (("predictor", predictor, guide), ("autoencoder", autoencoder, latents)):
            if path is not None:
                if part is None:
                    raise UserError(f"there is no {name} in it; leave --{name} out")
                if path.resolve() == target.resolve():
                    raise UserError(f"{path} would hold both networks; choose another name for --{name}")
                check_target(path, overwrite)
        raw = _published(denoiser, model.raw)
        averaged = None if model.averaged is None else _published(denoiser, model.averaged)
        _check(kind, options, model, raw if averaged is None else averaged, target)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    remarks = []
    if guide is not None:
        if predictor is None:
            remarks.append("its predictor is left out; --predictor FILE writes it, too")
        else:
            used = model.raw if model.averaged is None else model.averaged
            write(predictor, {"params_ema": _of_network(guide, used, "predictor.")}, overwrite)
    if latents is not None:
        if autoencoder is None:
            remarks.append("its autoencoder is left out; --autoencoder FILE writes it, too")
        else:
            used = model.raw if model.averaged is None else model.averaged
            write(autoencoder, _of_network(latents, used, "autoencoder."), overwrite)
    write(target, _content(kind, options, model, raw, averaged), overwrite)
    stored = ("schedule_steps", "schedule", "mode") if kind == "resfusion" else ()
    if given := {name: value for name, value in options.given().items() if name not in stored}:
        said = " ".join(f"--{name}" if value is True else f"--{name} {value}" for name, value in given.items())
        remarks.append(f"it does not say all of this; import it with {said}")
    return remarks


def kind_and_options(denoiser: "Denoiser", representation: Any) -> tuple[Kind, Options]:
    """What published file a model can be, and the options with which `import` makes it again.

    Raises:
        UserError: none of them.
    """
    from ornstein.process.rddm import RDDM
    from ornstein.process.resfusion import CosinePro, LinearPro, Resfusion
    from ornstein.process.residual_shift import ResidualShift
    from ornstein.process.upsr import UPSR
    from ornstein.wrapped_parameterizations import HiddenObservation
    from ornstein_restoration.regression import RegressionUpscaler

    process, network = denoiser.process, cast(Any, denoiser.network)
    if isinstance(denoiser, RegressionUpscaler):
        return "atd", Options(category_size=_unless(getattr(network, "category_size", 128), 128))
    match process:
        case ResidualShift():
            kind: Kind = "upsr" if isinstance(process, UPSR) else "resshift"
            steps, scale, power = (5, 2.5, 0.2) if kind == "upsr" else (15, 2.0, 0.3)
            least = 0.2 if kind == "upsr" or process.steps == 4 else 0.04
            return kind, Options(
                schedule_steps=_unless(process.steps, steps),
                noise_scale=_unless(process.noise_scale, scale),
                power=_unless(process.power, power),
                min_noise=_unless(process.min_noise, least),
            )
        case Resfusion(schedule=LinearPro() | CosinePro() as schedule):
            heads, width = getattr(network, "num_heads", None), getattr(network, "hidden_size", 0)
            generates = isinstance(denoiser.parameterization, HiddenObservation)
            side = getattr(network, "image_size", None)
            return "resfusion", Options(
                schedule_steps=_unless(schedule.steps, resfusion_steps(generates)),
                schedule="cosine" if isinstance(schedule, CosinePro) else None,
                mode=_mode(denoiser),  # type: ignore[arg-type]  # one of them
                groups=_unless(getattr(network, "groups", 8), 8),
                num_heads=None if heads is None else _unless(heads, max(1, width // 64)),
                image_size=None if side is None else _unless(side, 32),
            )
        case RDDM():
            from ornstein.residual_outputs import ResidualOutputs

            outputs = denoiser.parameterization
            objective = outputs.objective if isinstance(outputs, ResidualOutputs) else None
            return "rddm", Options(
                objective=None if objective in ("pred_res", "pred_res_noise") else objective,
                groups=_unless(getattr(network, "groups", 8), 8),
                equalize=bool(getattr(representation, "equalize", False)),
            )
        case _:
            raise UserError(f"there is no published layout for the process {process}; export it in our own")


def _unless(value: Any, published: Any) -> Any:
    return None if value == published else value


def _mode(denoiser: "Denoiser") -> str | None:
    from ornstein.parameterization import X0, Residual, ResNoise
    from ornstein.wrapped_parameterizations import ClippedX0, HiddenObservation

    meaning = denoiser.parameterization
    match meaning.parameterization if isinstance(meaning, HiddenObservation) else meaning:
        case ResNoise():
            return None
        case ClippedX0(X0()):
            return "sample"
        case ClippedX0(Residual()):
            return "residual"
        case other:
            raise UserError(f"Resfusion's layout cannot say that the network gives {other}; export it in our own")


# -- weights under their published names -------------------------------------------------------------------------------


def _published(denoiser: "Denoiser", tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    from ornstein.networks.atd import ATD
    from ornstein.networks.ddim_unet import DDIMUNet
    from ornstein.networks.dit import DiT
    from ornstein.networks.residual_unet import ResidualUNet
    from ornstein.networks.swin_unet import SwinUNet
    from ornstein.networks.unet_res import SharedEncoderUNet, UNetRes
    from ornstein.process.rddm import RDDM
    from ornstein.two_networks import TwoNetworks

    network = denoiser.network
    known = (ATD, DDIMUNet, DiT, ResidualUNet, SharedEncoderUNet, SwinUNet, UNetRes)
    for each in denoiser.networks:
        if not isinstance(each, known):
            names = ", ".join(cls.__name__ for cls in known)
            raise UserError(
                f"no published code has the network {type(each).__name__}, only {names}; export it in our own"
            )
    if isinstance(denoiser, TwoNetworks):
        second = _of_network(denoiser.noise_network, tensors, "noise_network.")
        return _prefixed("unet0.", _of_network(network, tensors, "network.")) | _prefixed("unet1.", second)
    own = _of_network(network, tensors, "network.")
    alone = isinstance(denoiser.process, RDDM) and not isinstance(network, UNetRes | SharedEncoderUNet)
    return _prefixed("unet0.", own) if alone else own


def _prefixed(prefix: str, tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _of_network(network: "nn.Module", tensors: "Mapping[str, Tensor]", prefix: str) -> "dict[str, Tensor]":
    """The tensors of `network` with the masks and indices that published files hold, too."""
    from ornstein.published_files import plain_copy

    own = {name.removeprefix(prefix): plain_copy(t) for name, t in tensors.items() if name.startswith(prefix)}
    return own | _computed(network)


def _computed(network: "nn.Module") -> "dict[str, Tensor]":
    from ornstein.networks.atd import ATD
    from ornstein.published_files import plain_copy
    from ornstein.published_shift import computed

    found = computed(network)
    for name, module in network.named_modules():
        if isinstance(module, ATD):
            found[f"{name}.relative_position_index_SA".removeprefix(".")] = plain_copy(module.index)
    return found


# -- files -------------------------------------------------------------------------------------------------------------


def _content(
    kind: Kind,
    options: Options,
    model: "TrainedModel",
    raw: "dict[str, Tensor]",
    averaged: "dict[str, Tensor] | None",
) -> dict[str, Any]:
    import torch

    if kind == "resfusion":
        hyper_parameters = {
            "T": cast(Any, model.denoiser.process).schedule.steps,
            "noise_schedule": "CosinePro" if options.schedule == "cosine" else "LinearPro",
            "mode": options.mode or "epsilon",
        }
        return {
            "epoch": model.epoch,
            "global_step": model.global_step,
            "pytorch-lightning_version": "2.0.0",  # readers migrate from there
            "state_dict": _prefixed("denoising_module.", raw if averaged is None else averaged),
            "hyper_parameters": hyper_parameters,
        }
    if kind == "rddm":
        from ornstein.process.rddm import RDDM

        tables = coefficient_tables(cast(RDDM, model.denoiser.process))
        content: dict[str, Any] = {"step": model.global_step, "model": tables | _prefixed("model.", raw)}
        if averaged is not None:
            state = {
                **_prefixed("online_model.", content["model"]),
                **_prefixed("ema_model.", tables | _prefixed("model.", averaged)),
            }
            content["ema"] = {"initted": torch.tensor([True]), "step": torch.tensor([model.global_step]), **state}
        return content
    return {"params": raw} | ({} if averaged is None else {"params_ema": averaged})


def coefficient_tables(process: "RDDM") -> "dict[str, Tensor]":
    """The twelve buffers that RDDM's files hold, (T,) in float32 (Liu et al. 2024, arXiv 2308.13712, and its code)."""
    import torch

    times = torch.arange(process.steps + 1, dtype=torch.float64)
    coefficients = process.coefficients(times)
    shift, left, variance = coefficients.b[1:], coefficients.a[1:].clone(), coefficients.s[1:] ** 2
    left[-1] = left[-1].clamp(min=1e-6)  # as published
    alphas, betas2 = coefficients.b.diff(), (coefficients.s**2).diff()
    before, shift_before = coefficients.s[:-1] ** 2, coefficients.b[:-1]
    posterior = betas2 * before / variance
    tables = {
        "alphas": alphas,
        "alphas_cumsum": shift,
        "one_minus_alphas_cumsum": left,
        "betas2": betas2,
        "betas": betas2.sqrt(),
        "betas2_cumsum": variance,
        "betas_cumsum": variance.sqrt(),
        "posterior_mean_coef1": before / variance,
        "posterior_mean_coef2": (betas2 * shift_before - before * alphas) / variance,
        "posterior_mean_coef3": betas2 / variance,
        "posterior_variance": posterior,
        "posterior_log_variance_clipped": posterior.clamp(min=1e-20).log(),
    }
    return {name: table.float() for name, table in tables.items()}


def _check(kind: Kind, options: Options, model: "TrainedModel", tensors: "dict[str, Tensor]", target: Path) -> None:
    """Make the components again from what is written; whatever differs was not said.

    Raises:
        UserError: it names the first component that differs.
    """
    from ornstein.latent import LatentDenoiser
    from ornstein.process.rddm import RDDM
    from ornstein.trained import difference
    from ornstein.uncertainty import UncertaintyGuided

    ours = model.denoiser
    tables = coefficient_tables(ours.process) if isinstance(ours.process, RDDM) else None
    guide = ours.predictor if isinstance(ours, UncertaintyGuided) else None
    latents = ours.autoencoder if isinstance(ours, LatentDenoiser) else None
    theirs, representation, _ = components(kind, tensors, options, target, tables, guide, latents)
    pairs: dict[str, tuple[Any, Any]] = {
        "network": (ours.networks, theirs.networks),
        "process": ([ours.process], [theirs.process]),
        "parameterization": ([ours.parameterization], [theirs.parameterization]),
    }
    if model.representation is not None and representation is not None:
        for name in ("scale", "patch", "factor", "mask", "equalize"):
            if getattr(model.representation, name) != getattr(representation, name):
                raise _unsayable(f"{name} {getattr(model.representation, name)!r} of its representation", kind)
    said_settings = _settings(theirs)
    for name, value in _settings(ours).items():
        if value != said_settings.get(name):
            raise _unsayable(f"{name} {value!r} of its {type(ours).__name__}", kind)
    for name, (wanted, said) in pairs.items():
        if len(_flat(wanted)) != len(_flat(said)):
            raise _unsayable(f"the {len(wanted)} networks of its {type(ours).__name__}", kind)
        for one, other in zip(_flat(wanted), _flat(said), strict=True):
            if one != other:
                raise _unsayable(f"its {name}; it would come back with {difference(one, other)}", kind)


def _settings(denoiser: "Denoiser") -> dict[str, Any]:
    """The plain arguments of a denoiser."""
    return {n: v for n, v in describe(denoiser)["init_args"].items() if v is not None and not isinstance(v, dict)}


def _flat(parts: list[Any]) -> list[Any]:
    """Specs without what is free; RDDM's pair of networks as two."""
    from ornstein.networks.unet_res import UNetRes

    whole = [
        each
        for part in parts
        for each in ([part.unet0, part.unet1] if isinstance(part, UNetRes) else [part])
        if each is not None
    ]
    specs = [describe(each) for each in whole]
    return [s | {"init_args": {n: v for n, v in s["init_args"].items() if n not in FREE}} for s in specs]


def _unsayable(what: str, kind: Kind) -> UserError:
    return UserError(f"the published layout of {kind} cannot say {what}; export it in our own layout")
