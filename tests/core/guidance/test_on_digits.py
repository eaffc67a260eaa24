"""What guidance does to the shipped digits model."""

import torch

from ornstein.digits.model import digit_denoiser
from ornstein.digits.train import GRID
from ornstein.guidance.adaptive import AdaptiveGuidance
from ornstein.guidance.classifier_free import ClassifierFreeGuidance, GuidanceInterval
from ornstein.guidance.counting import Counted
from ornstein.noise import SampleNoise
from ornstein.samplers.dpm_multistep import DPMSolverPP


def test_adaptive_guidance_saves_a_quarter_of_the_calls_and_changes_less_than_a_percent() -> None:
    """At scale 1.25, left out at high noise by an interval; the control without guidance changes ten times as much."""
    counted, count = Counted(digit_denoiser()), 30
    guidance = ClassifierFreeGuidance(counted, 1.25, {"label": torch.tensor(10)})
    sampler, label = DPMSolverPP(steps=20, grid=GRID), torch.arange(count) % 10
    x = counted.process.start(SampleNoise(range(count))(torch.zeros(count, 1, 8, 8)))

    def run(denoiser) -> tuple[torch.Tensor, float]:
        counted.reset()
        return sampler(denoiser, x, label=label), counted.evaluations / count

    full, spent = run(guidance)
    sixth = float(GRID(counted.process, 20)[6])
    saved, adaptive = run(GuidanceInterval(AdaptiveGuidance(guidance, 0.999), counted, 0.0, sixth))
    plain, _ = run(counted)
    assert spent == 40
    assert adaptive <= 30
    assert float((saved - full).norm() / full.norm()) < 0.01
    assert float((plain - full).norm() / full.norm()) > 0.05
