"""Inversion, editing, interpolation, gradients and noise optimisation in numbers, each with its control.

    python benchmarks/editing_table.py [--sheet docs/digits.png]

Exact class-conditional Gaussian mixtures give every part a truth to compare with. Where the small model of digits is
installed, the parts on pictures run too, and --sheet draws reconstructions, edits, interpolations and minority samples
(matplotlib).
Writes benchmarks/results/editing.json and prints it.
"""

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ornstein.analysis.class_mixture import ClassMixture, ClassMixtureDenoiser
from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser
from ornstein.denoiser import Denoiser
from ornstein.files import atomic_path
from ornstein.guidance.classifier_free import ClassifierFreeGuidance
from ornstein.guidance.minority import MinorityGuidance, minority_labels, minority_scores, train_noisy_classifier
from ornstein.inversion.adjoint import CheckpointedFlow, ContinuousAdjoint, DifferentiableFlow
from ornstein.inversion.ddim import DDIMInversion
from ornstein.inversion.edit_friendly import EditFriendlyInversion, PublishedEditFriendlyInversion
from ornstein.inversion.interpolation import Interpolation, Lerp, Mixing, NoiseDiffusion, Slerp
from ornstein.inversion.noise_optimization import NoiseOptimization
from ornstein.inversion.null_text import NullTextInversion
from ornstein.networks.unet import NoisyClassifier
from ornstein.noise import SampleNoise
from ornstein.process.affine import Process
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.edm import EDM
from ornstein.process.ouve import OUVE
from ornstein.process.rectified_flow import RectifiedFlow
from ornstein.process.vp import VP
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.time_grids import KarrasGrid, LogSNRGrid, TimeGrid, UniformGrid

RESULT = Path(__file__).parent / "results" / "editing.json"
PROCESSES: dict[str, tuple[Process, TimeGrid]] = {
    "VP": (VP(), UniformGrid()),
    "EDM": (EDM(sigma_max=20.0), KarrasGrid(sigma_max=20.0)),
    "rectified flow": (RectifiedFlow(), UniformGrid()),
    "OUVE": (OUVE(), UniformGrid()),
    "bridge": (SchroedingerBridge(), UniformGrid(start=0.98)),
}


