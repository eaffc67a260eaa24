"""Minority scores, labels and guidance: vectors and the exact mixture."""

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor

from ornstein.analysis.mixture import MixtureDenoiser
from ornstein.errors import UserError
from ornstein.guidance.minority import MinorityGuidance, minority_labels, minority_scores
from ornstein.samplers.dpm_multistep import DPMSolverPP
from tests.core.discrete import mixture, nodes, replay
from tests.core.guidance.setting import conditional_mixture, start


@reference_files("inference", "minority*.npz", cases=lambda v: [n[6:] for n in v.names if n.startswith("score_")])
def test_scores(vectors: ReferenceFile, case: str) -> None:
    denoiser = MixtureDenoiser(mixture(vectors), nodes(vectors))
    noise = vectors.tensor(f"noise_{case}").double()
    scores = minority_scores(denoiser, vectors.tensor("x"), float(case) + 1, replay(noise), draws=len(noise))
    torch.testing.assert_close(scores, vectors.tensor(f"score_{case}"), rtol=1e-9, atol=1e-9)
    if int(case) >= 600:  # rarer components score higher; at little noise nothing is separated
        component, weight = vectors.tensor("comp"), vectors.tensor("gmm_w")
        means = torch.stack([scores[component == k].mean() for k in weight.argsort(descending=True)])
        assert bool((means.diff() > 0).all())


@reference_files("inference", "minority*.npz", needs=["labels10_900", "score_900"])
def test_labels(vectors: ReferenceFile) -> None:
    assert torch.equal(minority_labels(vectors.tensor("score_900"), 10), vectors.tensor("labels10_900"))


def test_ties_leave_no_class_empty() -> None:
    assert minority_labels(torch.zeros(10), 4).bincount().min() >= 2
    with pytest.raises(UserError, match="cannot make"):
        minority_labels(torch.zeros(3), 4)
    with pytest.raises(UserError, match="not finite"):
        minority_labels(torch.tensor([0.0, float("nan")]), 2)


def test_guidance_raises_the_rare_share_with_its_scale() -> None:
    """The exact p(component | x_t) of the mixture as classifier; without guidance the share is the rare weight."""
    denoiser, grid = conditional_mixture()
    data, process = denoiser.whole.mixture, denoiser.process

    def classifier(x: Tensor, t: Tensor) -> Tensor:
        a, _, s, _ = (c[:, None, None] for c in process.coefficients(t.double()))
        variance = a[..., 0] ** 2 * 0.15 + s[..., 0] ** 2
        distance = ((x[:, None] - a * data.means) ** 2).sum(-1)
        return data.weights.log() - distance / (2 * variance)

    def share(scale: float) -> float:
        guided = MinorityGuidance(denoiser.whole, classifier, 3, scale)
        samples = DPMSolverPP(steps=20, grid=grid)(guided, start(400))
        nearest = torch.cdist(samples, data.means).argmin(1)
        return float((nearest == 2).double().mean())

    shares = [share(scale) for scale in (0.0, 0.5, 1.0, 3.5)]
    assert shares[0] == pytest.approx(0.03, abs=0.025)
    assert shares == sorted(shares)
    assert shares[-1] > 0.9
    with pytest.raises(ValueError, match="the classes are"):
        MinorityGuidance(denoiser.whole, classifier, 3, target=3)
