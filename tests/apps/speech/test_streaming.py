import itertools
from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ornstein_speech.audio import resample
from ornstein_speech.streaming import (
    ChunkPlan,
    NoiseField,
    enhance_stream,
    measure,
    overlap_add,
    resample_blocks,
)

HOP, FRAMES, OVERLAP = 16, 33, 16


def wave(length: int, channels: int = 1, seed: int = 0) -> Tensor:
    return torch.rand(channels, length, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def cut(signal: Tensor, sizes: Sequence[int]) -> Iterator[Tensor]:
    """The signal in blocks of the given sizes, taken in turn."""
    done = turn = 0
    while done < signal.shape[1]:
        size = sizes[turn % len(sizes)]
        yield signal[:, done : done + size]
        done += size
        turn += 1


def identity(chunks: Tensor, starts: Sequence[int]) -> Tensor:
    return chunks


def smooth(chunks: Tensor, starts: Sequence[int]) -> Tensor:
    """A local "denoiser": a moving average that reaches as far as a quarter of an overlap."""
    reach = (OVERLAP - 1) * HOP // 4 // 2 * 2 - 2
    kernel = torch.ones(1, 1, reach + 1) / (reach + 1)
    rows = torch.nn.functional.conv1d(chunks.reshape(-1, 1, chunks.shape[-1]), kernel, padding=reach // 2)
    return rows.reshape(chunks.shape)


lengths = st.one_of(
    st.integers(1, 6000), st.sampled_from([FRAMES * HOP - 1, FRAMES * HOP, FRAMES * HOP + 1, 49 * HOP, 50 * HOP - 1])
)


@given(
    length=lengths,
    sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=4),
    batch=st.integers(1, 4),
    frames_overlap=st.sampled_from([(33, 16), (40, 2), (7, 3), (3, 1), (64, 20)]),
)
def test_identity_returns_the_signal(
    length: int, sizes: list[int], batch: int, frames_overlap: tuple[int, int]
) -> None:
    signal = wave(length, channels=2)
    plan = ChunkPlan(length, HOP, *frames_overlap)
    result = torch.cat(list(overlap_add(cut(signal, sizes), plan, identity, batch)), dim=1)
    assert result.shape == signal.shape
    assert (result - signal).abs().max() < 1e-6


@given(length=st.integers(1, 20000), frames=st.integers(3, 70), overlap=st.integers(1, 34))
def test_plan_covers_the_signal(length: int, frames: int, overlap: int) -> None:
    if overlap >= frames / 2:
        with pytest.raises(ValueError, match="overlap"):
            ChunkPlan(length, HOP, frames, overlap)
        return
    plan = ChunkPlan(length, HOP, frames, overlap)
    starts, fades = plan.starts, plan.fades()
    assert starts[0] == 0
    assert length - HOP < starts[-1] * HOP + plan.samples - HOP + 1 <= length + 1 or plan.whole
    for left, right, fade in zip(starts[:-1], starts[1:], fades, strict=True):
        assert left < right <= left + frames - overlap
        assert right * HOP <= fade
        assert fade + plan.fade <= left * HOP + plan.samples
    for first, second in itertools.pairwise(fades):
        assert first + plan.fade <= second


@settings(max_examples=30)
@given(length=st.integers(FRAMES * HOP, 8000), batch=st.integers(1, 3))
def test_no_seam_with_a_local_denoiser(length: int, batch: int) -> None:
    signal = wave(length)
    expected = smooth(signal[None], [0])[0]
    plan = ChunkPlan(length, HOP, FRAMES, OVERLAP)
    result = torch.cat(list(overlap_add(cut(signal, [777]), plan, smooth, batch)), dim=1)
    assert (result - expected).abs().max() < 1e-6


def test_memory_is_bounded() -> None:
    """The blocks are made while they are read, and no more than a few chunks are ever alive."""
    import gc
    import weakref

    length = 200 * FRAMES * HOP
    alive: set[int] = set()
    most = 0

    def blocks() -> Iterator[Tensor]:
        nonlocal most
        for done in range(0, length, 1000):
            block = torch.zeros(1, min(1000, length - done))
            alive.add(id(block))
            weakref.finalize(block, alive.discard, id(block))
            most = max(most, len(alive))
            yield block

    largest = 0
    for piece in overlap_add(blocks(), ChunkPlan(length, HOP, FRAMES, OVERLAP), identity, batch=2):
        assert piece.untyped_storage().nbytes() <= 4 * 3 * FRAMES * HOP
        largest = max(largest, piece.shape[1])
        gc.collect(0)
    assert largest <= FRAMES * HOP
    assert most * 1000 <= 3 * FRAMES * HOP


def test_wrong_announcements_are_found() -> None:
    for announced in (900, 1100):
        with pytest.raises(ValueError, match="samples"):
            list(overlap_add([wave(1000)], ChunkPlan(announced, HOP, FRAMES, OVERLAP), identity))


def test_levels_and_offset() -> None:
    noise = wave(5000, channels=2)
    noise = noise - noise.mean(1, keepdim=True)
    signal = torch.stack([noise[0] * 0.3 + 0.002, noise[1] * 0.1 + 0.5, torch.zeros(5000), torch.full((5000,), 0.25)])
    levels = measure(cut(signal, [999]))
    assert levels.length == 5000
    assert levels.offset[0] == 0  # below the limit: the recording is left as it is
    assert levels.offset[1] == pytest.approx(0.5, abs=0.01)
    assert levels.peak[0] == signal[0].abs().max()
    assert levels.peak[1] == pytest.approx(0.1, abs=0.01)
    assert levels.peak[2:] == (0, 0)
    seen = []

    def watch(chunks: Tensor, starts: Sequence[int]) -> Tensor:
        seen.append(chunks.clone())
        return chunks

    pieces = enhance_stream(lambda: cut(signal, [700]), watch, hop=HOP, frames=FRAMES, overlap=OVERLAP)
    result = torch.cat(list(pieces), dim=1)
    assert max(chunk.abs().max() for chunk in seen) == pytest.approx(1)
    assert (result[0] - signal[0]).abs().max() < 1e-6
    assert (result[1] - (signal[1] - levels.offset[1])).abs().max() < 1e-6
    assert not result[2:].any()


@given(first=st.integers(0, 300), second=st.integers(0, 300), frames=st.integers(1, 150), real=st.booleans())
@settings(max_examples=30)
def test_overlapping_chunks_see_the_same_noise(first: int, second: int, frames: int, real: bool) -> None:
    like = torch.zeros(2, 1, 5, frames, dtype=torch.float32 if real else torch.complex64)
    whole = torch.zeros(1, 1, 5, 600, dtype=like.dtype)
    field, chunks = NoiseField(7, [(1, 0)]), NoiseField(7, [(1, first), (1, second)])
    for _ in range(2):
        expected, found = field(whole), chunks(like)
        assert torch.equal(found[0], expected[0, ..., first : first + frames])
        assert torch.equal(found[1], expected[0, ..., second : second + frames])


def test_noise_is_unit_and_its_parts_are_independent() -> None:
    like = torch.zeros(1, 1, 256, 512, dtype=torch.complex64)
    draws = []
    for seed in (0, 1):
        for channel in (0, 1):
            field = NoiseField(seed, [(channel, 0)])
            draws += [field(like), field(like)]
    draws += [draws[0].roll(64, -1), draws[0].roll(1, -1), draws[0].roll(1, -2), draws[0].conj()]
    for i, z in enumerate(draws):
        assert z.abs().pow(2).mean() == pytest.approx(1, abs=0.02)
        assert z.real.var() == pytest.approx(0.5, abs=0.02)
        for other in draws[:i]:
            assert (z * other.conj()).mean().abs() < 0.02
    assert NoiseField(0, [(0, 0)])(like.to(torch.complex128)).dtype == torch.complex128
    with pytest.raises(ValueError, match="rows"):
        NoiseField(0, [(0, 0)])(torch.zeros(2, 1, 4, 4))


@pytest.mark.parametrize(
    ("source", "target"),
    [(44100, 16000), (16000, 44100), (48000, 16000), (8000, 16000), (192000, 16000), (16000, 22050), (12345, 16000)],
)
@pytest.mark.parametrize("sizes", [[1000], [37, 5000], [100000]])
def test_resampling_by_blocks_has_no_seams(source: int, target: int, sizes: list[int]) -> None:
    signal = wave(30011, channels=2)
    expected = resample(signal, source, target)
    result = torch.cat(list(resample_blocks(cut(signal, sizes), source, target)), dim=1)
    assert result.shape == expected.shape
    assert (result - expected).abs().max() < 1e-5


def test_resampling_nothing_and_equal_rates() -> None:
    assert list(resample_blocks([], 8000, 16000)) == []
    blocks = [wave(10), wave(3)]
    assert list(resample_blocks(blocks, 8000, 8000)) == blocks
