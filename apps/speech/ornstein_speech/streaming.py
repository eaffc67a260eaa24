"""Signals of any length in bounded memory: overlapping chunks with one noise field.

Blocks are tensors (C, n) of C channels, one after another in time; how they are cut does not change any result.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ornstein_speech.audio import resample_blocks as resample_blocks  # signals of any length need it too

Process = Callable[[Tensor, Sequence[int]], Tensor]
"""Turns chunks (N, C, n), which begin at the given frames of the signal, into chunks of the same shape."""

NOISE_BLOCK = 64
"""Frames drawn at once by `NoiseField`; part of its definition: another value gives another field."""


@dataclass(frozen=True)
class ChunkPlan:
    """Where the chunks of a signal of `length` samples lie.

    A chunk is as long as gives `frames` STFT frames of hop `hop`; all begin on a multiple of the hop, so the frames
    inside a chunk are those of the whole signal. A signal of up to `frames` frames is one chunk. Longer ones have equal
    chunks (the last up to a hop shorter), spread evenly, that overlap by at least `overlap` frames. The outer quarters
    of an overlap are dropped, because a network knows too little there; the inner half is the cross-fade.
    """

    length: int
    hop: int = 128
    frames: int = 512
    overlap: int = 64

    def __post_init__(self) -> None:
        if self.length < 0 or self.hop < 1 or not 1 <= self.overlap < self.frames / 2:
            raise ValueError(
                f"chunks of {self.frames} frames, hop {self.hop}: an overlap of {self.overlap} is not in 1..frames/2"
            )

    @property
    def samples(self) -> int:
        """Length of a chunk in samples."""
        return self.length if self.whole else (self.frames - 1) * self.hop

    @property
    def whole(self) -> bool:
        """Whether the signal is one chunk."""
        return self.length < self.frames * self.hop

    @property
    def starts(self) -> list[int]:
        """First frame of every chunk; times `hop` it is its first sample."""
        if self.whole:
            return [0]
        last = math.ceil((self.length - self.samples) / self.hop)
        steps = max(1, math.ceil(last / (self.frames - self.overlap)))
        return [i * last // steps for i in range(steps + 1)]

    @property
    def fade(self) -> int:
        """Samples of a cross-fade."""
        return (self.overlap - 1) * self.hop // 2

    def fades(self) -> list[int]:
        """First sample of the cross-fade between each chunk and the next: the middle of their overlap."""
        starts = self.starts
        return [
            (following * self.hop + start * self.hop + self.samples - self.fade) // 2
            for start, following in itertools.pairwise(starts)
        ]


def overlap_add(blocks: Iterable[Tensor], plan: ChunkPlan, process: Process, batch: int = 1) -> Iterator[Tensor]:
    """Apply `process` to a signal chunk by chunk; yields the result in pieces (C, n), `plan.length` samples in all.

    Neighbours are blended with raised-cosine weights that sum to 1. Held in memory: `batch` chunks and what overlaps
    them.

    Args:
        blocks: the signal.
        plan: its chunks.
        process: called with up to `batch` chunks of one length.

    Raises:
        ValueError: the blocks hold fewer or more samples than `plan.length`.
    """
    window = _Window(blocks)
    starts, fades = plan.starts, plan.fades()
    ramp = (
        0.5 - 0.5 * torch.cos(math.pi * (torch.arange(plan.fade, dtype=torch.float64) + 0.5) / max(plan.fade, 1))
    ).float()
    held: Tensor | None = None  # end of the chunk before, from the beginning of its fade on
    done = 0
    for group in _groups(plan, batch):
        chunks = []
        for index in group:
            begin = starts[index] * plan.hop
            chunks.append(window.take(begin, min(begin + plan.samples, plan.length)))
        outputs = process(torch.stack(chunks), [starts[index] for index in group])
        del chunks
        for index, output in zip(group, outputs, strict=True):
            offset = starts[index] * plan.hop
            if held is not None:
                fresh = output[:, done - offset : done - offset + plan.fade]
                weight = ramp.to(output)
                yield held[:, : plan.fade] * (1 - weight) + fresh * weight
                done += plan.fade
            last = index == len(starts) - 1
            stop = plan.length if last else fades[index]
            yield output[:, done - offset : stop - offset]
            held = None if last else output[:, stop - offset : stop - offset + plan.fade].clone()
            done = stop
        window.forget(starts[group[-1]] * plan.hop)
    window.finish(plan.length)


def enhance_stream(
    read: Callable[[], Iterable[Tensor]],
    process: Process,
    *,
    hop: int = 128,
    frames: int = 512,
    overlap: int = 64,
    batch: int = 1,
) -> Iterator[Tensor]:
    """Run `process` over a signal of any length and yield the result piece by piece.

    `read` gives the blocks of the signal, twice: one pass measures it, the second is worked on. Every channel is
    shifted by its `Levels.offset` and divided by its `Levels.peak` before, and multiplied by the peak after; silent
    channels stay silent.
    """
    levels = measure(read())
    peak, shift = torch.tensor(levels.peak)[:, None], torch.tensor(levels.offset)[:, None]
    divisor = torch.where(peak > 0, peak, torch.inf)  # turns silence, and a constant, into zeros
    normalized = ((block - shift) / divisor for block in read())
    for piece in overlap_add(normalized, ChunkPlan(levels.length, hop, frames, overlap), process, batch):
        yield piece * peak.to(piece)


OFFSET_LIMIT = 0.01
"""Means below this part of the peak are ordinary in recordings and left alone."""


@dataclass(frozen=True)
class Levels:
    """Length in samples, and per channel the mean and the extremes of a signal."""

    length: int
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def offset(self) -> tuple[float, ...]:
        """The constant to take away: the mean where it exceeds 1 % of the peak, as from a faulty sound card, else 0."""
        return tuple(
            m if abs(m) > OFFSET_LIMIT * max(high, -low) else 0.0
            for m, low, high in zip(self.mean, self.low, self.high, strict=True)
        )

    @property
    def peak(self) -> tuple[float, ...]:
        """Largest magnitude after the offset is gone; 0 for silence, also for a constant."""
        return tuple(
            0.0 if high == low else max(high - m, m - low)
            for m, low, high in zip(self.offset, self.low, self.high, strict=True)
        )


def measure(blocks: Iterable[Tensor]) -> Levels:
    """Levels of the signal in `blocks`, which is read once."""
    length = 0
    total = low = high = torch.zeros(0)
    for block in blocks:
        if block.shape[1] == 0:
            continue
        sums, least, most = block.double().sum(1), block.amin(1), block.amax(1)
        total = sums if length == 0 else total + sums
        low = least if length == 0 else torch.minimum(low, least)
        high = most if length == 0 else torch.maximum(high, most)
        length += block.shape[1]
    mean = (total / max(length, 1)).tolist()
    return Levels(length, tuple(mean), tuple(low.tolist()), tuple(high.tolist()))


class NoiseField:
    """Unit noise for chunks, cut from one endless field, so that overlapping chunks see the same noise.

    Number k of the calls gives draw k. The value at (channel, draw, frame, bin) depends on nothing but these and the
    seed: the generator is counter-based (Philox), made on the CPU for every device, so memory and results do not depend
    on chunks or batches.
    """

    def __init__(self, seed: int, rows: Sequence[tuple[int, int]]) -> None:
        """`rows`: channel and first frame of every item of the batch."""
        self.seed = seed
        self.rows = list(rows)
        self.draw = 0

    def __call__(self, like: Tensor) -> Tensor:
        """Noise shaped and typed like `like` (B, 1, F, T), complex (E|z|^2 = 1) or real."""
        if len(like) != len(self.rows):
            raise ValueError(f"{len(self.rows)} rows of noise for a batch of {len(like)}")
        bins, frames = like.shape[-2:]
        parts = 2 if like.is_complex() else 1
        items = [self._cut(channel, first, frames, bins * parts, like.real.dtype) for channel, first in self.rows]
        self.draw += 1
        field = torch.from_numpy(np.stack(items)).reshape(len(like), frames, bins, parts)  # (B, T, F, parts)
        noise = torch.view_as_complex(field / math.sqrt(2)) if like.is_complex() else field[..., 0]
        noise = noise.transpose(1, 2).reshape(like.shape)
        if like.is_cuda:  # from page-locked memory the copy makes nobody wait
            noise = noise.contiguous().pin_memory()
        return noise.to(like.device, non_blocking=True)

    def _cut(self, channel: int, first: int, frames: int, width: int, dtype: torch.dtype) -> np.ndarray:
        precision = np.float64 if dtype == torch.float64 else np.float32
        blocks = [
            np.random.Generator(
                np.random.Philox(key=self.seed % 2**64, counter=[0, block, self.draw, channel])
            ).standard_normal((NOISE_BLOCK, width), dtype=precision)
            for block in range(first // NOISE_BLOCK, -(-(first + frames) // NOISE_BLOCK))
        ]
        skip = first % NOISE_BLOCK
        return np.concatenate(blocks)[skip : skip + frames]


class _Window:
    """Random access to the part of a stream that is still needed."""

    def __init__(self, blocks: Iterable[Tensor]) -> None:
        self.blocks = iter(blocks)
        self.parts: list[Tensor] = []
        self.begin = self.end = 0

    def take(self, begin: int, end: int) -> Tensor:
        """Samples `begin` to `end`, reading on where necessary."""
        while self.end < end:
            block = next(self.blocks, None)
            if block is None:
                raise ValueError(f"the blocks end after {self.end} samples, {end} were announced")
            self.parts.append(block)
            self.end += block.shape[1]
        if len(self.parts) > 1:
            self.parts = [torch.cat(self.parts, dim=1)]
        if not self.parts:
            raise ValueError("there are no samples")
        return self.parts[0][:, begin - self.begin : end - self.begin]

    def forget(self, before: int) -> None:
        """Drop the samples before `before`."""
        if self.parts and before > self.begin:
            self.parts = [self.parts[0][:, before - self.begin :].clone()]
            self.begin = before

    def finish(self, length: int) -> None:
        """Check that the stream ends after `length` samples."""
        extra = sum(block.shape[1] for block in self.blocks) + self.end - length
        if extra:
            raise ValueError(f"the blocks hold {extra} samples more than the {length} announced")


def _groups(plan: ChunkPlan, batch: int) -> Iterator[list[int]]:
    """Indices of the chunks that go through the network together: neighbours of one length."""
    count = len(plan.starts)
    lengths = [min(plan.samples, plan.length - start * plan.hop) for start in plan.starts]
    group: list[int] = []
    for index in range(count):
        if group and (len(group) == batch or lengths[index] != lengths[group[0]]):
            yield group
            group = []
        group.append(index)
    yield group
