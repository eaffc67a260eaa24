"""Published checkpoints of UPSR and its ATD, Resfusion, RDDM and ResShift, read into our components."""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ornstein.errors import UserError
from ornstein.files import check_target
from ornstein.published_shapes import Shapes
from ornstein_restoration.published_components import Mode, ObjectiveName, Options, Schedule, components
from ornstein_restoration.published_networks import Kind, guess

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ornstein.samplers.base import Sampler

EMA_ENDING = "-EMA"
"""Of the file with the averaged weights that Resfusion writes beside the other."""


@dataclass(frozen=True)
class PublishedFile:
    """What is of use in a published file."""

    path: Path
    tensors: "dict[str, Tensor]"
    """Weights without prefixes."""
    averaged: bool
    tables: "dict[str, Tensor]" = field(default_factory=dict)
    """RDDM's coefficients."""
    hyper_parameters: dict[str, Any] = field(default_factory=dict)
    """Lightning's."""


def import_checkpoint(
    checkpoint: Path,
    output: Path,
    *,
    kind: Kind | None = None,
    predictor: Path | None = None,
    autoencoder: Path | None = None,
    weights: Literal["best", "ema", "raw"] = "best",
    schedule_steps: int | None = None,
    schedule: Schedule | None = None,
    mode: Mode | None = None,
    sum_scale: float | None = None,
    objective: ObjectiveName | None = None,
    noise_scale: float | None = None,
    power: float | None = None,
    min_noise: float | None = None,
    groups: int | None = None,
    category_size: int | None = None,
    num_heads: int | None = None,
    image_size: int | None = None,
    equalize: bool = False,
    steps: int | None = None,
    half: bool = False,
    overwrite: bool = False,
) -> Path:
    """Convert a published checkpoint into a safetensors file for upscale and restore.

    The architecture is read from the tensors. What a file does not store is an option, as published by default.

    Args:
        checkpoint: The .pth, .ckpt or .pt file. It is read without running anything in it.
        output: The .safetensors file to write.
        kind: What it is: upsr, atd, resfusion, rddm or resshift. Default: as its tensors say.
        predictor: For upsr: the network of the first estimate, atd_real.pth or one of our files.
        autoencoder: For resshift on latents: autoencoder_vq_f4.pth or one of our files; needed by upscale.
        weights: Averaged weights if there are any (best), these or nothing (ema), or those of the last step (raw).
        schedule_steps: T, steps of the training schedule. Default: as stored, or 12 (resfusion; 273 for generation),
            1000 (rddm), 5 (upsr), 15 (resshift; 4 where the name of the file has _s4).
        schedule: For resfusion: linear or cosine. Default: as stored, or linear.
        mode: For resfusion, what the network gives: epsilon, sample or residual. Default: as stored, or epsilon.
        sum_scale: For rddm: variance of the noise at T. Default: as stored, or 1.
        objective: For rddm, what the network gives. Default: pred_res_noise of two outputs, pred_res of one.
        noise_scale: For upsr and resshift: kappa. Default: 2.5, and 2.
        power: For upsr and resshift: exponent of the schedule. Default: 0.2, and 0.3.
        min_noise: For upsr and resshift: noise of the first step. Default: 0.2, and 0.04 with 15 steps.
        groups: For resfusion and rddm: groups of the norms. Default: 8.
        category_size: For atd: tokens that attend to each other. Default: 128.
        num_heads: For resfusion's transformer. Default: one for 64 features.
        image_size: The option of that name, for upsr and resshift without masks. Default: 64. For the UNet of DDIM
            that resfusion generates with: 32.
        equalize: For rddm: equalise the histogram of the input, as published in low light.
        steps: Steps of the sampler to keep in the file. Default: as published.
        half: Store in float16, half the size; loaded as float32.
        overwrite: Replace an existing file.

    Returns:
        The file written.

    Raises:
        UserError: not such a checkpoint, weights of another shape, no averaged weights, or an unwritable target.
    """
    import torch

    from ornstein.checkpoint import save
    from ornstein.published_shift import read_autoencoder

    check_target(output, overwrite)
    options = Options(
        schedule_steps=schedule_steps,
        schedule=schedule,
        mode=mode,
        sum_scale=sum_scale,
        objective=objective,
        noise_scale=noise_scale,
        power=power,
        min_noise=min_noise,
        groups=groups,
        category_size=category_size,
        num_heads=num_heads,
        image_size=image_size,
        equalize=equalize,
    )
    file = read_file(checkpoint, weights)
    found = kind_of(file, kind)
    if predictor is not None and found != "upsr":
        raise UserError(f"--predictor is for upsr, and {checkpoint} is {found}; leave it out")
    if autoencoder is not None and found != "resshift":
        raise UserError(f"--autoencoder is for resshift, and {checkpoint} is {found}; leave it out")
    first = None if predictor is None else read_predictor(predictor)
    latents = None if autoencoder is None else read_autoencoder(autoencoder, "restoration")
    complete = with_stored(options, file)
    denoiser, representation, sampler = components(
        found, file.tensors, complete, file.path, file.tables, first, latents
    )
    info = {"source": file.path.name, "kind": found}
    info |= {} if predictor is None else {"predictor": predictor.name}
    info |= {} if autoencoder is None else {"autoencoder": autoencoder.name}
    save(
        output,
        denoiser,
        app="restoration",
        representation=representation,
        sampler=_with_steps(sampler, steps, denoiser.process),
        info=info,
        dtype=torch.float16 if half else None,
        weights="ema" if file.averaged else "raw",
        overwrite=overwrite,
    )
    if file.path != checkpoint:
        print(f"note: the averaged weights are those of {file.path}", file=sys.stderr)
    if found == "resfusion":
        print(f"note: {_truncation(options, complete, denoiser.process)}", file=sys.stderr)
    if representation is None:
        print("note: it works on latents; upscale also needs an autoencoder: --autoencoder FILE", file=sys.stderr)
    print(output)
    return output


