"""The published samplers of RDDM, the two networks and the six readings of their outputs."""

from typing import cast

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor, nn

from ornstein.config import build, describe
from ornstein.denoiser import Denoiser
from ornstein.estimate import Estimate, estimate_from_x0
from ornstein.noise import SampleNoise
from ornstein.parameterization import Noise, Parameterization, TwoOutput
from ornstein.process.affine import Process, as_time, expand
from ornstein.process.betas import LinearBetas
from ornstein.process.ddpm import DDPM
from ornstein.process.rddm import RDDM, ConvertedIncrements, PowerIncrements
from ornstein.process.residual_path import ResidualFirst
from ornstein.residual_outputs import ResidualObjective, ResidualOutputs
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler, SamplingError
from ornstein.samplers.compat_residual import PublishedResidual, PublishedResidualFirst
from ornstein.samplers.time_grids import TruncatedGrid, UniformGrid
from ornstein.two_networks import TwoNetworks
from ornstein.wrapped_parameterizations import HiddenObservation

PUBLISHED: tuple[ResidualObjective, ...] = ("pred_res_noise", "pred_res", "pred_noise")
CONVERTED = RDDM(1000, ConvertedIncrements("residual"), ConvertedIncrements("noise"))


class Gaussian(nn.Module):
    """A perfect network for x0 ~ N(mean, std^2) in every pixel: it reads its index and gives what is asked of it."""

    def __init__(self, process: Process, asked: Parameterization, mean: float, std: float) -> None:
        super().__init__()
        self.process, self.asked, self.mean, self.std = process, asked, mean, std

    def forward(self, x: Tensor, index: Tensor, y: Tensor | None = None) -> Tensor:
        t = index.double() + 1
        y = torch.zeros_like(x) if y is None else y
        a, b, s, _ = (expand(each, x) for each in self.process.coefficients(t))
        x0 = (self.mean / self.std**2 + a * (x - b * y) / s**2) / (1 / self.std**2 + a**2 / s**2)
        return self.asked.target(estimate_from_x0(self.process, x, t, x0, y))


class Half(nn.Module):
    """One output of the perfect network of a process with amounts b and s that it is told."""

    def __init__(self, part: str, mean: float, std: float) -> None:
        super().__init__()
        self.part, self.mean, self.std = part, mean, std
        self.times: list[float] = []

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        self.times.append(float(time[0]))
        # on the converted schedule either amount tells the other: s^2 = 1 - (1 - b)^2
        amount = (time.double() / 1000).reshape(-1, 1, 1, 1)
        b = amount if self.part == "residual" else 1 - (1 - amount**2).clamp(min=0).sqrt()
        a, s = 1 - b, (1 - (1 - b) ** 2).sqrt()
        x0 = (self.mean / self.std**2 + a * x / s**2) / (1 / self.std**2 + a**2 / s**2)
        return -x0 if self.part == "residual" else (x - a * x0) / s


def published(v: ReferenceFile, objective: ResidualObjective, steps: int | None = None) -> Denoiser:
    process = RDDM(steps or int(v.number("T")), sum_scale=v.number("sum_scale"))
    asked = ResidualOutputs(objective)
    network = Gaussian(process, asked, v.number("analytic_m"), v.number("analytic_s"))
    return Denoiser(network, process, asked)


def objectives(v: ReferenceFile) -> list[str]:
    return [name.removeprefix("ddim_") for name in v.names if name.startswith("ddim_pred_")]


