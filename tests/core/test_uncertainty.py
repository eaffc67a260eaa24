"""UPSR: what is observed, what the network sees, the noise of a batch, and the published chain of a perfect network."""

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle

from ornstein.acceleration.denoiser import Acceleration, accelerate
from ornstein.checkpoint import load, save
from ornstein.config import describe
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.unet import UNet
from ornstein.noise import SampleNoise
from ornstein.objectives.denoising import DenoisingObjective
from ornstein.objectives.time_sampling import UniformLevels
from ornstein.process.affine import expand
from ornstein.process.residual_shift import ResidualShift
from ornstein.process.upsr import UPSR
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.ode_solvers import Euler
from ornstein.uncertainty import UncertaintyGuided
from ornstein.wrapped_parameterizations import RangeScaling, ScaledInput

SINGLE = {"rtol": 1e-5, "atol": 1e-5}


class Given(nn.Module):
    """A predictor that has the answer of a file."""

    def __init__(self, picture: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.picture, self.seen = picture, torch.empty(0)

    def forward(self, small: Tensor) -> Tensor:
        self.seen = small
        return (self.picture + 1) / 2 * self.weight


class Analytic(nn.Module):
    """x0 ~ N(mean, std^2) in every pixel, from the unshuffled and scaled state and condition, as a picture."""

    def __init__(self, process: UPSR, mean: float, std: float) -> None:
        super().__init__()
        self.process, self.mean, self.std = process, mean, std

    def forward(self, x: Tensor, index: Tensor, condition: Tensor) -> Tensor:
        estimate, y = (each.double() for each in condition.chunk(2, dim=1))
        weights = self.process.uncertainty_weights(y, estimate)
        root = self.process.reference(index.double() + 1)
        state = x.double() * (0.3 * expand(root.s, y) ** 2 + 0.25).sqrt()
        a, b, v = expand(root.a, y), expand(root.b, y), (expand(root.s, y) * weights) ** 2
        x0 = (self.mean / self.std**2 + a * (state - b * y) / v) / (1 / self.std**2 + a**2 / v)
        self.seen = x
        return pixel_shuffle(x0, 4)


def published(v: ReferenceFile) -> UncertaintyGuided:
    numbers = [v.number(n) for n in ("steps", "kappa", "power", "min_noise_level", "etas_end", "b_un", "un_max")]
    process = UPSR(int(numbers[0]), *numbers[1:])
    network = Analytic(process, v.number("analytic_m"), v.number("analytic_s"))
    return UncertaintyGuided(network, process, predictor=Given(v.tensor("sr")))


NEEDS = ["lr", "bicubic", "sr", "un", "scaled_input", "ddim_output", "ddim_pred_x0", "anc_states", "prior_sample"]


@reference_files("restoration", "upsr_process*.npz", needs=NEEDS)
def test_published_model(vectors: ReferenceFile) -> None:
    denoiser, small = published(vectors), vectors.tensor("lr")
    prepared, y, condition = denoiser.prepare(small)
    torch.testing.assert_close(denoiser.predictor.seen, (small + 1) / 2)
    torch.testing.assert_close(denoiser.shuffled(y), vectors.tensor("bicubic"), **SINGLE)
    torch.testing.assert_close(denoiser.shuffled(condition["estimate"]), vectors.tensor("sr"), **SINGLE)
    weights = prepared.process.weights.float()  # type: ignore[attr-defined]
    torch.testing.assert_close(denoiser.shuffled(weights), vectors.tensor("un"), **SINGLE)

    process, z = prepared.process, vectors.tensor("noise_unshuffled")
    x0 = denoiser.unshuffled(vectors.tensor("x0"))
    for index in range(int(process.T)):
        x = process.sample(x0, index + 1.0, z, y)
        torch.testing.assert_close(x, vectors.tensor("q_sample")[index], **SINGLE)
        prepared(x, index + 1.0, y, **condition)
        torch.testing.assert_close(denoiser.network.seen, vectors.tensor("scaled_input")[index], **SINGLE)

    start = process.start(z, y)
    torch.testing.assert_close(start, vectors.tensor("prior_sample"), **SINGLE)
    states = list(Euler(5).trajectory(prepared, start, y, None, **condition))
    torch.testing.assert_close(torch.stack(states), vectors.tensor("ddim_states"), rtol=1e-4, atol=1e-4)
    for t, before, expected in zip(range(5, 0, -1), [start, *states], vectors.tensor("ddim_pred_x0"), strict=False):
        torch.testing.assert_close(prepared(before, float(t), y, **condition).x0, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(denoiser.shuffled(states[-1]), vectors.tensor("ddim_output"), rtol=1e-4, atol=1e-4)

    draws = iter(vectors.tensor("anc_noises"))
    states = list(Ancestral(5).trajectory(prepared, start, y, lambda like: next(draws), **condition))
    torch.testing.assert_close(torch.stack(states), vectors.tensor("anc_states"), rtol=1e-4, atol=1e-4)


@reference_files("restoration", "upsr_process*.npz", needs=["lr", "sr", "mse_last_t", "q_sample", "x0"])
def test_published_loss(vectors: ReferenceFile) -> None:
    denoiser = published(vectors)
    prepared, y, condition = denoiser.prepare(vectors.tensor("lr"))
    found = prepared(vectors.tensor("q_sample")[-1], prepared.process.T, y, **condition).x0
    error = (found - denoiser.unshuffled(vectors.tensor("x0"))).square().mean()
    torch.testing.assert_close(error, vectors.tensor("mse_last_t").reshape(()), rtol=1e-4, atol=1e-5)


# -- with networks that learn ----------------------------------------------------------------------------------------


class Picture(nn.Module):
    """A network of the kind that is meant: unshuffled state and condition in, a picture out."""

    def __init__(self, channels: int, patch: int = 4) -> None:
        super().__init__()
        self.channels, self.patch = channels, patch
        self.layer = nn.Conv2d(channels, 3 * patch**2, 1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        assert x.shape[1] + y.shape[1] == self.channels
        return pixel_shuffle(self.layer(torch.cat([x, y], 1)) / (1 + t.reshape(-1, 1, 1, 1)), self.patch)


class Enlarge(nn.Module):
    """A small g."""

    def __init__(self, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale
        self.layer = nn.Conv2d(3, 3, 3, padding=1)
        self.drop = nn.Dropout(0.5)

    def forward(self, small: Tensor) -> Tensor:
        large = nn.functional.interpolate(small, scale_factor=float(self.scale), mode="nearest")
        return large + 0.1 * self.drop(self.layer(large))


def guided(predictor: nn.Module | None = None) -> UncertaintyGuided:
    torch.manual_seed(0)
    return UncertaintyGuided(Picture(144), UPSR(), predictor=predictor or Enlarge())


def small(count: int = 2) -> Tensor:
    return 2 * torch.rand(count, 3, 6, 5, generator=torch.Generator().manual_seed(1)) - 1


@pytest.mark.parametrize("sampler", [Euler(5), Ancestral(5), DPMSolverPP(4)])
def test_any_sampler_runs(sampler: Sampler) -> None:
    denoiser, y, condition = guided().prepare(small())
    noise = SampleNoise([3, 4])
    start = denoiser.process.start(noise(y), y)
    result = sampler(denoiser, start, y, noise, **condition)
    assert result.shape == (2, 48, 6, 5)
    assert result.isfinite().all()
    # the noise is weaker where g agrees with y
    assert not torch.allclose(start, UPSR().start(SampleNoise([3, 4])(y), y))


def test_samples_do_not_depend_on_the_batch_around_them() -> None:
    model = guided().double()
    both, alone = small().double(), small().double()[1:]
    results = []
    for picture, seeds in ((both, [1, 2]), (alone, [2])):
        denoiser, y, condition = model.prepare(picture)
        noise = SampleNoise(seeds)
        results.append(Ancestral(5)(denoiser, denoiser.process.start(noise(y), y), y, noise, **condition)[-1])
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)


def test_the_predictor_is_frozen() -> None:
    denoiser = guided().train()
    assert denoiser.network.training
    assert not denoiser.predictor.training
    prepared, y, condition = denoiser.prepare(small())
    x0 = torch.zeros_like(y)
    objective = DenoisingObjective(compare="x0", time_sampling=UniformLevels())
    objective(prepared, x0, y, generator=torch.Generator(), **condition)["loss"].backward()
    assert all(weight.grad is not None for weight in denoiser.network.parameters())
    assert all(weight.grad is None and not weight.requires_grad for weight in denoiser.predictor.parameters())


def test_without_a_predictor_it_is_residual_shifting_on_pixels() -> None:
    torch.manual_seed(0)
    model = UncertaintyGuided(Picture(96), ResidualShift(4, min_noise=0.2), ScaledInput(scaling=RangeScaling()))
    denoiser, y, condition = model.prepare(small())
    assert denoiser is model
    assert condition == {}
    assert model.networks == [model.network]
    result = Ancestral(4)(denoiser, denoiser.process.start(SampleNoise([0, 1])(y), y), y, SampleNoise([2, 3]))
    assert result.isfinite().all()
    assert UncertaintyGuided(Picture(96), UPSR()).prepare(small()).denoiser.process.weights is None  # type: ignore[attr-defined]


def test_a_floor_of_one_conditions_on_the_estimate_alone() -> None:
    model = UncertaintyGuided(Picture(144), UPSR(floor=1.0), predictor=Enlarge())
    weights = model.prepare(small()).denoiser.process.weights  # type: ignore[attr-defined]
    assert torch.equal(weights, torch.ones_like(weights))


def test_restoration_at_the_measured_size() -> None:
    model = UncertaintyGuided(Picture(9, 1), UPSR(), predictor=Enlarge(1), scale=1, patch=1)
    denoiser, y, condition = model.prepare(small())
    assert torch.equal(y, small())
    assert denoiser(y, 5.0, y, **condition).x0.shape == y.shape


def test_faster_copies() -> None:
    fast = accelerate(guided(), Acceleration())
    assert isinstance(fast, UncertaintyGuided)
    plain, y, condition = guided().prepare(small())
    ours = fast.prepare(small())
    torch.testing.assert_close(ours.observation, y)
    torch.testing.assert_close(ours.denoiser(y, 3.0, y, **ours.condition).x0, plain(y, 3.0, y, **condition).x0)


def test_checkpoints_hold_both_networks(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Networks of the package stand in for those that make sense."""
    path = tmp_path_factory.mktemp("upsr") / "upsr.safetensors"
    model = UncertaintyGuided(UNet(3, 8, 1), UPSR(noise_scale=2.0), predictor=UNet(3, 8, 1), scale=1, patch=1)
    save(path, model, app="restoration", sampler=Euler(5))
    again = load(path, "restoration").denoiser
    assert isinstance(again, UncertaintyGuided)
    assert describe(again) == describe(model)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(weight.requires_grad for weight in again.predictor.parameters())


def test_misuse_is_named() -> None:
    denoiser = guided()
    y, condition = denoiser.observe(small())
    with pytest.raises(ValueError, match="no weights yet"):
        denoiser(y, 3.0, y, **condition)
    with pytest.raises(ValueError, match="prepare"):
        denoiser.prepare(small()).denoiser(y, 3.0, y)
    with pytest.raises(UserError, match="measured picture"):
        denoiser.prepare(None)
    with pytest.raises(UserError, match="take one for scale 4"):
        guided(Enlarge(2)).prepare(small())
    with pytest.raises(UserError, match="pad the measured"):
        UncertaintyGuided(Picture(144), UPSR(), scale=1).prepare(small())
    with pytest.raises(ValueError, match="UPSR, not ResidualShift"):
        UncertaintyGuided(Picture(144), ResidualShift(), predictor=Enlarge())
    with pytest.raises(ValueError, match="at least 1"):
        UncertaintyGuided(Picture(144), UPSR(), scale=0)


def test_a_plain_denoiser_prepares_itself() -> None:
    plain = Denoiser(nn.Identity(), ResidualShift(), ScaledInput())
    y = small()
    assert plain.prepare(y) == (plain, y, {})
