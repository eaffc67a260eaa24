"""A small class-conditional UNet for pictures (Ho et al. 2020; scale-shift norm of Dhariwal and Nichol 2021).

Feature maps are (B, C, H, W), the embedding of time and condition is (B, E).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import UserError


class UNet(nn.Module):
    """network(x, t, label=...) or network(x, t, embedding=...): x (B, channels, H, W) and t (B,), out as x.

    `label` (B,) holds whole numbers; `classes` itself is the empty label, which is also what no condition means.
    `embedding` (B, E), E = 4 width, stands in place of an embedded label; `embed` gives it.

    Args:
        channels: of the picture.
        width: channels of the first level; every further level doubles them and halves the picture.
        levels: resolutions; H and W are multiples of 2^(levels - 1).
        classes: number of labels.
        dropout: in the residual blocks.
    """

    def __init__(
        self, channels: int = 1, width: int = 32, levels: int = 2, classes: int = 10, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if width % 8 or levels < 1 or classes < 1:
            raise UserError(
                f"a UNet needs a width divisible by 8, levels and classes of at least 1; "
                f"got {width}, {levels} and {classes}"
            )
        self.channels, self.width, self.levels, self.classes, self.dropout = channels, width, levels, classes, dropout
        size = 4 * width
        self.labels = nn.Embedding(classes + 1, size)
        self.time = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.Linear(size, size))
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        widths = [width * 2**level for level in range(levels)]
        self.down = nn.ModuleList(ResidualBlock(c, c, size, dropout) for c in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(c, 2 * c, 3, stride=2, padding=1) for c in widths[:-1])
        self.middle = ResidualBlock(widths[-1], widths[-1], size, dropout)
        self.up = nn.ModuleList(ResidualBlock(2 * c, c, size, dropout) for c in reversed(widths))
        self.grow = nn.ModuleList(nn.Conv2d(c, c // 2, 3, padding=1) for c in reversed(widths[1:]))
        self.norm = nn.GroupNorm(8, width)
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def embed(self, label: Tensor) -> Tensor:
        """Embedding (B, E) of `label` (B,); raises ValueError for a label outside 0..classes."""
        if bool((label < 0).any() | (label > self.classes).any()):
            raise ValueError(f"labels are 0 to {self.classes - 1}, and {self.classes} for none")
        return self.labels(label)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None, embedding: Tensor | None = None) -> Tensor:
        unit = 2 ** (self.levels - 1)
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % unit or x.shape[3] % unit:
            raise ValueError(
                f"pictures must be (B, {self.channels}, H, W), sides multiples of {unit}; got {tuple(x.shape)}"
            )
        if label is not None and embedding is not None:
            raise UserError("a label and an embedding are given; an embedding stands in place of the label: give one")
        if embedding is not None and embedding.shape[-1] != 4 * self.width:
            raise UserError(f"embeddings have {4 * self.width} values here, got the shape {tuple(embedding.shape)}")
        if label is not None and label.is_floating_point():
            raise UserError(f"labels are whole numbers, got {label.dtype}; convert them with label.long()")
        if embedding is None:
            if label is None:
                label = torch.full((len(x),), self.classes, dtype=torch.long, device=x.device)
            embedding = self.labels(label) if label.is_cuda else self.embed(label)  # a look at values waits for a GPU
        condition = F.silu(self.time(sinusoids(t, 4 * self.width)) + embedding)
        h = self.first(x)
        skips = []
        for level, block in enumerate(self.down):
            h = block(h, condition)
            skips.append(h)
            if level < self.levels - 1:
                h = self.shrink[level](h)
        h = self.middle(h, condition)
        for level, block in enumerate(self.up):
            h = block(torch.cat([h, skips.pop()], dim=1), condition)
            if level < self.levels - 1:
                h = F.interpolate(self.grow[level](h), scale_factor=2.0)
        return self.last(F.silu(self.norm(h)))


class NoisyClassifier(nn.Module):
    """Half of a UNet with a mean over the picture: classifier(x, t), x (B, channels, H, W) and t (B,), gives logits (B,
    classes). Arguments as for `UNet`."""

    def __init__(self, channels: int = 1, width: int = 32, levels: int = 2, classes: int = 10) -> None:
        super().__init__()
        self.channels, self.width, self.levels, self.classes = channels, width, levels, classes
        size = 4 * width
        self.time = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.Linear(size, size))
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        widths = [width * 2**level for level in range(levels)]
        self.down = nn.ModuleList(ResidualBlock(c, c, size, 0.0) for c in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(c, 2 * c, 3, stride=2, padding=1) for c in widths[:-1])
        self.last = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        condition = F.silu(self.time(sinusoids(t, 4 * self.width)))
        h = self.first(x)
        for level, block in enumerate(self.down):
            h = block(h, condition)
            if level < self.levels - 1:
                h = self.shrink[level](h)
        return self.last(F.silu(h).mean((2, 3)))


class ResidualBlock(nn.Module):
    """Two convolutions, the embedding (B, `size`) as scale and shift of the second norm."""

    def __init__(self, inputs: int, outputs: int, size: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(size, 2 * outputs)
        self.norm2 = nn.GroupNorm(8, outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(h) * (1 + scale) + shift
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)))


def sinusoids(t: Tensor, size: int) -> Tensor:
    """[cos, sin](1000 t w_i), w_i from 1 down to 1e-4: (B,) in [0, 1] -> (B, `size`)."""
    half = size // 2
    rates = torch.exp(-math.log(1e4) / half * torch.arange(half, dtype=t.dtype, device=t.device))
    angles = 1000 * t[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)
