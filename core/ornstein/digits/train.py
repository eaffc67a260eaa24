"""Trains the shipped denoiser and classifier of digits on a CPU.

    python -m ornstein.digits.train FOLDER [--steps 4000] [--overwrite]

Writes FOLDER/denoiser.safetensors, FOLDER/classifier.safetensors (float16) and FOLDER/metrics.json.
"""

import argparse
import copy
import json
import os
import platform
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from ornstein import checkpoint
from ornstein.denoiser import Denoiser
from ornstein.digits.data import CLASSES, Digits, digits
from ornstein.digits.model import CLASSIFIER, DENOISER, DigitClassifier
from ornstein.errors import UserError
from ornstein.files import atomic_path, check_target
from ornstein.networks.unet import UNet
from ornstein.noise import SampleNoise
from ornstein.objectives.denoising import DenoisingObjective
from ornstein.objectives.time_sampling import UniformTimes
from ornstein.parameterization import V
from ornstein.process.vp import VP
from ornstein.samplers.ode_solvers import Euler
from ornstein.samplers.time_grids import LogSNRGrid

DATA, NOISE = (DenoisingObjective(compare=field, time_sampling=UniformTimes(t_min=1e-3)) for field in ("x0", "noise"))
GRID = LogSNRGrid(end=5e-3, to_zero=True)


def v_loss(denoiser: Denoiser, images: Tensor, label: Tensor, generator: torch.Generator) -> Tensor:
    """Mean squared error of v; on VP the errors of x0 and noise are s and a times that of v, so they add up to it."""
    estimate, truth = DATA.corrupt_and_estimate(denoiser, images, generator=generator, label=label)
    return DATA.compare_with(estimate, truth) + NOISE.compare_with(estimate, truth)


def train_denoiser(data: Digits, steps: int, batch: int = 128, dropped: float = 0.1) -> Denoiser:
    """A denoiser after `steps` of AdamW with cosine decay; its weights are an exponential average."""
    torch.manual_seed(0)  # initial weights and dropout
    generator = torch.Generator().manual_seed(0)
    denoiser = Denoiser(UNet(width=32, dropout=0.1), VP(), V()).train()
    average = copy.deepcopy(denoiser).requires_grad_(False)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=2e-3, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.05)
    for step in tqdm(range(steps), desc="denoiser", mininterval=5):
        chosen = torch.randint(len(data.images), (batch,), generator=generator)
        label = torch.where(torch.rand(batch, generator=generator) < dropped, CLASSES, data.labels[chosen])
        loss = v_loss(denoiser, data.images[chosen], label, generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
        rate.step()
        decay = min(0.998, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.parameters()), list(denoiser.parameters()), 1 - decay)
    return average.eval()


def train_classifier(data: Digits, steps: int, batch: int = 128) -> DigitClassifier:
    """A classifier of clean pictures with a little added noise."""
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(1)
    classifier = DigitClassifier().train()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=3e-3, weight_decay=1e-2)
    for _ in tqdm(range(steps), desc="classifier", mininterval=5):
        chosen = torch.randint(len(data.images), (batch,), generator=generator)
        noise = torch.randn(batch, 1, 8, 8, generator=generator)
        loss = F.cross_entropy(classifier(data.images[chosen] + 0.1 * noise), data.labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return classifier.eval()


def frechet(one: Tensor, two: Tensor) -> float:
    """Frechet distance of the Gaussians fitted to two sets of features (N, D)."""
    one, two = one.double(), two.double()
    cross = torch.linalg.eigvals(one.T.cov() @ two.T.cov()).real.clamp(min=0).sqrt().sum()
    return float(((one.mean(0) - two.mean(0)) ** 2).sum() + one.T.cov().trace() + two.T.cov().trace() - 2 * cross)


@torch.no_grad()
def measure(denoiser: Denoiser, classifier: DigitClassifier, train: Digits, test: Digits) -> dict[str, float]:
    """Losses on both parts, and 1000 conditional samples (Euler, 50 steps) judged by the classifier and in pixels."""
    label = torch.arange(1000) % CLASSES
    start = denoiser.process.start(SampleNoise(range(1000))(torch.zeros(1000, 1, 8, 8)))
    samples = Euler(steps=50, grid=GRID)(denoiser, start, label=label)
    generators = (torch.Generator().manual_seed(7) for _ in range(2))
    losses = [
        sum(float(v_loss(denoiser, part.images, part.labels, generator)) for _ in range(20)) / 20
        for part, generator in zip((train, test), generators, strict=True)
    ]
    return {
        "v_loss_train": round(losses[0], 4),
        "v_loss_test": round(losses[1], 4),
        "classifier_accuracy_test": round(float((classifier(test.images).argmax(1) == test.labels).float().mean()), 4),
        "samples_recognised": round(float((classifier(samples).argmax(1) == label).float().mean()), 4),
        "frechet_pixels_samples_to_train": round(frechet(samples.flatten(1), train.images.flatten(1)), 3),
        "frechet_pixels_test_to_train": round(frechet(test.images.flatten(1), train.images.flatten(1)), 3),
    }


def train(folder: Path, steps: int, overwrite: bool) -> dict[str, object]:
    """Train both networks, write them to `folder` and return the metrics."""
    if steps < 40:
        raise UserError(f"{steps} steps are too few; give at least 40")
    targets = [check_target(folder / name, overwrite) for name in (DENOISER, CLASSIFIER, "metrics.json")]
    begin = time.perf_counter()
    data, test = digits("train"), digits("test")
    classifier = train_classifier(data, max(steps // 4, 5))
    denoiser = train_denoiser(data, steps)
    seconds = time.perf_counter() - begin
    metrics: dict[str, object] = {
        "steps": steps,
        "seconds": round(seconds),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} cores, "
        f"torch {torch.__version__}",
        **measure(denoiser, classifier, data, test),
    }
    info = {"data": "scikit-learn digits, 1500 of 1797 pictures of 8x8", **metrics}
    checkpoint.save(
        targets[0],
        denoiser,
        app="digits",
        sampler=Euler(steps=50, grid=GRID),
        info=info,
        dtype=torch.float16,
        overwrite=overwrite,
    )
    with atomic_path(targets[1], overwrite) as temporary:
        save_file({name: tensor.half() for name, tensor in classifier.state_dict().items()}, temporary)
    with atomic_path(targets[2], overwrite) as temporary:
        temporary.write_text(json.dumps(metrics, indent=1) + "\n")
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the files are written")
    parser.add_argument("--steps", type=int, default=4000, help="of the denoiser; the classifier takes a quarter")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    options = parser.parse_args()
    for name, value in train(options.folder, options.steps, options.overwrite).items():
        print(f"{name:>32}  {value}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
