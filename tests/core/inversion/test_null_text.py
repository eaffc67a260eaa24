"""Null-text inversion: the published hyper-parameters, independence of the batch, edits, bad input."""

from dataclasses import replace

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor

from ornstein.analysis.class_mixture import ClassMixture, ClassMixtureDenoiser
from ornstein.analysis.examples import PROCESSES
from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser
from ornstein.errors import UserError
from ornstein.estimate import Estimate
from ornstein.inversion.ddim import DDIMInversion
from ornstein.inversion.null_text import NullTextGuidance, NullTextInversion
from ornstein.process.affine import Process
from ornstein.samplers.ode_solvers import Heun
from ornstein.samplers.time_grids import UniformGrid, UserGrid
from tests.core.inversion.exact import CLASSES, discrete, mixture, random

SETTINGS = {
    "default": NullTextInversion(),
    "long": NullTextInversion(inner_steps=200, learning_rate=5e-2, tolerance=1e-12, tolerance_growth=0.0),
}


class Shifted:
    """With `label` the exact class, with `shift` (B, D) the whole mixture with all means shifted by it."""

    def __init__(self, classes: ClassMixture, process: Process) -> None:
        self.classes, self.process = classes, process
        self.whole, self.by_class = (MixtureDenoiser(classes.mixture, process), ClassMixtureDenoiser(classes, process))

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        if "label" in condition:
            return self.by_class(x, t, y, label=condition["label"])
        shift = condition["shift"].to(x)
        a, _, _, _ = self.process.coefficients(torch.as_tensor(t, dtype=torch.float64))
        moved = self.whole(x - a * shift, t, y)
        return Estimate(self.process, x, moved.t, moved.x0 + shift, moved.noise, y)


@reference_files("inference", "null_text*.npz", cases=lambda v: v.prefixes("__null"), needs=["pivot", "{case}__recon"])
def test_published_setting(vectors: ReferenceFile, case: str) -> None:
    process, data = discrete(vectors), mixture(vectors)
    indices = vectors.tensor("t")
    times = torch.cat([indices.double() + 1, torch.ones(1, dtype=torch.float64)]) / len(vectors["betas"])
    inversion = DDIMInversion(len(indices), UserGrid(tuple(times.tolist())))
    denoiser = Shifted(ClassMixture(data, torch.arange(len(data.weights))), process)
    x0, label = vectors.tensor("x0"), torch.ones(1, dtype=torch.long)
    null = {"shift": torch.zeros_like(x0)}
    close = {"rtol": 1e-6, "atol": 1e-6}
    pivot = torch.stack(inversion.states(denoiser, x0, label=label)).flip(0)
    torch.testing.assert_close(pivot, vectors.tensor("pivot"), **close)
    torch.testing.assert_close(
        inversion.sampler(denoiser, pivot[-1], label=label), vectors.tensor("recon_ddim_g1"), **close
    )
    method = replace(SETTINGS[case], inversion=inversion, guidance=vectors.number("guidance"))
    unfitted = replace(method, inner_steps=0)(denoiser, x0, {"label": label}, null)
    torch.testing.assert_close(unfitted.reconstruction, vectors.tensor("recon_no_opt"), **close)
    code = method(denoiser, x0, {"label": label}, null)
    torch.testing.assert_close(torch.cat([n["shift"] for n in code.null]), vectors.tensor(f"{case}__null"), **close)
    torch.testing.assert_close(code.first_loss[:, 0], vectors.tensor(f"{case}__loss_first"), **close)
    torch.testing.assert_close(code.last_loss[:, 0], vectors.tensor(f"{case}__loss_last"), **close)
    assert code.inner_steps[:, 0].tolist() == vectors[f"{case}__inner_iters"].tolist()
    torch.testing.assert_close(code.reconstruction, vectors.tensor(f"{case}__recon"), **close)
    torch.testing.assert_close(method.decode(denoiser, code, label=label), code.reconstruction)


def small(name: str) -> tuple[NullTextInversion, Shifted, Tensor, Tensor]:
    process = PROCESSES[name]
    grid = UniformGrid(start=0.9 * process.T, end=0.02 * process.T)
    method = NullTextInversion(DDIMInversion(6, grid), guidance=2.0, inner_steps=40, learning_rate=0.05)
    return method, Shifted(CLASSES, process), random(2, 2), random(2, 2, seed=1)


