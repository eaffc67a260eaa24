"""Each protocol gives the metrics that its benchmark publishes, of the pictures as the benchmark prepares them."""

import math
from typing import get_args

import numpy as np
import pytest

from ornstein.pictures.resizing import imresize_rounded
from ornstein_restoration import metrics
from ornstein_restoration.benchmarks import LOWER_IS_BETTER, NAMES, Protocol, score


def pictures(height: int = 40, width: int = 44) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    truth = generator.random((3, height, width))
    mask = np.zeros((1, height, width))
    mask[:, :10] = 1
    return truth, (truth + 0.1 * generator.standard_normal(truth.shape)).clip(0, 1), mask


@pytest.mark.parametrize("protocol", get_args(Protocol))
def test_every_protocol_names_what_it_gives(protocol: Protocol) -> None:
    truth, restored, mask = pictures()
    found = score(truth, restored, protocol, mask)
    assert found.values
    assert set(found.values) <= set(NAMES)
    assert set(LOWER_IS_BETTER) <= set(NAMES)
    assert set(found.pixels) == ({"mae_all", "mae_shadow", "mae_nonshadow"} if "istd" in protocol else set())
    equal = score(truth, truth, protocol, mask).values
    for name, value in found.values.items():
        if math.isfinite(value):
            assert (value > equal[name]) == (name in LOWER_IS_BETTER), name


def test_protocols_of_256_pixels_resize_first() -> None:
    truth, restored, mask = pictures()
    small, small_h = (imresize_rounded(image, size=(256, 256)) for image in (truth, restored))
    for protocol in ("lol-256", "raindrop-256"):
        found = score(truth, restored, protocol).values  # type: ignore[arg-type]
        assert found == {
            "psnr_y_rounded": metrics.psnr_y_rounded(small, small_h),
            "ssim_y_rounded": metrics.ssim_y_rounded(small, small_h),
        }
    assert score(truth, small_h, "rddm-256").values == found
    assert score(truth, restored, "istd-256", mask).pixels["mae_all"] == 256 * 256
    assert score(truth, restored, "istd", mask).pixels["mae_shadow"] == 10 * 44


def test_what_is_missing_is_told() -> None:
    truth, restored, _ = pictures()
    with pytest.raises(ValueError, match="needs a mask"):
        score(truth, restored, "istd")
    with pytest.raises(ValueError, match="one size"):
        score(truth, restored[:, 1:], "lol")
