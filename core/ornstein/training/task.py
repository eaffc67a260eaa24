"""The Lightning module that trains a denoiser; apps subclass it."""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.utils import convert_conv2d_weight_memory_format

from ornstein.acceleration.training import COMPILER, GraphedTraining
from ornstein.checkpoint import load_weights
from ornstein.config import describe
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.noise import SampleNoise
from ornstein.objectives.denoising import Objective
from ornstein.samplers.base import Sampler
from ornstein.training.data import ResumableLoader, is_repeat
from ornstein.training.finite import FiniteGuard
from ornstein.training.fsdp import shard
from ornstein.training.resume import correct_counters
from ornstein.training.schedule import Schedule
from ornstein.training.seeds import derive_seed
from ornstein.training.signals import Signals

Batch = dict[str, Any]
Compile = bool | Literal["graphs"]


class Task(LightningModule):
    """Trains `denoiser` on `objective`.

    Every random draw of a step is a function of (seed, step, batch, rank), so a resumed run repeats what an
    uninterrupted one does and no generator state is saved. Checkpoints carry the specs of all components, never
    hyper-parameters that could override a command line.

    Args:
        denoiser: the network, its process and parameterization.
        objective: the loss.
        sampler: how validation and the exported checkpoint sample.
        optimizer: makes the optimizer from the trainable parameters.
        schedule: learning rate over the steps.
        seed: of every draw in training and validation.
        compile: compile the network with torch.compile when training begins; `graphs` records it as CUDA graphs as
            well, for small networks, which wait for the host otherwise.
        channels_last: keep the network's convolutions in channels-last format: faster bf16 convolutions on GPUs.
        log_grad_norm: log the norm of the whole gradient at every step.
        init_from: an exported checkpoint (.safetensors) of the same network: where fit begins, for fine-tuning, or what
            validate, test and predict use; a Lightning checkpoint given as well wins.
    """

    app: ClassVar[str] = "core"
    """The app that can read the exported checkpoint."""
    predicted: ClassVar[str] = ""
    """What predict writes into `predictions`, in words; empty where it writes nothing."""
    representation: Any = None
    """What turns a signal into the tensor that the process runs on; set by apps."""

    def __init__(
        self,
        denoiser: Denoiser,
        objective: Objective,
        sampler: Sampler,
        optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer] = lambda weights: torch.optim.Adam(
            weights, lr=1e-4, fused=True
        ),
        schedule: Schedule = Schedule(),  # noqa: B008  # frozen
        seed: int = 0,
        compile: Compile = False,
        channels_last: bool = False,
        log_grad_norm: bool = False,
        init_from: Path | None = None,
    ) -> None:
        super().__init__()
        if sampler.steps < sampler.minimum_steps:  # found in the first validation otherwise, after an epoch
            raise UserError(
                f"{type(sampler).__name__} has {sampler.steps} steps; give at least {sampler.minimum_steps}"
            )
        self.denoiser = denoiser
        self.objective = objective
        self.sampler = sampler
        self.make_optimizer = optimizer
        self.schedule = schedule
        self.seed = seed
        self.compile_network = compile
        self.log_grad_norm = log_grad_norm
        self.init_from = init_from
        self._guard = FiniteGuard()
        self._graphs: list[GraphedTraining] = []
        self._specs: dict[str, Any] | None = None
        if channels_last:
            for network in self.denoiser.networks:
                convert_conv2d_weight_memory_format(network, torch.channels_last)

    # -- what an app overrides -------------------------------------------------------------------------------------

    def prepare_batch(self, batch: Batch) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """x0 (B, *), y (B, *) or None, and the denoiser's condition, from what the loader gives; runs in float32."""
        return batch["x0"], batch.get("y"), {}

    # -- the loop --------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One forward pass; Lightning goes backward and steps."""
        for graphs in self._graphs:
            graphs.begin_step()
        generator = self._draws("train", self.global_step, batch_idx, self.global_rank)
        losses, size = self._losses(batch, generator)
        self._guard.watch(losses, self.global_step, self.global_rank, self.trainer.world_size)
        if self._losses_are_read(batch_idx):
            self._guard.check(self.trainer.strategy)
            self._log_training(losses, size)
        return losses["loss"]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The loss, with the same draws in every epoch."""
        self.log_loss(batch, batch_idx, "val")

    def log_loss(self, batch: Batch, batch_idx: int, stage: str) -> None:
        """Log the loss of an evaluation batch as STAGE/loss."""
        losses, size = self._losses(batch, self._draws("validate", *self._identities(batch, batch_idx)))
        named = {f"{stage}/{name}": value for name, value in losses.items()}
        self.log_means(named, 0 if is_repeat(batch) else size)

    def log_means(self, values: Mapping[str, Tensor | float], weight: int) -> None:
        """Log means over all items of all ranks, of which `values`, all finite, stand for `weight`."""
        # a float: Lightning halves a whole number of items over two ranks by integer division
        self.log_dict(dict(values), batch_size=float(weight), sync_dist=True, on_epoch=True, prog_bar=True)  # type: ignore[arg-type]

    def validation_noise(self, batch: Batch, batch_idx: int) -> SampleNoise:
        """Noise for sampling the items of a batch: an item gets the same in every epoch, batch and rank."""
        identities = self._identities(batch, batch_idx)
        return SampleNoise([derive_seed(self.seed, "sample", i) for i in identities], self.device)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer over all trainable parameters, and the schedule, stepped once per optimizer step."""
        try:
            optimizer = self.make_optimizer([weight for weight in self.parameters() if weight.requires_grad])
        except ValueError as error:
            raise UserError(f"the optimizer refuses its settings: {error}; see model.optimizer") from error
        self._settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        steps = self._total_steps()
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.schedule.factor(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # -- hooks of Lightning ----------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        if self.init_from is not None:  # before Lightning restores a checkpoint, which then wins
            load_weights(self.init_from, self.denoiser, self.app)
        if stage == "fit" and self.compile_network:
            if self.compile_network == "graphs" and self.trainer.accumulate_grad_batches > 1:
                raise UserError(
                    "CUDA graphs cannot accumulate gradients; set model.compile to true, or accumulate none"
                )
            for network in self.denoiser.networks:
                if self.compile_network == "graphs" and any(weight.requires_grad for weight in network.parameters()):
                    self._graphs.append(GraphedTraining(network))
                else:  # the method, unlike the function, leaves the names of the weights alone
                    network.compile(options=COMPILER)

    def configure_model(self) -> None:
        if self.device_mesh is not None:  # FSDP2
            if self._graphs:
                raise UserError("CUDA graphs cannot hold weights that are split over GPUs; set model.compile to true")
            self._specs = self._specs or self._describe()  # sharding exchanges the network's class
            for network in self.denoiser.networks:
                shard(network, self.device_mesh["data_parallel"])

    def teardown(self, stage: str) -> None:
        while self._graphs:
            self._graphs.pop().remove()

    def on_fit_start(self) -> None:
        self._signals = Signals(self.trainer)
        self._signals.install()

    def on_train_start(self) -> None:
        self._settings_win()
        combined = self.trainer.fit_loop._combined_loader
        for loader in combined.flattened if combined is not None else []:
            if isinstance(loader, ResumableLoader):
                loader.frozen = bool(getattr(self.trainer, "overfit_batches", 0))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the Trainer says. Lightning refuses that for fused optimizers under any mixed precision, though only
        a gradient scaler, which bfloat16 has none of, would be in the way."""
        if not gradient_clip_val:
            return
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val)
        else:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if getattr(self.trainer.precision_plugin, "scaler", None) is None:  # which skips such steps as its daily work
            norm = self._guard.protect(optimizer, self.parameters(), self.global_step, self.trainer.world_size)
            if self.log_grad_norm:
                self.log("train/grad_norm", norm)
        elif self.log_grad_norm:
            gradients = [weight.grad for weight in self.parameters() if weight.grad is not None]
            self.log("train/grad_norm", torch.nn.utils.get_total_norm(gradients))

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if not self.trainer.fit_loop._should_accumulate():
            self._signals.compare()

    def on_validation_start(self) -> None:
        self._guard.check(self.trainer.strategy)

    def on_train_epoch_end(self) -> None:
        self._guard.check(self.trainer.strategy)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._guard.check(self.trainer.strategy)
        checkpoint["ornstein"] = self._specs or self._describe()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        correct_counters(self.trainer, checkpoint)

    @rank_zero_only
    def on_predict_end(self) -> None:
        if self.predicted and not self.is_trial:
            print(f"{self.predicted} are in {self.predictions}")

    # -- what `predict` writes, in an app that writes files --------------------------------------------------------

    @property
    def is_trial(self) -> bool:
        """Whether this is a trial run, which leaves no files."""
        return bool(self.trainer.fast_dev_run)  # type: ignore[attr-defined]  # Lightning sets it from outside the class

    @property
    def predictions(self) -> Path:
        """The folder of what predict writes."""
        return Path(self.trainer.default_root_dir) / "predictions"

    def require_new(self, targets: Iterable[Path]) -> None:
        """Raise UserError if a file that predict would write is there already: before the work."""
        for target in targets:
            if target.exists():
                raise UserError(f"{target} exists; choose another folder with --trainer.default_root_dir or remove it")

    # -- parts -----------------------------------------------------------------------------------------------------

    def _losses(self, batch: Batch, generator: torch.Generator) -> tuple[dict[str, Tensor], int]:
        with torch.autocast(self.device.type, enabled=False):  # the STFT and its like stay exact
            x0, y, condition = self.prepare_batch(batch)
        return self.objective(self.denoiser, x0, y, generator=generator, **condition), len(x0)

    def _draws(self, *purpose: int | str) -> torch.Generator:
        seed = derive_seed(self.seed, *purpose)
        torch.manual_seed(seed)  # dropout knows the global generators only
        return torch.Generator(self.device).manual_seed(seed)

    def _identities(self, batch: Batch, batch_idx: int) -> list[int]:
        """Numbers of the batch's items in their dataset, where the loader tells."""
        return batch["index"].tolist() if "index" in batch else [batch_idx]

    def _losses_are_read(self, batch_idx: int) -> bool:
        """Whether the host waits for the losses of this step: before a line of the log, and when an epoch begins."""
        every = int(self.trainer.log_every_n_steps)  # type: ignore[attr-defined]  # a connector sets it
        return batch_idx == 0 or (every > 0 and (self.global_step + 1) % every == 0)

    def _log_training(self, losses: dict[str, Tensor], size: int) -> None:
        """Log the losses' mean over the ranks, from the host: the progress bar reads its numbers at every step."""
        values = torch.stack([value.detach().float() for value in losses.values()])
        values = self.trainer.strategy.reduce(values, reduce_op="mean").cpu()
        for name, value in zip(losses, values.unbind(), strict=True):
            self.log(f"train/{name}", value, prog_bar=name == "loss", batch_size=size)
        self.log("train/learning_rate", torch.tensor(self._optimizer.param_groups[0]["lr"]), batch_size=size)

    def _describe(self) -> dict[str, Any]:
        """The specs of all components, for checkpoints."""
        try:
            return {
                "app": self.app,
                "denoiser": describe(self.denoiser),
                "sampler": describe(self.sampler),
                "representation": None if self.representation is None else describe(self.representation),
            }
        except TypeError as error:  # a network from elsewhere trains and resumes all the same; only export needs a spec
            return {"app": self.app, "problem": str(error)}

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        return self.trainer.optimizers[0]

    def _total_steps(self) -> int:
        if self.schedule.decay == "constant":
            return 0
        steps = self.schedule.steps if self.schedule.steps is not None else self.trainer.estimated_stepping_batches
        if not math.isfinite(steps) or steps <= 0:
            raise UserError("a cosine schedule needs the length of the run; set --trainer.max_steps or schedule.steps")
        return int(steps)

    def _settings_win(self) -> None:
        """Let this run's optimizer settings win over those that came with a checkpoint; moments and counters stay."""
        scheduler: Any = self.trainer.lr_scheduler_configs[0].scheduler
        for i, (group, settings) in enumerate(zip(self._optimizer.param_groups, self._settings, strict=True)):
            group.update(settings)
            scheduler.base_lrs[i] = group["initial_lr"] = settings["lr"]
            group["lr"] = settings["lr"] * scheduler.lr_lambdas[i](scheduler.last_epoch)
