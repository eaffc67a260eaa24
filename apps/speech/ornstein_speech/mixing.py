"""Making noisy speech: coloured noise, babble, joined clips and mixing at a given signal-to-noise ratio.

Every function takes sounds of shape (..., frames) and draws from the torch.Generator it is given, so that its result is
a pure function of arguments and generator state. Powers are computed in float64.

`fast` noise has the distribution of the default one and other values: it is drawn in float32 with fewer transforms, for
training. The fixed sets of validation and test keep the default, because published tables were measured on it.
"""

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from scipy import fft
from torch import Tensor

from ornstein.errors import UserError

COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}
"""Exponents e of the power spectra f^-e."""


class Clips(Protocol):
    """Sounds of one kind: a length and clips of shape (frames,) by index, float32 or int16 with full scale 32768."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Tensor: ...


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """Draw from U(low, high)."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def integer(low: int, high: int, generator: torch.Generator) -> int:
    """Draw a whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def power(x: Tensor) -> Tensor:
    """Mean square over the last axis, float64."""
    return x.to(torch.float64, copy=True).square_().mean(-1)


def snr(clean: Tensor, noisy: Tensor) -> Tensor:
    """Signal-to-noise ratio in dB: power of the full clean signal over that of noisy - clean."""
    noise = noisy.to(torch.float64) - clean.to(torch.float64)
    return 10 * torch.log10(power(clean) / power(noise))


def mix(clean: Tensor, noise: Tensor, snr_db: float) -> Tensor:
    """Return clean + g noise with g such that the powers of the full signals differ by `snr_db` dB.

    A silent clean signal gives silence (g = 0): no ratio is defined there.

    Args:
        clean, noise: same shape (..., frames).
        snr_db: signal-to-noise ratio in dB.

    Raises:
        UserError: the noise is silent.
    """
    if clean.shape != noise.shape:
        raise ValueError(f"shapes differ: {tuple(clean.shape)} and {tuple(noise.shape)}")
    gain = noise_gain(clean, noise, snr_db)
    return (clean.to(torch.float64) + gain.unsqueeze(-1) * noise.to(torch.float64)).to(clean.dtype)


def noise_gain(clean: Tensor, noise: Tensor, snr_db: float) -> Tensor:
    """Gain g, float64 of shape (...), that brings noise to `snr_db` dB below clean, on the power of the full signals.

    Raises:
        UserError: the noise is silent.
    """
    noise_power = power(noise)
    if bool((noise_power <= 0).any()):
        raise UserError("the noise is silent; no signal-to-noise ratio can be set; choose other noise files")
    return torch.sqrt(power(clean) / noise_power * 10 ** (-snr_db / 10))


def level_gain(x: Tensor, generator: torch.Generator, low: float = -35.0, high: float = -15.0) -> float:
    """Return the gain that brings x to a level drawn from U(low, high) dB RMS re full scale; 1 for silence."""
    target = uniform(low, high, generator)
    mean_power = float(power(x).mean())
    return math.sqrt(10 ** (target / 10) / mean_power) if mean_power > 0 else 1.0


def coloured_noise(
    frames: int, generator: torch.Generator, exponent: float = 0.0, rate: int = 16000, fast: bool = False
) -> Tensor:
    """Gaussian noise with power spectrum f^-exponent above 20 Hz (flat below), unit power; shape (frames,), float32."""
    size = 1 << max(frames - 1, 1).bit_length()  # powers of two: quick, and the cut hides the period
    if fast:
        # The spectrum of white noise is white noise: drawing it saves the forward transform. Its first and last bins
        # are real, so they have twice the variance in their real part, and no imaginary part.
        spectrum = torch.randn(size // 2 + 1, 2, generator=generator)
        spectrum[[0, -1], 0] *= math.sqrt(2)
        gain = (torch.fft.rfftfreq(size, 1 / rate).clamp_(min=20.0).log_() * (-exponent / 2)).exp_()
        bins = torch.view_as_complex(spectrum.mul_(gain[:, None]))
        shaped = torch.from_numpy(fft.irfft(bins.numpy(), n=size, overwrite_x=True))[:frames]  # MKL is slower on AMD
        return shaped.div_(float(power(shaped).sqrt().clamp(min=1e-30)))
    white = torch.randn(size, generator=generator, dtype=torch.float64)
    frequency = torch.fft.rfftfreq(size, 1 / rate, dtype=torch.float64).clamp(min=20.0)
    shaped = torch.fft.irfft(torch.fft.rfft(white) * frequency ** (-exponent / 2), n=size)[:frames]
    return (shaped / power(shaped).sqrt().clamp(min=1e-30)).to(torch.float32)


def slow_modulation(
    frames: int,
    generator: torch.Generator,
    depth_db: float = 6.0,
    period: float = 1.0,
    rate: int = 16000,
    fast: bool = False,
) -> Tensor:
    """Slowly wandering gain: U(-depth, depth) dB every `period` seconds, cosine curves between; shape (frames,)."""
    step = max(2, round(period * rate))
    knots = (2 * torch.rand(frames // step + 2, generator=generator, dtype=torch.float64) - 1) * depth_db
    if fast:
        levels = (knots * (math.log(10) / 20)).to(torch.float32)
        curve = (1 - torch.cos(torch.arange(step) * (math.pi / step))) / 2
        return torch.addcmul(levels[:-1, None], levels.diff()[:, None], curve).exp_().flatten()[:frames]
    position = torch.arange(frames, dtype=torch.float64) / step
    index = position.long()
    weight = (1 - torch.cos(math.pi * (position - index))) / 2
    decibel = knots[index] * (1 - weight) + knots[index + 1] * weight
    return (10 ** (decibel / 20)).to(torch.float32)


def random_coloured_noise(
    frames: int, generator: torch.Generator, colour: str | None = None, rate: int = 16000, fast: bool = False
) -> Tensor:
    """White, pink or brown noise (drawn unless named), exponent tilted by U(-.5, .5), slowly modulated; (frames,)."""
    if colour is None:
        colour = list(COLOURS)[integer(0, len(COLOURS) - 1, generator)]
    exponent = COLOURS[colour] + uniform(-0.5, 0.5, generator)
    depth = uniform(0.0, 6.0, generator)
    period = uniform(0.3, 2.0, generator)
    noise = coloured_noise(frames, generator, exponent, rate, fast)
    return noise.mul_(slow_modulation(frames, generator, depth, period, rate, fast))


def join(
    clips: Clips,
    frames: int,
    generator: torch.Generator,
    rate: int = 16000,
    gap: tuple[float, float] = (0.05, 0.2),
) -> Tensor:
    """Join randomly drawn clips of one voice with pauses of U(gap) seconds; shape (frames,), float32.

    A first clip longer than the item is entered at a random place, so that all its parts are heard.

    Raises:
        UserError: there are no clips.
    """
    if len(clips) == 0:
        raise UserError("there are no clips to join; check the folder")
    result = torch.zeros(frames)
    filled = 0
    first = True
    while filled < frames:
        clip = clips[integer(0, len(clips) - 1, generator)]
        if clip.numel() == 0:
            raise ValueError("a clip is empty")
        if first:
            clip, first = clip[integer(0, max(0, clip.shape[-1] - frames), generator) :], False
        length = min(clip.shape[-1], frames - filled)
        result[filled : filled + length] = _float(clip[:length])
        filled += length + round(uniform(*gap, generator) * rate)
    return result


def babble(
    clips: Clips, frames: int, generator: torch.Generator, voices: tuple[int, int] = (4, 8), rate: int = 16000
) -> Tensor:
    """Sum of 4 to 8 talkers, each a string of joined clips at unit power ±3 dB; shape (frames,), float32."""
    count = integer(*voices, generator)
    total = torch.zeros(frames)
    for _ in range(count):
        talker = join(clips, frames, generator, rate)
        gain = 10 ** (uniform(-3.0, 3.0, generator) / 20)
        total += talker * (gain / math.sqrt(max(float(power(talker)), 1e-12)))
    return total / math.sqrt(count)


def random_cut(sounds: Clips, frames: int, generator: torch.Generator) -> Tensor:
    """A random cut of one randomly drawn long sound, wrapped round where it is short; shape (frames,), float32."""
    sound = sounds[integer(0, len(sounds) - 1, generator)]
    longer = sound.shape[-1] > frames
    start = integer(0, sound.shape[-1] - (frames if longer else 1), generator)
    if start + frames <= sound.shape[-1]:
        return _float(sound[start : start + frames]).clone()
    return _float(sound[(torch.arange(frames) + start) % sound.shape[-1]])


def scatter(
    sounds: Clips,
    frames: int,
    generator: torch.Generator,
    rate: int = 16000,
    per_second: float = 1.5,
    fast: bool = False,
) -> Tensor:
    """Short sounds at equal power ±6 dB, dropped at random places over a faint steady floor; shape (frames,), float32.

    The floor (pink, 20 dB below) keeps the noise from being silent between events.
    """
    total = torch.zeros(frames)
    count = max(1, round(per_second * frames / rate))
    for _ in range(count):
        sound = _float(sounds[integer(0, len(sounds) - 1, generator)])
        gain = 10 ** (uniform(-6.0, 6.0, generator) / 20) / math.sqrt(max(float(power(sound)), 1e-12))
        place = integer(-(sound.shape[-1] // 4), frames - 1, generator)
        source = max(0, -place)
        start = max(0, place)
        length = min(sound.shape[-1] - source, frames - start)
        total[start : start + length] += gain * sound[source : source + length]
    floor = coloured_noise(frames, generator, 1.0, rate, fast)
    return total + 0.1 * math.sqrt(max(float(power(total)), 1e-6)) * floor


def make_noise(
    kind: str,
    recordings: Mapping[str, Clips],
    frames: int,
    generator: torch.Generator,
    rate: int = 16000,
    fast: bool = False,
) -> Tensor:
    """Noise of one kind: white, pink, brown, coloured (any of these), babble, effects, or recordings such as music.

    Args:
        kind: one of these names; any other name in `recordings` gives random cuts.
        recordings: sounds by folder name.
        fast: draw computed noise in float32 (see the top of this file).

    Returns:
        Shape (frames,), float32, any level, never silent.
    """
    if kind == "coloured":
        return random_coloured_noise(frames, generator, None, rate, fast)
    if kind in COLOURS:
        return random_coloured_noise(frames, generator, kind, rate, fast)
    if kind not in recordings or len(recordings[kind]) == 0:
        known = ", ".join(["coloured", *COLOURS, *recordings])
        raise UserError(f"no noise of kind {kind!r}; use one of {known}")
    sounds = recordings[kind]
    if kind == "babble":
        return babble(sounds, frames, generator, rate=rate)
    if kind == "effects":
        return scatter(sounds, frames, generator, rate, fast=fast)
    for _ in range(20):  # music has silent passages
        cut = random_cut(sounds, frames, generator)
        if float(power(cut)) > 1e-8:
            return cut
    raise UserError(f"the {kind} recordings are silent; choose other noise files")


def _float(clip: Tensor) -> Tensor:
    return clip if clip.is_floating_point() else clip.to(torch.float32).div_(32768)
