"""Golden noise and NPNet on a Gaussian mixture and on the shipped model of digits, each with its control.

    python benchmarks/golden_noise.py

Writes benchmarks/results/golden_noise.json. A few minutes on a CPU.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ornstein.analysis.class_mixture import UNCONDITIONAL, ClassMixture, ClassMixtureDenoiser
from ornstein.analysis.mixture import GaussianMixture
from ornstein.analysis.statistics import paired
from ornstein.denoiser import DenoiserLike
from ornstein.digits.model import digit_classifier, digit_denoiser
from ornstein.digits.train import GRID
from ornstein.files import atomic_path
from ornstein.guidance.classifier_free import ClassifierFreeGuidance
from ornstein.inversion.golden_noise import GoldenNoise, Pairs, train_npnet
from ornstein.inversion.npnet import NPNet
from ornstein.noise import SampleNoise
from ornstein.process.vp import VP
from ornstein.samplers.ode_solvers import Euler
from ornstein.samplers.time_grids import UniformGrid

RESULT = Path(__file__).parent / "results" / "golden_noise.json"
BATCH = 256
TESTED = 1024
Row = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A model with classes, and who says which class a sample is of."""

    denoiser: DenoiserLike
    condition: str
    """Name of the condition."""
    classes: Tensor
    """Its value for every class, (classes, *)."""
    empty: Tensor
    """Its value for none, (*)."""
    method: GoldenNoise
    guidance: float
    log_posterior: Callable[[Tensor], Tensor]
    """Log probability of the classes, (B, classes), of samples (B, *)."""
    shape: tuple[int, ...]
    batches: int


def mixture() -> Subject:
    """Four dimensions, three components in two classes."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(3, 4, 4, generator=generator, dtype=torch.float64) * 0.15
    means = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    weights = torch.tensor([0.3, 0.4, 0.3], dtype=torch.float64)
    data = ClassMixture(GaussianMixture(weights, means, root @ root.mT + 0.05 * torch.eye(4)), torch.tensor([0, 1, 1]))
    return Subject(
        ClassMixtureDenoiser(data, VP()),
        "label",
        torch.arange(2),
        torch.tensor(UNCONDITIONAL),
        GoldenNoise(Euler(6, UniformGrid(end=0.02))),
        3.0,
        lambda sample: data.log_class_posterior(sample, VP(), 0.3),
        (4,),
        batches=4,
    )


def digits() -> Subject:
    """The shipped denoiser, told the embeddings of its labels; the judge is the shipped classifier."""
    denoiser, classifier = digit_denoiser(), digit_classifier()
    table = denoiser.network.get_submodule("labels").get_parameter("weight").detach()
    return Subject(
        denoiser,
        "embedding",
        table[:10],
        table[10],
        GoldenNoise(Euler(5, GRID)),
        3.0,
        lambda sample: classifier(sample).log_softmax(-1),
        (1, 8, 8),
        batches=16,
    )


def measure(subject: Subject) -> list[Row]:
    """Margin of the wanted class, its log odds against the best other one, in samples made without the condition, so
    that the noise alone can carry it, and with guidance.

    Each with its change from the noise as drawn, [mean, low, high] of a paired 95 % bootstrap over the samples. The
    noise is as drawn, golden, through NPNet, and through a control whose pairs have the change of another noise. It
    is fresh; the judge is the one that chose the pairs.
    """
    name, classes, method = subject.condition, subject.classes, subject.method
    strong = ClassifierFreeGuidance(subject.denoiser, subject.guidance, {name: subject.empty})

    def told(label: Tensor) -> dict[str, Tensor]:
        return {name: classes[label]}

    def margin(sample: Tensor, label: Tensor) -> Tensor:
        found = subject.log_posterior(sample)
        own = torch.nn.functional.one_hot(label, found.shape[1]).bool()
        return found[own] - found.masked_fill(own, -torch.inf).amax(1)

    label = torch.arange(BATCH) % len(classes)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        pairs = method.collect(
            folder,
            strong,
            subject.denoiser,
            [told(label)] * subject.batches,
            subject.shape,
            lambda sample, condition: margin(sample, label),
        )
    moved = (pairs.golden - pairs.noise)[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))]
    label = torch.arange(TESTED) % len(classes)
    z = SampleNoise(range(10**6, 10**6 + TESTED))(torch.empty(TESTED, *subject.shape))
    noises = {"as drawn": z, "golden": method.improve(strong, subject.denoiser, z, **told(label))}
    for title, given in {
        "NPNet": pairs,
        "NPNet, changes of other noises (control)": Pairs(pairs.noise, pairs.noise + moved, pairs.condition),
    }.items():
        torch.manual_seed(0)
        network = NPNet(subject.shape, condition=classes[0].numel())
        train_npnet(network, given, name, epochs=30, learning_rate=1e-3)
        with torch.no_grad():
            noises[title] = network(z, classes[label].float())
    nothing = {name: subject.empty.expand(TESTED, *subject.empty.shape)}
    rows: list[Row] = [{"noise": "pairs kept", "count": len(pairs), "of": BATCH * subject.batches}]
    drawn: dict[str, Tensor] = {}
    for title, noise in noises.items():
        with torch.no_grad():
            free = margin(method.sample(subject.denoiser, noise, **nothing), label)
            guided = margin(method.sample(strong, noise, **told(label)), label)
        found = {
            "right_without_condition": (free > 0).double(),
            "margin_without_condition": free.double(),
            "right_guided": (guided > 0).double(),
            "margin_guided": guided.double(),
        }
        drawn = drawn or found
        row: Row = {"noise": title, "norm": round(float(noise.flatten(1).norm(dim=1).mean()), 2)}
        for kind, values in found.items():
            row[kind] = round(float(values.mean()), 3)
            if found is not drawn:
                change = paired(values.tolist(), drawn[kind].tolist())
                row[f"{kind}_change"] = [round(part, 3) for part in change]
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULT)
    output = parser.parse_args().output
    result: dict[str, Any] = {"machine": f"{platform.machine()}, torch {torch.__version__}, CPU"}
    for name, subject in (("mixture", mixture()), ("digits", digits())):
        begin = time.perf_counter()
        result[name] = measure(subject)
        result[f"{name}_seconds"] = round(time.perf_counter() - begin)
        for row in result[name]:
            print(name, row, flush=True)
    with atomic_path(output, overwrite=True) as path:
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
