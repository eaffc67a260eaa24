"""Speech on two processes (gloo), for test_distributed.py: python speech_distributed.py OUT."""

import sys
from pathlib import Path
from typing import Any

import torch

from ornstein.training.cli import LightningCommand, run_lightning
from ornstein_speech.data import SpeechData
from ornstein_speech.task import SpeechTask

ROOT = Path(__file__).parents[3]
RECIPE = ["--config", str(ROOT / "configs/speech/tiny.yaml"), "--data.root", str(ROOT / "data/speech/tiny")]
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
SMALL = ["--data.valid_files", "3", "--data.test_files", "3", "--trainer.max_steps", "4"]


class Recorded(SpeechTask):
    """Keeps the loss of every batch."""

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(float(loss.detach()))
        return loss


class InTurn(Recorded):
    """One process that accumulates two batches draws what two ranks draw in one step."""

    def _draws(self, *purpose: int | str) -> torch.Generator:
        if purpose[0] == "train":
            _, step, batch, _ = purpose
            purpose = ("train", step, int(batch) // 2, int(batch) % 2)
        return super()._draws(*purpose)


def run(task: type[SpeechTask], verb: str, folder: Path, *words: str) -> LightningCommand:
    """`ornstein speech VERB` on the tiny recipe, all files below `folder`."""
    where = ["--trainer.default_root_dir", str(folder)]
    return run_lightning(task, SpeechData, verb, [*RECIPE, *QUIET, *SMALL, *where, *words], "ornstein speech")


def on_pairs(out: Path) -> list[str]:
    return ["--data.root", str(out / "pairs"), "--data.layout", "pairs", "--trainer.logger", "false"]


if __name__ == "__main__":
    out, results = Path(sys.argv[1]), dict[str, Any]()
    rank = 0
    for strategy in ("ddp", "fsdp"):
        two = ["--config", str(ROOT / f"configs/strategies/{strategy}.yaml"), "--trainer.devices", "2"]
        fitted = run(Recorded, "fit", out / strategy, *two)
        rank = fitted.trainer.global_rank
        last = ["--ckpt_path", str(out / strategy / "lightning_logs/version_0/checkpoints/last.ckpt")]
        if strategy == "ddp":
            scored = run(Recorded, "test", out / strategy, *two, *last, *on_pairs(out))
            results["scores"] = dict(scored.trainer.callback_metrics)
        predicted = run(Recorded, "predict", out / strategy, *two, *last, *on_pairs(out))
        results[strategy] = {
            "losses": fitted.model.losses,
            "fitted": dict(fitted.trainer.callback_metrics),
            "batches": len(predicted.trainer.predict_loop.predictions),  # type: ignore[arg-type]
        }
    torch.save(results, out / f"rank{rank}.pt")
