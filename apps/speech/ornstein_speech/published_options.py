"""The options of published checkpoints, translated into specs of our components.

Options lie in one flat mapping. Those that a file lacks take the published defaults: files of 2022 have neither
`sampler_type` nor `sr`, and call score matching `mse` or `mae`.
"""

from collections.abc import Mapping
from typing import Any, Literal

from ornstein.config import Spec
from ornstein.errors import UserError

Options = Mapping[str, Any]
StepRule = Literal["current", "uniform"]

SCORE_LOSSES = ("score_matching", "mse", "mae")

BRIDGE_END = 1e-4
"""Where the published bridge sampler stops; it does not use `t_eps`."""

BRIDGE_EPS = 1e-8
"""The published sampler keeps this regularisation, whatever was stored."""

PREDICTION_SAMPLER: Spec = {
    "class_path": "ornstein.samplers.ancestral.Ancestral",
    "init_args": {
        "steps": 1,
        "eta": 0.0,
        "grid": {"class_path": "ornstein.samplers.time_grids.UserGrid", "init_args": {"times": [1.0, 0.0]}},
    },
}
"""One call, in which the estimate is the result."""

CONDITIONING = {"both": "both", "noisy": "noisy", "post_denoiser": "prediction"}
"""What the score network of StoRM sees: its `condition`, and our `conditioning`."""

STORM_STEPS = 30
"""N of the published regeneration; its files do not store it."""

STORM_SCORE_STEPS = 50
"""N of the score-only models beside it."""


def process(options: Options) -> Spec:
    """The diffusion process."""
    match options["sde"]:
        case "ouve":
            return _spec("ornstein.process.ouve.OUVE", options, {}, "theta", "sigma_min", "sigma_max")
        case "sbve":
            return _spec("ornstein.process.bridge.SchroedingerBridge", options, {"eps": BRIDGE_EPS}, "k", "c")
        case other:
            raise UserError(f"its process {other!r} is not supported; ouve and sbve are")


def parameterization(options: Options) -> Spec:
    """ncsnpp, ncsnpp_48k and dcunet give minus the score; what ncsnpp_v2 gives depends on its loss."""
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


def sampler(options: Options, step_rule: StepRule = "current", steps: int | None = None) -> Spec:
    """The sampler, with dt = 1/N at every step for the `step_rule` uniform; `steps` where no N is stored."""
    kind = str(options.get("sampler_type", "pc")).removeprefix("sb_")
    if step_rule == "uniform" and (options["sde"] == "sbve" or kind != "pc"):
        raise UserError("only the predictor-corrector sampler has the step rule uniform; leave --step_rule out")
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
    if steps is not None:
        fixed["steps"] = steps
    # N of 2022 is a leftover of the training code; inference took 30 steps
    stored = {"steps": "N"} if "sampler_type" in options and "N" in options else {}
    if stored:
        fixed.pop("steps", None)
    compat = "ornstein.samplers.compat_uniform_steps.PublishedUniformSteps"
    path = compat if step_rule == "uniform" else f"{module}.PredictorCorrector"
    return _spec(path, options, fixed, "corrector_steps", **stored)


def representation(options: Options) -> Spec:
    """Published inference fixes the padding by the backbone, and that ncsnpp_48k runs at 48 kHz whatever was stored."""
    backbone = options["backbone"]
    fixed = {
        "padding": "reflect" if backbone in ("ncsnpp_v2", "ncsnpp_48k") else "zero",
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


def _spec(path: str, options: Options, fixed: Options, *same: str, **renamed: str) -> Spec:
    """Spec of the class `path`: `fixed` arguments, and those that the options give, of the `same` name or `renamed`."""
    names = {name: name for name in same} | renamed
    given = {argument: options[name] for argument, name in names.items() if name in options}
    return {"class_path": path, "init_args": given | dict(fixed)}
