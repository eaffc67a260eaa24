"""Our components for the weights of a published file and what the file does not say."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from ornstein.errors import UserError
from ornstein.published_shapes import Shapes, checked, filled
from ornstein_restoration import published_networks as architectures
from ornstein_restoration.published_networks import PATCH, STATE, Kind

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ornstein.denoiser import Denoiser
    from ornstein.networks.vq import VQAutoencoder
    from ornstein.process.rddm import RDDM, Increments
    from ornstein.samplers.base import Sampler
    from ornstein_restoration.representation import PictureSpace

Schedule = Literal["linear", "cosine"]
Mode = Literal["epsilon", "sample", "residual"]
ObjectiveName = Literal[
    "pred_res_noise", "pred_res_add_noise", "pred_x0_noise", "pred_x0_add_noise", "pred_res", "pred_noise"
]


@dataclass(frozen=True)
class Options:
    """What a published file does not store; None is as published."""

    schedule_steps: int | None = None
    """T."""
    schedule: Schedule | None = None
    mode: Mode | None = None
    sum_scale: float | None = None
    objective: ObjectiveName | None = None
    noise_scale: float | None = None
    """kappa."""
    power: float | None = None
    min_noise: float | None = None
    groups: int | None = None
    category_size: int | None = None
    num_heads: int | None = None
    image_size: int | None = None
    equalize: bool = False

    def given(self) -> dict[str, Any]:
        """Those that are not as published."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None and value is not False}


MEANT_FOR: dict[str, tuple[str, ...]] = {
    "schedule_steps": ("upsr", "resfusion", "rddm", "resshift"),
    "schedule": ("resfusion",),
    "mode": ("resfusion",),
    "sum_scale": ("rddm",),
    "objective": ("rddm",),
    "noise_scale": ("upsr", "resshift"),
    "power": ("upsr", "resshift"),
    "min_noise": ("upsr", "resshift"),
    "groups": ("resfusion", "rddm"),
    "category_size": ("atd",),
    "num_heads": ("resfusion",),
    "image_size": ("upsr", "resshift", "resfusion"),
    "equalize": ("rddm",),
}


def components(
    kind: Kind,
    tensors: "Mapping[str, Tensor]",
    options: Options,
    path: Path,
    tables: "Mapping[str, Tensor] | None" = None,
    predictor: "nn.Module | None" = None,
    autoencoder: "VQAutoencoder | None" = None,
) -> "tuple[Denoiser, PictureSpace | None, Sampler]":
    """Denoiser in evaluation mode with these weights, its representation, and the sampler of the published results.

    Args:
        kind: what the file is.
        tensors: weights by their published names, without prefixes.
        options: what is not in the file.
        path: the file, for messages.
        tables: RDDM's coefficients, where the file has them.
        predictor: UPSR's g.
        autoencoder: of the latents that ResShift works on.

    Raises:
        UserError: options of another kind, or weights that make no network of this kind.
    """
    for name in options.given():
        if kind not in MEANT_FOR[name]:
            raise UserError(f"--{name} is for {' and '.join(MEANT_FOR[name])}, and {path} is {kind}; leave it out")
    shapes = Shapes(tensors, path)
    match kind:
        case "upsr" | "resshift":
            parts = _shifting(kind, shapes, tensors, options, predictor, autoencoder)
        case "atd":
            parts = _regression(shapes, tensors, options)
        case "resfusion":
            parts = _resfusion(shapes, tensors, options)
        case "rddm":
            parts = _rddm(shapes, tensors, options, tables or {})
    parts[0].eval()
    return parts


