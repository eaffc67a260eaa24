"""Infrared super-resolution with residual-shifting diffusion models: ResShift and DifIISR.

The functions are imported on first use, so that help pages and `import ornstein_infrared` stay light.
"""

from ornstein.lazy import lazy_package

lazy_package(__name__, {})