@pytest.mark.parametrize("name", ["VP", "rectified flow", "OUVE", "bridge"])
def test_it_reconstructs_what_guidance_alone_does_not(name: str) -> None:
    method, denoiser, x0, y = small(name)
    label, null = torch.tensor([0, 1]), {"shift": torch.zeros_like(x0)}
    fitted = method(denoiser, x0, {"label": label}, null, y)
    unfitted = replace(method, inner_steps=0)(denoiser, x0, {"label": label}, null, y)
    error, without = ((code.reconstruction - x0).norm() for code in (fitted, unfitted))
    assert error < 0.3 * without
    edited = method.decode(denoiser, fitted, y, label=1 - label)
    assert (edited - fitted.reconstruction).abs().amax(1).min() > 1e-2


def test_samples_do_not_depend_on_their_batch() -> None:
    method, denoiser, x0, _ = small("VP")
    label, null = torch.tensor([0, 1]), {"shift": torch.zeros_like(x0)}
    together = method(denoiser, x0, {"label": label}, null)
    alone = method(denoiser, x0[1:], {"label": label[1:]}, {"shift": null["shift"][1:]})
    torch.testing.assert_close(alone.reconstruction, together.reconstruction[1:], rtol=1e-9, atol=1e-9)
    assert torch.equal(alone.inner_steps, together.inner_steps[:, 1:])


def test_the_rate_stays_positive_after_a_hundred_steps() -> None:
    """Published: 1e-2 (1 - i/100), which climbs the loss from step 101 on."""
    method, denoiser, x0, _ = small("VP")
    code = replace(
        method, inversion=DDIMInversion(105, method.inversion.grid), inner_steps=3, tolerance=0.0, tolerance_growth=0.0
    )(denoiser, x0[:1], {"label": torch.ones(1)}, {"shift": torch.zeros(1, 2)})
    moved = torch.stack([null["shift"] for null in code.null]).diff(dim=0).abs().amax((1, 2))
    assert (moved[-4:] > 0).all()
    assert (code.last_loss <= code.first_loss)[-4:].all()


def test_half_precision_conditions_are_fitted_in_float32() -> None:
    method, denoiser, x0, _ = small("VP")
    null = {"shift": torch.zeros(2, 2, dtype=torch.float16), "kind": torch.tensor([3, 3])}
    code = method(denoiser, x0, {"label": torch.tensor([0, 1])}, null)
    assert code.null[0]["shift"].dtype == torch.float16
    assert code.null[0]["kind"] is null["kind"]
    assert code.last_loss[0].mean() < code.first_loss[0].mean()


def test_bad_requests() -> None:
    method, denoiser, x0, _ = small("VP")
    label = torch.tensor([0, 1])
    with pytest.raises(UserError, match="one row for each of 2 samples"):
        method(denoiser, x0, {"label": label}, {"shift": torch.zeros(1, 2)})
    with pytest.raises(UserError, match="floating-point"):
        method(denoiser, x0, {"label": label}, {"label": label})
    code = replace(method, inner_steps=1)(denoiser, x0, {"label": label}, {"shift": torch.zeros_like(x0)})
    with pytest.raises(UserError, match="no null condition for t"):
        NullTextGuidance(denoiser, code)(x0, 0.123, label=label)
    guided, sampler = NullTextGuidance(denoiser, code), method.inversion.sampler
    assert torch.equal(sampler(guided, code.start, label=label), sampler(guided, code.start, label=label))
    with pytest.raises(UserError, match="null-text guidance needs a sampler of one call a step"):
        Heun(sampler.steps, sampler.grid)(guided, code.start, label=label)
    with pytest.raises(UserError, match="learning_rate > 0"):
        NullTextInversion(learning_rate=0.0)


def test_frozen_weights_get_no_gradient() -> None:
    means = CLASSES.mixture.means.clone().requires_grad_()
    data = GaussianMixture(CLASSES.mixture.weights, means, CLASSES.mixture.covariances)
    method, _, x0, _ = small("VP")
    denoiser = Shifted(ClassMixture(data, CLASSES.classes), PROCESSES["VP"])
    replace(method, inner_steps=2)(denoiser, x0, {"label": torch.ones(2)}, {"shift": torch.zeros_like(x0)})
    assert means.grad is None
