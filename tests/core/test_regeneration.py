"""Stochastic regeneration (StoRM): what is run towards, what the network sees, what is learned."""

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from ornstein.checkpoint import load, save
from ornstein.config import build, describe
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.ncsnpp import NCSNpp
from ornstein.noise import SampleNoise
from ornstein.objectives.denoising import DenoisingObjective
from ornstein.objectives.regeneration import RegenerationObjective
from ornstein.objectives.time_sampling import UniformTimes
from ornstein.parameterization import OneShot, Score
from ornstein.process.ouve import OUVE
from ornstein.process.prediction import Prediction
from ornstein.regeneration import StochasticRegeneration
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.predictor_corrector import PredictorCorrector
from ornstein.samplers.time_grids import UniformGrid

Conditioning = Literal["both", "noisy", "prediction"]


class Scaled(nn.Module):
    """weight times the mean over the channels of its input."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        self.seen, self.calls = y, self.calls + 1
        return self.weight * (x if y is None else torch.cat([x, y], 1).mean(1, keepdim=True))


def model(conditioning: Conditioning = "both") -> StochasticRegeneration:
    predictor = Denoiser(Scaled(0.5), Prediction(), OneShot())
    return StochasticRegeneration(Scaled(2.0), OUVE(), Score(-1.0), predictor, conditioning)


def pair() -> tuple[Tensor, Tensor]:
    x0, y = torch.randn(2, 3, 1, 4, 5, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    return x0, y


def tiny(conditioning: Conditioning = "both") -> StochasticRegeneration:
    torch.manual_seed(0)
    options = {"nf": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (), "image_size": 16}
    predictor = NCSNpp(**options, input_channels=2, time_conditioned=False)
    channels = 6 if conditioning == "both" else 4
    network = NCSNpp(**options, input_channels=channels, time_division="pyramid")
    inner = Denoiser(predictor, Prediction(), OneShot())
    return StochasticRegeneration(network, OUVE(), Score(-1.0), inner, conditioning)


@pytest.mark.parametrize("conditioning", ["both", "noisy", "prediction"])
def test_what_the_network_sees(conditioning: Conditioning) -> None:
    (x, y), denoiser = pair(), model(conditioning)
    prediction, condition = denoiser.observe(y)
    assert torch.equal(prediction, y / 2)
    estimate = denoiser(x, 0.5, prediction, **condition)
    expected = {"both": torch.cat([y, y / 2], 1), "noisy": y, "prediction": y / 2}[conditioning]
    assert torch.equal(denoiser.network.seen, expected)
    torch.testing.assert_close(estimate.score, -2.0 * torch.cat([x, expected], 1).mean(1, keepdim=True))
    assert estimate.y is prediction
    torch.testing.assert_close(  # the process runs towards the prediction
        x, estimate.mean + OUVE().coefficients(torch.tensor(0.5, dtype=torch.float64)).s * estimate.noise
    )


@pytest.mark.parametrize("sampler", [PredictorCorrector(4, corrector=None), DPMSolverPP(4, UniformGrid(end=0.03))])
def test_any_sampler_runs_and_predicts_once(sampler: PredictorCorrector | DPMSolverPP) -> None:
    (_, y), denoiser = pair(), tiny().double()
    y = torch.cat([y, y], -1)[..., :8].repeat(1, 1, 4, 1)
    before = denoiser.predictor.network.forward
    calls = []
    denoiser.predictor.network.forward = lambda *given: calls.append(1) or before(*given)
    observation, condition = denoiser.observe(y)
    noise = SampleNoise([1, 2, 3])
    start = denoiser.process.start(noise(y), observation)
    result = sampler(denoiser, start, observation, noise, **condition)
    assert result.shape == y.shape
    assert result.isfinite().all()
    assert len(calls) == 1


def test_loss_is_the_weighted_sum_of_both() -> None:
    (x0, y), denoiser = pair(), model()
    objective = RegenerationObjective(weight=0.3)
    losses = objective(denoiser, x0, y, generator=torch.Generator().manual_seed(1))
    predictive = (y / 2 - x0).abs().square().sum() / 2 / len(x0)
    torch.testing.assert_close(losses["predictive"], predictive)
    # the same draws, by hand: t ~ U(.03, 1), then z; score matching towards D(y) = y / 2
    generator = torch.Generator().manual_seed(1)
    t = UniformTimes(0.03)(OUVE(), 3, generator)
    z = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    std = OUVE().coefficients(t).s.reshape(-1, 1, 1, 1)
    x = OUVE().mean(x0, t, y / 2) + std * z
    score = -2.0 * torch.cat([x, y, y / 2], 1).mean(1, keepdim=True)
    diffusion = (std * score + z).abs().square().sum() / 2 / len(x0)
    torch.testing.assert_close(losses["diffusion"], diffusion)
    torch.testing.assert_close(losses["loss"], 0.3 * predictive + 0.7 * diffusion)


def test_both_losses_train_the_predictor() -> None:
    (x0, y), gradients = pair(), []
    for weight in (0.0, 1.0):
        denoiser = model()
        RegenerationObjective(weight=weight)(denoiser, x0, y, generator=torch.Generator())["loss"].backward()
        gradients.append(denoiser.predictor.network.weight.grad)
        assert (denoiser.network.weight.grad == 0) == (weight == 1.0)
    assert all(gradient is not None and gradient != 0 for gradient in gradients)


def test_checkpoints_hold_both_networks(tmp_path_factory: pytest.TempPathFactory) -> None:
    denoiser, path = tiny("noisy"), tmp_path_factory.mktemp("storm") / "storm.safetensors"
    save(path, denoiser, app="speech")
    again = load(path, "speech").denoiser
    assert isinstance(again, StochasticRegeneration)
    assert describe(again) == describe(denoiser) == describe(build(describe(denoiser), Denoiser))
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in denoiser.state_dict().items())


def test_misuse_is_named() -> None:
    (x, y), denoiser = pair(), model()
    with pytest.raises(ValueError, match="observe"):
        denoiser(x, 0.5, y)
    with pytest.raises(ValueError, match="needs the observation"):
        denoiser.observe(None)
    plain = Denoiser(Scaled(1.0), OUVE(), Score())
    assert plain.observe(y) == (y, {})
    with pytest.raises(UserError, match="StochasticRegeneration, not Denoiser"):
        RegenerationObjective(DenoisingObjective())(plain, x, y, generator=torch.Generator())


def test_what_is_done_to_networks_reaches_the_predictor() -> None:
    """Compiling, memory layout and sharding go through `networks`; fast copies through `with_networks`."""
    process = OUVE()
    predictor = Denoiser(Scaled(0.5), Prediction(), OneShot())
    denoiser = StochasticRegeneration(Scaled(1.0), process, Score(), predictor)
    assert denoiser.networks == [denoiser.network, predictor.network]
    seen: list[nn.Module] = []
    denoiser.with_networks(lambda network: seen.append(network) or network)  # type: ignore[func-returns-value]
    assert set(map(id, seen)) == set(map(id, denoiser.networks))
