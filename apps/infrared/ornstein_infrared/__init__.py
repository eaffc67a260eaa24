"""Infrared super-resolution with residual-shifting diffusion models: ResShift and DifIISR.

    from ornstein_infrared import Infrared, upscale
    upscale("small.tiff", "large.tiff")
    values = Infrared("mine.safetensors")(frame)

The functions are imported on first use, so that help pages and `import ornstein_infrared` stay light.
"""

from typing import TYPE_CHECKING

from ornstein.lazy import lazy_package

if TYPE_CHECKING:
    from ornstein_infrared.evaluate import evaluate as evaluate
    from ornstein_infrared.prepare import prepare as prepare
    from ornstein_infrared.simulate import simulate as simulate
    from ornstein_infrared.tune import tune_guidance as tune_guidance
    from ornstein_infrared.upscale import upscale as upscale
    from ornstein_infrared.upscaler import Infrared as Infrared

__all__ = ["Infrared", "evaluate", "prepare", "simulate", "tune_guidance", "upscale"]

lazy_package(
    __name__,
    {name: f"{__name__}.{name}" for name in ("evaluate", "prepare", "simulate", "upscale")}
    | {"Infrared": f"{__name__}.upscaler", "tune_guidance": f"{__name__}.tune"},
)
