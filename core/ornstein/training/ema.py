"""Averages of the weights along training, which sample better than the last weights."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from torch import Tensor, distributed

from ornstein.errors import UserError
from ornstein.training.fsdp import copy_whole_, local, whole


class Profile(Protocol):
    """How fast an average forgets."""

    @property
    def name(self) -> str:
        """What the average is called in checkpoints."""

    def decay_at(self, n: int) -> float:
        """d of update n = 1, 2, ...: average <- d average + (1 - d) weights."""


@dataclass(frozen=True)
class Exponential:
    """Exponential average; the `published` warm-up of SGMSE+ is d = min(decay, (1 + n)/(10 + n))."""

    decay: float = 0.999
    warmup: Literal["published", "none"] = "published"

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise UserError(f"the EMA decay is {self.decay}; it must be at least 0 and below 1, for example 0.999")

    @property
    def name(self) -> str:
        return f"exponential-{self.decay:g}"

    def decay_at(self, n: int) -> float:
        return min(self.decay, (1 + n) / (10 + n)) if self.warmup == "published" else self.decay


@dataclass(frozen=True)
class PowerFunction:
    """Average whose memory grows with training: d = (1 - 1/n)^(gamma + 1) (Karras et al. 2024, equations 122 to 127).

    `sigma_rel` is its width as a fraction of the training so far, below 1/sqrt(12) = 0.289; the authors use 0.05, 0.1.
    """

    sigma_rel: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.sigma_rel < 12**-0.5:
            raise UserError(f"sigma_rel is {self.sigma_rel}; it must be above 0 and below 0.289, for example 0.1")

    @property
    def name(self) -> str:
        return f"power-{self.sigma_rel:g}"

    @property
    def gamma(self) -> float:
        """gamma > 0 with sigma_rel^2 = (gamma + 1)/((gamma + 2)^2 (gamma + 3)), falling in gamma: by bisection."""
        low, high = 0.0, 1 / self.sigma_rel
        for _ in range(100):
            middle = (low + high) / 2
            wider = (middle + 1) / ((middle + 2) ** 2 * (middle + 3)) > self.sigma_rel**2
            low, high = (middle, high) if wider else (low, middle)
        return (low + high) / 2

    def decay_at(self, n: int) -> float:
        return (1 - 1 / n) ** (self.gamma + 1)


class Average:
    """One running average of named tensors, in float32 or better; split over ranks where they are."""

    def __init__(self, weights: Mapping[str, Tensor], profile: Profile) -> None:
        self.profile = profile
        self.updates = 0
        with torch.no_grad():
            self.tensors = {name: _wide(weight.detach()).clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Move towards `weights`, which have the names of the first ones."""
        self.updates += 1
        targets = [_wide(local(weights[name].detach())) for name in self.tensors]
        averages = [local(tensor) for tensor in self.tensors.values()]  # an average needs nothing of other ranks
        torch._foreach_lerp_(averages, targets, 1 - self.profile.decay_at(self.updates))

    def state_dict(self) -> dict[str, Any]:
        """Plain values and whole tensors only, which Lightning reads back with weights_only; collective if split."""
        decay = self.profile.decay_at(max(self.updates, 1))
        return {"updates": self.updates, "decay": decay, "tensors": _whole(self.tensors)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state`; raises UserError if it belongs to another network."""
        saved = state["tensors"]
        if {n: t.shape for n, t in saved.items()} != {n: t.shape for n, t in self.tensors.items()}:
            raise UserError(
                "the averaged weights of the checkpoint belong to another network; resume with its own recipe"
            )
        for name, tensor in self.tensors.items():
            copy_whole_(tensor, saved[name])
        self.updates = state["updates"]


class EMA(Callback):
    """Keeps averages of the trainable weights; validation, test and prediction run on the first of them.

    One update per optimizer step. The averages live on the device of the weights, and in checkpoints as `averages`:
    {name: {updates, decay, tensors}} in this callback's state; the checkpoint's `state_dict` holds the raw weights.
    Buffers are not averaged.

    Args:
        decay: of the exponential average; None for no such average.
        warmup: `published`, or `none`.
        power: widths sigma_rel of power-function averages to keep as well.

    Raises:
        UserError: no average is asked for, or the strategy flattens tensors (FSDP1, DeepSpeed).
    """

    def __init__(
        self,
        decay: float | None = 0.999,
        warmup: Literal["published", "none"] = "published",
        power: Sequence[float] = (),
    ) -> None:
        exponential = [] if decay is None else [Exponential(decay, warmup)]
        self.profiles: list[Profile] = [*exponential, *(PowerFunction(sigma_rel) for sigma_rel in power)]
        if not self.profiles:
            raise UserError("EMA keeps no average; give decay, power or both")
        self.averages: dict[str, Average] = {}
        self._loaded: dict[str, Any] = {}
        self._step = 0
        self._raw: dict[str, Tensor] | None = None

    # -- averaging -------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(trainer.strategy, (FSDPStrategy, DeepSpeedStrategy)):
            raise UserError(
                "EMA cannot follow weights that this strategy flattens; use --trainer.strategy fsdp2, or ddp"
            )
        self._create(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._loaded:  # strategies that split tensors read the checkpoint after on_fit_start
            self._create(pl_module)
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step > self._step:  # not while gradients accumulate
            self._step = trainer.global_step
            weights = _trainable(pl_module)
            for average in self.averages.values():
                average.update(weights)

    def restart(self, pl_module: LightningModule) -> None:
        """Forget what was averaged and begin with the present weights."""
        self._loaded = {}
        self._create(pl_module)

    def _create(self, pl_module: LightningModule) -> None:
        weights = _trainable(pl_module)
        self.averages = {profile.name: Average(weights, profile) for profile in self.profiles}
        if not self._loaded:
            return
        missing = [name for name in self.averages if name not in self._loaded]
        if missing:
            has = ", ".join(self._loaded)
            raise UserError(f"the checkpoint has no average {missing[0]}, only {has}; resume with its own EMA settings")
        for name, average in self.averages.items():
            average.load_state_dict(self._loaded[name])
        self._loaded = {}

    # -- using the average -----------------------------------------------------------------------------------------

    @contextmanager
    def averaged(self, pl_module: LightningModule, name: str | None = None) -> Iterator[None]:
        """Within the block `pl_module` has the average `name` (default: the first) as its weights."""
        self._swap_in(pl_module, name)
        try:
            yield
        finally:
            self._swap_out(pl_module)

    def _swap_in(self, pl_module: LightningModule, name: str | None = None) -> None:
        if self._loaded:  # validate, test, predict: there was no fit
            self._create(pl_module)
        if not self.averages or self._raw is not None:
            return
        average = self.averages[name] if name else next(iter(self.averages.values()))
        weights = _trainable(pl_module)
        with torch.no_grad():
            self._raw = {key: weights[key].clone() for key in average.tensors}
            for key, tensor in average.tensors.items():
                weights[key].copy_(tensor)

    def _swap_out(self, pl_module: LightningModule) -> None:
        if self._raw is None:
            return
        weights = _trainable(pl_module)
        with torch.no_grad():
            for key, tensor in self._raw.items():
                weights[key].copy_(tensor)
        self._raw = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap_in(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap_out(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap_in(pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap_out(pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap_in(pl_module)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap_out(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._swap_out(pl_module)

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        averages = {name: average.state_dict() for name, average in self.averages.items()}
        return {"averages": averages or self._loaded}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict["averages"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._raw is not None:  # saved from within validation
            checkpoint["state_dict"] |= _whole(self._raw)


def _trainable(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: weight for name, weight in module.named_parameters() if weight.requires_grad}


def _whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split tensors put together: on the CPU of rank 0, whose checkpoint counts; the other ranks only help."""
    gathered = {}
    for name, tensor in tensors.items():
        full = whole(tensor)
        if full is tensor:
            gathered[name] = tensor
        elif distributed.get_rank() == 0:
            gathered[name] = full.cpu()
    return gathered


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
