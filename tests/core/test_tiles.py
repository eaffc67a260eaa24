"""Tiles as the published infrared code cuts and averages them."""

import numpy as np
import torch
from reference_vectors import ReferenceFile, reference_files

from ornstein.tiles import Blend, Tiling, crop, tile_size


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


def test_feathered_tiles_of_equal_content_change_nothing() -> None:
    picture = torch.rand(1, 40, 56, generator=torch.Generator().manual_seed(0))
    tiling = Tiling(16, 6)
    places = tiling.places(40, 56)
    blend = Blend((40, 56), (16, 16), places, 1, tiling)
    for place in places:
        blend.add(place, crop(picture, place, (16, 16)))
    torch.testing.assert_close(blend.result(), picture)
