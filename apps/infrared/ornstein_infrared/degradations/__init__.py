"""Making small frames out of large ones, each kind a small component that a recipe names by its class path.

Each takes a frame (1, H, W), float32 in [0, 1], and a CPU generator.
"""

from ornstein.pictures.degraded import Degradation, Degraded
from ornstein_infrared.degradations.bicubic import Bicubic
from ornstein_infrared.degradations.real_esrgan import RealESRGAN
from ornstein_infrared.degradations.thermal import Thermal

__all__ = ["Degradation", "Degraded", "Bicubic", "RealESRGAN", "Thermal"]
