"""All predictions of one mixture on seven processes (inference, conversions), turned into each other."""

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor, nn

from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser
from ornstein.denoiser import Denoiser
from ornstein.estimate import Estimate
from ornstein.parameterization import (
    X0,
    EDMPreconditioning,
    Mean,
    Noise,
    Parameterization,
    ResNoise,
    Score,
    TwoOutput,
    V,
    Velocity,
)
from ornstein.process.affine import Process
from ornstein.process.edm import EDM
from ornstein.process.rddm import RDDM
from ornstein.process.rectified_flow import RectifiedFlow
from ornstein.process.resfusion import LinearPro, Resfusion
from ornstein.process.sub_vp import SubVP
from ornstein.process.trigonometric import Trigonometric
from ornstein.process.upsr import UPSR
from ornstein.process.ve import VE
from ornstein.process.vp import VP, CosineVP
from ornstein.samplers.ancestral import Ancestral

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
OUTPUTS: dict[str, Parameterization] = {
    "x0": X0(),
    "eps": Noise(),
    "score": Score(),
    "v": V(),
    "u": Velocity(),
    "edm_F": EDMPreconditioning(sigma_data=1.0),
}


def processes(v: ReferenceFile) -> dict[str, Process]:
    vp = (v.number("beta_min"), v.number("beta_max"))
    return {
        "vp_linear": VP(*vp),
        "subvp": SubVP(*vp),
        "vp_cosine": CosineVP(v.number("cosine_s")),
        "ve": VE(v.number("ve_sigma_min"), v.number("ve_sigma_max")),
        "edm": EDM(),
        "rf": RectifiedFlow(),
        "trig": Trigonometric(),
    }


def cases(v: ReferenceFile) -> list[str]:
    return [case for case in v.prefixes("__alpha") if case in processes(v)]


@reference_files("inference", "conversions*.npz", cases=cases, needs=["{case}__t", "{case}__lam", "{case}__g2"])
def test_coefficients(vectors: ReferenceFile, case: str) -> None:
    process, t = processes(vectors)[case], vectors.tensor(f"{case}__t")
    c, d = process.coefficients(t), process.derivatives(t)
    for ours, name in ((c.a, "alpha"), (c.s, "sigma"), (d.a, "dalpha"), (d.s, "dsigma"), (d.phi / c.phi, "f")):
        torch.testing.assert_close(ours, vectors.tensor(f"{case}__{name}"), **CLOSE)
    torch.testing.assert_close(process.diffusion_squared(t), vectors.tensor(f"{case}__g2"), **CLOSE)
    lam = vectors.tensor(f"{case}__lam")
    torch.testing.assert_close(process.lambda_at(t), lam, **CLOSE)
    torch.testing.assert_close(process.time_at_lambda(lam), t, **CLOSE)


@reference_files("inference", "conversions*.npz", cases=cases, needs=[f"{{case}}__{name}" for name in OUTPUTS])
@pytest.mark.parametrize("given", OUTPUTS)
def test_every_prediction_gives_every_other(vectors: ReferenceFile, case: str, given: str) -> None:
    process, t, x = processes(vectors)[case], vectors.tensor(f"{case}__t"), vectors.tensor(f"{case}__x_t")
    for i, time in enumerate(t):
        estimate = OUTPUTS[given].estimate(process, vectors.tensor(f"{case}__{given}")[i], x[i], time)
        for wanted, parameterization in OUTPUTS.items():
            expected = vectors.tensor(f"{case}__{wanted}")[i]
            # x0 from the noise divides by a, and the score by s: the digits lost are those of the ratio
            ratio = max(float(process.kappa(time)), 1 / float(process.kappa(time)))
            scale = float(expected.abs().max())
            ours = parameterization.target(estimate)
            torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-13 * max(scale, 1.0) * max(ratio, 1e2) ** 2)


