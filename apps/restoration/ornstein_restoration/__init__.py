"""Image restoration with residual-shifting diffusion models: UPSR, ResShift, Resfusion and RDDM.

    from ornstein_restoration import restore, upscale
    upscale("small.jpg", "large.png")
    restore("night.jpg", "day.png", task="low-light")

The functions are imported on first use, so that help pages and `import ornstein_restoration` stay light.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ornstein_restoration.restore import restore as restore
    from ornstein_restoration.restore import upscale as upscale
    from ornstein_restoration.restorer import Restorer as Restorer

__all__ = ["Restorer", "restore", "upscale"]


class _Package(ModuleType):
    """Keeps `ornstein_restoration.restore` the function: importing the module of that name would put it there."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in __all__ and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.restore"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
