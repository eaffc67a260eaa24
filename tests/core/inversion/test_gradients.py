"""Gradients through samplers and the flow: against autograd, the exact equation and the reference vectors."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor, nn

from ornstein.analysis.class_mixture import ClassMixtureDenoiser
from ornstein.analysis.examples import PROCESSES
from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.inversion.adjoint import CheckpointedFlow, ContinuousAdjoint, DifferentiableFlow, noise_rate
from ornstein.inversion.backpropagation import sample_with_gradient
from ornstein.inversion.reversible import ReversibleFlow
from ornstein.noise import SampleNoise
from ornstein.parameterization import Noise
from ornstein.process.vp import VP
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.ode_solvers import Euler, Heun
from ornstein.samplers.time_grids import LogSNRGrid, UniformGrid, UserGrid
from tests.core.inversion.exact import CLASSES, mixture, random


def flow_cases(vectors: ReferenceFile) -> list[str]:
    return [name for name in vectors.prefixes("__rho") if name.split("_")[1] in ("euler", "midpoint", "rk4")]


@reference_files("inference", "adjoint*.npz", cases=flow_cases, needs=["x_T", "{case}__grad_xT"])
def test_torchdiffeq_gradients(vectors: ReferenceFile, case: str) -> None:
    kind, method, _ = case.split("_")
    data = mixture(vectors)
    means = data.means.clone().requires_grad_()
    process = VP(vectors.number("beta_min"), vectors.number("beta_max"))
    rho = vectors.tensor(f"{case}__rho")
    times = process.time_at_kappa(1 / rho)
    grid = UserGrid(tuple(times.tolist()))
    kinds: dict[str, type[DifferentiableFlow]] = {"discrete": CheckpointedFlow, "adjoint": ContinuousAdjoint}
    flow = kinds[kind](len(rho) - 1, grid, method)  # type: ignore[arg-type]
    x = vectors.tensor("x_T").requires_grad_()
    denoiser = MixtureDenoiser(GaussianMixture(data.weights, means, data.covariances), process)
    end = flow(denoiser, x, parameters=[means])
    loss = (end - vectors.tensor("target")).square().sum()
    loss.backward()
    close = {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(end.detach(), vectors.tensor(f"{case}__x"), **close)
    torch.testing.assert_close(loss.detach(), vectors.tensor(f"{case}__loss"), **close)
    torch.testing.assert_close(x.grad, vectors.tensor(f"{case}__grad_xT"), **close)
    torch.testing.assert_close(means.grad, vectors.tensor(f"{case}__grad_means"), **close)


@reference_files("inference", "adjoint*.npz", needs=["exact__grad_xT", "t_end"])
def test_adaptive_adjoint_is_the_exact_gradient(vectors: ReferenceFile) -> None:
    process = VP(vectors.number("beta_min"), vectors.number("beta_max"))
    flow = ContinuousAdjoint(1, UniformGrid(end=vectors.number("t_end")), "dopri8", rtol=1e-8, atol=1e-8)
    x = vectors.tensor("x_T").requires_grad_()
    end = flow(MixtureDenoiser(mixture(vectors), process), x)
    (end - vectors.tensor("target")).square().sum().backward()
    torch.testing.assert_close(x.grad, vectors.tensor("exact__grad_xT"), rtol=1e-6, atol=1e-6)


class TinyNetwork(nn.Module):
    """A smooth network with a condition; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(4, 8).double(), nn.Linear(8, 2).double()
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        self.calls += 1
        given = torch.zeros_like(x[:, :1]) if shift is None else shift
        seen = torch.cat([x if y is None else x - y, t[:, None], given], 1)
        return self.outside(self.inside(seen).tanh())


def tiny(name: str) -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(TinyNetwork(), PROCESSES[name], Noise())


def gradients(end: Tensor, *inputs: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(end.square().sum(), inputs))


@pytest.mark.parametrize(
    "sampler", [Euler(), Heun(), DPMSolverPP(), Ancestral(), Ancestral(eta=0.5)], ids=lambda s: repr(s)[:24]
)
@pytest.mark.parametrize("name", ["VP", "EDM", "OUVE", "bridge"])
def test_checkpointing_is_autograd(name: str, sampler: Sampler) -> None:
    """x, y, the condition and every weight, through every sampler; one more call for each."""
    denoiser = tiny(name)
    process = denoiser.process
    sampler = replace(sampler, steps=6, grid=UniformGrid(start=0.8 * process.T, end=0.05 * process.T))
    x, y, shift = (random(3, n, seed=n).requires_grad_() for n in (2, 2, 1))
    wanted = (x, shift, *([y] if process.observed else []), *denoiser.parameters())
    end = sample_with_gradient(sampler, denoiser, x, y, SampleNoise(range(3)), shift=shift)
    calls = denoiser.network.calls
    found = gradients(end, *wanted)
    assert denoiser.network.calls == 2 * calls == 2 * sampler.evaluations(process)
    for state in sampler.trajectory(denoiser, x, y, SampleNoise(range(3)), shift=shift):
        last = state
    expected = gradients(last, *wanted)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
