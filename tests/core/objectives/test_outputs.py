"""Losses on the network's output: RDDM, Resfusion; on pictures: UPSR; automatic objective selection."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from safetensors.torch import save_file
from torch import Tensor, nn

from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.estimate import estimate_from_x0
from ornstein.objectives.denoising import DenoisingObjective
from ornstein.objectives.outputs import OutputObjective
from ornstein.objectives.pictures import LPIPS, PictureObjective
from ornstein.objectives.selection import AutomaticObjectiveSelection
from ornstein.objectives.time_sampling import TimeSampling, UniformLevels
from ornstein.objectives.weighting import NoiseVariance
from ornstein.parameterization import Noise, Parameterization, Residual, ResNoise, TwoOutput
from ornstein.process.affine import Coefficients, Process, expand
from ornstein.process.rddm import RDDM
from ornstein.process.resfusion import Resfusion
from ornstein.process.residual_shift import ResidualShift
from ornstein.process.upsr import UPSR
from ornstein.residual_outputs import ResidualOutputs
from ornstein.two_networks import TwoNetworks
from ornstein.uncertainty import UncertaintyGuided


class At(TimeSampling):
    """One time, whatever is drawn."""

    def __init__(self, t: float) -> None:
        self.t = t

    def __call__(self, process: Process, count: int, generator: torch.Generator) -> Tensor:
        return torch.full((count,), self.t, dtype=torch.float64)


class Constant(nn.Module):
    """The same output for everything."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.output.expand(len(x), *self.output.shape[1:])


class Analytic(nn.Module):
    """x0 ~ N(mean, std^2) in every pixel, as `asked` wants it."""

    def __init__(self, process: Process, asked: Parameterization, mean: float, std: float) -> None:
        super().__init__()
        self.process, self.asked, self.mean, self.std = process, asked, mean, std

    def forward(self, x: Tensor, index: Tensor, y: Tensor) -> Tensor:
        t = index.double() + 1
        a, b, s, _ = (expand(each, x) for each in self.process.coefficients(t))
        x0 = (self.mean / self.std**2 + a * (x - b * y) / s**2) / (1 / self.std**2 + a**2 / s**2)
        return self.asked.target(estimate_from_x0(self.process, x, t, x0, y))


def replayed(monkeypatch: pytest.MonkeyPatch, noise: Tensor) -> None:
    """Let torch.randn give `noise`."""
    monkeypatch.setattr(torch, "randn", lambda *a, **k: noise.to(k.get("dtype", noise.dtype)))


