"""Infrared super-resolution with residual-shifting diffusion models: ResShift and DifIISR.

The functions are imported on first use, so that help pages and `import ornstein_infrared` stay light.
"""

from typing import TYPE_CHECKING

from ornstein.lazy import lazy_package

if TYPE_CHECKING:
    from ornstein_infrared.simulate import simulate as simulate

__all__ = ["simulate"]

lazy_package(__name__, {"simulate": f"{__name__}.simulate"})
