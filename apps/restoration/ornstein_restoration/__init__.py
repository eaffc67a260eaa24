"""Image restoration with residual-shifting diffusion models: UPSR, ResShift, Resfusion and RDDM.

    from ornstein_restoration import restore, upscale
    upscale("small.jpg", "large.png")
    restore("night.jpg", "day.png", task="low-light")

The functions are imported on first use, so that help pages and `import ornstein_restoration` stay light.
"""

from typing import TYPE_CHECKING

from ornstein.lazy import lazy_package

if TYPE_CHECKING:
    from ornstein_restoration.evaluate import evaluate as evaluate
    from ornstein_restoration.generate import generate as generate
    from ornstein_restoration.prepare import prepare as prepare
    from ornstein_restoration.restore import restore as restore
    from ornstein_restoration.restore import upscale as upscale
    from ornstein_restoration.restorer import Restorer as Restorer

__all__ = ["Restorer", "evaluate", "generate", "prepare", "restore", "upscale"]

lazy_package(
    __name__,
    {name: f"{__name__}.{name}" for name in ("evaluate", "generate", "prepare", "restore")}
    | {"upscale": f"{__name__}.restore", "Restorer": f"{__name__}.restorer"},
)