@reference_files("restoration", "rddm_process*.npz", cases=objectives, needs=["pred_{case}", "q_sample", "ts"])
def test_what_is_read_from_the_outputs(vectors: ReferenceFile, case: ResidualObjective) -> None:
    denoiser, y = published(vectors, case), vectors.tensor("x_in", torch.float64)[:1]
    residual, noise, x0 = vectors.tensor(f"pred_{case}", torch.float64)
    for i, index in enumerate(vectors.tensor("ts").tolist()):
        c = denoiser.process.coefficients(as_time(index + 1.0))
        if case == "pred_noise" and c.a < 1e-5:
            continue  # the file holds the rounding of float32 divided by 1 - abar, or by 1e-6
        rounding = 1e-5 + (5e-7 / float(c.a) if case == "pred_noise" else 0)
        found = denoiser(vectors.tensor("q_sample", torch.float64)[i : i + 1], index + 1.0, y)
        assert found.y is not None
        torch.testing.assert_close((found.y - found.x0)[0], residual[i], rtol=1e-4, atol=rounding)
        torch.testing.assert_close(found.x0[0], x0[i], rtol=1e-4, atol=rounding)
        torch.testing.assert_close(found.noise[0], noise[i], rtol=1e-4, atol=1e-5 + 5e-7 / float(c.s))


@reference_files("restoration", "rddm_process*.npz", cases=objectives, needs=["ddim_{case}", "init_noise", "S"])
def test_published_sampler(vectors: ReferenceFile, case: ResidualObjective) -> None:
    denoiser, y = published(vectors, case), vectors.tensor("x_in", torch.float64)
    x = denoiser.process.start(vectors.tensor("init_noise", torch.float64), y)
    states = [x, *PublishedResidual(int(vectors.number("S"))).trajectory(denoiser, x, y)]
    # at T the noise alone says nothing about x0: the file's first residual is rounding errors divided by 1e-6
    first = float(denoiser.process.coefficients(TruncatedGrid()(denoiser.process, len(states) - 1)[1]).a)
    tolerance = 0.25 * first if case == "pred_noise" else 1e-5
    expected = vectors.tensor(f"ddim_{case}", torch.float64)
    torch.testing.assert_close((torch.cat(states) + 1) / 2, expected, rtol=0, atol=tolerance)


@reference_files("restoration", "rddm_process*.npz", needs=["anc20_draws", "anc20_states", "anc20_objective"])
def test_published_ancestral_sampler(vectors: ReferenceFile) -> None:
    denoiser, y = published(vectors, str(vectors["anc20_objective"]), 20), vectors.tensor("x_in", torch.float64)  # type: ignore[arg-type]
    draws = iter(vectors.tensor("anc20_draws", torch.float64))
    x = denoiser.process.start(next(draws), y)
    states = [x, *Ancestral(20).trajectory(denoiser, x, y, lambda like: next(draws))]
    expected = vectors.tensor("anc20_states", torch.float64)
    torch.testing.assert_close((torch.cat(states) + 1) / 2, expected, rtol=0, atol=1e-5)


# -- generation ------------------------------------------------------------------------------------------------------


def generator(v: ReferenceFile, parameterization: Parameterization | None = None) -> Denoiser:
    halves = [Half(part, v.number("analytic_m"), v.number("analytic_s")) for part in ("residual", "noise")]
    return TwoNetworks(*halves, CONVERTED, HiddenObservation(parameterization or ResidualOutputs()), amounts=1000)


@reference_files("restoration", "schedules*.npz", needs=["rddm/ddimconv_train_alphas_cumsum"])
def test_converted_coefficients(vectors: ReferenceFile) -> None:
    c = CONVERTED.coefficients(torch.arange(1, 1001, dtype=torch.float64))
    torch.testing.assert_close(c.b.float(), vectors.tensor("rddm/ddimconv_train_alphas_cumsum"), rtol=0, atol=1e-6)
    torch.testing.assert_close(c.s.float() ** 2, vectors.tensor("rddm/ddimconv_train_betas2_cumsum"), rtol=0, atol=1e-6)


@reference_files("restoration", "rddm_generation*.npz", needs=["init_betas2_cumsum", "init_alphas"])
def test_the_entries_that_sampling_overwrites_are_not_used(vectors: ReferenceFile) -> None:
    """Upstream copies entry 1 of the increments to entry 0 before sampling; the sums it samples with are those of
    training."""
    c = CONVERTED.coefficients(torch.arange(1, 1001, dtype=torch.float64))
    torch.testing.assert_close(c.b.float(), vectors.tensor("init_alphas_cumsum"), rtol=0, atol=1e-6)
    torch.testing.assert_close(c.s.float() ** 2, vectors.tensor("init_betas2_cumsum"), rtol=0, atol=1e-6)
    assert float(vectors.tensor("init_alphas")[0]) == float(vectors.tensor("init_alphas")[1])


