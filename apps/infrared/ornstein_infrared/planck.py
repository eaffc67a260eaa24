"""Counts of a radiometric camera to temperatures and back: the thermography equation of FLIR files.

Legend: E emissivity, tau transmission of the air, W of a window in front of the lens, T in degrees Celsius unless a
name says otherwise. The reflected term has one 1 / E and no tau, as in flirpy; some tools multiply it by tau.
"""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from ornstein.errors import UserError

Array = npt.NDArray[np.float64]

KELVIN = 273.15
"""0 degrees Celsius in kelvin."""


@dataclass(frozen=True)
class Planck:
    """Constants of a camera and of a scene; temperatures in degrees Celsius, distance in metres, humidity 0 to 1.

    Raises:
        UserError: a constant is not finite, or out of what it can be.
    """

    r1: float
    b: float
    f: float
    o: float
    r2: float
    emissivity: float = 1.0
    distance: float = 0.0
    reflected: float = 20.0
    atmosphere: float = 20.0
    window: float = 20.0
    window_transmission: float = 1.0
    humidity: float = 0.5
    alpha1: float = 0.006569
    alpha2: float = 0.012620
    beta1: float = -0.002276
    beta2: float = -0.006670
    x: float = 1.9

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        wrong += [name for name in ("r1", "r2", "b") if values[name] == 0]
        wrong += [name for name in ("emissivity", "window_transmission") if not 0 < values[name] <= 1]
        wrong += [name for name in ("reflected", "atmosphere", "window") if values[name] <= -KELVIN]
        wrong += ["distance"] if self.distance < 0 else []
        if not wrong and not self._finite():
            wrong = ["the air"]
        if wrong:
            names = ", ".join(dict.fromkeys(wrong))
            raise UserError(f"the Planck constants ({names}) are not those of a camera; read the file as counts")

    def _finite(self) -> bool:
        """Whether the background is a number at all: damaged constants overflow."""
        try:
            with np.errstate(all="ignore"):
                return bool(np.isfinite(self._path()).all())
        except (OverflowError, ValueError, ZeroDivisionError):
            return False

    @property
    def transmission(self) -> float:
        """tau of the air between object and camera."""
        t = self.atmosphere
        water = self.humidity * math.exp(1.5587 + 0.06939 * t - 2.7816e-4 * t**2 + 6.8455e-7 * t**3)
        path, root = math.sqrt(self.distance / 2), math.sqrt(max(water, 0.0))
        first, second = (
            math.exp(-path * (alpha + beta * root))
            for alpha, beta in ((self.alpha1, self.beta1), (self.alpha2, self.beta2))
        )
        return self.x * first + (1 - self.x) * second

    def counts_of(self, celsius: npt.ArrayLike) -> Array:
        """Counts of a black body at these temperatures in front of the lens."""
        kelvin = np.asarray(celsius, np.float64) + KELVIN
        return self.r1 / (self.r2 * (np.exp(self.b / kelvin) - self.f)) - self.o

    def celsius(self, counts: npt.ArrayLike) -> Array:
        """Temperatures of the object; NaN where the counts are below those of absolute zero."""
        gain, background = self._path()
        objects = np.asarray(counts, np.float64) * gain - background
        with np.errstate(divide="ignore", invalid="ignore"):
            temperature = self.b / np.log(self.r1 / (self.r2 * (objects + self.o)) + self.f) - KELVIN
        return np.where(np.isfinite(temperature) & (temperature > -KELVIN), temperature, np.nan)

    def counts(self, celsius: npt.ArrayLike) -> Array:
        """Counts that the camera gives for objects of these temperatures, not rounded; the inverse of `celsius`."""
        gain, background = self._path()
        return (self.counts_of(celsius) + background) / gain

    def _path(self) -> tuple[float, float]:
        """1 / (E tau^2 W), and the counts of everything but the object in these units."""
        e, tau, w = self.emissivity, self.transmission, self.window_transmission
        reflected, air, window = (float(self.counts_of(t)) for t in (self.reflected, self.atmosphere, self.window))
        background = (
            reflected * (1 - e) / e
            + air * (1 - tau) / (e * tau)
            + window * (1 - w) / (e * tau * w)
            + air * (1 - tau) / (e * tau**2 * w)
        )
        return 1 / (e * tau**2 * w), background

    def as_dict(self) -> dict[str, float]:
        """The constants by name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Planck":
        """The inverse of `as_dict`; raises UserError for anything else."""
        names = {field.name for field in fields(cls)}
        plain = isinstance(values, dict) and set(values) <= names
        if not plain or not all(isinstance(value, (int, float)) for value in values.values()):
            raise UserError("the Planck constants in the file have another form; read it as counts")
        try:
            return cls(**{name: float(value) for name, value in values.items()})
        except TypeError:
            raise UserError("Planck constants are missing in the file; read it as counts") from None