def _truncation(given: Options, complete: Options, process: Any) -> str:
    """What was said, stored or assumed of Resfusion's schedule, and T'."""
    defaults = {"schedule_steps": process.schedule.steps, "schedule": "linear", "mode": "epsilon"}
    words = []
    for name, default in defaults.items():
        value = getattr(complete, name)
        origin = "given" if getattr(given, name) is not None else "default" if value is None else "stored"
        words.append(f"{name} {default if value is None else value} ({origin})")
    return f"{', '.join(words)}: {process.summary}"


def _with_steps(sampler: "Sampler", steps: int | None, process: Any) -> "Sampler":
    if steps is None:
        return sampler
    levels = getattr(process, "levels", 1)
    if not 1 <= steps <= levels:
        raise UserError(f"--steps {steps} must be at least 1 and at most {levels}, the levels of this checkpoint")
    return replace(sampler, steps=steps)


def read_file(path: Path, weights: Literal["best", "ema", "raw"] = "best") -> PublishedFile:
    """Read the weights of a published file, the averaged ones if there are any and `weights` allows.

    Raises:
        UserError: damaged, no weights in it, or no averaged weights for `weights` = ema.
    """
    from ornstein.published_files import read

    averaged = path.with_name(f"{path.stem}{EMA_ENDING}{path.suffix}")
    if weights != "raw" and path.suffix == ".ckpt" and averaged.is_file() and path.is_file():
        path = averaged
    content = read(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__} and no weights; give a published checkpoint")
    file = _unwrapped(path, content, weights)
    if weights == "ema" and not file.averaged:
        raise UserError(f"{path} has no averaged weights; use those of the last step with --weights raw")
    return file


