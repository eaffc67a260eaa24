"""fit, validate, test and predict: Lightning's command line over one flat recipe, with its traps closed."""

import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from ornstein.cli.parser import StrictParser
from ornstein.errors import UserError
from ornstein.files import make_folder
from ornstein.training.fsdp import FSDP2  # noqa: F401  # which registers the strategy fsdp2
from ornstein.training.progress import RunBar

CONFIG_KEY = "ornstein_config"
TRAINER_LIMITS = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
}
"""The smallest values of options that the Trainer does not check."""


class TrainingParser(StrictParser, LightningArgumentParser):
    """Lightning's parser without abbreviations and with one-line errors."""


class ConfigRecorder(SaveConfigCallback):
    """Writes config.yaml beside the logs and the same text into every checkpoint.

    On resuming, the command line and the recipe decide. A changed optimizer setting would be undone by the optimizer's
    saved state, so it is written over that state; every changed model setting is named.
    """

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG_KEY] = self._text()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if CONFIG_KEY not in checkpoint or not trainer.training:
            return
        before = _flat(yaml.safe_load(checkpoint[CONFIG_KEY]).get("model"))
        now = _flat(yaml.safe_load(self._text()).get("model"))
        changed = [key for key in sorted(before | now) if before.get(key) != now.get(key)]
        for key in changed:
            rank_zero_info(f"resuming with model.{key} = {now.get(key)} (the checkpoint has {before.get(key)})")
        if changed and trainer.strategy.lightning_restore_optimizer:  # else the state is in use already
            _renew_optimizer_settings(trainer, pl_module, checkpoint)

    def _text(self) -> str:
        return str(self.parser.dump(self.config, skip_unset=False))


