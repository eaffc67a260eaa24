"""Measures against published values and closed forms."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_vectors import ReferenceFile, reference_files

from ornstein.errors import UserError
from ornstein.pictures import lite0
from ornstein.pictures.lite0 import Lite0
from ornstein.spectrum import SpectrumLoss
from ornstein_infrared import metrics
from ornstein_infrared.downstream import Boxes, Detector, Segmenter, mean_average_precision, mean_iou, read_yolo
from ornstein_infrared.simulator import Simulator


@reference_files(
    "infrared", "metrics*.npz", cases=lambda v: [n for n in v.names if n.partition("_")[0] in ("psnr", "ssim")]
)
def test_published_values(vectors: ReferenceFile, case: str) -> None:
    frames = [vectors[name].astype(np.float64) / 255 for name in "ab"]
    assert getattr(metrics, case)(*frames) == pytest.approx(vectors.number(case), abs=1e-6)
    tensors = [torch.from_numpy(frame)[None] for frame in frames]
    assert getattr(metrics, case)(*tensors) == pytest.approx(vectors.number(case), abs=1e-6)


def frames(height: int = 48, width: int = 64, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = np.clip(np.add.outer(np.linspace(0.2, 0.6, height), np.linspace(0, 0.3, width)), 0, 1)
    return x, x + noise * rng.normal(size=x.shape)


@pytest.mark.parametrize("noise", [0.005, 0.02, 0.2])
def test_luma_adds_1_32_dB(noise: float) -> None:
    x, xh = frames(noise=noise)
    assert pytest.approx(1.32, abs=0.005) == metrics.Y_OFFSET
    assert metrics.psnr_y(x, xh) - metrics.psnr_gray(x, xh) == pytest.approx(metrics.Y_OFFSET, abs=0.05)
    assert metrics.psnr_gray(255 * x, 255 * xh, peak=255) == pytest.approx(metrics.psnr_gray(x, xh))


def test_equal_frames() -> None:
    x, _ = frames()
    assert math.isinf(metrics.psnr_gray(x, x))
    assert metrics.psnr_y(x, x) == pytest.approx(80)
    assert metrics.ssim_gray(x, x) == metrics.ssim_y(x, x) == 1
    assert metrics.spectrum_distance(x, x) == 0
    assert metrics.temperature_error(x, x) == (0, 0, 0, 0)
    assert math.isnan(metrics.ssim_gray(x[:10], x[:10]))


def test_spectrum_is_that_of_training() -> None:
    x, xh = (torch.from_numpy(frame)[None, None] for frame in frames())
    expected = float(SpectrumLoss("logamp_l2", 0.125)(2 * xh - 1, 2 * x - 1))
    assert metrics.spectrum_distance(x[0], xh[0], "logamp_l2", 0.125) == pytest.approx(expected, rel=1e-12)
    assert metrics.slope(np.random.default_rng(0).normal(size=(256, 256))) == pytest.approx(0, abs=0.2)


def test_all_measures_of_a_frame() -> None:
    from scipy.ndimage import gaussian_filter

    class Distance:
        def score(self, truth: np.ndarray, restored: np.ndarray) -> float:
            return float(np.abs(truth - restored).max()) if truth.shape[0] == 3 else math.nan

    x = np.random.default_rng(0).random((64, 64))
    smooth = gaussian_filter(x, 1.0)
    found = metrics.score(x, smooth, Distance())  # type: ignore[arg-type]
    assert set(metrics.score(x, smooth)) == set(found) - {"lpips"}
    assert found["slope_error"] < -1
    assert found["spectrum"] > 0
    assert found["lpips"] == np.abs(x - smooth).max()
    assert found["psnr_y"] == metrics.psnr_y(x, smooth)
    assert 0 < found["lite0"] == Lite0().score(metrics.three_channels(x), metrics.three_channels(smooth))


def test_without_its_package_a_distance_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lite0.say_if_missing()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(lite0, "find_spec", lambda name: None)
    assert "lite0" not in metrics.score(*frames())
    lite0.say_if_missing()
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install ornstein[lite0]" in line
    with pytest.raises(UserError, match="efficientnet-lite0"):
        Lite0()


def test_temperatures() -> None:
    truth = np.full((4, 5), 20.0)
    restored = truth + 0.5
    restored[0, 0] = 10
    assert metrics.temperature_error(truth, restored) == pytest.approx((0.975, math.sqrt(104.75 / 20), -0.025, 10))
    mask = restored == 10
    assert metrics.temperature_error(truth, restored, mask) == pytest.approx((0.5, 0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="masked"):
        metrics.temperature_error(truth, restored, np.ones_like(mask))


def test_hot_objects_of_known_place() -> None:
    truth = np.full((20, 30), 15.0)
    hot = np.zeros(truth.shape, bool)
    hot[2:6, 2:6] = hot[10:14, 20:24] = True
    truth[hot] = 30
    assert metrics.hot_objects(truth, truth, hot) == (1, 1, 2)
    lost = truth.copy()
    lost[10:14, 20:24] = 16
    assert metrics.hot_objects(truth, lost, hot) == (0.5, 0.5, 2)
    extra = truth.copy()
    extra[15:19, 2:6] = 30
    assert metrics.hot_objects(truth, extra, threshold=25.0) == pytest.approx((2 / 3, 1, 2))
    assert math.isnan(metrics.hot_objects(truth, truth, threshold=40.0).iou)
    with pytest.raises(UserError, match="a mask or a threshold"):
        metrics.hot_objects(truth, truth)


def test_hot_objects_of_a_scene_are_lost_by_blur() -> None:
    from scipy.ndimage import gaussian_filter

    scene = Simulator(128, 160)(torch.Generator().manual_seed(0))
    truth, hot = scene.temperature.numpy(), scene.hot.numpy()
    blurred = [metrics.hot_objects(truth, gaussian_filter(truth, sigma), hot).iou for sigma in (0, 1, 4)]
    assert 1 >= blurred[0] > blurred[1] > blurred[2]
    assert blurred[0] > 0.5  # other things are warm, too


def test_frames_that_do_not_fit() -> None:
    x, xh = frames()
    for one, other in ((x, xh[1:]), (x, np.full_like(x, np.nan)), (np.zeros((3, 8, 8)), np.zeros((3, 8, 8)))):
        with pytest.raises(ValueError, match=r"one size|finite|shape"):
            metrics.psnr_gray(one, other)


def test_three_equal_channels_for_networks_of_colours() -> None:
    x, _ = frames()
    found = metrics.three_channels(x[None])
    assert found.shape == (3, *x.shape)
    assert (found == x).all()


def boxes(*rows: tuple[float, ...], scores: bool = False) -> Boxes:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 6)
    return Boxes(table[:, :4], table[:, 4].long(), table[:, 5] if scores else None)


def test_average_precision() -> None:
    truth = [boxes((0, 0, 10, 10, 1, 0), (20, 20, 30, 30, 1, 0)), boxes((5, 5, 9, 9, 2, 0))]
    first = [(0.0, 0, 10, 10, 1, 0.9), (20.0, 20, 30, 30, 1, 0.8)]
    found = [boxes(*first, scores=True), boxes((5, 5, 9, 9, 2, 1), scores=True)]
    assert mean_average_precision(found, truth) == pytest.approx({"map": 1, "map_50": 1, "map_75": 1})
    half = [boxes(first[0], scores=True), found[1]]
    assert 0.7 < mean_average_precision(half, truth)["map"] < 0.8  # half of one of two classes
    with pytest.raises(ValueError, match="scores"):
        mean_average_precision(truth, truth)


def test_mean_iou() -> None:
    true = torch.tensor([[0, 0, 1, 1], [0, 255, 1, 2]])
    found = torch.tensor([[0, 1, 1, 1], [0, 3, 1, 2]])
    assert mean_iou([found], [true], 5) == pytest.approx((2 / 3 + 3 / 4 + 1) / 3)  # class 3 at an ignored pixel only
    assert mean_iou([true.clamp(max=4)], [true], 5) == 1
    with pytest.raises(UserError, match="labels above 1"):
        mean_iou([found], [true], 2)


def test_labels_of_yolo(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("0 0.5 0.5 0.5 0.25\n2 0.1 0.2 0.2 0.4\n\n")
    found = read_yolo(path, 100, 200)
    torch.testing.assert_close(found.boxes, torch.tensor([[50.0, 37.5, 150, 62.5], [0, 0, 40, 40]]))
    assert found.labels.tolist() == [1, 3]
    path.write_text("")
    assert read_yolo(path, 10, 10).boxes.shape == (0, 4)
    for text in ("0 1 2", "zero 1 2 3 4"):
        path.write_text(text)
        with pytest.raises(UserError, match="five numbers a line"):
            read_yolo(path, 10, 10)
    with pytest.raises(UserError, match="no labels"):
        read_yolo(tmp_path / "b.txt", 10, 10)


def test_frozen_networks_take_the_users_weights(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from torchvision.models import get_model

    name = "lraspp_mobilenet_v3_large"
    network = get_model(name, weights=None, weights_backbone=None, num_classes=3)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    segmenter = Segmenter(name, tmp_path / "weights.safetensors", 3)
    frame = torch.rand(1, 32, 40, generator=torch.Generator().manual_seed(0))
    assert segmenter(frame).shape == (32, 40)
    assert torch.equal(segmenter(frame), segmenter(frame))  # evaluation mode
    assert not any(parameter.requires_grad for parameter in segmenter.network.parameters())
    with pytest.raises(UserError, match="does not fit"):
        Segmenter(name, tmp_path / "weights.safetensors", 4)
    with pytest.raises(UserError, match="no weights at"):
        Segmenter(name, tmp_path / "other.pth", 3)
    with pytest.raises(UserError, match="use one of"):
        Detector("yolo", tmp_path / "weights.safetensors", 6)


def test_a_detector_gives_boxes(tmp_path: Path) -> None:
    from torchvision.models import get_model

    name = "ssdlite320_mobilenet_v3_large"
    network = get_model(name, weights=None, weights_backbone=None, num_classes=3)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    found = Detector(name, tmp_path / "weights.pth", 2)(torch.rand(1, 40, 48))
    assert found.scores is not None
    assert found.boxes.shape == (len(found.labels), 4)
    assert (found.boxes >= 0).all()