def mixture(dimension: int = 4) -> ClassMixture:
    """Three components in two classes."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(3, dimension, dimension, generator=generator, dtype=torch.float64) * 0.15
    means = torch.randn(3, dimension, generator=generator, dtype=torch.float64)
    weights = torch.tensor([0.3, 0.4, 0.3], dtype=torch.float64)
    covariances = root @ root.mT + 0.05 * torch.eye(dimension)
    return ClassMixture(GaussianMixture(weights, means, covariances), torch.tensor([0, 1, 1]))


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reconstruction(data: ClassMixture, steps: int = 50) -> list[dict[str, Any]]:
    """Root mean square error of the signal after coding and decoding with the same condition."""
    rows, x0 = [], data.mixture.sample(32, torch.Generator().manual_seed(1))
    label, y = torch.tensor([0, 1] * 16), normal(32, x0.shape[1], seed=2)
    for name, (process, grid) in PROCESSES.items():
        denoiser = ClassMixtureDenoiser(data, process)
        for refinements in (0, 3):
            ddim = DDIMInversion(steps, grid, refinements)
            found = ddim.sampler(denoiser, ddim(denoiser, x0, y, label=label), y, label=label)
            rows.append(_row(name, f"DDIM, {refinements} refinements", ddim.evaluations(), found - x0))
        edit = EditFriendlyInversion(steps, grid)
        code = edit(denoiser, x0, SampleNoise(range(32)), y, label=label)
        found = edit.decode(denoiser, code, y, label=label)
        rows.append(_row(name, "edit-friendly", steps, found - x0))
        zeroed = edit.decode(denoiser, PublishedEditFriendlyInversion.without_last(code), y, label=label)
        rows.append(_row(name, "edit-friendly, last noise zeroed as published", steps, zeroed - x0))
    return rows


def _row(process: str, method: str, calls: int, error: Tensor) -> dict[str, Any]:
    return {"process": process, "method": method, "calls": calls, "rms": float(error.square().mean().sqrt())}


def interpolation(data: ClassMixture) -> list[dict[str, Any]]:
    """What lies between two signals of class 0: log density, distance to the middle of the straight line, and its
    variance as a share of that of the data: a mixing that collapses to the mean has a high density and little variance.
    """
    process = VP()
    denoiser, own = ClassMixtureDenoiser(data, process), data.given(0)
    law = torch.distributions.MultivariateNormal(own.means[0], own.covariances[0])
    x0, label = own.sample(64, torch.Generator().manual_seed(3)), torch.zeros(32, dtype=torch.long)
    middle, spread = (x0[:32] + x0[32:]) / 2, x0.var(0).sum()
    rows: list[dict[str, Any]] = [{"mixing": "data", "log_density": float(law.log_prob(x0).mean()), "variance": 1.0}]
    mixings: dict[str, Mixing] = {
        "NoiseDiffusion": NoiseDiffusion(),
        "NoiseDiffusion, clip 3, strength 1, gamma 0.3": NoiseDiffusion(3.0, 0.3, 1.0),
        "slerp": Slerp(),
        "lerp": Lerp(),
    }
    for name, mixing in mixings.items():
        method = Interpolation(DDIMInversion(50, UniformGrid(start=0.7)), mixing)
        found = method(denoiser, x0[:32], x0[32:], 0.5, noise=SampleNoise(range(32)), label=label)
        rows.append(
            {
                "mixing": name,
                "log_density": float(law.log_prob(found).mean()),
                "to_straight_line": float((found - middle).norm(dim=1).mean()),
                "variance": float(found.var(0).sum() / spread),
            }
        )
    return rows


def gradients(data: ClassMixture) -> list[dict[str, Any]]:
    """Relative error of dL/dx_T against the exact flow, and the numbers kept for the way back."""
    process = VP()
    denoiser, grid = MixtureDenoiser(data.mixture, process), LogSNRGrid(end=0.01)
    start, target = normal(4, data.mixture.means.shape[1], seed=5), normal(4, data.mixture.means.shape[1], seed=6)

    def gradient(flow: DifferentiableFlow) -> tuple[Tensor, int]:
        kept, x = 0, start.clone().requires_grad_()

        def pack(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = (flow(denoiser, x) - target).square().sum()
        return torch.autograd.grad(loss, x)[0], kept

    exact, _ = gradient(ContinuousAdjoint(1, UniformGrid(end=0.01), "dopri8", rtol=1e-9, atol=1e-9))
    rows = []
    for method in ("euler", "midpoint", "rk4"):
        for steps in (10, 20, 40):
            flows: dict[str, DifferentiableFlow] = {
                "back-propagation": CheckpointedFlow(steps, grid, method),  # type: ignore[arg-type]
                "adjoint": ContinuousAdjoint(steps, grid, method),  # type: ignore[arg-type]
                "adjoint, no states": ContinuousAdjoint(steps, grid, method, keep_states=False),  # type: ignore[arg-type]
            }
            for name, flow in flows.items():
                found, kept = gradient(flow)
                error = float((found - exact).norm() / exact.norm())
                rows.append({"gradient": name, "solver": method, "steps": steps, "error": error, "kept": kept})
    return rows


def optimization(data: ClassMixture) -> list[dict[str, Any]]:
    """Minus the squared distance of samples to given ones: at the start, optimised, and the best of more random starts.

    An iteration costs three calls a step (forward, recomputed, backward) where a redraw costs one.
    """
    process, iterations = VP(), 40
    denoiser, sampler = ClassMixtureDenoiser(data, process), Ancestral(10, UniformGrid(end=0.02), eta=0.0)
    target = data.mixture.sample(32, torch.Generator().manual_seed(8))

    def objective(x: Tensor) -> Tensor:
        return -(x - target).square().sum(1)

    start = normal(*target.shape, seed=7)
    found = NoiseOptimization(sampler, iterations, learning_rate=0.1)(denoiser, objective, start)
    redraws = torch.stack(
        [objective(sampler(denoiser, process.start(normal(*start.shape, seed=100 + i)))) for i in range(3 * iterations)]
    )
    return [
        {"noise": "first", "score": float(found.scores[0].mean()), "norm": float(start.norm(dim=1).mean())},
        {
            "noise": "optimised",
            "score": float(found.scores.max(0).values.mean()),
            "norm": float(found.start.norm(dim=1).mean()),
        },
        {"noise": f"best of {3 * iterations} redraws (control)", "score": float(redraws.max(0).values.mean())},
    ]


def digits() -> tuple[Denoiser, Tensor, Tensor] | None:
    """The small model of digits with ten pictures to edit and their labels, where it is installed."""
    try:
        from ornstein.digits.data import digits as pictures
        from ornstein.digits.model import digit_denoiser
    except ImportError:
        return None
    test = pictures("test")
    chosen = torch.stack([(test.labels == c).nonzero()[0, 0] for c in range(10)])
    return digit_denoiser(), test.images[chosen], test.labels[chosen]


def on_digits(denoiser: Denoiser, x0: Tensor, label: Tensor, sheet: Path | None) -> list[dict[str, Any]]:
    """Reconstruction of ten held-out digits under guidance 3, and edits to the next digit judged by the classifier."""
    from ornstein.digits.model import digit_classifier

    grid, following = UniformGrid(start=0.95), (label + 1) % 10
    pictures: dict[str, Tensor] = {"original": x0}
    rows: list[dict[str, Any]] = []
    strong, classifier = ClassifierFreeGuidance(denoiser, 3.0, {"label": torch.tensor(10)}), digit_classifier()

    def add(name: str, again: Tensor, edited: Tensor) -> None:
        pictures[name], pictures[f"{name}, next digit"] = again, edited
        right = (classifier(edited).argmax(1) == following).float().mean()
        change = (edited - x0).square().mean().sqrt()
        rms = (again - x0).square().mean().sqrt()
        rows.append({"method": name, "rms": float(rms), "edited": float(right), "edit_rms": float(change)})

    with torch.no_grad():
        ddim = DDIMInversion(30, grid)
        x_T = ddim(denoiser, x0, label=label)
        add("DDIM", *(ddim.sampler(strong, x_T, label=c) for c in (label, following)))
        edit = EditFriendlyInversion(30, grid)
        code = edit(strong, x0, SampleNoise(range(10)), label=label)
        add("edit-friendly", *(edit.decode(strong, code, skip=5, label=c) for c in (label, following)))
        noise = SampleNoise(range(10))
        redrawn = Ancestral(30)(strong, denoiser.process.start(noise(x0)), noise=noise, label=following)
    pictures["redrawn (control)"] = redrawn
    table = denoiser.network.get_submodule("labels").get_parameter("weight").detach()
    old, new = ({"embedding": table[c]} for c in (label, following))
    nothing = {"embedding": table[10].expand(10, -1).clone()}
    method = NullTextInversion(ddim, guidance=3.0, inner_steps=20, learning_rate=0.1)
    fitted = method(denoiser, x0, old, nothing)
    add("null-text", fitted.reconstruction, method.decode(denoiser, fitted, **new))
    between = Interpolation(DDIMInversion(30, UniformGrid(start=0.7)), NoiseDiffusion(clip=3.0, strength=1.0))
    for fraction in (0.25, 0.5, 0.75):
        pictures[f"to the next picture, {fraction}"] = between(
            denoiser, x0, x0.roll(-1, 0), fraction, label=torch.full((10,), 10)
        )
    if sheet is not None:
        draw(pictures | minorities(denoiser), sheet)
    return rows


def minorities(denoiser: Denoiser, count: int = 10, classes: int = 10) -> dict[str, Tensor]:
    """Samples guided to the rarest class, without guidance and to the most common class, all from the same noise."""
    from ornstein.digits.data import digits as pictures

    images = pictures().images
    scores = minority_scores(denoiser, images, 0.5, SampleNoise(range(len(images))))
    torch.manual_seed(0)  # initial weights
    classifier = NoisyClassifier(width=16, classes=classes)
    labels, generator = minority_labels(scores, classes), torch.Generator().manual_seed(0)
    train_noisy_classifier(classifier, denoiser.process, images, labels, 600, generator, learning_rate=2e-3)
    sampler, noise = DPMSolverPP(20, LogSNRGrid(end=5e-3, to_zero=True)), SampleNoise(range(20_000, 20_000 + count))
    start = denoiser.process.start(noise(torch.empty(count, 1, 8, 8)))
    return {
        "minority guidance": sampler(MinorityGuidance(denoiser, classifier, classes), start),
        "unguided (control)": sampler(denoiser, start),
        "to the most common (control)": sampler(MinorityGuidance(denoiser, classifier, classes, target=0), start),
    }


def draw(pictures: dict[str, Tensor], path: Path) -> None:
    """One row of pictures a method, its name on the left."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.5 * len(pictures)))
    axes = figure.subplots(len(pictures), 10, gridspec_kw={"wspace": 0.08, "hspace": 0.08, "left": 0.3})
    for row, (name, images) in zip(axes, pictures.items(), strict=True):
        for axis, image in zip(row, images, strict=True):
            axis.imshow(image[0].detach(), cmap="gray", vmin=-1, vmax=1)
            axis.set_axis_off()
        row[0].text(-0.2, 0.5, name, ha="right", va="center", fontsize=7, transform=row[0].transAxes)
    with atomic_path(path, overwrite=True) as temporary:
        figure.savefig(temporary, bbox_inches="tight", dpi=110, format=path.suffix.removeprefix(".") or "png")


PARTS: dict[str, Callable[[ClassMixture], list[dict[str, Any]]]] = {
    "reconstruction": reconstruction,
    "interpolation": interpolation,
    "gradients": gradients,
    "optimization": optimization,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sheet", type=Path, help="draw the picture sheet here, *.png")
    parser.add_argument(
        "--only", choices=[*PARTS, "digits"], help="run this part; the others stay in the file as they are"
    )
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULT.read_text()) if options.only else {}
    results["machine"] = f"{platform.machine()}, torch {torch.__version__}, CPU"
    data = mixture()
    for name in PARTS:
        if options.only in (None, name):
            results[name] = PARTS[name](data)
    model = digits() if options.only in (None, "digits") else None
    if model is not None:
        results["digits"] = on_digits(*model, options.sheet)
    with atomic_path(RESULT, overwrite=True) as path:
        path.write_text(json.dumps(results, indent=1) + "\n")
    for part, rows in results.items():
        print(f"\n{part}")
        for row in rows if isinstance(rows, list) else [{"is": rows}]:
            print("  " + "  ".join(f"{n} {v:.3g}" if isinstance(v, float) else f"{n} {v}" for n, v in row.items()))


if __name__ == "__main__":
    main()
