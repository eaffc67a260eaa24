"""RED-diff, DPS, PiGDM and DDRM against the published implementations (inference, inverse_linear)."""

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files

from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser
from ornstein.inverse_problems.ddrm import DDRM
from ornstein.inverse_problems.dps import DPS
from ornstein.inverse_problems.operators import Matrix
from ornstein.inverse_problems.pigdm import PiGDM
from ornstein.inverse_problems.red_diff import REDDiff
from tests.core.discrete import grid, mixture, nodes, replay

CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def denoiser(vectors: ReferenceFile, prior: str) -> MixtureDenoiser:
    if prior == "gauss":
        one = torch.ones(1, dtype=torch.float64)
        data = GaussianMixture(one, vectors.tensor("gauss_mean")[None], vectors.tensor("gauss_cov")[None])
    else:
        data = mixture(vectors)
    return MixtureDenoiser(data, nodes(vectors))


def runs(algorithm: str):
    return lambda v: [name for name in v.prefixes("_draws") if f"__{algorithm}__" in name]


def options(vectors: ReferenceFile, case: str) -> dict:
    prior, _, steps = case.split("__")
    return {
        "steps": int(steps),
        "grid": grid(vectors.tensor(f"ts_{steps}")),
        "operator": Matrix(vectors.tensor("H")),
        "measurement": vectors.tensor(f"{prior}__y"),
    }


def batch_mean(vectors: ReferenceFile) -> float:
    """Upstream's losses are means over the batch too; only Adam's epsilon feels it."""
    return 1e-8 * len(vectors["gauss__y"])


def check(vectors: ReferenceFile, case: str, sampler, noise) -> None:
    model = denoiser(vectors, case.split("__")[0])
    result = sampler(model, sampler.start(model.process, noise), noise=noise)
    torch.testing.assert_close(result, vectors.tensor(case), **CLOSE)


@reference_files("inference", "inverse_linear*.npz", cases=runs("reddiff"))
def test_red_diff(vectors: ReferenceFile, case: str) -> None:
    noise = replay(vectors.tensor(f"{case}_draws"))
    check(vectors, case, REDDiff(**options(vectors, case), epsilon=batch_mean(vectors)), noise)


@reference_files("inference", "inverse_linear*.npz", cases=runs("reddiff_sqrt"))
def test_red_diff_with_root_weights(vectors: ReferenceFile, case: str) -> None:
    noise = replay(vectors.tensor(f"{case}_draws"))
    how = {"weight": 0.5, "weighting": "sqrt", "learning_rate": 0.05, "epsilon": batch_mean(vectors)}
    check(vectors, case, REDDiff(**options(vectors, case), **how), noise)


@reference_files("inference", "inverse_linear*.npz", cases=runs("dps"))
def test_dps(vectors: ReferenceFile, case: str) -> None:
    check(vectors, case, DPS(**options(vectors, case), scale=0.1), replay(vectors.tensor(f"{case}_draws")))


@reference_files("inference", "inverse_linear*.npz", cases=runs("pgdm"))
def test_pigdm(vectors: ReferenceFile, case: str) -> None:
    check(vectors, case, PiGDM(**options(vectors, case)), replay(vectors.tensor(f"{case}_draws")))


@reference_files("inference", "inverse_linear*.npz", cases=runs("ddrm"))
def test_ddrm(vectors: ReferenceFile, case: str) -> None:
    """Upstream draws per step for all, for the noisier and for the measured values in turn."""
    sampler = DDRM(**options(vectors, case), sigma=vectors.number("sigma_y"))
    operator, model = sampler.operator, denoiser(vectors, case.split("__")[0])
    values = operator.values
    measured = int((values > 0).sum())
    draws = vectors.tensor(f"{case}_draws")
    batch, size = sampler.measurement.shape[0], len(values)
    place = 0

    def take(columns: int) -> torch.Tensor:
        nonlocal place
        place += batch * columns
        return draws[place - batch * columns : place].reshape(batch, columns)

    spectral = [take(size)]
    for _, s in sampler.pairs(model.process):
        a, _, deviation, _ = model.process.coefficients(s)
        z = take(size).clone()
        noisier = (values > 0) & (values * deviation / a < sampler.sigma)
        z[:, noisier] = take(int(noisier.sum()))
        before = ((values > 0) & ~noisier)[:measured]
        z[:, :measured][:, before] = take(measured)[:, before]
        spectral.append(z)
    assert place == len(draws)
    check(vectors, case, sampler, replay(torch.stack(spectral) @ operator.Vh))


@reference_files("inference", "inverse_linear*.npz", needs=["gauss__reddiff_fixed_point"])
def test_the_expected_gradient_of_red_diff_vanishes_at_its_fixed_point(vectors: ReferenceFile) -> None:
    """On a Gaussian the noise estimate is linear, so n = 0 gives the expectation over n."""
    sampler = REDDiff(**options(vectors, "gauss__reddiff__100"))
    model, mu = denoiser(vectors, "gauss"), vectors.tensor("gauss__reddiff_fixed_point")
    zero = torch.zeros_like(mu)
    times = [t for t, _ in sampler.pairs(model.process)]
    gradient = torch.stack([sampler.gradient(model, mu, t, zero) for t in times]).mean(0)
    assert float(gradient.abs().max()) < 1e-8
    posterior = vectors.tensor("gauss__post_mean")[:, 0]
    assert float((mu - posterior).square().mean().sqrt()) < 0.1


def test_ddrm_needs_an_svd() -> None:
    from ornstein.errors import UserError
    from ornstein.inverse_problems.deepinv_physics import DeepinvOperator

    class Physics:
        A = A_adjoint = staticmethod(lambda x: x)

    with pytest.raises(UserError, match="as_matrix"):
        DDRM(operator=DeepinvOperator(Physics()), measurement=torch.zeros(1, 3))
