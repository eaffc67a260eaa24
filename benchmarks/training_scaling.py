"""How training speed grows with the number of devices: `fit` on 1, 2, ... of them, with the losses beside it.

    python benchmarks/training_scaling.py                                    two CPU processes, seconds
    python benchmarks/training_scaling.py --config RECIPE --devices 1 2 4 8 --batch_size 64 --steps 300

By default the batch over all devices is fixed, so every run sees the same items in the same order and the loss curves
can be compared (they differ by the draws of noise and time, which each process makes for itself). With --scaling weak
the batch per device is fixed. Prints a table and writes benchmarks/results/training_scaling.json.
"""

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from ornstein.errors import UserError
from ornstein.files import atomic_path

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "training_scaling.json"


def fit(options: argparse.Namespace, devices: int, folder: Path) -> list[dict[str, float]]:
    """The rows of the log of one run."""
    batch = options.batch_size if options.scaling == "weak" else options.batch_size // devices
    callbacks = [{"class_path": f"ornstein.training.{name}"} for name in ("ema.EMA", "throughput.Throughput")]
    trainer = {
        "devices": devices,
        "accelerator": options.accelerator,
        "strategy": options.strategy if devices > 1 else "auto",
        "max_steps": options.steps,
        "max_epochs": -1,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": options.every,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(folder),
        "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(folder)}},
        "callbacks": callbacks,
    }
    overlay = folder / "overlay.yaml"
    overlay.write_text(
        yaml.safe_dump(
            {
                "trainer": trainer,
                "data": {"batch_size": batch, "epoch_length": batch * devices * options.steps},
            }
        )
    )
    command = [sys.executable, "-m", "ornstein", options.app, "fit", "--config", str(options.config)]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # else one process uses the cores of the others
    done = subprocess.run(
        [*command, "--config", str(overlay), *options.words],
        env=os.environ | threads,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"fit on {devices} device(s) failed: {' '.join(done.stderr.split())[-300:]}")
    with next(folder.rglob("metrics.csv")).open() as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def summarise(runs: dict[int, list[dict[str, float]]]) -> dict[str, Any]:
    """Devices -> samples per second (median over the log), efficiency, data wait, distance from the first loss curve.

    Efficiency is speed per device over that of the first run. The loss distance is the mean absolute difference from
    the first run's curve over the steps both logged, relative to the mean of that curve.
    """
    table: dict[str, Any] = {}
    first = next(iter(runs))
    curves = {n: {row["step"]: row["train/loss"] for row in rows if "train/loss" in row} for n, rows in runs.items()}
    for devices, rows in runs.items():
        speed = statistics.median(row["train/samples_per_second"] for row in rows if "train/samples_per_second" in row)
        waits = [row["train/data_wait"] for row in rows if "train/data_wait" in row]
        steps = sorted(curves[devices].keys() & curves[first].keys())
        gaps = [abs(curves[devices][step] - curves[first][step]) for step in steps]
        table[str(devices)] = {
            "samples_per_second": speed,
            "data_wait": statistics.mean(waits) if waits else None,
            "loss": [curves[devices][step] for step in steps],
            "loss_difference": statistics.mean(gaps) / statistics.mean(curves[first][step] for step in steps),
        }
    for devices, entry in table.items():
        per_device = entry["samples_per_second"] / int(devices)
        entry["efficiency"] = per_device / (table[str(first)]["samples_per_second"] / first)
    return table


def machine() -> str:
    """What the figures were measured on."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{', '.join(gpus) or platform.processor() or platform.machine()}, {os.cpu_count()} CPU cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--app", default="speech")
    parser.add_argument("--config", type=Path, default=ROOT / "configs/speech/tiny.yaml", help="a recipe")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--strategy", default="ddp", help="ddp or fsdp2")
    parser.add_argument("--scaling", choices=["strong", "weak"], default="strong")
    parser.add_argument("--batch_size", type=int, default=8, help="of all devices (strong) or of each (weak)")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--every", type=int, default=10, help="steps between two lines of the log")
    parser.add_argument("--output", type=Path, default=RESULT)
    options, options.words = parser.parse_known_args()
    try:
        if options.scaling == "strong" and any(options.batch_size % n for n in options.devices):
            raise UserError(
                f"a batch of {options.batch_size} cannot be shared equally; change --batch_size or --devices"
            )
        runs = {}
        for devices in options.devices:
            with tempfile.TemporaryDirectory() as folder:
                runs[devices] = fit(options, devices, Path(folder))
    except UserError as error:
        sys.exit(str(error))
    table = summarise(runs)
    print("devices  samples/s  efficiency  data wait  loss difference")
    for devices, entry in table.items():
        wait = "-" if entry["data_wait"] is None else f"{entry['data_wait']:.1%}"
        print(
            f"{devices:>7}  {entry['samples_per_second']:9.2f}  {entry['efficiency']:10.1%}  {wait:>9}"
            f"  {entry['loss_difference']:15.2%}"
        )
    about = {
        "machine": machine(),
        "torch": torch.__version__,
        "recipe": options.config.name,
        "words": options.words,
        **{key: getattr(options, key) for key in ("strategy", "scaling", "batch_size", "steps", "every")},
    }
    with atomic_path(options.output, overwrite=True) as temporary:
        temporary.write_text(json.dumps(about | {"devices": table}, indent=1) + "\n")
    print(f"{about['machine']}; written to {options.output}")


if __name__ == "__main__":
    main()
