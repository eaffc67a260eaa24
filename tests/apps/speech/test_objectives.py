"""Objectives of the speech app against published losses, and their gradients."""

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files

from ornstein.denoiser import Denoiser
from ornstein.estimate import Estimate, estimate_from_x0
from ornstein.networks.ncsnpp import NCSNpp
from ornstein.parameterization import X0
from ornstein.process.bridge import SchroedingerBridge
from ornstein_speech.objectives import DataPrediction
from ornstein_speech.representation import CompressedSpectrogram

SMALL = CompressedSpectrogram(n_fft=30, hop=8)


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
    spectral, waveform = objective.compare_with(estimate, truth), objective.waveform_error(estimate, truth)
    loss = spectral + objective.l1_weight * waveform
    torch.testing.assert_close(loss, vectors.tensor("loss_data_prediction"), rtol=0, atol=1e-9)


def denoiser() -> Denoiser:
    torch.manual_seed(0)
    network = NCSNpp(nf=4, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=())
    with torch.no_grad():
        for weight in network.parameters():  # the usual start makes the output nearly zero
            if weight.ndim > 1:
                weight.normal_(std=0.5 * weight[0].numel() ** -0.5)
    return Denoiser(network, SchroedingerBridge(), X0())


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    waves = torch.randn(2, 2, 1, 11 * SMALL.hop, generator=torch.Generator().manual_seed(1)) * 0.2
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


def test_gradient_reaches_the_network_through_the_waveform() -> None:
    model, (clean, noisy) = denoiser(), pair()
    losses = DataPrediction(representation=SMALL)(model, clean, noisy, generator=generator())
    losses["waveform"].backward()
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