@reference_files("restoration", "rddm_generation*.npz", needs=["joint_states", "residual_first_states", "init_noise"])
def test_two_networks_jointly_and_one_after_the_other(vectors: ReferenceFile) -> None:
    denoiser, z = generator(vectors), vectors.tensor("init_noise", torch.float64)
    steps = int(vectors.number("S"))
    zero = torch.zeros_like(z)
    for sampler, name in (
        (PublishedResidual(steps), "joint_states"),
        (PublishedResidualFirst(2 * steps), "residual_first_states"),
    ):
        # as published the whole of the noise, 1, is there at the start, where the table ends at s = 0.99998
        states = torch.cat(list(cast(Sampler, sampler).trajectory(denoiser, z, zero)))
        torch.testing.assert_close((states + 1) / 2, vectors.tensor(name, torch.float64), rtol=0, atol=2e-5)


def test_removing_the_residual_first_is_a_path_for_every_sampler() -> None:
    """For one value of x0 every path ends there; the networks are told what is really left."""
    mean = 0.3
    halves = [Half(part, mean, 1e-6) for part in ("residual", "noise")]
    path = ResidualFirst(CONVERTED)
    denoiser = TwoNetworks(*halves, path, HiddenObservation(TwoOutput()), amounts=1000)
    t = as_time(1500.0)
    c = path.coefficients(t)
    assert (float(c.b), float(c.s)) == (float(CONVERTED.coefficients(t / 3).b), float(CONVERTED.coefficients(t * 2).s))
    z = SampleNoise([0])(torch.zeros(1, 1, 2, 2, dtype=torch.float64))
    states = list(Ancestral(8, eta=0.0).trajectory(denoiser, path.start(z, torch.zeros_like(z)), torch.zeros_like(z)))
    assert halves[0].times == sorted(halves[0].times, reverse=True)
    assert halves[0].times[4:] == [0.0] * 4
    assert halves[1].times[:5] == [pytest.approx(1000 * float(CONVERTED.coefficients(as_time(1000.0)).s))] * 5
    # without residual and with all of the noise: x = x0 + s z
    s = float(path.coefficients(as_time(1000.0)).s)
    assert states[3].std() == pytest.approx(s * float(z.std()), rel=1e-2)


def test_a_network_of_ddpm_runs_as_rddm_and_gives_what_ddim_gives() -> None:
    network = Gaussian(DDPM(), Noise(), 0.1, 0.4).double()
    ddpm = Denoiser(network, DDPM(LinearBetas()), Noise())
    rddm = Denoiser(network, CONVERTED, HiddenObservation(Noise()))
    z = SampleNoise([0, 1])(torch.zeros(2, 3, 4, 4, dtype=torch.float64))
    x = ddpm.process.start(z)
    ours = Ancestral(10, eta=0.0)(rddm, x, torch.zeros_like(x))
    torch.testing.assert_close(ours, Ancestral(10, eta=0.0)(ddpm, x), rtol=1e-8, atol=1e-8)
    # the coefficients may be adjusted afterwards (section 4.3 of the paper): another output of the same network
    other = rddm.with_process(RDDM(1000, PowerIncrements(0.3, decreasing=True), ConvertedIncrements("noise")))
    assert rddm.process is CONVERTED
    adjusted = Ancestral(10, eta=0.0, grid=UniformGrid(start=900.0))(other, x, torch.zeros_like(x))
    assert 1e-3 < float((adjusted - ours).abs().max()) < 2


# -- by themselves ---------------------------------------------------------------------------------------------------