@reference_files("inference", "conversions*.npz", cases=cases, needs=["gmm_w", "gmm_mean", "gmm_cov", "{case}__x0"])
def test_the_exact_denoiser_is_that_of_the_file(vectors: ReferenceFile, case: str) -> None:
    mixture = GaussianMixture(*(vectors.tensor(name) for name in ("gmm_w", "gmm_mean", "gmm_cov")))
    denoiser = MixtureDenoiser(mixture, processes(vectors)[case])
    for i, t in enumerate(vectors.tensor(f"{case}__t")):
        estimate = denoiser(vectors.tensor(f"{case}__x_t")[i], t)
        torch.testing.assert_close(estimate.x0, vectors.tensor(f"{case}__x0")[i], **CLOSE)
        torch.testing.assert_close(estimate.velocity, vectors.tensor(f"{case}__pf_drift")[i], rtol=1e-8, atol=1e-8)


def truth_on(process: Process, t: Tensor, channels: int = 2) -> Estimate:
    generator = torch.Generator().manual_seed(0)
    x0, z, y = torch.randn(3, 4, channels, 3, dtype=torch.complex128, generator=generator)
    return Estimate(process, process.sample(x0, t, z, y), t, x0, z, y)


@pytest.mark.parametrize("steps", [12, 273])
def test_resnoise_is_lossless_also_where_the_clean_signal_has_dropped_out(steps: int) -> None:
    process = Resfusion(LinearPro(steps))
    for t in torch.linspace(1, process.T, 5, dtype=torch.float64):
        truth = truth_on(process, t)
        estimate = ResNoise().estimate(process, ResNoise().target(truth), truth.x, t, truth.y)
        torch.testing.assert_close(estimate.x0, truth.x0, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(estimate.noise, truth.noise, rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match="works on Resfusion"):
        ResNoise().target(truth_on(RDDM(), torch.tensor(3.0).double()))


def test_two_outputs_estimate_the_observation() -> None:
    """What the sampler steps with is what the network believes y to be, not the y it was shown."""
    t = torch.tensor(300.0, dtype=torch.float64)
    truth = truth_on(RDDM(), t)
    output = TwoOutput().target(truth)
    assert output.shape[1] == 2 * truth.x.shape[1]
    estimate = TwoOutput().estimate(RDDM(), output, truth.x, t, torch.zeros_like(truth.x))
    for name in ("x0", "noise", "y", "velocity"):
        torch.testing.assert_close(getattr(estimate, name), getattr(truth, name), rtol=1e-10, atol=1e-10)

    class Fixed(nn.Module):
        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return output

    denoiser = Denoiser(Fixed(), RDDM(), TwoOutput())
    assert truth.y is not None
    ours = next(Ancestral(3, eta=0.0).trajectory(denoiser, truth.x, torch.zeros_like(truth.y)))
    late, early = (RDDM().coefficients(torch.tensor(v).double()) for v in (1000.0, 667.0))
    expected = truth.x - (late.b - early.b) * output[:, :2] - (late.s - early.s) * output[:, 2:]
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)  # the published step
    with pytest.raises(ValueError, match="two outputs for 2 channels need 4"):
        TwoOutput().estimate(RDDM(), truth.x, truth.x, t)


@pytest.mark.parametrize("parameterization", [Noise(), Score(), Mean()], ids=repr)
@pytest.mark.parametrize("process", [RectifiedFlow(), Trigonometric(), RDDM(), Resfusion(LinearPro(12))], ids=repr)
def test_what_says_nothing_about_x0_is_refused(parameterization: Parameterization, process: Process) -> None:
    x = torch.ones(1, 2)
    with pytest.raises(ValueError, match="nothing about x0"):
        parameterization.estimate(process, x, x, torch.tensor(process.T).double(), x)
    for other in (X0(), V(), Velocity()):
        assert other.estimate(process, x, x, torch.tensor(process.T).double(), x).x0.isfinite().all()


def test_a_denoiser_moves_to_the_weighted_process_of_a_batch() -> None:
    denoiser = Denoiser(nn.Identity(), UPSR(), X0())
    weighted = denoiser.with_process(UPSR().weighted(torch.full((2, 1, 4, 4), 0.5)))
    assert weighted.network is denoiser.network
    assert isinstance(denoiser.process, UPSR)
    assert denoiser.process.weights is None
    assert weighted.process.coefficients(torch.tensor([1.0, 2.0]).double()).s.shape == (2, 1, 4, 4)