def _shifting(
    kind: Kind,
    shapes: Shapes,
    tensors: "Mapping[str, Tensor]",
    options: Options,
    predictor: "nn.Module | None",
    autoencoder: "VQAutoencoder | None",
) -> "tuple[Denoiser, PictureSpace | None, Sampler]":
    from ornstein.denoiser import Denoiser
    from ornstein.parameterization import X0
    from ornstein.process.upsr import UPSR
    from ornstein.published_shift import on_latents, residual_shift, swin_unet
    from ornstein.samplers.ancestral import Ancestral
    from ornstein.samplers.ode_solvers import Euler
    from ornstein.uncertainty import UncertaintyGuided
    from ornstein.wrapped_parameterizations import RangeScaling, ScaledInput
    from ornstein_restoration.representation import PictureSpace

    def network(state: int, condition: int) -> "nn.Module":
        return filled(lambda: swin_unet(shapes, state, condition, options.image_size), tensors, shapes.path)

    steps = options.schedule_steps
    names = ("noise_scale", "power", "min_noise")
    given: dict[str, Any] = {name: value for name in names if (value := getattr(options, name)) is not None}
    if kind == "upsr":
        swin = network(STATE, 2 * STATE)
        if predictor is None:
            raise UserError(f"{shapes.path} needs the network of its first estimate; give it: --predictor atd_real.pth")
        settings = given if steps is None else {"steps": steps} | given
        guided = checked(lambda: UPSR(**settings), shapes.path)
        denoiser: Denoiser = UncertaintyGuided(swin, guided, predictor=predictor)
        return denoiser, PictureSpace(scale=4, patch=PATCH, multiple=64, enlarge=False), Euler(guided.steps)
    process = residual_shift(shapes.path, steps, **given)
    sampler = Ancestral(process.steps, eta=1.0)
    if "conv_before_upsample.0.weight" in shapes:  # on pixels
        if autoencoder is not None:
            raise UserError(f"{shapes.path} works on pixels; leave --autoencoder out")
        scaled = ScaledInput(X0(), RangeScaling())
        denoiser = UncertaintyGuided(network(STATE, STATE), process, scaled)
        return denoiser, PictureSpace(scale=4, patch=PATCH, multiple=64, enlarge=False), sampler
    denoiser = on_latents(shapes, tensors, process, autoencoder, options.image_size)
    if autoencoder is None:
        return denoiser, None, sampler
    return denoiser, PictureSpace(scale=4, multiple=64, enlarge=False, factor=autoencoder.factor), sampler


def _regression(
    shapes: Shapes, tensors: "Mapping[str, Tensor]", options: Options
) -> "tuple[Denoiser, PictureSpace, Sampler]":
    from ornstein.samplers.ancestral import Ancestral
    from ornstein.samplers.time_grids import UserGrid
    from ornstein_restoration.regression import RegressionUpscaler
    from ornstein_restoration.representation import PictureSpace

    size = 128 if options.category_size is None else options.category_size
    network = filled(lambda: architectures.atd(shapes, size), tensors, shapes.path)
    scale = cast(int, network.upscale)
    # the network continues sides by itself, as published
    space = PictureSpace(scale=scale, multiple=1, enlarge=False)
    return RegressionUpscaler(network, scale=scale), space, Ancestral(1, UserGrid((1.0, 0.0)), eta=0.0)


def _resfusion(
    shapes: Shapes, tensors: "Mapping[str, Tensor]", options: Options
) -> "tuple[Denoiser, PictureSpace, Sampler]":
    from ornstein.denoiser import Denoiser
    from ornstein.parameterization import X0, Parameterization, Residual, ResNoise
    from ornstein.process.resfusion import CosinePro, LinearPro, Resfusion
    from ornstein.samplers.ancestral import Ancestral
    from ornstein.wrapped_parameterizations import ClippedX0, HiddenObservation
    from ornstein_restoration.representation import PictureSpace

    network, multiple = _resfusion_network(shapes, tensors, options)
    generates = network.condition_channels == 0
    steps = options.schedule_steps or resfusion_steps(generates)
    process = checked(lambda: Resfusion((CosinePro if options.schedule == "cosine" else LinearPro)(steps)), shapes.path)
    levels = checked(lambda: process.levels, shapes.path)  # cuts the schedule, which may be impossible
    modes: dict[str, Parameterization] = {
        "epsilon": ResNoise(),
        "sample": ClippedX0(X0()),
        "residual": ClippedX0(Residual()),
    }
    meaning = modes[options.mode or "epsilon"]
    space = PictureSpace(multiple=multiple, mask="one_hot" if network.condition_channels == 5 else "none")
    denoiser = Denoiser(network, process, HiddenObservation(meaning) if generates else meaning)
    return denoiser, space, Ancestral(levels, eta=1.0)


def resfusion_steps(generates: bool) -> int:
    """T as published: for generation, 100 steps are left of it, and for restoration 5."""
    return 273 if generates else 12


def _resfusion_network(shapes: Shapes, tensors: "Mapping[str, Tensor]", options: Options) -> "tuple[Any, int]":
    """The network, and what sides it takes are multiples of."""

    def only(name: str, what: str) -> None:
        meant = {"groups": "the UNet of RDDM", "num_heads": "transformers", "image_size": "the UNet of DDIM"}
        for other in meant.keys() - {name}:
            if getattr(options, other) is not None:
                raise UserError(f"--{other} is for {meant[other]}, and {shapes.path} is {what}; leave it out")

    network: Any
    if "x_embedder.proj.weight" in shapes:
        only("num_heads", "a transformer")
        network = filled(lambda: architectures.dit(shapes, options.num_heads), tensors, shapes.path)
        return network, network.input_size
    if "temb.dense.0.weight" in shapes:
        only("image_size", "the UNet of DDIM")
        side = 32 if options.image_size is None else options.image_size
        network = filled(lambda: architectures.ddim_unet(shapes, side), tensors, shapes.path)
        return network, 2 ** (len(network.ch_mult) - 1)
    only("groups", "the UNet of RDDM")
    groups = 8 if options.groups is None else options.groups
    return filled(lambda: architectures.residual_unet(shapes, 2, groups, alone=True), tensors, shapes.path), 8


