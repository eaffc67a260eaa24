"""Guidance on the shipped digits model: cost and change of adaptive guidance, minority scores, experts.

    python benchmarks/guidance_table.py [--only experts]

Writes benchmarks/results/guidance_table.json. Some minutes on a CPU.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from command import machine, run
from sklearn.svm import SVC
from torch import Tensor

from ornstein.analysis.statistics import interval
from ornstein.analysis.tables import show
from ornstein.denoiser import DenoiserLike
from ornstein.digits.data import Digits, digits
from ornstein.digits.model import digit_classifier, digit_denoiser
from ornstein.guidance.adaptive import AdaptiveGuidance
from ornstein.guidance.classifier_free import ClassifierFreeGuidance, GuidanceInterval
from ornstein.guidance.counting import Counted
from ornstein.guidance.experts import NoiseRangeExperts, distil, generate_clean
from ornstein.guidance.gradient import ClassifierGuidance, class_log_probability
from ornstein.guidance.linear_adaptive import LinearAdaptiveGuidance, fit_linear_prediction, record_guidance
from ornstein.guidance.minority import MinorityGuidance, minority_labels, minority_scores, train_noisy_classifier
from ornstein.networks.unet import NoisyClassifier
from ornstein.noise import SampleNoise
from ornstein.report import write_json
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.time_grids import LogSNRGrid, UserGrid

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "guidance_table.json"
STEPS = 20
SAMPLER = DPMSolverPP(steps=STEPS, grid=LogSNRGrid(end=5e-3, to_zero=True))
EMPTY = {"label": torch.tensor(10)}


def starts(denoiser: DenoiserLike, first: int, count: int) -> Tensor:
    return denoiser.process.start(SampleNoise(range(first, first + count))(torch.zeros(count, 1, 8, 8)))


def late_guesses(guidance: ClassifierFreeGuidance, first: int, x: Tensor, label: Tensor) -> LinearAdaptiveGuidance:
    """LinearAG for a run that is guided from step `first` on: guesses two of three in the last 40 % of the steps."""
    times, steps = SAMPLER.times(guidance.process), STEPS - first
    with torch.no_grad():
        state = list(SAMPLER.trajectory(guidance.denoiser, x, label=label))[first - 1]
    guided = DPMSolverPP(steps, UserGrid(tuple(times[first:].tolist())))
    prediction = fit_linear_prediction(record_guidance(guidance, guided, state, label=label))
    return LinearAdaptiveGuidance(guidance, prediction, [i for i in range(8, steps) if i % 3], steps)


def adaptive(scale: float, count: int = 100, batches: int = 5) -> list[dict[str, object]]:
    """Evaluations saved and relative change of the output against plain classifier-free guidance, with the half-widths
    of their 95 % intervals over `batches` of `count` samples whose seeds no setting was chosen on."""
    counted, judge = Counted(digit_denoiser()), digit_classifier()
    guidance = ClassifierFreeGuidance(counted, scale, EMPTY)
    label, fitted = torch.arange(count) % 10, starts(counted, 10_000, count)
    history = record_guidance(guidance, SAMPLER, fitted, label=label)
    times, prediction = history.times.tolist(), fit_linear_prediction(history)
    rows: dict[str, DenoiserLike] = {"classifier-free": guidance, "none": counted}
    for threshold in (0.991, 0.999, 0.9995):
        rows[f"adaptive {threshold}"] = AdaptiveGuidance(guidance, threshold)
    for first, threshold in ((4, 0.999), (6, 0.999), (6, 0.9995)):
        inner = AdaptiveGuidance(guidance, threshold)
        rows[f"adaptive {threshold}, guided from step {first} on"] = GuidanceInterval(inner, counted, 0.0, times[first])
    rows["linear with its defaults: half guessed, then none"] = LinearAdaptiveGuidance(guidance, prediction)
    rows["linear, all odd steps guessed where trusted"] = LinearAdaptiveGuidance(
        guidance, prediction, range(1, STEPS, 2), STEPS
    )
    rows["linear, guided from step 5 on, late guesses"] = GuidanceInterval(
        late_guesses(guidance, 5, fitted, label), counted, 0.0, times[5]
    )
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in rows}
    for batch in range(batches):
        x = starts(counted, 100_000 + batch * count, count)
        full = SAMPLER(guidance, x, label=label)
        for name, denoiser in rows.items():
            counted.reset()
            samples = SAMPLER(denoiser, x, label=label)
            saved = 1 - counted.evaluations / (2 * STEPS * count)
            change = float((samples - full).norm() / full.norm())
            found[name].append((saved, change, float((judge(samples).argmax(1) == label).float().mean())))
    table = []
    for name, values in found.items():
        saved, change, right = (interval(column) for column in zip(*values, strict=True))
        table.append(
            {
                "guidance": name,
                "scale": scale,
                "saved": round(saved.mean, 4),
                "saved_half_width": round(saved.half_width, 4),
                "relative_change": round(change.mean, 5),
                "relative_change_half_width": round(change.half_width, 5),
                "recognised": round(right.mean, 3),
            }
        )
    return table


def minority(classes: int = 10, steps: int = 600, count: int = 200) -> list[dict[str, object]]:
    """Minority scores of samples: unguided, guided to the rarest class, and to the most common one as control."""
    denoiser, data = digit_denoiser(), digits()

    def scores(signals: Tensor) -> Tensor:
        return minority_scores(denoiser, signals, 0.5, SampleNoise(range(len(signals))))

    of_data = scores(data.images)
    labels = minority_labels(of_data, classes)
    torch.manual_seed(0)  # initial weights
    classifier = NoisyClassifier(width=16, classes=classes)
    generator = torch.Generator().manual_seed(0)
    fit = train_noisy_classifier(
        classifier, denoiser.process, data.images, labels, steps, generator, learning_rate=2e-3
    )
    print(f"noisy classifier: {fit}")
    x, top = starts(denoiser, 20_000, count), float(of_data.quantile(0.9))
    guided: dict[str, Callable[[], Tensor]] = {
        "training pictures": lambda: data.images,
        "held-out pictures": lambda: digits("test").images,
        "unguided samples": lambda: SAMPLER(denoiser, x),
        "control: to the most common class": lambda: SAMPLER(
            MinorityGuidance(denoiser, classifier, classes, 3.5, 0), x
        ),
    }
    for scale in (1.0, 2.0, 3.5):
        guided[f"to the rarest class, scale {scale}"] = lambda scale=scale: SAMPLER(
            MinorityGuidance(denoiser, classifier, classes, scale), x
        )
    table = []
    for name, make in guided.items():
        found = scores(make())
        table.append(
            {
                "set": name,
                "mean_score": round(float(found.mean()), 3),
                "median_score": round(float(found.median()), 3),
                "share_in_rarest_tenth": round(float((found > top).float().mean()), 3),
            }
        )
    return table


def judge(data: Digits) -> Callable[[Tensor], Tensor]:
    """Labels of pictures by a support vector machine on pixels, which shares nothing with the guides."""
    machine = SVC().fit(data.images.flatten(1).numpy(), data.labels.numpy())
    return lambda images: torch.from_numpy(machine.predict(images.flatten(1).numpy()))


def experts(steps: int = 400, count: int = 200) -> list[dict[str, object]]:
    """Unconditional samples guided to a digit by the classifier of clean pictures: as it is, one and five experts, both
    with 5 `steps` of distillation in all."""
    denoiser, teacher, held = digit_denoiser(), digit_classifier(), digits("test")
    recognise = judge(digits())
    noise = SampleNoise(range(30_000, 30_250))
    clean = generate_clean(denoiser, SAMPLER, noise, torch.zeros(250, 1, 8, 8), 4)
    label, x = torch.arange(count) % 10, starts(denoiser, 40_000, count)
    torch.manual_seed(0)  # the adapters' first weights
    held_out: dict[str, list[float]] = {}
    makers: dict[str, NoiseRangeExperts] = {"clean classifier": NoiseRangeExperts(teacher, 1, rank=0)}
    for number in (1, 5):
        made = NoiseRangeExperts(teacher, number, rank=16)
        generator = torch.Generator().manual_seed(0)
        fits = distil(made, teacher, denoiser.process, clean, steps * 5 // number, generator, learning_rate=3e-3)
        title = f"{number} expert{'s' if number > 1 else ''}, data-free"
        held_out[title] = [round(fit.validation or 0.0, 4) for fit in fits]
        makers[title] = made
    table: list[dict[str, object]] = []
    for name, made in makers.items():
        row: dict[str, object] = {"guide": name, "validation_loss": held_out.get(name, [])}
        for time_ in (0.2, 0.4, 0.6):
            t = torch.full((len(held.images),), time_)
            z = torch.randn(held.images.shape, generator=torch.Generator().manual_seed(1))
            with torch.no_grad():
                noisy = made(denoiser.process.sample(held.images, t.double(), z), t).argmax(1)
            row[f"accuracy_at_t_{time_}"] = round(float((noisy == held.labels).float().mean()), 3)
        for scale in (1.0, 2.0, 4.0, 8.0):
            samples = SAMPLER(ClassifierGuidance(denoiser, class_log_probability(made, label), scale), x)
            row[f"recognised_at_scale_{scale:g}"] = round(float((recognise(samples) == label).float().mean()), 3)
        table.append(row)
    right = float((recognise(held.images) == held.labels).float().mean())
    return [*table, {"guide": "the judge on held-out pictures", "recognised": round(right, 3)}]


PARTS: dict[str, Callable[[], list[dict[str, object]]]] = {
    "adaptive": lambda: [row for scale in (1.25, 1.5, 2.0) for row in adaptive(scale)],
    "minority": minority,
    "experts": experts,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--only", choices=PARTS, help="run this part; the others stay in the file as they are")
    options = parser.parse_args()
    result: dict[str, object] = json.loads(options.output.read_text()) if options.only else {}
    result["machine"] = machine()
    result["sampler"] = f"DPM-Solver++ 2M, {STEPS} steps"
    for name in [options.only] if options.only else PARTS:
        result[name] = table = PARTS[name]()
        show(name, [row for row in table if row.keys() == table[0].keys()])
    write_json(options.output, result, overwrite=True)
    print(f"\n{options.output}")


if __name__ == "__main__":
    run(main)
