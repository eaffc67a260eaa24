"""Tiny random networks of diffusers as denoisers, and the inversions on them."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel
from torch import Tensor, nn

from ornstein.adapters.diffusers import (
    DiffusersNetwork,
    LatentCodec,
    diffusers_denoiser,
    encode_text,
    load_model,
)
from ornstein.errors import UserError
from ornstein.guidance.classifier_free import ClassifierFreeGuidance
from ornstein.inversion.ddim import DDIMInversion
from ornstein.inversion.edit_friendly import EditFriendlyInversion
from ornstein.inversion.golden_noise import GoldenNoise
from ornstein.inversion.npnet import NPNet
from ornstein.inversion.null_text import NullTextInversion
from ornstein.noise import SampleNoise
from ornstein.process.vp import VP
from ornstein.samplers.ode_solvers import Euler
from ornstein.samplers.time_grids import UniformGrid
from tests.core.adapters.tiny import unet
from tests.core.inversion.exact import random


class StepVP(VP):
    """The network is told time steps from 0 to 999."""

    def network_time(self, t: Tensor) -> Tensor:
        return t * 1000 - 1


def texts(count: int, seed: int = 0) -> dict[str, Tensor]:
    return {"encoder_hidden_states": random(count, 5, 6, seed=seed).float()}


GRID = UniformGrid(start=0.9, end=0.05)


def test_unet_prediction_is_the_noise_at_its_time_step() -> None:
    model = unet()
    denoiser = diffusers_denoiser(model, StepVP())
    x, text = random(2, 4, 8, 8).float(), texts(2)
    with torch.no_grad():
        expected = model(x, 499, text["encoder_hidden_states"]).sample
        torch.testing.assert_close(denoiser(x, 0.5, **text).noise, expected)
        half = diffusers_denoiser(unet().half(), StepVP())
        found = half(x, 0.5, **text).noise
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


def test_dit_keeps_the_mean_of_a_learned_variance() -> None:
    torch.manual_seed(0)
    model = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
        norm_num_groups=4,
    ).eval()
    x, label = random(2, 4, 8, 8).float(), {"class_labels": torch.tensor([1, 7])}
    with torch.no_grad():
        found = diffusers_denoiser(model, StepVP(), "v_prediction")(x, 0.5, **label)
        full = model(x, torch.full((2,), 499.0), **label).sample
    a, _, s, _ = StepVP().coefficients(torch.tensor(0.5, dtype=torch.float64))
    assert full.shape[1] == 8
    torch.testing.assert_close((a * found.noise - s * found.x0).float(), full[:, :4], rtol=1e-4, atol=1e-4)


def test_inversions_and_golden_noise_run_on_it() -> None:
    denoiser = diffusers_denoiser(unet(), StepVP()).requires_grad_(False)
    x0, text, null = random(1, 4, 8, 8).float(), texts(1), {"encoder_hidden_states": torch.zeros(1, 5, 6)}
    edit = EditFriendlyInversion(4, GRID)
    code = edit(denoiser, x0, SampleNoise([0]), **text)
    torch.testing.assert_close(edit.decode(denoiser, code, **text), x0, rtol=0, atol=1e-4)
    assert not torch.allclose(edit.decode(denoiser, code, **texts(1, seed=3)), x0, atol=1e-4)
    method = NullTextInversion(DDIMInversion(3, GRID), guidance=3.0, inner_steps=8, learning_rate=0.1)
    fitted = method(denoiser, x0, text, null)
    assert (fitted.last_loss <= fitted.first_loss).all()
    assert fitted.last_loss[0] < fitted.first_loss[0]
    torch.testing.assert_close(method.decode(denoiser, fitted, **text), fitted.reconstruction)

    golden = GoldenNoise(Euler(3, GRID)).improve(ClassifierFreeGuidance(denoiser, 3.0, null), denoiser, x0, **text)
    assert golden.shape == x0.shape
    assert not torch.allclose(golden, x0)
    assert NPNet((4, 8, 8), condition=30)(golden, text["encoder_hidden_states"]).shape == x0.shape


def test_added_conditions_and_observations_reach_the_model() -> None:
    class Recorder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float16))

        def forward(self, sample, timestep, added_cond_kwargs=None, return_dict=True):  # type: ignore[no-untyped-def]
            assert sample.dtype == added_cond_kwargs["text_embeds"].dtype == torch.float16
            assert added_cond_kwargs["time_ids"].dtype == torch.long
            return (sample[:, :4] + sample[:, 4:],)

    x, y = random(1, 4, 2, 2).float(), random(1, 4, 2, 2, seed=1).float()
    condition = {"text_embeds": torch.zeros(1, 3), "time_ids": torch.zeros(1, 6, dtype=torch.long)}
    output = DiffusersNetwork(Recorder())(x, torch.zeros(1), y, **condition)
    torch.testing.assert_close(output, x + y, rtol=1e-2, atol=1e-2)


def test_latents_are_scaled_and_come_back() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, scaling_factor=0.5).eval()
    codec, image = LatentCodec(vae), random(1, 3, 16, 16).float().clamp(-1, 1)
    with torch.no_grad():
        mean = vae.encode(image).latent_dist.mean
        torch.testing.assert_close(codec.encode(image), 0.5 * mean)
        torch.testing.assert_close(codec.decode(codec.encode(image)), vae.decode(mean).sample)
        drawn = [codec.encode(image, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], 0.5 * mean)
    assert LatentCodec(vae, scale=0.2, shift=0.1).encode(image).shape == mean.shape


def test_prompts_become_hidden_states() -> None:
    class Tokenizer:
        model_max_length = 5

        def __call__(self, prompts: list[str], **options: object) -> SimpleNamespace:
            assert options == {"padding": "max_length", "max_length": 5, "truncation": True, "return_tensors": "pt"}
            return SimpleNamespace(input_ids=torch.tensor([[len(p)] * 5 for p in prompts]))

    class Encoder(nn.Embedding):
        def forward(self, tokens: Tensor) -> tuple[Tensor]:  # type: ignore[override]
            return (super().forward(tokens),)

    assert encode_text(Tokenizer(), Encoder(10, 6), ["ab", "abcd"]).shape == (2, 5, 6)


def test_a_model_is_read_from_a_pipeline_folder(tmp_path: Path) -> None:
    model = unet()
    model.save_pretrained(tmp_path / "unet")
    loaded = load_model(tmp_path)
    assert not loaded.training
    for one, other in zip(model.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(UserError, match=r"no config\.json"):
        load_model(tmp_path, "vae")
    next((tmp_path / "unet").glob("*.safetensors")).write_bytes(b"short")
    with pytest.raises(UserError, match="cannot load"):
        load_model(tmp_path)


def test_without_diffusers_it_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"ornstein\[diffusers\]"):
        load_model(tmp_path)


def test_bad_requests() -> None:
    denoiser = diffusers_denoiser(unet(), StepVP())
    with pytest.raises(UserError, match="unknown; choose one of epsilon"):
        diffusers_denoiser(unet(), StepVP(), "eps")
    with pytest.raises(UserError, match="take real latents"):
        denoiser(torch.zeros(1, 4), 0.5)
    for text in (torch.zeros(3, 5, 6), torch.zeros(2, 5, 7)):  # rows, width
        with pytest.raises(UserError, match=r"cannot work with the shapes .*give conditions with a row for each"):
            denoiser(torch.zeros(2, 4, 8, 8), 0.5, encoder_hidden_states=text)
    with pytest.raises(UserError, match="name them as the model's arguments"):
        denoiser(torch.zeros(1, 4, 8, 8), 0.5, text=torch.zeros(1))
