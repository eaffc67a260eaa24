"""Tiles as the published codes cut and average them, feathered blending, and noise that belongs to places."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_vectors import ReferenceFile, reference_files
from torch import nn

from ornstein.tiles import Blend, NoiseField, Tiling, crop, tile_size, tile_starts


@reference_files("infrared", "tiling*.npz", cases=lambda v: v.prefixes("_cfg"), needs=["{case}_im", "{case}_out"])
def test_published_tiles(vectors: ReferenceFile, case: str) -> None:
    height, width, size, stride, scale = (int(number) for number in vectors[f"{case}_cfg"])
    tiling = Tiling(size, size - stride, weights="uniform")
    assert tiling.starts(height) == vectors[f"{case}_hstarts"].tolist()
    assert tiling.starts(width) == vectors[f"{case}_wstarts"].tolist()
    picture, places = vectors.tensor(f"{case}_im")[0], tiling.places(height, width)
    tile = tile_size(tiling, height, width)
    blend = Blend((height * scale, width * scale), tile, places, scale, tiling)
    for number, place in enumerate(places):
        part = crop(picture, place, tile)
        large = part.repeat_interleave(scale, -2).repeat_interleave(scale, -1)
        blend.add(place, large + 0.1 * number)
    np.testing.assert_allclose(blend.result()[None], vectors[f"{case}_out"], rtol=0, atol=1e-6)


def starts_cases(vectors: ReferenceFile) -> list[str]:
    return [name for name in vectors.names if name.startswith("tile_starts_")]


@reference_files("restoration", "degradation*.npz", cases=starts_cases)
def test_published_starts(vectors: ReferenceFile, case: str) -> None:
    length, size, stride = map(int, case.split("_")[2:])
    assert tile_starts(length, size, stride) == vectors[case].tolist()


@reference_files("restoration", "degradation*.npz", needs=["tile_blend", "tile_blend_cfg"])
def test_published_blend(vectors: ReferenceFile) -> None:
    length, size, stride, scale = map(int, vectors["tile_blend_cfg"])
    tiling = Tiling(size, size - stride, weights="uniform")
    places = tiling.places(length, length)
    blend = Blend((length * scale, length * scale), (size, size), places, scale, tiling)
    for i, place in enumerate(places):
        blend.add(place, torch.full((1, size * scale, size * scale), float(i)))
    torch.testing.assert_close(blend.result()[None], vectors.tensor("tile_blend", torch.float32))


@given(st.integers(1, 300), st.integers(1, 60), st.data())
def test_tiles_cover_a_side(length: int, size: int, data: Any) -> None:
    stride = data.draw(st.integers(1, size))
    starts = tile_starts(length, size, stride)
    covered = {i for start in starts for i in range(start, min(start + size, length))}
    assert covered == set(range(length))
    assert all(start + size <= length for start in starts) or starts == [0]
    assert starts == sorted(set(starts))


@pytest.mark.parametrize("weights", ["feather", "uniform"])
def test_tiles_of_a_picture_give_it_back(weights: Any) -> None:
    picture = torch.rand(3, 50, 37, generator=torch.Generator().manual_seed(0))
    tiling = Tiling(16, 6, weights=weights)
    places = tiling.places(50, 37)
    blend = Blend((50, 37), (16, 16), places, 1, tiling)
    for top, left in places:
        blend.add((top, left), picture[:, top : top + 16, left : left + 16])
    torch.testing.assert_close(blend.result(), picture)


def test_noise_belongs_to_the_place() -> None:
    whole = NoiseField(3, [(0, 0)])
    first, second = whole(torch.empty(1, 3, 200, 150)), whole(torch.empty(1, 3, 200, 150))
    assert not torch.equal(first, second)
    field = NoiseField(3, [(10, 20), (63, 64)])
    for draw in (first, second):
        tiles = field(torch.empty(2, 3, 70, 80))
        assert torch.equal(tiles[0], draw[0, :, 10:80, 20:100])
        assert torch.equal(tiles[1], draw[0, :, 63:133, 64:144])
    unshuffled = NoiseField(3, [(10, 20)], patch=4)(torch.empty(1, 48, 10, 10))
    assert torch.equal(nn.functional.pixel_shuffle(unshuffled, 4)[0], first[0, :, 10:50, 20:60])
    assert not torch.equal(NoiseField(4, [(0, 0)])(torch.empty(1, 3, 200, 150)), first)


def test_noise_is_white() -> None:
    noise = NoiseField(0, [(0, 0)])(torch.empty(1, 3, 512, 512))[0]
    assert abs(float(noise.mean())) < 0.005
    assert abs(float(noise.var()) - 1) < 0.01
    for step in (1, 64):  # neither neighbours nor neighbouring blocks
        for shifted in (noise.roll(step, 1), noise.roll(step, 2)):
            assert abs(float((noise * shifted).mean())) < 0.005
