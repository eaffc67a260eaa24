"""Regression: the control, and the g of UPSR."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ornstein import checkpoint
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.unet import UNet
from ornstein.objectives.regression import RegressionObjective
from ornstein.parameterization import OneShot
from ornstein.pictures.sampling import Model, restore_picture
from ornstein.process.prediction import Prediction
from ornstein.process.rddm import RDDM
from ornstein.samplers.ancestral import Ancestral
from ornstein.tiles import Tiling
from ornstein_restoration.regression import RegressionUpscaler
from ornstein_restoration.representation import PictureSpace
from ornstein_restoration.task import RestorationTask


class Nearest(nn.Module):
    """Every pixel four times in both directions, brighter; it is given pictures in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.5))

    def forward(self, small: Tensor) -> Tensor:
        return self.gain * small.repeat_interleave(4, -1).repeat_interleave(4, -2)


def test_upscaler_is_asked_once_for_pictures_in_its_own_range() -> None:
    model = Model(RegressionUpscaler(Nearest()), Ancestral(steps=1, eta=0.0), PictureSpace(scale=4, enlarge=False))
    small = torch.rand(3, 9, 14, generator=torch.Generator().manual_seed(0)) / 2
    expected = 1.5 * small.repeat_interleave(4, -1).repeat_interleave(4, -2)
    with torch.no_grad():
        torch.testing.assert_close(restore_picture(model, small), expected)
        torch.testing.assert_close(restore_picture(model, small, tiling=Tiling(8, 0)), expected)
        with pytest.raises(UserError, match="blend the outputs"):
            restore_picture(model, small, tiling=Tiling(8, 0, blending="steps"))


@pytest.mark.parametrize(("error", "expected"), [("absolute", 0.5), ("squared", 0.25)])
def test_loss_is_the_error_of_the_one_call(error: str, expected: float) -> None:
    denoiser = RegressionUpscaler(Nearest())
    small = torch.full((2, 3, 4, 4), 0.5)
    x0 = torch.zeros(2, 3, 16, 16)  # the network gives 2 (1.5 0.5) - 1 = 0.5
    losses = RegressionObjective(error)(denoiser, x0, 2 * small - 1, generator=torch.Generator())  # type: ignore[arg-type]
    assert float(losses["loss"]) == pytest.approx(expected)
    losses["loss"].backward()
    assert denoiser.network.gain.grad != 0


def test_regression_refuses_a_diffusion() -> None:
    picture = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match="Prediction"):
        RegressionObjective()(Denoiser(UNet(3, 8), RDDM(10), OneShot()), picture, picture, generator=torch.Generator())


class Guided(Denoiser):
    """A denoiser with a predictor."""

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__(UNet(3, 8), RDDM(10), OneShot())
        self.predictor = predictor


def test_predictor_is_filled_from_an_exported_run(tmp_path: Path) -> None:
    trained = Denoiser(UNet(3, 16), Prediction(), OneShot())
    checkpoint.save(tmp_path / "g.safetensors", trained, app="restoration")

    def task(denoiser: Denoiser) -> RestorationTask:
        return RestorationTask(
            denoiser=denoiser,
            objective=RegressionObjective(),
            sampler=Ancestral(steps=1),
            predictor_from=tmp_path / "g.safetensors",
        )

    fresh = UNet(3, 16)
    task(Guided(fresh))._fill_predictor(tmp_path / "g.safetensors")
    for name, weight in fresh.state_dict().items():
        assert torch.equal(weight, trained.network.state_dict()[name]), name
    with pytest.raises(UserError, match="another network"):
        task(Guided(UNet(3, 8)))._fill_predictor(tmp_path / "g.safetensors")
    with pytest.raises(UserError, match="has no predictor"):
        task(Denoiser(UNet(3, 8), RDDM(10), OneShot()))._fill_predictor(tmp_path / "g.safetensors")
