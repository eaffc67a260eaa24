import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_vectors import ReferenceFile, reference_files

from ornstein.config import build, describe
from ornstein_speech.datasets import segment
from ornstein_speech.representation import CompressedSpectrogram

TOLERANCE = {torch.float64: 2e-6, torch.float32: 1e-5}
"""The root of a coefficient near zero magnifies the rounding of a float32 STFT."""


def from_published(config: dict) -> CompressedSpectrogram:
    return CompressedSpectrogram(
        n_fft=config["n_fft"],
        hop=config["hop_length"],
        window=config["window"],
        transform=config["transform_type"],
        exponent=config["spec_abs_exponent"],
        factor=config["spec_factor"],
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@reference_files(
    "speech",
    "spectrogram*.npz",
    cases=lambda v: v.prefixes("_config"),
    needs=["wave", "{case}_X", "{case}_padded_frames"],
)
def test_spectrogram_vectors(vectors: ReferenceFile, case: str, dtype: torch.dtype) -> None:
    representation = from_published(vectors.json(f"{case}_config"))
    wave = vectors.tensor("wave", dtype)[None]
    spec = representation.forward(wave)
    expected = vectors.tensor(f"{case}_X").to(spec.dtype)
    assert spec.shape[1:] == expected.shape
    assert (spec[0] - expected).abs().max() < TOLERANCE[dtype]
    if f"{case}_stft_first8" in vectors:
        frames = vectors[f"{case}_stft_first8"].shape[-1]
        stft = representation.expand(spec)[0, ..., :frames]
        assert (
            np.abs(stft.numpy() - vectors[f"{case}_stft_first8"]).max() < 10 * TOLERANCE[dtype]
        )  # the inverse amplifies
    assert representation.pad_frames(spec).shape[-1] == vectors.number(f"{case}_padded_frames")
    assert representation.frames(wave.shape[-1]) == spec.shape[-1]
    assert (representation.inverse(spec, wave.shape[-1]) - wave).abs().max() < 1e-5


@reference_files("speech", "spectrogram*.npz", cases=lambda v: v.prefixes("_reflect_tail"), needs=["{case}_X"])
def test_reflected_tail_vectors(vectors: ReferenceFile, case: str) -> None:
    spec, tail = vectors.tensor(f"{case}_X"), vectors.tensor(f"{case}_reflect_tail")
    padded = CompressedSpectrogram().pad_frames(spec, spec.shape[-1] + tail.shape[-1], "reflect")
    assert (padded[0, :, spec.shape[-1] :] - tail).abs().max() < TOLERANCE[torch.float64]


@reference_files(
    "speech",
    "segments*.npz",
    cases=lambda v: v.prefixes("_normalize"),
    needs=["{case}_clean", "{case}_noisy", "{case}_X", "{case}_Y"],
)
def test_segment_vectors(vectors: ReferenceFile, case: str) -> None:
    x, y = vectors.tensor(f"{case}_X"), vectors.tensor(f"{case}_Y")
    bins, frames = x.shape[-2:]
    representation = CompressedSpectrogram(n_fft=2 * bins - 2, hop=bins // 2)  # the published ratio of both
    pair = segment(
        vectors.tensor(f"{case}_clean"),
        vectors.tensor(f"{case}_noisy"),
        (frames - 1) * representation.hop,
        normalize=str(vectors[f"{case}_normalize"]),
    )
    for wave, expected in zip(pair, (x, y), strict=True):
        assert (representation.forward(wave[None].double())[0] - expected).abs().max() < TOLERANCE[torch.float64]


REPRESENTATIONS = [
    CompressedSpectrogram(),
    CompressedSpectrogram(window="sqrthann"),
    CompressedSpectrogram(transform="log"),
    CompressedSpectrogram(transform="none"),
    CompressedSpectrogram(exponent=1.0),
    CompressedSpectrogram(n_fft=1534, hop=384, exponent=0.667, factor=0.065, sample_rate=48000, padding="reflect"),
]


@pytest.mark.parametrize(
    "representation", REPRESENTATIONS, ids=lambda r: f"{r.window}-{r.transform}-{r.exponent}-{r.n_fft}"
)
@given(length=st.integers(1, 4000))
def test_inverse_undoes_forward(representation: CompressedSpectrogram, length: int) -> None:
    wave = torch.rand(2, 1, length, generator=torch.Generator().manual_seed(length), dtype=torch.float64) - 0.5
    spec = representation.forward(wave)
    assert spec.shape == (2, 1, representation.bins, representation.frames(length))
    assert (representation.inverse(spec, length) - wave).abs().max() < 1e-9
    padded = representation.pad_frames(spec)
    assert padded.shape[-1] % 64 == 0
    inside = max(0, length - representation.n_fft // 2)  # added frames reach the last samples
    assert (representation.inverse(padded, length) - wave)[..., :inside].abs().sum() < 1e-9 * length


@pytest.mark.parametrize("representation", REPRESENTATIONS[:5], ids=lambda r: f"{r.window}-{r.transform}-{r.exponent}")
def test_silence_has_finite_gradients(representation: CompressedSpectrogram) -> None:
    wave = torch.zeros(1, 1, 800, requires_grad=True)
    spec = representation.forward(wave)
    assert not spec.detach().abs().any()
    representation.inverse(spec, 800).sum().backward()
    assert torch.isfinite(wave.grad).all()


def test_half_precision_is_computed_in_float32() -> None:
    assert CompressedSpectrogram().forward(torch.rand(1, 1, 600).bfloat16()).dtype == torch.complex64


def test_reflection_falls_back_to_zeros_where_too_short() -> None:
    representation = CompressedSpectrogram(padding="reflect")
    spec = torch.ones(1, 1, 256, 32, dtype=torch.complex64)
    assert torch.equal(representation.pad_frames(spec)[..., 32:], torch.zeros(1, 1, 256, 32, dtype=torch.complex64))
    spec = torch.ones(1, 1, 256, 33, dtype=torch.complex64)
    assert torch.equal(representation.pad_frames(spec), torch.ones(1, 1, 256, 64, dtype=torch.complex64))
    assert torch.equal(representation.pad_frames(spec, 33), spec)


def test_compression_keeps_the_phase() -> None:
    c = torch.polar(torch.tensor([0.0, 1e-9, 2.0, 50.0]), torch.tensor([0.0, 1.0, -2.0, 3.0]))
    for representation in REPRESENTATIONS:
        compressed = representation.compress(c)
        assert torch.allclose(compressed[1:].angle(), c[1:].angle())
    magnitudes = CompressedSpectrogram(transform="log").compress(c).abs()
    assert magnitudes.tolist() == pytest.approx([0.15 * math.log1p(abs(v)) for v in c.tolist()], rel=1e-5)


def test_is_a_component() -> None:
    representation = REPRESENTATIONS[-1]
    assert build(describe(representation), CompressedSpectrogram) == representation


@pytest.mark.parametrize(
    "wrong", [{"window": "hamming"}, {"transform": "cube"}, {"hop": 0}, {"exponent": 0.0}, {"padding": "circular"}]
)
def test_wrong_options(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CompressedSpectrogram(**wrong)
