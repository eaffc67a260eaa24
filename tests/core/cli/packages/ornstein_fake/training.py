"""A task and data so small that an epoch takes no time."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ornstein.errors import UserError


class Layer(nn.Module):
    """A component named by class_path in recipes."""

    def __init__(self, width: int = 3, bias: bool = True) -> None:
        super().__init__()
        self.width, self.bias = width, bias
        self.linear = nn.Linear(width, 1, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class WideLayer(Layer):
    """Another one."""


@dataclass(frozen=True)
class Schedule:
    gamma: float = 0.5


class TinyTask(LightningModule):
    """Least squares.

    Args:
        network: the network.
        lr: learning rate.
        schedule: its decay.
    """

    def __init__(
        self, network: Layer, lr: float = 0.1, schedule: Schedule | None = None, interrupt: bool = False
    ) -> None:
        super().__init__()
        self.network, self.lr, self.schedule, self.interrupt = network, lr, schedule, interrupt
        self.rates: list[float] = []

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        if self.interrupt:
            raise KeyboardInterrupt
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        loss = self.network(batch[0]).square().mean()
        self.log("loss", loss)
        return loss

    def on_train_end(self) -> None:
        print(f"rank {self.global_rank} of {self.trainer.world_size}: {self.network.linear.weight.sum().item():.9f}")

    def predict_step(self, batch: list[Tensor]) -> Tensor:
        return self.network(batch[0])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        if self.schedule is None:
            return optimizer
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, self.schedule.gamma)]


class TinyData(LightningDataModule):
    """Random numbers."""

    def __init__(self, items: int = 8, folder: str = "") -> None:
        super().__init__()
        self.items, self.folder = items, folder

    def setup(self, stage: str) -> None:
        if self.folder == "missing":
            raise UserError("there is no folder missing; give --data.folder")

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.randn(self.items, 3)), batch_size=4)

    def predict_dataloader(self) -> DataLoader:
        return self.train_dataloader()
