"""Inverse problems: PSNR on held-out digits, and a Gaussian posterior known in closed form.

    python benchmarks/inverse_problems.py

Writes benchmarks/results/inverse_problems.json. About two minutes on a CPU; the tomography row needs deepinv.
"""

import argparse
import time
from pathlib import Path

import torch
from command import machine, run
from torch import Tensor

from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser
from ornstein.analysis.tables import show
from ornstein.denoiser import DenoiserLike
from ornstein.digits.data import digits
from ornstein.digits.model import digit_denoiser
from ornstein.inverse_problems.base import PosteriorSampler
from ornstein.inverse_problems.ddrm import DDRM
from ornstein.inverse_problems.deepinv_physics import DeepinvOperator
from ornstein.inverse_problems.dps import DPS
from ornstein.inverse_problems.operators import Blur, Downsample, Mask, Matrix, SpectralOperator, as_matrix
from ornstein.inverse_problems.pigdm import PiGDM, PseudoinverseGuidance
from ornstein.inverse_problems.red_diff import REDDiff
from ornstein.noise import Noise, SampleNoise
from ornstein.process.vp import VP
from ornstein.report import write_json
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.time_grids import LogSNRGrid

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "inverse_problems.json"
GRID = LogSNRGrid(end=5e-3, to_zero=True)
STEPS = 50
SIGMA = 0.05
Row = dict[str, object]


def operators() -> dict[str, SpectralOperator]:
    mask = (torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    found: dict[str, SpectralOperator] = {
        "half of the pixels": Mask(mask),
        "2x downsampling": Downsample(2),
        "blur": Blur(kernel),
    }
    try:
        import deepinv
    except ImportError:
        print("tomography: n/a, needs deepinv (pip install deepinv)")
    else:
        physics = deepinv.physics.Tomography(angles=4, img_width=8, circle=False, normalize=True)
        found["tomography, 4 angles"] = as_matrix(DeepinvOperator(physics), (1, 8, 8))
    return found


def restore(
    denoiser: DenoiserLike, operator: SpectralOperator, measurement: Tensor, name: str, noise: Noise, like: Tensor
) -> Tensor:
    """The result of one method, as it is used by default here."""
    if name == "pseudo-inverse":
        return operator.pseudo_inverse(measurement)
    if name == "PiGDM as guidance":
        guided = PseudoinverseGuidance(denoiser, operator, measurement, SIGMA, data_std=0.75)
        return Ancestral(steps=STEPS, grid=GRID)(guided, denoiser.process.start(noise(like)), noise=noise)
    how = {"steps": STEPS, "grid": GRID, "operator": operator, "measurement": measurement}
    sampler: PosteriorSampler = {
        "RED-diff": lambda: REDDiff(**how),
        "DPS": lambda: DPS(**how, scale=0.3),
        "PiGDM": lambda: PiGDM(**how, sigma=SIGMA),
        "DDRM": lambda: DDRM(**how, sigma=SIGMA),
    }[name]()
    return sampler(denoiser, sampler.start(denoiser.process, noise), noise=noise)


METHODS = ("pseudo-inverse", "RED-diff", "DPS", "PiGDM", "PiGDM as guidance", "DDRM")


def pictures(count: int = 60) -> list[Row]:
    """Mean PSNR in dB (range 2) of one result a picture, no label given."""
    denoiser, x0 = digit_denoiser(), digits("test").images[:count]
    table: list[Row] = []
    for problem, operator in operators().items():
        clean = operator(x0)
        noisy = clean + SIGMA * SampleNoise(range(count))(clean)
        noisy = operator.mask * noisy if isinstance(operator, Mask) else noisy
        row: Row = {"problem": problem}
        for name in METHODS:
            result = restore(denoiser, operator, noisy, name, SampleNoise(range(1000, 1000 + count)), x0)
            error = ((result - x0) ** 2).flatten(1).mean(1)
            row[name] = round(float((10 * (4 / error).log10()).mean()), 2)
        table.append(row)
    return table


def posterior(count: int = 2000) -> list[Row]:
    """Distance of the samples' mean and covariance to the exact posterior of Gaussian data with one measurement."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    factor = 0.4 * torch.randn(6, 6, generator=generator, dtype=torch.float64)
    priors = {
        "N(0, 0.75^2 I)": 0.75**2 * torch.eye(6, dtype=torch.float64),
        "correlated": factor @ factor.T + 0.05 * torch.eye(6, dtype=torch.float64),
    }
    table: list[Row] = []
    for prior, covariance in priors.items():
        data = GaussianMixture(torch.ones(1).double(), torch.zeros(1, 6).double(), covariance[None])
        x0 = data.sample(1, generator)
        r = x0 @ matrix.T + SIGMA * torch.randn(1, 3, generator=generator, dtype=torch.float64)
        gain = (
            covariance @ matrix.T @ torch.linalg.inv(matrix @ covariance @ matrix.T + SIGMA**2 * torch.eye(3).double())
        )
        mean, wanted = r @ gain.T, covariance - gain @ matrix @ covariance
        for name in METHODS[1:]:
            noise = SampleNoise(range(count))
            like = torch.zeros(count, 6, dtype=torch.float64)
            found = restore(MixtureDenoiser(data, VP()), Matrix(matrix), r.expand(count, 3), name, noise, like)
            table.append(
                {
                    "data": prior,
                    "method": name,
                    "mean_error": round(float((found.mean(0) - mean).norm() / mean.norm()), 3),
                    "covariance_error": round(float((found.T.cov() - wanted).norm() / wanted.norm()), 3),
                    "trace": f"{float(found.T.cov().trace()):.3f} of {float(wanted.trace()):.3f}",
                }
            )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    begin = time.perf_counter()
    found = {"pictures": pictures(), "posterior": posterior()}
    show(f"PSNR on 60 held-out digits, {STEPS} steps, noise {SIGMA}", found["pictures"])
    show("Gaussian posterior, relative errors", found["posterior"])
    result = {
        "machine": machine(),
        "steps": STEPS,
        "sigma": SIGMA,
        "seconds": round(time.perf_counter() - begin),
        **found,
    }
    write_json(options.output, result, overwrite=True)
    print(f"\n{options.output}")


if __name__ == "__main__":
    run(main)
