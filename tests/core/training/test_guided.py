"""UPSR in a Task: the network learns, the predictor does not."""

from pathlib import Path
from typing import Any

import torch
from tiny_training import make_trainer
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle

from ornstein.objectives.pictures import PictureObjective
from ornstein.process.upsr import UPSR
from ornstein.samplers.ancestral import Ancestral
from ornstein.training.data import ResumableLoader
from ornstein.training.ema import EMA
from ornstein.training.task import Task
from ornstein.uncertainty import UncertaintyGuided


class Pictures:
    """A small picture and its original, unshuffled as the process has it."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = 2 * torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(index)) - 1
        small = interpolate(picture[None], scale_factor=0.25, mode="area")[0]
        return {"x0": nn.functional.pixel_unshuffle(picture, 4), "y": small}


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(144, 48, 1)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return pixel_shuffle(self.layer(torch.cat([x, condition], 1)), 4)


class Enlarge(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)  # its statistics would move in training

    def forward(self, small: Tensor) -> Tensor:
        return interpolate(self.norm(small), scale_factor=4.0)


def test_only_the_network_learns(tmp_path: Path) -> None:
    torch.manual_seed(0)
    denoiser = UncertaintyGuided(Network(), UPSR(), predictor=Enlarge())
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    task = Task(denoiser, PictureObjective(), Ancestral(5), lambda weights: torch.optim.Adam(weights, lr=1e-3))
    ema = EMA()
    trainer = make_trainer(tmp_path, ema, max_steps=4)
    loaders = ResumableLoader(Pictures(), 2, train=True), ResumableLoader(Pictures(), 2, train=False)
    trainer.fit(task, *loaders)
    after = denoiser.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"network.layer.weight", "network.layer.bias"}
    averaged = next(iter(ema.averages.values())).tensors
    assert set(averaged) == {"denoiser.network.layer.weight", "denoiser.network.layer.bias"}
    assert trainer.callback_metrics["val/loss"].isfinite()
