"""Objectives of the speech app against published losses, and their gradients."""

from dataclasses import replace

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files

from ornstein.denoiser import Denoiser
from ornstein.estimate import Estimate, estimate_from_x0
from ornstein.networks.ncsnpp import NCSNpp
from ornstein.parameterization import X0
from ornstein.process.bridge import SchroedingerBridge
from ornstein_speech.objectives import DataPrediction
from ornstein_speech.pesq_loss import disturbance
from ornstein_speech.representation import CompressedSpectrogram

SMALL = CompressedSpectrogram(n_fft=30, hop=8)
PESQ_FRAMES = 680
"""Enough for the PESQ loss, and divisible as the network needs."""


@reference_files("speech", "losses*.npz", needs=["loss_data_prediction", "stft_cfg", "l1_weight", "sbve_x_t"])
def test_published_loss(vectors: ReferenceFile) -> None:
    stft = vectors.json("stft_cfg")
    representation = CompressedSpectrogram(
        n_fft=stft["n_fft"],
        hop=stft["hop_length"],
        window=stft["window"],
        exponent=stft["spec_abs_exponent"],
        factor=stft["spec_factor"],
    )
    objective = DataPrediction(l1_weight=vectors.number("l1_weight"), representation=representation)
    x0, y, z, t, output = (vectors.tensor(name) for name in ("x", "y", "z", "t", "forward_out"))
    process, x = SchroedingerBridge(), vectors.tensor("sbve_x_t")
    estimate, truth = estimate_from_x0(process, x, t, output, y), Estimate(process, x, t, x0, z, y)
    loss = objective.losses(estimate, truth)["loss"]
    torch.testing.assert_close(loss, vectors.tensor("loss_data_prediction"), rtol=0, atol=1e-9)


def denoiser() -> Denoiser:
    torch.manual_seed(0)
    network = NCSNpp(nf=4, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=())
    with torch.no_grad():
        for weight in network.parameters():  # the usual start makes the output nearly zero
            if weight.ndim > 1:
                weight.normal_(std=0.5 * weight[0].numel() ** -0.5)
    return Denoiser(network, SchroedingerBridge(), X0())


def pair(frames: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    waves = torch.randn(2, 2, 1, (frames - 1) * SMALL.hop, generator=torch.Generator().manual_seed(1)) * 0.2
    clean, noisy = SMALL.forward(waves[0]), SMALL.forward(waves[0] + waves[1])
    return clean, noisy


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def test_the_parts_add_up() -> None:
    model, (clean, noisy) = denoiser(), pair()
    losses = DataPrediction(l1_weight=0.25, representation=SMALL)(model, clean, noisy, generator=generator())
    assert losses.keys() == {"loss", "spectral", "waveform"}
    assert bool(losses["spectral"] > 0)
    assert bool(losses["waveform"] > 0)
    torch.testing.assert_close(losses["loss"], losses["spectral"] + 0.25 * losses["waveform"])


def test_pesq_is_one_more_term() -> None:
    model, (clean, noisy) = denoiser(), pair(PESQ_FRAMES)
    with torch.no_grad():
        plain = DataPrediction(representation=SMALL)(model, clean, noisy, generator=generator())
        losses = DataPrediction(pesq_weight=0.5, representation=SMALL)(model, clean, noisy, generator=generator())
    assert losses.keys() == {"loss", "spectral", "waveform", "pesq_loss", "mos"}
    assert bool(losses["pesq_loss"] > 0)
    assert 1 <= float(losses["mos"]) <= 4.65
    torch.testing.assert_close(losses["loss"], plain["loss"] + 0.5 * losses["pesq_loss"])


def test_without_weight_pesq_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ornstein_speech.objectives.disturbance", None)
    model, (clean, noisy) = denoiser(), pair()
    losses = DataPrediction(representation=SMALL)(model, clean, noisy, generator=generator())
    assert losses.keys() == {"loss", "spectral", "waveform"}


def test_pesq_is_told_the_rate_of_the_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []
    monkeypatch.setattr(
        "ornstein_speech.objectives.disturbance",
        lambda clean, estimate, rate: rates.append(rate) or disturbance(clean, estimate),
    )
    model, (clean, noisy) = denoiser(), pair(PESQ_FRAMES)
    representation = replace(SMALL, sample_rate=48000)
    DataPrediction(pesq_weight=1, representation=representation)(model, clean, noisy, generator=generator())
    assert rates == [48000]


@pytest.mark.parametrize("weights", [{"l1_weight": -1.0}, {"pesq_weight": -1e-4}, {"pesq_weight": float("nan")}])
def test_refuses_negative_weights(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        DataPrediction(**weights)


@pytest.mark.parametrize("term", ["waveform", "pesq_loss"])
def test_gradient_reaches_the_network_through_the_waveform(term: str) -> None:
    model, (clean, noisy) = denoiser(), pair(PESQ_FRAMES)
    losses = DataPrediction(pesq_weight=1, representation=SMALL)(model, clean, noisy, generator=generator())
    losses[term].backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in trained)
    assert sum(bool((p.grad != 0).any()) for p in trained if p.grad is not None) == len(trained)


def test_gradient_of_silence_is_finite() -> None:
    model, (clean, noisy) = denoiser(), pair()
    for weight in (model.network.output_layer.weight, model.network.output_layer.bias):
        torch.nn.init.zeros_(weight)  # the estimate is silence as well
    losses = DataPrediction(representation=SMALL)(model, 0 * clean, noisy, generator=generator())
    losses["loss"].backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_autocast_keeps_the_losses_in_float32() -> None:
    model, (clean, noisy) = denoiser(), pair()
    objective = DataPrediction(representation=SMALL)
    exact = objective(model, clean, noisy, generator=generator())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = objective(model, clean, noisy, generator=generator())
    mixed["loss"].backward()
    for name, value in mixed.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact[name], rtol=0.05, atol=0)
        assert not torch.equal(value, exact[name]), "the network ran in float32"
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_needs_a_representation() -> None:
    model, (clean, noisy) = denoiser(), pair()
    with pytest.raises(ValueError, match="representation"):
        DataPrediction()(model, clean, noisy, generator=generator())
