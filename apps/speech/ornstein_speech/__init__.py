"""Speech enhancement with diffusion models: SGMSE+ and Schroedinger bridges.

    from ornstein_speech import enhance
    enhance("noisy.wav", "clean.wav")

The functions are imported on first use, so that help pages and `import ornstein_speech` stay light.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ornstein_speech.enhance import enhance as enhance
    from ornstein_speech.evaluate import evaluate as evaluate
    from ornstein_speech.prepare import prepare as prepare

__all__ = ["enhance", "evaluate", "prepare"]


class _Package(ModuleType):
    """Keeps `ornstein_speech.enhance` the function: importing the module of that name would put the module there."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in __all__ and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{name}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
