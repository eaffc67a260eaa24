"""PSNR, SSIM and the scores by region, against the reference vectors, closed forms and what they are named after."""

import numpy as np
import pytest
from reference_vectors import ReferenceFile, reference_files

from ornstein_restoration import metrics, shadow_metrics
from ornstein_restoration.colour import luma
from ornstein_restoration.resizing import imresize

PSNR = [metrics.psnr_rgb, metrics.psnr_rgb_rounded, metrics.psnr_y, metrics.psnr_y_rounded]
SSIM = [
    metrics.ssim_y,
    metrics.ssim_y_rounded,
    metrics.ssim_y_pyiqa,
    metrics.ssim_rgb_uniform,
    metrics.ssim_rgb_volume,
]


def image(name: str, vectors: ReferenceFile) -> np.ndarray:
    return np.moveaxis(vectors[name], -1, 0) / 255


def pictures(seed: int = 0, height: int = 24, width: int = 20) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.random((3, height, width))
    return truth, (truth + 0.1 * generator.standard_normal(truth.shape)).clip(0, 1)


@reference_files("restoration", "metrics.npz", needs=["a", "b", "psnr_rgb"])
def test_psnr_and_ssim(vectors: ReferenceFile) -> None:
    a, b = image("a", vectors), image("b", vectors)
    for name, function in {
        "psnr_rgb": metrics.psnr_rgb,
        "psnr_y_float": metrics.psnr_y,
        "psnr_y_uint8": metrics.psnr_y_rounded,
        "ssim_y_float": metrics.ssim_y,
        "ssim_y_uint8": metrics.ssim_y_rounded,
    }.items():
        assert function(a, b) == pytest.approx(vectors.number(name), abs=1e-9), name
    assert metrics.psnr_rgb_rounded(a, b) == pytest.approx(vectors.number("psnr_rgb"), abs=1e-9)


@reference_files("restoration", "metrics.npz", needs=["a", "b", "mask", "psnr_shadow_zeroed"])
def test_regions(vectors: ReferenceFile) -> None:
    a, b, mask = image("a", vectors), image("b", vectors), vectors["mask"]
    zeroed = shadow_metrics.psnr_zeroed(a, b, mask)
    for name in ("shadow", "nonshadow"):
        assert zeroed[name] == pytest.approx(vectors.number(f"psnr_{name}_zeroed"), abs=1e-9)
    for white in ("D50", "D65"):
        errors = shadow_metrics.lab_errors(a, b, mask, white)  # type: ignore[arg-type]
        for name in shadow_metrics.REGIONS:
            assert errors[name].mean == pytest.approx(vectors.number(f"lab_mae_{name}_{white}"), abs=1e-9)


@reference_files(
    "restoration", "metrics.npz", cases=lambda v: [n for n in v.names if n.startswith("imresize_")], needs=["a"]
)
def test_imresize(vectors: ReferenceFile, case: str) -> None:
    found = imresize(image("a", vectors), scale=float(case.removeprefix("imresize_")))
    expected = np.moveaxis(vectors[case], -1, 0)
    expected = expected / 255 if expected.max() > 2 else expected
    np.testing.assert_allclose(found, expected, atol=1e-5)


@reference_files("restoration", "metrics.npz", needs=["a", "y_upsr_float"])
def test_luma(vectors: ReferenceFile) -> None:
    np.testing.assert_allclose(luma(image("a", vectors)) / 255, vectors["y_upsr_float"], atol=1e-6)
