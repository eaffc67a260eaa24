"""Simulated rooms: shoeboxes with a wanted reverberation time, by the image method and ray tracing of pyroomacoustics.

The recipe is that of WSJ0-REVERB (Richter et al., 2023, section V): 5-15 x 5-15 x 2-6 m, T60 ~ U(.4, 1) s, microphone
and source at least 1 m from every wall.
"""

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ornstein.errors import UserError
from ornstein_speech.mixing import integer, uniform

Array = np.ndarray[Any, np.dtype[np.float64]]

SIZES = ((5.0, 15.0), (5.0, 15.0), (2.0, 6.0))
"""Ranges of length, width and height in metres."""
T60 = (0.4, 1.0)
"""Range of the reverberation time in seconds."""
WALL_DISTANCE = 1.0
"""Smallest distance of microphone and source from a wall, in metres."""
PEAK = 0.9
"""Largest magnitude of the reverberant signal."""


@dataclass(frozen=True)
class Room:
    """A shoebox: size and places in metres (x, y, z), the T60 asked for in seconds, and the seed of the ray tracing."""

    size: tuple[float, float, float]
    t60: float
    microphone: tuple[float, float, float]
    source: tuple[float, float, float]
    seed: int = 0


def draw_room(generator: torch.Generator, t60: tuple[float, float] = T60) -> Room:
    """Draw a room of the recipe."""
    seconds = uniform(*t60, generator)
    x, y, z = (uniform(low, high, generator) for low, high in SIZES)

    def place() -> tuple[float, float, float]:
        px, py, pz = (uniform(WALL_DISTANCE, side - WALL_DISTANCE, generator) for side in (x, y, z))
        return px, py, pz

    return Room((x, y, z), seconds, place(), place(), integer(0, 2**31 - 1, generator))


def require_simulator() -> None:
    """Raise a UserError where pyroomacoustics is missing."""
    if importlib.util.find_spec("pyroomacoustics") is None:
        raise UserError("simulated rooms need pyroomacoustics; pip install -c constraints.txt -e 'apps/speech[rooms]'")


def responses(room: Room, rate: int) -> tuple[Array, Array]:
    """Return the impulse responses of the direct sound alone, and of the room, at `rate` Hz.

    The room: absorption from Sabine's equation, image sources up to order min(3, what T60 needs), ray tracing for the
    rest. The direct sound: absorption .99 and order 0. Both have the delay of the distance and the same arrival.

    Raises:
        UserError: pyroomacoustics is missing, or the room is too large for so short a T60.
    """
    require_simulator()
    import pyroomacoustics

    try:
        absorption, order = pyroomacoustics.inverse_sabine(room.t60, room.size)
    except ValueError:
        size = " x ".join(f"{side:.1f}" for side in room.size)
        raise UserError(f"no material makes a room of {size} m as dry as T60 = {room.t60:g} s; ask for more") from None
    pyroomacoustics.random.seed(numpy=room.seed, libroom=room.seed)
    found = []
    for material, reflections, rays in ((0.99, 0, False), (absorption, min(3, order), True)):
        shoebox = pyroomacoustics.ShoeBox(
            room.size, fs=rate, materials=pyroomacoustics.Material(material), max_order=reflections
        )
        if rays:
            shoebox.set_ray_tracing()
        shoebox.add_microphone(room.microphone)
        shoebox.add_source(room.source)
        shoebox.compute_rir()
        found.append(np.asarray(shoebox.rir[0][0], dtype=np.float64))
    return found[0], found[1]


def reverberant(dry: Array, direct: Array, response: Array, rate: int, tail: float = 0.5) -> tuple[Array, Array]:
    """Return the dry signal as heard by its direct sound alone, and in the room; both (frames,), one scale.

    Args:
        dry: (frames,).
        direct, response: impulse responses of `responses`.
        rate: in Hz.
        tail: seconds that the reverberation may go on after the direct sound has ended.

    Raises:
        UserError: the signal is silent.
    """
    from scipy.signal import fftconvolve

    anechoic, reverb = fftconvolve(dry, direct), fftconvolve(dry, response)
    frames = min(len(anechoic) + round(tail * rate), len(reverb))
    anechoic = np.pad(anechoic, (0, max(0, frames - len(anechoic))))[:frames]
    reverb = reverb[:frames]
    peak = float(np.abs(reverb).max())
    if not peak > 1e-12:
        raise UserError("the recording is silent; remove it")
    return anechoic * (PEAK / peak), reverb * (PEAK / peak)


def decay_time(response: Array, rate: int, top: float = -5.0, bottom: float = -25.0) -> float:
    """Return the reverberation time T60 in seconds of an impulse response, from its decay between two levels.

    The energy still to come (Schroeder, "New method of measuring reverberation time", 1965), in dB re all of it; a
    straight line through the part from `top` to `bottom` dB, continued to -60 dB. NaN where it decays at once.
    """
    energy = np.cumsum(np.square(response[::-1]))[::-1]
    level = 10 * np.log10(np.maximum(energy / energy[0], 1e-20))
    begin, end = int(np.argmax(level <= top)), int(np.argmax(level <= bottom))
    if end - begin < 2:
        return float("nan")
    slope = np.polyfit(np.arange(begin, end) / rate, level[begin:end], 1)[0]
    return float(-60 / slope)