@pytest.mark.parametrize("name", ["VP", "rectified flow", "OUVE"])
def test_both_flows_agree_in_the_limit(name: str, method: str) -> None:
    """x, y, condition and weights: the adjoint tends to back-propagation at the order of the solver."""
    denoiser = tiny(name)
    process = denoiser.process
    grid = LogSNRGrid(start=0.8 * process.T, end=0.2 * process.T)
    x, y, shift = random(2, 2).requires_grad_(), random(2, 2, seed=1).requires_grad_(), random(2, 1).requires_grad_()
    wanted = (x, shift, *([y] if process.observed else []), *denoiser.parameters())
    errors = []
    for steps in (4, 8):
        discrete, continuous = (
            torch.cat(
                [g.flatten() for g in gradients(kind(steps, grid, method)(denoiser, x, y, shift=shift), *wanted)]  # type: ignore[arg-type]
            )
            for kind in (CheckpointedFlow, ContinuousAdjoint)
        )
        errors.append(float((discrete - continuous).norm() / discrete.norm()))
    order = {"euler": 1, "midpoint": 2, "rk4": 4}[method]
    assert errors[1] < 1e-9 or errors[0] / errors[1] > 2 ** (order - 0.5), errors


def leapfrog(denoiser: Denoiser, x: Tensor, y: Tensor, rho: Tensor, shift: Tensor) -> Tensor:
    """The steps of `ReversibleFlow` as they stand in the paper."""
    rate = noise_rate(denoiser, denoiser.process.require(y), {"shift": shift})
    first, last = (denoiser.process.coefficients(denoiser.process.time_at_kappa(1 / r)) for r in rho[[0, -1]])
    shown = denoiser.process.observed
    state = (x - first.b * y) / first.a if shown else x / first.a
    speed = rate(rho[0], state)
    for now, ahead in pairwise(rho):
        inside = state + (ahead - now) / 2 * speed
        speed = 2 * rate((now + ahead) / 2, inside) - speed
        state = inside + (ahead - now) / 2 * speed
    return last.a * state + last.b * y if shown else last.a * state


@pytest.mark.parametrize("name", ["VP", "EDM", "OUVE", "RDDM"])
def test_reversible_is_autograd(name: str) -> None:
    """x, y, the condition and every weight, for twice the calls."""
    denoiser = tiny(name)
    process = denoiser.process
    x, y, shift = random(2, 2).requires_grad_(), random(2, 2, seed=1).requires_grad_(), random(2, 1).requires_grad_()
    wanted = (x, shift, *([y] if process.observed else []), *denoiser.parameters())
    grid = LogSNRGrid(start=0.8 * process.T, end=0.2 * process.T)
    times = grid(process, 12)
    end = ReversibleFlow(12, grid)(denoiser, x, y, shift=shift)
    assert denoiser.network.calls == 13
    found = gradients(end, *wanted)
    assert denoiser.network.calls == 26
    plain = leapfrog(denoiser, x, y, 1 / process.kappa(times), shift)
    torch.testing.assert_close(end, plain, rtol=1e-10, atol=1e-10)
    for one, other in zip(found, gradients(plain, *wanted), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_reversible_is_second_order_in_the_end_and_in_its_gradient() -> None:
    denoiser, grid = ClassMixtureDenoiser(CLASSES, VP()), LogSNRGrid(start=0.6, end=0.1)
    x = random(2, 2).requires_grad_()
    exact = ContinuousAdjoint(1, UserGrid((0.6, 0.1)), "dopri8", rtol=1e-7, atol=1e-7)(denoiser, x)
    (wanted,) = gradients(exact, x)
    errors = []
    for steps in (20, 40):
        end = ReversibleFlow(steps, grid)(denoiser, x)
        errors.append([float(e.detach().norm()) for e in (end - exact, gradients(end, x)[0] - wanted)])
    orders = torch.tensor(errors).log2().diff(dim=0).neg()
    assert (orders - 2).abs().max() < 0.35, (errors, orders)


def test_memory_does_not_grow_with_the_steps() -> None:
    """Tensors kept for the backward pass, counted: one state for the adjoint, sqrt(steps) for segments."""

    def kept(flow: DifferentiableFlow) -> int:
        count = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal count
            count += tensor.numel()
            return tensor

        x = random(2, 2).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            flow(tiny("VP"), x)
        return count

    grid = LogSNRGrid(start=0.8, end=0.2)
    adjoint = [kept(ContinuousAdjoint(n, grid, keep_states=False)) for n in (9, 64)]
    segments = [kept(CheckpointedFlow(n, grid)) for n in (9, 64)]
    reversible = [kept(ReversibleFlow(n, grid)) for n in (9, 64)]
    assert adjoint[1] == adjoint[0]
    assert reversible[1] == reversible[0]
    assert segments[1] < 4 * segments[0]


def test_going_back_without_states_has_the_same_limit() -> None:
    denoiser, grid = ClassMixtureDenoiser(CLASSES, VP()), LogSNRGrid(start=0.6, end=0.1)
    x = random(2, 2).requires_grad_()
    found = [gradients(ContinuousAdjoint(40, grid, "rk4", keep)(denoiser, x), x)[0] for keep in (True, False)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_gradcheck() -> None:
    denoiser = ClassMixtureDenoiser(CLASSES, VP())
    flow = CheckpointedFlow(4, LogSNRGrid(start=0.6, end=0.1), "midpoint")
    torch.autograd.gradcheck(lambda x: flow(denoiser, x), random(1, 2).requires_grad_())


def test_bad_requests() -> None:
    x = random(2, 2)
    for name in ("rectified flow", "bridge"):
        with pytest.raises(UserError, match="needs a > 0 and s > 0"):
            CheckpointedFlow(4, UniformGrid(end=0.1))(ClassMixtureDenoiser(CLASSES, PROCESSES[name]), x, x)
    with pytest.raises(UserError, match="no fixed steps"):
        CheckpointedFlow(4, method="dopri5")(ClassMixtureDenoiser(CLASSES, VP()), x)
    with pytest.raises(UserError, match="not finite"):
        CheckpointedFlow(4)(ClassMixtureDenoiser(CLASSES, VP()), x * torch.nan)
