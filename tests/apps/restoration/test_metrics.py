"""PSNR, SSIM and the scores by region, against the reference vectors, closed forms and what they are named after."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_vectors import ReferenceFile, reference_files

from ornstein.pictures.likeness import luma
from ornstein.pictures.resizing import imresize, imresize_rounded
from ornstein_restoration import metrics, shadow_metrics
from ornstein_restoration.colour import lab

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
            assert errors[name].mean == pytest.approx(vectors.number(f"lab_mae_{name}_{white}"), abs=1e-5)


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


@pytest.mark.parametrize("metric", PSNR)
def test_psnr_of_equal_pictures_is_infinite(metric: Callable[..., float]) -> None:
    truth, restored = pictures()
    assert metric(truth, truth) == math.inf
    assert metric(np.zeros_like(truth), np.zeros_like(truth)) == math.inf
    assert metric(truth, restored) == pytest.approx(metric(restored, truth))


@pytest.mark.parametrize("metric", SSIM)
def test_ssim_is_one_for_equal_pictures_and_less_for_others(metric: Callable[..., float]) -> None:
    truth, restored = pictures()
    assert metric(truth, truth) == pytest.approx(1, abs=1e-12)
    assert metric(np.zeros_like(truth), np.zeros_like(truth)) == pytest.approx(1, abs=1e-12)
    assert metric(truth, restored) < 0.99
    assert metric(torch.from_numpy(truth), torch.from_numpy(restored)) == metric(truth, restored)


def test_psnr_of_a_known_error() -> None:
    black, grey = np.zeros((3, 16, 16)), np.full((3, 16, 16), 51 / 255)
    assert metrics.psnr_rgb(black, grey) == pytest.approx(20 * math.log10(5))
    assert metrics.psnr_rgb_rounded(black, grey + 0.4 / 255) == pytest.approx(20 * math.log10(5))
    assert metrics.psnr_y(black, grey) == pytest.approx(20 * math.log10(255 / (219 / 5)))  # Y spans 219 of 255 steps
    assert metrics.psnr_y_rounded(black, grey) == pytest.approx(20 * math.log10(255 / 44))  # 43.8 is rounded
    assert metrics.psnr_y_capped(black, black) == pytest.approx(80)
    assert metrics.psnr_y_capped(black, grey) == pytest.approx(metrics.psnr_y(black, grey), abs=1e-5)


def test_ssim_agrees_with_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    truth, restored = pictures(3)
    y, yh = luma(truth), luma(restored)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    _, similarity = structural_similarity(y, yh, full=True, win_size=11, **options)
    assert metrics.ssim_y(truth, restored) == pytest.approx(similarity[5:-5, 5:-5].mean(), abs=1e-12)


def test_ssim_as_a_volume_is_the_formula_with_repeated_edges() -> None:
    truth, restored = pictures(1, 9, 8)
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    kernel = np.einsum("i,j,k->ijk", window, window, window)

    def mean(values: np.ndarray) -> np.ndarray:
        padded = np.pad(values, 5, mode="edge")
        return np.einsum("abcijk,ijk->abc", np.lib.stride_tricks.sliding_window_view(padded, (11, 11, 11)), kernel)

    c1, c2 = 0.01**2, 0.03**2
    m, mh = mean(truth), mean(restored)
    variances = mean(truth**2) - m**2 + mean(restored**2) - mh**2
    covariance = mean(truth * restored) - m * mh
    expected = (2 * m * mh + c1) * (2 * covariance + c2) / ((m**2 + mh**2 + c1) * (variances + c2))
    assert metrics.ssim_rgb_volume(truth, restored) == pytest.approx(expected.mean(), abs=1e-12)


def test_pyiqa_counts_negative_structure_as_none() -> None:
    truth, _ = pictures(2)
    assert metrics.ssim_y(truth, 1 - truth) < -0.5
    assert 0 <= metrics.ssim_y_pyiqa(truth, 1 - truth) < 0.05


def test_small_pictures_have_no_ssim_of_whole_windows() -> None:
    dot = np.full((3, 1, 1), 0.5)
    for metric in (metrics.ssim_y, metrics.ssim_y_rounded, metrics.ssim_y_pyiqa, metrics.ssim_rgb_uniform):
        assert math.isnan(metric(dot, dot))
    assert metrics.ssim_rgb_volume(dot, dot) == 1
    assert metrics.psnr_y(dot, dot) == math.inf


def test_border_is_left_out() -> None:
    truth, restored = pictures()
    restored[:, 4:-4, 4:-4] = truth[:, 4:-4, 4:-4]
    assert metrics.psnr_y(truth, restored, border=4) == math.inf
    assert metrics.psnr_y(truth, restored, border=3) < math.inf
    assert metrics.ssim_y(truth, restored, border=4) == pytest.approx(1)
    with pytest.raises(ValueError, match="leaves nothing"):
        metrics.psnr_y(truth, restored, border=10)


def test_bad_pictures_are_refused() -> None:
    truth, restored = pictures()
    for first, second in ((truth, restored[:, 1:]), (truth[0], restored[0]), (truth, truth * np.nan)):
        with pytest.raises(ValueError, match=r"metrics need|not \(|finite"):
            metrics.psnr_rgb(first, second)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 30), st.integers(1, 30))
def test_imresize_keeps_constants_at_any_size(height: int, width: int, to_height: int, to_width: int) -> None:
    image = np.full((3, height, width), 0.3)
    found = imresize(image, size=(to_height, to_width))
    assert found.shape == (3, to_height, to_width)
    np.testing.assert_allclose(found, 0.3, atol=1e-12)
    np.testing.assert_allclose(imresize_rounded(image, size=(to_height, to_width)) * 255, 77, atol=1e-9)


def test_imresize_of_a_ramp() -> None:
    ramp = np.broadcast_to(np.arange(40.0) / 39, (3, 8, 40))
    inner = imresize(ramp, scale=0.5)[0, 0, 3:-3]
    np.testing.assert_allclose(inner, (2 * np.arange(20) + 0.5)[3:-3] / 39, atol=1e-12)  # pixel centres
    assert imresize(ramp, scale=0.3).shape == (3, 3, 12)  # ceil
    with pytest.raises(ValueError, match="scale or the size"):
        imresize(ramp)


def mask(height: int, width: int) -> np.ndarray:
    shadow = np.zeros((height, width))
    shadow[: height // 2, : width // 2] = 1
    return shadow


def test_zeroed_scores_are_too_high_by_the_share_of_the_region() -> None:
    truth, restored = pictures()
    shadow = mask(24, 20)
    zeroed = shadow_metrics.psnr_zeroed(truth, restored, shadow)
    region = shadow_metrics.psnr_region(truth, restored, shadow)
    assert zeroed["all"] == pytest.approx(region["all"]) == pytest.approx(metrics.psnr_rgb(truth, restored))
    assert zeroed["shadow"] - region["shadow"] == pytest.approx(10 * math.log10(4))
    assert zeroed["nonshadow"] - region["nonshadow"] == pytest.approx(10 * math.log10(4 / 3))
    zeroed, region = (f(truth, restored, shadow) for f in (shadow_metrics.ssim_zeroed, shadow_metrics.ssim_region))
    assert zeroed["all"] == pytest.approx(metrics.ssim_rgb_volume(truth, restored))
    assert region["all"] == pytest.approx(zeroed["all"])
    assert zeroed["shadow"] > region["shadow"] + 0.02


def test_lab_of_known_colours() -> None:
    image = np.array([[0.0, 1.0, 0.5, 1.0], [0.0, 1.0, 0.5, 0.0], [0.0, 1.0, 0.5, 0.0]])[:, None]
    for white in ("D50", "D65"):
        found = lab(image, white)[:, 0]  # type: ignore[arg-type]
        np.testing.assert_allclose(found[:, :3], [[0, 100, 53.389], [0, 0, 0], [0, 0, 0]], atol=1e-3)
    np.testing.assert_allclose(lab(image, "D50")[:, 0, 3], [54.29, 80.81, 69.89], atol=0.01)  # published values
    np.testing.assert_allclose(lab(image, "D65")[:, 0, 3], [53.24, 80.09, 67.20], atol=0.01)


def test_istd_protocol() -> None:
    truth, restored = (np.round(255 * x) / 255 for x in pictures(4, 30, 36))
    shadow = 0.2 * mask(30, 36)  # any value but 0 is shadow
    values, errors = shadow_metrics.istd(truth, restored, shadow, None)
    assert values["psnr_shadow"] == shadow_metrics.psnr_zeroed(truth, restored, shadow)["shadow"]
    assert values["ssim_nonshadow"] == shadow_metrics.ssim_zeroed(truth, restored, shadow)["nonshadow"]
    assert errors == shadow_metrics.lab_errors(truth, restored, shadow)
    assert errors["shadow"].pixels == 15 * 18
    small, errors = shadow_metrics.istd(truth, restored, shadow[None], (16, 16))
    assert small["psnr_all"] > values["psnr_all"]  # the noise of neighbours averages out
    assert errors["shadow"].pixels + errors["nonshadow"].pixels == errors["all"].pixels == 256
    assert errors["shadow"].pixels >= 64  # grey edges are shadow
    empty, errors = shadow_metrics.istd(truth, restored, np.zeros((30, 36)), None)
    assert empty["psnr_shadow"] == math.inf
    assert errors["shadow"].pixels == 0
    assert math.isnan(errors["shadow"].mean)
    for bad in (shadow[1:], np.zeros((3, 30, 36)), shadow * np.nan):
        with pytest.raises(ValueError, match="mask"):
            shadow_metrics.istd(truth, restored, bad, None)
