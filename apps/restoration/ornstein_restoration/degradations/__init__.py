"""Making degraded images out of clean ones, each kind a small component that a recipe names by its class path."""

from ornstein.pictures.degraded import Degradation, Degraded
from ornstein.pictures.real_esrgan import RealESRGAN
from ornstein_restoration.degradations.bicubic import Bicubic
from ornstein_restoration.degradations.blank import Blank
from ornstein_restoration.degradations.low_light import LowLight
from ornstein_restoration.degradations.rain import Rain
from ornstein_restoration.degradations.shadow import Shadow

__all__ = [
    "Degradation",
    "Degraded",
    "Bicubic",
    "Blank",
    "RealESRGAN",
    "LowLight",
    "Rain",
    "Shadow",
]