def _unwrapped(path: Path, content: dict[str, Any], weights: str) -> PublishedFile:
    from ornstein.published_files import WRAPPERS, named_tensors, without_prefixes

    def weights_in(entry: str) -> "dict[str, Tensor]":
        return named_tensors(path, content.get(entry), entry)

    if "params" in content or "params_ema" in content:  # BasicSR
        averaged = "params_ema" in content and not (weights == "raw" and "params" in content)
        state = weights_in("params_ema" if averaged else "params")
        return PublishedFile(path, without_prefixes(state, WRAPPERS), averaged)
    if isinstance(content.get("model"), dict):  # RDDM's trainer
        averaged = isinstance(content.get("ema"), dict) and weights != "raw"
        state = weights_in("ema" if averaged else "model")
        own = {name: tensor for name, tensor in state.items() if name.startswith("ema_model.")}
        if averaged and not own:
            raise UserError(f"{path}: its averages hold no ema_model; use those of the last step with --weights raw")
        state = without_prefixes(own or state, ("ema_model.", "module.", "_orig_mod."))
        tables = {name: tensor for name, tensor in state.items() if "." not in name}
        state = {name: tensor for name, tensor in state.items() if "." in name}
        return PublishedFile(path, without_prefixes(state, WRAPPERS), averaged, tables)
    if "state_dict" in content:
        state, hyper_parameters = weights_in("state_dict"), content.get("hyper_parameters")
        own = {name: tensor for name, tensor in state.items() if name.startswith("denoising_module.")}
        stored = dict(hyper_parameters) if isinstance(hyper_parameters, dict) else {}
        averaged = path.stem.endswith(EMA_ENDING)
        return PublishedFile(path, without_prefixes(own or state, WRAPPERS), averaged, {}, stored)
    return PublishedFile(path, without_prefixes(named_tensors(path, content), WRAPPERS), False)


def kind_of(file: PublishedFile, kind: Kind | None) -> Kind:
    """What the file is.

    Raises:
        UserError: its tensors say nothing, or something else than `kind`.
    """
    found = guess(Shapes(file.tensors, file.path))
    if found is None and kind is None:
        some = ", ".join(list(file.tensors)[:3])
        raise UserError(f"{file.path} holds no network that is known ({some}, ...); give another file, or say --kind")
    if found == "resfusion" and kind == "rddm":  # one UNet, without the name that RDDM gives it
        raise UserError(f"{file.path} is a UNet as Resfusion has it, not rddm; give --kind resfusion")
    if found is not None and kind is not None and found != kind:
        raise UserError(f"{file.path} holds {found}, not {kind}; give --kind {found}, or another file")
    return kind or found  # type: ignore[return-value]  # one of them is there


def with_stored(options: Options, file: PublishedFile) -> Options:
    """`options` with what Lightning stored in their place where they are not given."""
    stored = file.hyper_parameters
    changes: dict[str, Any] = {}
    steps, mode = stored.get("T"), stored.get("mode")
    schedule = stored.get("noise_schedule", stored.get("schedule"))
    if options.schedule_steps is None and steps is not None:
        if type(steps) not in (int, float) or steps != int(steps):
            raise UserError(f"{file.path} has T = {steps!r}; give the number of steps with --schedule_steps")
        changes["schedule_steps"] = int(steps)
    if options.mode is None and mode is not None:
        if mode not in ("epsilon", "sample", "residual"):
            raise UserError(f"{file.path} has the mode {mode!r}; give --mode epsilon, sample or residual")
        changes["mode"] = mode
    if options.schedule is None and isinstance(schedule, str):
        names = {"linear": "linear", "linearpro": "linear", "cosine": "cosine", "cosinepro": "cosine"}
        if schedule.lower() not in names:
            raise UserError(f"{file.path} has the schedule {schedule!r}; give --schedule linear or cosine")
        changes["schedule"] = names[schedule.lower()]
    return replace(options, **changes)


def read_predictor(path: Path) -> "nn.Module":
    """UPSR's g from a published file of ATD or a .safetensors file of ours.

    Raises:
        UserError: it is another model.
    """
    from ornstein.checkpoint import load
    from ornstein_restoration.regression import RegressionUpscaler

    if path.suffix == ".safetensors":
        denoiser = load(path, app="restoration").denoiser
        if not isinstance(denoiser, RegressionUpscaler):
            raise UserError(f"{path} holds a {type(denoiser).__name__}; UPSR needs a super-resolution network, as ATD")
    else:
        file = read_file(path)
        denoiser, _, _ = components(kind_of(file, "atd"), file.tensors, Options(), path)
    if denoiser.scale != 4:
        raise UserError(f"{path} enlarges {denoiser.scale} times; UPSR needs a network that enlarges 4 times")
    return denoiser.network