def pair(channels: int = 3) -> tuple[Tensor, Tensor]:
    x0, y = torch.rand(2, 2, channels, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5
    return x0, y


# -- RDDM ------------------------------------------------------------------------------------------------------------


@reference_files(
    "restoration",
    "rddm_process*.npz",
    cases=lambda v: [n.removeprefix("loss_").removesuffix("_T2") for n in v.names if n.startswith("loss_pred")],
    needs=["x0", "x_in", "noise", "T"],
)
def test_published_losses(vectors: ReferenceFile, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    process = RDDM(int(vectors.number("T")), sum_scale=vectors.number("sum_scale"))
    asked = ResidualOutputs(case)  # type: ignore[arg-type]
    network = Analytic(process, asked, vectors.number("analytic_m"), vectors.number("analytic_s"))
    objective = OutputObjective("absolute", At(process.T // 2 + 1))
    replayed(monkeypatch, vectors.tensor("noise"))
    x0, y = (vectors.tensor(name, torch.float64) for name in ("x0", "x_in"))
    loss = objective(Denoiser(network, process, asked), x0, y, generator=torch.Generator())["loss"]
    assert float(loss) == pytest.approx(vectors.number(f"loss_{case}_T2"), rel=1e-5)


def test_every_output_has_its_mean_and_they_are_summed() -> None:
    (x0, y), process = pair(), RDDM(10)
    constant = torch.full((1, 6, 4, 4), 0.1, dtype=torch.float64)
    one = Denoiser(Constant(constant), process, TwoOutput())
    two = TwoNetworks(Constant(constant[:, :3]), Constant(constant[:, 3:]), process)
    losses = [
        float(OutputObjective("absolute")(d, x0, y, generator=torch.Generator().manual_seed(3))["loss"].detach())
        for d in (one, two)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    generator = torch.Generator().manual_seed(3)
    UniformLevels()(process, 2, generator)
    z = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    by_hand = (0.1 - (y - x0)).abs().mean() + (0.1 - z).abs().mean()
    assert losses[0] == pytest.approx(float(by_hand), rel=1e-12)


# -- Resfusion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameterization", [ResNoise(), Residual(), Noise()])
@pytest.mark.parametrize("error", ["squared", "absolute", "smooth"])
def test_the_perfect_output_costs_nothing(
    parameterization: Parameterization, error: Literal["squared", "absolute", "smooth"]
) -> None:
    """Of a x0 that is known: what is left is the error of an output that is off by 2."""

    class Perfect(nn.Module):
        def __init__(self, off: float) -> None:
            super().__init__()
            self.off = off

        def forward(self, x: Tensor, index: Tensor, y: Tensor) -> Tensor:
            asked = Analytic(process, parameterization, 0.25, 1e-6)
            return asked(x, index, y) + self.off

    process = Resfusion()
    x0 = torch.full((4, 1, 4, 4), 0.25, dtype=torch.float64)
    for off, expected in ((0.0, 0.0), (2.0, {"squared": 4.0, "absolute": 2.0, "smooth": 1.5}[error])):
        denoiser = Denoiser(Perfect(off), process, parameterization)
        loss = OutputObjective(error)(denoiser, x0, 2 * x0, generator=torch.Generator().manual_seed(0))["loss"]
        assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_weighting() -> None:
    (x0, y), process = pair(), ResidualShift()
    denoiser = Denoiser(Constant(torch.zeros(1, 3, 4, 4, dtype=torch.float64)), process, Residual())
    plain, weighted = (
        float(
            OutputObjective(time_sampling=At(4.0), **extra)(denoiser, x0, y, generator=torch.Generator())[
                "loss"
            ].detach()
        )  # type: ignore[arg-type]
        for extra in ({}, {"weighting": NoiseVariance()})
    )
    s = float(process.coefficients(torch.tensor(4.0, dtype=torch.float64)).s)
    assert weighted == pytest.approx(s**2 * plain)


def test_only_a_denoiser_shows_its_output() -> None:
    x0, y = pair()
    mixture = GaussianMixture(torch.ones(1).double(), torch.zeros(1, 1).double(), torch.ones(1, 1, 1).double())
    with pytest.raises(UserError, match="not MixtureDenoiser"):
        OutputObjective()(MixtureDenoiser(mixture, RDDM()), x0, y, generator=torch.Generator())


# -- UPSR ------------------------------------------------------------------------------------------------------------


class Picture(nn.Module):
    """A picture that depends on the condition."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return self.gain * nn.functional.pixel_shuffle(condition[:, :48], 4)


class Bilinear(nn.Module):
    def forward(self, small: Tensor) -> Tensor:
        return nn.functional.interpolate(small, scale_factor=4.0, mode="bilinear")


class Range(nn.Module):
    """A distance that remembers what it was given."""

    def forward(self, picture: Tensor, other: Tensor) -> Tensor:
        self.seen = picture, other
        return (picture - other).abs().flatten(1).mean(1)


def test_picture_objective() -> None:
    model = UncertaintyGuided(Picture(), UPSR(), predictor=Bilinear())
    small = 2 * torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) - 1
    picture = 2 * torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) - 1
    restored = 1.5 * (2 * Bilinear()((small + 1) / 2) - 1)
    squared, distance = (restored - picture).square().mean(), (restored.clamp(-1, 1) - picture).abs().mean()
    for published, factor in ((False, 1), (True, 2)):
        perceptual = Range()
        objective = PictureObjective(perceptual, published_range=published)
        losses = objective(model, model.unshuffled(picture), small, generator=torch.Generator())
        torch.testing.assert_close(losses["squared"], squared)
        torch.testing.assert_close(losses["perceptual"], factor * distance)
        torch.testing.assert_close(losses["loss"], squared + 0.5 * factor * distance)
        low = -3.0 if published else -1.0
        assert perceptual.seen[0].shape == (2, 3, 16, 16)
        assert perceptual.seen[0].min() == low
        torch.testing.assert_close(perceptual.seen[1], 2 * picture - 1 if published else picture)
    alone = PictureObjective()(model, model.unshuffled(picture), small, generator=torch.Generator())
    assert set(alone) == {"loss"}
    torch.testing.assert_close(alone["loss"], squared)
    losses["loss"].backward()
    assert model.network.gain.grad is not None


def test_picture_objective_of_any_denoiser() -> None:
    x0, y = pair()
    denoiser = Denoiser(Constant(torch.zeros(1, 3, 4, 4, dtype=torch.float64)), ResidualShift(), Residual())
    found = PictureObjective(Range())(denoiser, x0, y, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found["squared"], (y - x0).square().mean())
    plain = DenoisingObjective("x0", UniformLevels())(denoiser, x0, y, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found["squared"], plain["loss"])


def test_lpips_with_a_backbone_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    from torchvision.models import alexnet

    folder = tmp_path_factory.mktemp("lpips")
    torch.manual_seed(0)
    weights = alexnet(weights=None).features.state_dict(prefix="features.")
    torch.save(weights, folder / "alexnet.pth")
    save_file(weights, folder / "alexnet.safetensors")
    one, other = LPIPS(folder / "alexnet.pth", "alex"), LPIPS(folder / "alexnet.safetensors", "alex")
    a, b = 2 * torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) - 1
    distance = one(a, b)
    assert distance.shape == (2,)
    assert (distance > 0).all()
    assert torch.equal(distance, other(a, b))
    assert (one(a, a) == 0).all()
    assert not any(weight.requires_grad for weight in one.parameters())
    save_file({name: weight for name, weight in weights.items() if "3" not in name}, folder / "part.safetensors")
    with pytest.raises(UserError, match=r"does not fit alex: features\.3\.weight should be"):
        LPIPS(folder / "part.safetensors", "alex")
    with pytest.raises(UserError, match="no weights at"):
        LPIPS(Path("nowhere.pth"))
    (folder / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot be read"):
        LPIPS(folder / "broken.pth", "alex")


# -- automatic objective selection -----------------------------------------------------------------------------------


class AtOneTime(Process):
    """The coefficients that a file gives for its time."""

    observed = True

    def __init__(self, shift: Tensor, noise: Tensor) -> None:
        self.shift, self.noise = shift.double(), noise.double()

    def coefficients(self, t: Tensor) -> Coefficients:
        one = torch.ones_like(t)
        return Coefficients(a=(1 - self.shift) * one, b=self.shift * one, s=self.noise * one, phi=one)

    def derivatives(self, t: Tensor) -> Coefficients:
        raise NotImplementedError


@reference_files(
    "restoration", "rddm_aosa*.npz", cases=lambda v: list(map(str, range(len(v["lambdas"])))), needs=["net_out", "t"]
)
def test_published_selection(vectors: ReferenceFile, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    process = AtOneTime(vectors.tensor("alphas_cumsum_t"), vectors.tensor("betas_cumsum_t"))
    denoiser = Denoiser(Constant(vectors.tensor("net_out")), process, ResidualOutputs("pred_res"))
    objective = AutomaticObjectiveSelection(time_sampling=At(float(vectors.tensor("t")) + 1))
    lam = float(vectors["lambdas"][int(case)])
    with torch.no_grad():
        objective.balance.fill_(lam)
    replayed(monkeypatch, vectors.tensor("noise"))
    found = objective(denoiser, vectors.tensor("x0"), vectors.tensor("x_in"), generator=torch.Generator())
    residual, noise = vectors.number(f"loss_res_{case}"), vectors.number(f"loss_noise_{case}")
    switched = int(vectors.number(f"switched_{case}"))
    assert objective.choice == {-1: None, 1: "residual", 0: "noise"}[switched]
    if switched == -1:
        assert float(found["residual"]) == pytest.approx(residual, rel=1e-5)
        assert float(found["noise"]) == pytest.approx(noise, rel=1e-5)
        assert float(found["loss"].detach()) == pytest.approx(lam * residual + (1 - lam) * noise, rel=1e-5)
    else:
        assert float(found["loss"].detach()) == pytest.approx(residual + noise, rel=1e-5)  # one of them is 0


@pytest.mark.parametrize(("lam", "choice"), [(0.6, "residual"), (0.4, "noise")])
def test_the_choice_is_held(lam: float, choice: str) -> None:
    """Noise is number 0, and a choice all the same."""
    objective = AutomaticObjectiveSelection()
    with pytest.raises(ValueError, match="still within"):
        objective.decide()
    with torch.no_grad():
        objective.balance.fill_(lam)
    assert not objective.held
    objective.decide()
    again = AutomaticObjectiveSelection()
    again.load_state_dict(objective.state_dict())
    for each in (objective, again):
        with torch.no_grad():
            each.balance.fill_(0.5)
        assert each.held
        assert each.choice == choice
        assert each.parameterization == ResidualOutputs("pred_res" if choice == "residual" else "pred_noise")


def test_what_moves_the_balance() -> None:
    """The parts are weighted by lam, so it moves towards the one with the smaller error."""
    (x0, y), process = pair(), RDDM(10)
    network = Constant(torch.zeros(1, 3, 4, 4, dtype=torch.float64))
    objective = AutomaticObjectiveSelection(time_sampling=At(5.0))
    denoiser = Denoiser(network, process, ResidualOutputs("pred_res"))
    found = objective(denoiser, x0, y, generator=torch.Generator().manual_seed(0))
    found["loss"].backward()
    assert objective.balance.grad is not None
    assert network.output.grad is not None
    objective.decide = lambda: None  # type: ignore[method-assign]
    with torch.no_grad():
        objective.balance.fill_(0.7)
    objective.balance.grad = None
    objective(denoiser, x0, y, generator=torch.Generator())["loss"].backward()
    assert float(objective.balance.grad) == 0  # every weight has a gradient, as DDP wants it
    with pytest.raises(ValueError, match="tolerance"):
        AutomaticObjectiveSelection(tolerance=0.5)
    with pytest.raises(ValueError, match="needs the observation"):
        objective(denoiser, x0, None, generator=torch.Generator())