class LightningCommand(LightningCLI):
    """LightningCLI for one verb of one app."""

    def __init__(self, verb: str, *args: Any, **kwargs: Any) -> None:
        self.verb = verb
        super().__init__(*args, **kwargs)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static in Lightning, which calls it on self
        """Only the wanted verb: each costs a parser with every option of the Trainer."""
        return {self.verb: LightningCLI.subcommands()[self.verb]}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse `args`; Lightning's own version warns whenever sys.argv holds words too, as it must for DDP."""
        self.config = parser.parse_args(args)  # type: ignore[arg-type]

    def _parse_ckpt_path(self) -> None:
        """Check the name only: Lightning would let the checkpoint's hyper-parameters win over the command line."""
        settings = self.config[self.verb]
        _check_trainer(settings)
        path = settings.get("ckpt_path")
        if isinstance(path, Path):  # str or Path, whichever kind of union Python met first in this process
            path = settings["ckpt_path"] = str(path)
        if path == "":
            raise UserError("--ckpt_path is empty; give a file of fit, or last, or leave it out")
        if path is None and self.verb != "fit" and settings.get("model.init_from") is None:
            raise UserError(
                f"{self.verb} was given no weights and would use random ones; add --ckpt_path FILE.ckpt or --ckpt_path "
                "last, or exported weights with --model.init_from FILE.safetensors"
            )
        if path == "best":
            raise UserError("a new run does not know which checkpoint is best; give the file: --ckpt_path FILE.ckpt")
        if path and path not in ("last", "hpc") and "://" not in path and not Path(path).is_file():
            raise UserError(f"there is no checkpoint {path}; give an existing file, or last")
        if path and Path(path).suffix == ".safetensors":
            raise UserError(
                f"{path} holds weights alone, no state of training; begin with it: --model.init_from {path}"
            )
        if path and Path(path).is_file() and not zipfile.is_zipfile(path):
            raise UserError(f"{path} is no checkpoint of fit, or a damaged one; give a .ckpt file of fit, or last")

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise UserError(f"--seed_everything: {error}; give another number") from error

    def instantiate_classes(self) -> None:
        """Build what the recipe names; a value that a class refuses is a mistake in the recipe."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise UserError(f"{error} (see: {self.parser.prog} {self.verb} --help)") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer of the recipe, with a bar that says how far the run is unless it names one or wants none."""
        settings = self._get(self.config_init, "trainer", default={})
        callbacks = settings.get("callbacks") or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        wanted = settings.get("enable_progress_bar") is not False and not settings.get("barebones")
        if wanted and not any(isinstance(callback, ProgressBar) for callback in callbacks):
            kwargs["callbacks"] = [*callbacks, RunBar()]
        return super().instantiate_trainer(**kwargs)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Put the file for `last`: Lightning looks in the new run's own folder only, and trains from scratch; see
        whether the folder of the run can be written into."""
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if kwargs.get("ckpt_path") == "last":
            kwargs["ckpt_path"] = str(newest_last_checkpoint(self.trainer))
        if subcommand == "fit" and "://" not in self.trainer.default_root_dir:
            make_folder(Path(self.trainer.default_root_dir))
        return kwargs


def newest_last_checkpoint(trainer: Trainer) -> Path:
    """Return the youngest last.ckpt (or last-v1.ckpt, ...) below the folders that runs of `trainer` write to.

    Raises:
        UserError: there is none.
    """
    folders = {str(trainer.default_root_dir): None}  # a dict keeps the order for the message
    folders |= {str(logger.save_dir): None for logger in trainer.loggers if logger.save_dir is not None}
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is not None:
            folders[str(callback.dirpath)] = None
    found = [
        path
        for folder in folders
        for path in Path(folder).rglob("last*.ckpt")
        if re.fullmatch(r"last(-v\d+)?\.ckpt", path.name) and path.is_file()
    ]
    if not found:
        raise UserError(
            f"there is no last.ckpt below {' or '.join(folders)}; set --trainer.default_root_dir to the folder of the "
            "earlier run (its ModelCheckpoint needs save_last: true), or give the file"
        )
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def run_lightning(
    task: type[LightningModule],
    data: type[LightningDataModule] | None,
    verb: str,
    words: Sequence[str],
    prog: str,
    recipes: Sequence[str] = (),
) -> LightningCommand:
    """Run one of Lightning's verbs.

    Args:
        task: the LightningModule; its arguments are the options --model.*.
        data: the LightningDataModule; its arguments are the options --data.*.
        verb: fit, validate, test or predict.
        words: the words of the command line after the verb.
        prog: the words before the verb, for help and errors.
        recipes: default recipe files, read before the command line wherever they exist.

    Raises:
        UserError: a mistake in the words or in a recipe, or a machine that lacks what the Trainer was asked to use.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_tips)
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")  # Lightning's own use of torch
    try:
        return LightningCommand(
            verb,
            task,
            data,
            args=[verb, *words],
            parser_class=TrainingParser,
            parser_kwargs={"prog": prog, verb: {"default_config_files": list(recipes)}},
            save_config_callback=ConfigRecorder,
            save_config_kwargs={"overwrite": True},  # with logger=false a second run meets the first one's file
            seed_everything_default=0,
            auto_configure_optimizers=False,  # the task owns its optimizer
            load_from_checkpoint_support=False,  # no hidden hyper-parameters: the checkpoint carries the recipe
        )
    except MisconfigurationException as error:
        raise UserError(f"{error} (see: {prog} {verb} --help)") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            "the file of --ckpt_path is no checkpoint of fit; those of published code have an import command"
        ) from error
    except RuntimeError as error:
        if "loading state_dict for" not in str(error):
            raise
        first = str(error).splitlines()[1:2] or [""]
        raise UserError(
            f"the checkpoint of --ckpt_path holds another network than the recipe ({first[0].strip()}); "
            "give the recipe that it was trained with"
        ) from error


def _check_trainer(settings: Any) -> None:
    """Refuse what the Trainer takes and fails at, or disobeys, after the data have been read."""
    for name, smallest in TRAINER_LIMITS.items():
        value = settings.get(f"trainer.{name}")
        if value is not None and not value >= smallest:
            raise UserError(f"--trainer.{name} {value:g} is too small; it must be at least {smallest}")


def _no_tips(record: logging.LogRecord) -> bool:
    return "Tip: For seamless cloud" not in str(record.msg)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted keys."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    items: dict[str, Any] = {}
    for key, inner in value.items():
        items |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return items


def _renew_optimizer_settings(trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Write the settings of freshly configured optimizers and schedulers over the saved ones; their moments stay."""
    from lightning.pytorch.core.optimizer import _init_optimizers_and_lr_schedulers

    optimizers, schedulers = _init_optimizers_and_lr_schedulers(pl_module)
    for optimizer, saved in zip(optimizers, checkpoint.get("optimizer_states", []), strict=True):
        for fresh_group, group in zip(optimizer.param_groups, saved["param_groups"], strict=True):
            group.update({key: value for key, value in fresh_group.items() if key != "params"})
    for config, saved in zip(schedulers, checkpoint.get("lr_schedulers", []), strict=True):
        if "base_lrs" in saved:
            saved["base_lrs"] = list(config.scheduler.base_lrs)