def _rddm(
    shapes: Shapes, tensors: "Mapping[str, Tensor]", options: Options, tables: "Mapping[str, Tensor]"
) -> "tuple[Denoiser, PictureSpace, Sampler]":
    from ornstein.denoiser import Denoiser
    from ornstein.residual_outputs import ResidualOutputs
    from ornstein.samplers.compat_residual import PublishedResidual
    from ornstein.two_networks import TwoNetworks
    from ornstein_restoration.representation import PictureSpace

    groups = 8 if options.groups is None else options.groups
    process = rddm_process(tables, options, shapes.path)
    two = any(name.startswith(("unet1.", "ups_no_skip.")) for name in shapes)
    outputs = ResidualOutputs(options.objective or ("pred_res_noise" if two else "pred_res"))
    if outputs.outputs != 1 + two:
        mend = "one that ends in _noise and not pred_noise" if two else "pred_res or pred_noise"
        raise UserError(
            f"{shapes.path} has {1 + two} outputs, and --objective {outputs.objective} {outputs.outputs}; give {mend}"
        )

    def unet(prefix: str) -> "nn.Module":
        own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        return filled(lambda: architectures.residual_unet(Shapes(own, shapes.path), 3, groups), own, shapes.path)

    if any(name.startswith("ups_no_skip.") for name in shapes):
        network = filled(lambda: architectures.shared_encoder(shapes, groups), tensors, shapes.path)
        denoiser = Denoiser(network, process, outputs)
    elif two:
        network = unet("unet0.")
        denoiser = TwoNetworks(network, unet("unet1."), process, outputs)
    else:
        network = unet("unet0.")
        denoiser = Denoiser(network, process, outputs)
    masked = network.condition_channels != 3
    space = PictureSpace(mask="image" if masked else "none", equalize=options.equalize)
    steps = 2 if options.equalize else 5  # in low light, and elsewhere
    return denoiser, space, PublishedResidual(min(steps, process.steps))


def rddm_process(tables: "Mapping[str, Tensor]", options: Options, path: Path) -> "RDDM":
    """The process whose coefficients are the `tables` of the file, or without them that of the restoration code.

    Raises:
        UserError: coefficients that are none of ours, or options that contradict them.
    """
    from ornstein.process.rddm import RDDM

    if "alphas" not in tables or "betas2" not in tables:
        sum_scale = 1.0 if options.sum_scale is None else options.sum_scale
        steps = 1000 if options.schedule_steps is None else options.schedule_steps
        return checked(lambda: RDDM(steps, sum_scale=sum_scale), path)
    alphas, variances = tables["alphas"].double().flatten(), tables["betas2"].double().flatten()
    steps, stored = len(alphas), float(f"{float(variances.sum()):.5g}")
    for name, said, found in (
        ("schedule_steps", options.schedule_steps, steps),
        ("sum_scale", options.sum_scale, stored),
    ):
        if said is not None and abs(said - found) > 1e-4 * found:
            raise UserError(f"{path} stores {name} {found:g}, and --{name} is {said:g}; leave the option out")
    residual, noise = _increments(alphas, "alphas", path), _increments(variances / variances.sum(), "betas2", path)
    return checked(lambda: RDDM(steps, residual, noise, stored), path)


def _increments(table: "Tensor", name: str, path: Path) -> "Increments":
    """Those that make this table, whose sum is 1.

    Raises:
        UserError: none of ours does.
    """
    from ornstein.process.rddm import LinearIncrements, NormalIncrements, PowerIncrements

    directions = (True, False)
    known: list[Increments] = [LinearIncrements(decreasing) for decreasing in directions]
    known += [PowerIncrements(power, decreasing) for power in (1.0, 0.3, 0.5, 2.0) for decreasing in directions]
    known += [PowerIncrements(0.0), NormalIncrements()]
    for increments in known:
        made = increments(len(table))
        if float((made - table).abs().max()) <= 1e-4 * float(made.max()) / len(table) + 1e-9:
            return increments
    raise UserError(f"{path}: its coefficients {name} are none of the published restoration schedules; give another")