ALL: tuple[ResidualObjective, ...] = (*PUBLISHED, "pred_res_add_noise", "pred_x0_noise", "pred_x0_add_noise")


@pytest.mark.parametrize("objective", ALL)
def test_a_perfect_output_gives_the_truth(objective: ResidualObjective) -> None:
    process, asked = RDDM(50), ResidualOutputs(objective)
    x0, y, z = (torch.rand(3, 2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.9
    t = torch.tensor([7.0, 31.0], dtype=torch.float64)
    truth = Estimate(process, process.sample(x0, t, z, y), t, x0, z, y)
    found = asked.estimate(process, asked.target(truth), truth.x, t, y)
    for ours, theirs in ((found.x0, x0), (found.noise, z), (found.y, y)):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert asked.target(truth).shape[1] == 3 * asked.outputs


@pytest.mark.parametrize("objective", ALL)
def test_clipping_is_that_of_each_part(objective: ResidualObjective) -> None:
    process, y = RDDM(50), torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    output = torch.full((1, ResidualOutputs(objective).outputs, 2, 2), 3.0, dtype=torch.float64)
    x, t = torch.full_like(y, -4.0), as_time(20.0)
    found, free = (ResidualOutputs(objective, clip).estimate(process, output, x, t, y) for clip in (True, False))
    assert found.y is not None
    assert free.y is not None
    assert (found.y - found.x0).abs().max() <= 1
    assert found.x0.abs().max() <= 1
    assert (free.y - free.x0).abs().max() > 1


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_without_clipping_it_is_the_posterior_step(eta: float) -> None:
    process = RDDM(40)
    denoiser = Denoiser(Gaussian(process, TwoOutput(), 0.1, 0.4), process, TwoOutput())
    y = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = process.start(SampleNoise([0, 1])(y), y)
    ours = PublishedResidual(7, eta=eta)(denoiser, x, y, SampleNoise([2, 3]))
    same = Ancestral(7, eta=eta**0.5, grid=TruncatedGrid())(denoiser, x, y, SampleNoise([2, 3]))
    torch.testing.assert_close(ours, same, rtol=1e-10, atol=1e-10)


def test_truncated_grid() -> None:
    assert TruncatedGrid()(RDDM(), 5).tolist() == [1000, 800, 600, 400, 200, 0]
    assert TruncatedGrid()(RDDM(), 3).tolist() == [1000, 666, 333, 0]  # UniformGrid visits 667
    assert TruncatedGrid()(RDDM(7), 7).tolist() == list(range(7, -1, -1))
    with pytest.raises(ValueError, match="at most 7"):
        TruncatedGrid()(RDDM(7), 8)


def test_misuse_is_named() -> None:
    process, y = RDDM(10), torch.zeros(1, 3, 2, 2)
    with pytest.raises(ValueError, match="needs 6 of the network, got 3"):
        ResidualOutputs().estimate(process, y, y, as_time(1.0), y)
    with pytest.raises(ValueError, match="needs the observation"):
        ResidualOutputs("pred_res").estimate(process, y, y, as_time(1.0))
    with pytest.raises(ValueError, match="pred_everything is none of"):
        ResidualOutputs("pred_everything")  # type: ignore[arg-type]
    denoiser = Denoiser(Gaussian(process, TwoOutput(), 0.0, 1.0), process, TwoOutput())
    with pytest.raises(SamplingError, match="even number"):
        PublishedResidualFirst(5)(denoiser, y, y)
    bad = Denoiser(Gaussian(process, Noise(), 0.0, 1.0), DDPM(LinearBetas(steps=10)), Noise())
    with pytest.raises(SamplingError, match="a \\+ b = 1"):
        PublishedResidual(5)(bad, y, y)


def test_components_are_data() -> None:
    for component in (
        PublishedResidual(5, eta=0.5),
        PublishedResidualFirst(),
        ResidualOutputs("pred_x0_noise", clip=False),
        ResidualFirst(RDDM(20)),
        HiddenObservation(Noise()),
    ):
        assert build(describe(component), type(component)) == component
