"""Published losses (speech, losses*): the noise, times and network outputs come from the file."""

from dataclasses import dataclass

import torch
from reference_vectors import ReferenceFile, reference_files

from ornstein.estimate import Estimate
from ornstein.objectives.denoising import DenoisingObjective
from ornstein.objectives.weighting import EDMWeighting, NoiseVariance, Unweighted
from ornstein.parameterization import Parameterization, Score
from ornstein.process.affine import Process
from ornstein.process.ouve import OUVE

T64 = {"rtol": 1e-12, "atol": 1e-9}


@dataclass(frozen=True)
class Pair:
    """A denoiser's Estimate and the true one, as `corrupt_and_estimate` returns them."""

    estimate: Estimate
    truth: Estimate


def pair(v: ReferenceFile, parameterization: Parameterization, output: torch.Tensor, process: Process) -> Pair:
    x0, y, z, t = (v.tensor(name) for name in ("x", "y", "z", "t"))
    x = process.sample(x0, t, z, y)
    truth = Estimate(process, x, t, x0, z, y)
    return Pair(parameterization.estimate(process, output, x, t, y), truth)


@reference_files("speech", "losses*.npz", needs=["ouve_x_t", "ouve_mean", "ouve_std"])
def test_ouve_corruption(vectors: ReferenceFile) -> None:
    truth = pair(vectors, Score(), vectors.tensor("forward_out"), OUVE()).truth
    torch.testing.assert_close(truth.x, vectors.tensor("ouve_x_t"), **T64)
    torch.testing.assert_close(truth.mean, vectors.tensor("ouve_mean"), **T64)


@reference_files("speech", "losses*.npz", needs=["loss_score_matching", "loss_score_matching_of_zero_score"])
def test_score_matching(vectors: ReferenceFile) -> None:
    objective = DenoisingObjective(compare="noise", reduction="half_sum")
    output = vectors.tensor("forward_out")
    for score, expected in ((output, "loss_score_matching"), (0 * output, "loss_score_matching_of_zero_score")):
        p = pair(vectors, Score(), score, OUVE())
        torch.testing.assert_close(objective.compare_with(p.estimate, p.truth), vectors.tensor(expected), **T64)


@reference_files(
    "speech",
    "losses*.npz",
    needs=["loss_denoiser_1", "loss_denoiser_sigma2", "loss_denoiser_edm_mean_of_single_item_losses"],
)
def test_denoiser_weightings(vectors: ReferenceFile) -> None:
    """D = score s^2 + x_t estimates the mean; `forward_out` is the score."""
    p = pair(vectors, Score(), vectors.tensor("forward_out"), OUVE())
    for weighting, name in (
        (Unweighted(), "loss_denoiser_1"),
        (NoiseVariance(), "loss_denoiser_sigma2"),
        (EDMWeighting(vectors.number("sigma_data")), "loss_denoiser_edm_mean_of_single_item_losses"),
    ):
        objective = DenoisingObjective(compare="mean", weighting=weighting, reduction="half_sum")
        torch.testing.assert_close(objective.compare_with(p.estimate, p.truth), vectors.tensor(name), **T64)


@reference_files("speech", "losses*.npz", needs=["edm_c_in", "edm_c_out", "edm_c_skip", "ouve_std"])
def test_edm_preconditioners_of_the_speech_models(vectors: ReferenceFile) -> None:
    from ornstein_speech.preconditioning import Preconditioned

    process, t = OUVE(), vectors.tensor("t")
    edm = Preconditioned(c_in="edm", c_out="edm", c_skip="edm", sigma_data=vectors.number("sigma_data"))
    c_in, c_out, c_skip = edm.weights(process, t)
    torch.testing.assert_close(c_in, vectors.tensor("edm_c_in"), **T64)
    torch.testing.assert_close(c_out, vectors.tensor("edm_c_out"), **T64)
    torch.testing.assert_close(c_skip, vectors.tensor("edm_c_skip"), **T64)
