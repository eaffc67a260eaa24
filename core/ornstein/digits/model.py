"""The shipped networks: a class-conditional denoiser and a classifier of clean digits."""

from importlib.resources import as_file, files
from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ornstein import checkpoint
from ornstein.denoiser import Denoiser

WEIGHTS = Path(__file__).parent / "weights"
DENOISER, CLASSIFIER = "denoiser.safetensors", "classifier.safetensors"


class DigitClassifier(nn.Module):
    """Pictures (B, 1, 8, 8) to logits (B, 10)."""

    def __init__(self, width: int = 24, dropout: float = 0.3) -> None:
        super().__init__()
        self.width, self.dropout = width, dropout
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.linear = nn.Linear(2 * width * 4, 10)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees, (B, 8 width)."""
        h = F.relu(self.conv1(x))
        h = F.max_pool2d(F.relu(self.conv2(h)), 2)
        return F.max_pool2d(F.relu(self.conv3(h)), 2).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.dropout(self.features(x), self.dropout, self.training))


def digit_denoiser() -> Denoiser:
    """The shipped denoiser: condition `label` (B,) with 10 for none, or `embedding` (B, 128); evaluation mode."""
    with as_file(files("ornstein.digits") / "weights" / DENOISER) as path:
        return checkpoint.load(path, app="digits").denoiser.requires_grad_(False)


def digit_classifier() -> DigitClassifier:
    """The shipped classifier of clean digits; evaluation mode."""
    classifier = DigitClassifier()
    with as_file(files("ornstein.digits") / "weights" / CLASSIFIER) as path:
        tensors = load_file(path)
    classifier.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return classifier.eval().requires_grad_(False)
