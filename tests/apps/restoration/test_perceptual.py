"""Perceptual measures: LPIPS against its formula, features that know what they see, and order under degradation."""

import math
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ornstein.errors import UserError
from ornstein.pictures.lite0 import Lite0
from ornstein.pictures.lpips import Lpips
from ornstein_restoration import images, perceptual

CHELSEA = Path(str(files("skimage"))) / "data" / "chelsea.png"


@pytest.fixture(scope="module")
def backbone() -> dict[str, Tensor]:
    """AlexNet's convolutions with random weights, as torchvision names them."""
    shapes = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for place, shape in shapes.items():
        weights[f"features.{place}.weight"] = torch.randn(shape, generator=generator) / math.prod(shape[1:]) ** 0.5
        weights[f"features.{place}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    return weights


def photo(side: int = 192) -> np.ndarray:
    return images.read(CHELSEA).pixels[:, 60 : 60 + side, 100 : 100 + side]


def noisy(truth: np.ndarray, strength: float) -> np.ndarray:
    return (truth + strength * np.random.default_rng(0).standard_normal(truth.shape)).clip(0, 1)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_lpips_is_its_formula(tmp_path: Path, backbone: dict[str, Tensor], suffix: str) -> None:
    path = tmp_path / f"alexnet{suffix}"
    save_file(backbone, path) if suffix == ".safetensors" else torch.save(backbone, path)
    measure = Lpips(path)
    truth, restored = photo(64), noisy(photo(64), 0.1)
    assert measure.score(truth, truth) == 0
    assert measure.score(truth, restored) == pytest.approx(formula(backbone, truth, restored), rel=1e-4)
    assert math.isnan(measure.score(truth[:, :16], restored[:, :16]))
    image = torch.from_numpy(restored).float()[None].requires_grad_()
    measure(torch.from_numpy(truth)[None], image).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in measure.parameters())


def formula(weights: dict[str, Tensor], truth: np.ndarray, restored: np.ndarray) -> float:
    """Zhang et al. 2018, eq. 1, with the heads of version 0.1."""
    import torch.nn.functional as F

    heads = torch.load(
        Path(str(files("lpips"))) / "weights" / "v0.1" / "alex.pth", map_location="cpu", weights_only=True
    )
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])

    def features(image: np.ndarray) -> list[Tensor]:
        x = ((2 * torch.from_numpy(image).float() - 1 - shift[:, None, None]) / scale[:, None, None])[None]
        found = []
        for place, stride, padding in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
            if place in (3, 6):
                x = F.max_pool2d(x, 3, 2)
            x = F.conv2d(
                x, weights[f"features.{place}.weight"], weights[f"features.{place}.bias"], stride, padding
            ).relu()
            found.append(x / x.square().sum(1, keepdim=True).sqrt())
        return found

    terms = zip(features(truth), features(restored), range(5), strict=True)
    return sum(float(F.conv2d((a - b) ** 2, heads[f"lin{k}.model.1.weight"]).mean()) for a, b, k in terms)


def test_lpips_says_what_is_missing(tmp_path: Path, backbone: dict[str, Tensor]) -> None:
    for path in (None, tmp_path / "nothing.pth"):
        with pytest.raises(UserError, match=r"alexnet-owt-7be5be79\.pth"):
            Lpips(path)
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"module": Path}, tmp_path / "pickle.pth")
    for name in ("text.pth", "pickle.pth"):
        with pytest.raises(UserError, match="cannot be read"):
            Lpips(tmp_path / name)
    torch.save(backbone | {"features.3.weight": torch.zeros(128, 64, 3, 3)}, tmp_path / "vgg.pth")
    with pytest.raises(UserError, match=r"features\.3\.weight should be \(192, 64, 5, 5\), it has \(128, 64, 3, 3\)"):
        Lpips(tmp_path / "vgg.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        Lpips(tmp_path / "list.pth")


def test_lite0_knows_a_cat_and_orders_degradations() -> None:
    network = Lite0().train()
    picture = torch.from_numpy(photo(224))[None]
    assert int(network.classes(picture).argmax()) in (281, 282, 285)  # tabby, tiger cat, Egyptian cat
    truth = photo()
    scores = [network.score(truth, noisy(truth, strength)) for strength in (0, 0.02, 0.05, 0.2)]
    assert scores[0] == 0
    assert scores == sorted(scores)
    assert len(set(scores)) == 4
    assert math.isnan(network.score(truth[:, :16], truth[:, :16]))
    assert [tuple(feature.shape[1:]) for feature in network.features(picture)] == [
        (16, 112, 112),
        (24, 56, 56),
        (40, 28, 28),
        (112, 14, 14),
        (320, 7, 7),
    ]


@pytest.mark.parametrize(
    ("measure", "side", "equal", "better"),
    [
        (perceptual.ms_ssim_rgb, 161, 1, 1),
        (perceptual.gmsd, 1, 0, -1),
        (perceptual.haarpsi, 16, 1, 1),
        (perceptual.vif_pixel, 41, 1, 1),
    ],
)
def test_measures_of_formulas_alone(measure, side: int, equal: float, better: int) -> None:  # type: ignore[no-untyped-def]
    truth = photo()
    assert measure(truth, truth) == pytest.approx(equal, abs=1e-5)
    scores = [better * measure(truth, noisy(truth, strength)) for strength in (0.02, 0.1, 0.3)]
    assert scores == sorted(scores, reverse=True)
    assert math.isfinite(measure(truth[:, :side, :side], noisy(truth, 0.1)[:, :side, :side]))
    if side > 1:
        assert math.isnan(measure(truth[:, : side - 1], truth[:, : side - 1]))


def test_values_outside_are_clipped() -> None:
    truth = photo()
    assert perceptual.gmsd(truth, 3 * truth - 1) == perceptual.gmsd(truth, (3 * truth - 1).clip(0, 1))
