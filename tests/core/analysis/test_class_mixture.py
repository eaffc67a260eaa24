"""Class-conditional mixtures: conditioning, posterior and score are one distribution."""

import pytest
import torch

from ornstein.analysis.class_mixture import ClassMixture, ClassMixtureDenoiser
from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser
from ornstein.errors import UserError
from ornstein.process.ouve import OUVE
from ornstein.process.upsr import UPSR
from ornstein.process.vp import VP


def classes(dimension: int) -> ClassMixture:
    generator = torch.Generator().manual_seed(dimension)
    root = torch.randn(4, dimension, dimension, generator=generator, dtype=torch.float64) / dimension
    return ClassMixture(
        GaussianMixture(
            torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64),
            torch.randn(4, dimension, generator=generator, dtype=torch.float64),
            root @ root.mT + 0.1 * torch.eye(dimension),
        ),
        torch.tensor([0, 1, 1, 0]),
    )


@pytest.mark.parametrize("dimension", [1, 2, 12])
@pytest.mark.parametrize("process", [VP(), OUVE(), UPSR()], ids=repr)
def test_bayes_rule_of_the_scores(dimension: int, process: VP | OUVE | UPSR) -> None:
    """score(x | c) = score(x) + grad log p(c | x), for times one a sample and with a map of noise levels."""
    data = classes(dimension)
    if isinstance(process, UPSR):
        process = process.weighted(torch.linspace(0.4, 1.3, dimension, dtype=torch.float64)[None])
    x = torch.randn(6, dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y, t = torch.zeros_like(x), process.T * torch.linspace(0.2, 0.9, 6, dtype=torch.float64)
    label = torch.tensor([0, 1, 0, 1, 1, 0])
    posterior = data.log_class_posterior(x, process, t, y)
    torch.testing.assert_close(posterior.exp().sum(1), torch.ones(6, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(posterior[torch.arange(6), label].sum(), x)
    denoiser = ClassMixtureDenoiser(data, process)
    difference = denoiser(x, t, y, label=label).score - denoiser(x, t, y).score
    torch.testing.assert_close(difference, gradient, rtol=1e-8, atol=1e-8)


def test_unlabelled_samples_see_the_whole_mixture() -> None:
    data, x = classes(2), torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    some = ClassMixtureDenoiser(data, VP())(x, 0.5, label=torch.tensor([-1, 0, -1]))
    whole, zero = (MixtureDenoiser(data.given(c), VP())(x, 0.5).x0 for c in (-1, 0))
    torch.testing.assert_close(some.x0, torch.stack([whole[0], zero[1], whole[2]]))


def test_bad_labels() -> None:
    with pytest.raises(UserError, match="no class 2"):
        classes(2).given(2)
    with pytest.raises(UserError, match="do not label 4 components"):
        ClassMixture(classes(2).mixture, torch.tensor([0, 1]))
