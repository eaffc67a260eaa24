"""Speech enhancement with diffusion models: SGMSE+ and Schroedinger bridges.

    from ornstein_speech import enhance
    enhance("noisy.wav", "clean.wav")
    clean = Enhancer()(noisy, 16000)  # tensors (C, L)

The functions are imported on first use, so that help pages and `import ornstein_speech` stay light.
"""

from typing import TYPE_CHECKING

from ornstein.lazy import lazy_package

if TYPE_CHECKING:
    from ornstein_speech.enhance import Enhancer as Enhancer
    from ornstein_speech.enhance import enhance as enhance
    from ornstein_speech.evaluate import evaluate as evaluate
    from ornstein_speech.prepare import prepare as prepare

__all__ = ["Enhancer", "enhance", "evaluate", "prepare"]

lazy_package(
    __name__,
    {name: f"{__name__}.{name}" for name in ("enhance", "evaluate", "prepare")} | {"Enhancer": f"{__name__}.enhance"},
)
