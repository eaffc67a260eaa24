"""OUVE and the bridge against the published implementation (speech, sde_*)."""

import torch
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor

from ornstein.estimate import Estimate
from ornstein.process.affine import combine
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.ouve import OUVE
from ornstein.samplers.reverse_diffusion import reverse_mean

T64 = {"rtol": 0.0, "atol": 1e-9}


def ouve(v: ReferenceFile, case: str) -> OUVE:
    return OUVE(*v.tensor(f"{case}_theta_smin_smax").tolist())


def noisy(v: ReferenceFile) -> Tensor:
    """Where s > 0: an Estimate holds the noise, which says nothing about a score at t = 0."""
    return v.tensor("t") > 0


def some_estimate(v: ReferenceFile, case: str) -> Estimate:
    """The Estimate at x whose score is the file's."""
    process = ouve(v, case)
    t = v.tensor("t")[noisy(v)]
    a, b, s, _ = process.coefficients(t)
    x, y, score = (v.tensor(f"{case}_{name}")[noisy(v)] for name in ("x", "y", "score"))
    noise = combine(x, (-s, score))
    return Estimate(process, x, t, combine(x, (1 / a, x), (-b / a, y), (-s / a, noise)), noise, y)


@reference_files(
    "speech", "sde_ouve*.npz", cases=lambda v: v.prefixes("_theta_smin_smax"), needs=["t", "{case}_mean", "{case}_std"]
)
def test_ouve_marginal(vectors: ReferenceFile, case: str) -> None:
    process, t = ouve(vectors, case), vectors.tensor("t")
    mean = process.mean(vectors.tensor(f"{case}_x0"), t, vectors.tensor(f"{case}_y"))
    torch.testing.assert_close(mean, vectors.tensor(f"{case}_mean"), **T64)
    torch.testing.assert_close(process.coefficients(t).s, vectors.tensor(f"{case}_std"), **T64)


@reference_files(
    "speech", "sde_ouve*.npz", cases=lambda v: v.prefixes("_theta_smin_smax"), needs=["t", "{case}_drift", "{case}_g"]
)
def test_ouve_forward_equation(vectors: ReferenceFile, case: str) -> None:
    process, t = ouve(vectors, case), vectors.tensor("t")
    drift = process.drift(vectors.tensor(f"{case}_x"), t, y=vectors.tensor(f"{case}_y"))
    torch.testing.assert_close(drift, vectors.tensor(f"{case}_drift"), **T64)
    torch.testing.assert_close(process.diffusion_squared(t).sqrt(), vectors.tensor(f"{case}_g"), **T64)


@reference_files(
    "speech",
    "sde_ouve*.npz",
    cases=lambda v: v.prefixes("_theta_smin_smax"),
    needs=["t", "{case}_rev_f", "{case}_rev_f_ode"],
)
def test_ouve_reverse_equations(vectors: ReferenceFile, case: str) -> None:
    estimate, dt = some_estimate(vectors, case), vectors.tensor(f"{case}_step")
    g = estimate.process.diffusion_squared(estimate.t).sqrt()
    x = estimate.x
    score_part = combine(x, (-(g**2) / 2, estimate.score))
    for ours, name in (
        (x - reverse_mean(estimate, dt, g), "rev_f"),
        (g * dt.sqrt(), "rev_G"),
        (x - reverse_mean(estimate, dt, 0 * g), "rev_f_ode"),
        (estimate.velocity, "pf_total_drift"),
        (estimate.velocity + score_part, "rev_total_drift"),
    ):
        torch.testing.assert_close(ours, vectors.tensor(f"{case}_{name}")[noisy(vectors)], **T64)


@reference_files(
    "speech", "sde_sbve*.npz", cases=lambda v: v.prefixes("_k_c_eps"), needs=["t", "{case}_mean", "{case}_std"]
)
def test_bridge(vectors: ReferenceFile, case: str) -> None:
    process, t = SchroedingerBridge(*vectors.tensor(f"{case}_k_c_eps").tolist()), vectors.tensor("t")
    v, r, total = process.variances(t)
    torch.testing.assert_close(v.sqrt(), vectors.tensor(f"{case}_sigma_t"), **T64)
    torch.testing.assert_close(r.sqrt(), vectors.tensor(f"{case}_sigma_bar_t"), **T64)
    torch.testing.assert_close(
        torch.tensor(total, dtype=torch.float64).sqrt(), vectors.tensor(f"{case}_sigma_T"), **T64
    )
    torch.testing.assert_close(process.c**0.5 * process.k**t, vectors.tensor(f"{case}_g"), **T64)
    mean = process.mean(vectors.tensor(f"{case}_x0"), t, vectors.tensor(f"{case}_y"))
    torch.testing.assert_close(mean, vectors.tensor(f"{case}_mean"), **T64)
    torch.testing.assert_close(process.coefficients(t).s, vectors.tensor(f"{case}_std"), **T64)
