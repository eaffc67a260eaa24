import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ornstein.errors import UserError
from ornstein_speech import audio

slow_disk = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def tone(frames: int, channels: int = 1, rate: int = 16000) -> np.ndarray:
    time = np.arange(frames) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * 440 * (k + 1) * time) for k in range(channels)]).astype(np.float32)


@pytest.mark.parametrize(
    ("suffix", "subtype", "error"),
    [
        ("wav", "PCM_16", 1e-4),
        ("wav", "PCM_24", 1e-6),
        ("wav", "PCM_32", 1e-7),
        ("wav", "FLOAT", 0),
        ("flac", "PCM_16", 1e-4),
        ("flac", "PCM_24", 1e-6),
        ("ogg", "VORBIS", 0.1),
        ("mp3", "MPEG_LAYER_III", None),  # padded and delayed by the codec
    ],
)
def test_write_read(tmp_path: Path, suffix: str, subtype: str, error: float | None) -> None:
    x = tone(32000, 2)
    path = tmp_path / f"a.{suffix}"
    audio.write(path, x, 16000, subtype=subtype)
    header = audio.info(path)
    assert (header.rate, header.channels, header.subtype) == (16000, 2, subtype)
    y, rate = audio.read(path)
    assert rate == 16000
    assert y.dtype == np.float32
    assert np.isfinite(y).all()
    if error is not None:
        assert y.shape == x.shape == (2, header.frames)
        assert np.abs(x - y).max() <= error
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_long_ogg_is_written_in_pieces(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.ogg", tone(16000 * 200), 16000)
    assert audio.info(tmp_path / "a.ogg").frames == 16000 * 200


def test_g722_decodes_two_samples_a_byte(tmp_path: Path) -> None:
    from G722 import G722

    x = tone(16000)
    path = tmp_path / "a.g722"
    path.write_bytes(bytes(G722(16000, 64000).encode((x[0] * 32767).astype(np.int16))))
    header = audio.info(path)
    assert (header.rate, header.channels, header.frames) == (16000, 1, 16000)
    y, _ = audio.read(path)
    delay = 22  # of the codec's two filter banks
    assert np.corrcoef(x[0, 1000:-delay], y[0, 1000 + delay :])[0, 1] > 0.99
    assert np.array_equal(audio.read(path, start=501, frames=700)[0], y[:, 501:1201])
    assert np.array_equal(np.concatenate(list(audio.blocks(path, 999)), axis=1), y)


def test_long_g722_is_decoded_piece_by_piece(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
    path = tmp_path / "a.g722"
    path.write_bytes(data)
    whole = audio.decode_g722(data).astype(np.float32)[None] / 32768
    assert np.array_equal(audio.read(path)[0], whole)
    assert np.array_equal(audio.read(path, start=400_001, frames=99_000)[0], whole[:, 400_001:499_001])
    for size in (70_001, 200_000):
        assert np.array_equal(np.concatenate(list(audio.blocks(path, size)), axis=1), whole)


@slow_disk
@given(start=st.integers(0, 4999), frames=st.integers(1, 6000))
def test_part_of_a_file(tmp_path: Path, start: int, frames: int) -> None:
    x = tone(5000)
    path = tmp_path / "a.wav"
    audio.write(path, x, 16000, subtype="FLOAT", overwrite=True)
    assert np.array_equal(audio.read(path, start=start, frames=frames)[0], x[:, start : start + frames])


@pytest.mark.parametrize("source", [8000, 11025, 16000, 22050, 44100, 48000, 44101, 192000])
@pytest.mark.parametrize("size", [5000, 40000])
def test_blocks_equal_the_whole(tmp_path: Path, source: int, size: int) -> None:
    x = np.random.default_rng(0).normal(0, 0.1, (2, 100_003)).astype(np.float32)
    path = tmp_path / "a.wav"
    audio.write(path, x, source, subtype="FLOAT")
    whole, rate = audio.read(path, 16000)
    assert rate == 16000
    assert whole.shape[1] == -(-x.shape[1] * 16000 // source)
    pieces = list(audio.blocks(path, size, 16000))
    joined = np.concatenate(pieces, axis=1)
    assert joined.shape == whole.shape
    assert np.abs(joined - whole).max() < 1e-5
    if source != 44101:
        assert len(pieces) > 1


def test_resampling_keeps_a_tone() -> None:
    x = tone(48000, rate=48000)
    y = audio.resample(x, 48000, 16000)
    assert np.abs(y[:, 100:-100] - tone(16000)[:, 100:-100]).max() < 5e-3
    z = audio.resample(torch.from_numpy(x), 48000, 16000)
    assert torch.equal(z, torch.from_numpy(y))


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_not_audio(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("this is no sound\n" * 100)
    with pytest.raises(UserError, match="not a sound file"):
        audio.read(tmp_path / name)


def test_missing_empty_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        audio.read(tmp_path / "a.wav")
    for name in ("a.wav", "a.g722"):
        (tmp_path / name).touch()
        with pytest.raises(UserError, match="is empty"):
            audio.read(tmp_path / name)
    with pytest.raises(UserError, match="is a folder"):
        audio.info(tmp_path)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_no_samples(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.zeros((0, 1)), 16000)
    with pytest.raises(UserError):
        audio.read(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path: Path, bad: float) -> None:
    x = tone(5000)
    x[0, 3000] = bad
    soundfile.write(tmp_path / "a.wav", x.T, 16000, subtype="FLOAT")
    with pytest.raises(UserError, match="NaN or infinite"):
        audio.read(tmp_path / "a.wav")
    with pytest.raises(UserError, match="NaN or infinite"):
        audio.write(tmp_path / "b.wav", x, 16000)
    assert not (tmp_path / "b.wav").exists()


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_truncated(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 80000))
    audio.write(path, noise, 16000)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match="truncated"):
        audio.read(path)


def test_wav_from_a_pipe_has_no_length(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1000).T, 16000, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.find(b"data")
    data[at + 4 : at + 8] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert audio.read(path)[0].shape == (1, 1000)


def test_writing_refuses(tmp_path: Path) -> None:
    x = tone(1000)
    audio.write(tmp_path / "a.wav", x, 16000)
    with pytest.raises(UserError, match="exists"):
        audio.write(tmp_path / "a.wav", x, 16000)
    with pytest.raises(UserError, match="unknown format"):
        audio.write(tmp_path / "a.xyz", x, 16000)
    with pytest.raises(UserError, match="cannot hold"):
        audio.write(tmp_path / "a.flac", x, 16000, subtype="FLOAT")
    with pytest.raises(UserError, match="cannot write"):
        audio.write(tmp_path / "a.mp3", np.zeros((7, 1000)), 16000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav"]


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with audio.writer(tmp_path / "a.wav", 16000, 1) as put:
            put(tone(100))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_clipping_warns(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="clipped"):
        audio.write(tmp_path / "a.wav", 3 * tone(1000), 16000)
    assert np.abs(audio.read(tmp_path / "a.wav")[0]).max() <= 1
    audio.write(tmp_path / "b.wav", 3 * tone(1000), 16000, subtype="FLOAT")
    assert np.array_equal(audio.read(tmp_path / "b.wav")[0], 3 * tone(1000))


def test_fitting_subtype(tmp_path: Path) -> None:
    like = audio.AudioInfo(16000, 1, 10, "WAV", "FLOAT")
    assert audio.fitting_subtype("a.wav", like) == "FLOAT"
    assert audio.fitting_subtype("a.flac", like) == "PCM_16"
    assert audio.fitting_subtype("a.ogg", like) == "VORBIS"


def test_import_is_light() -> None:
    code = (
        "import sys, ornstein_speech.audio; assert not {'torch', 'torchaudio', 'soundfile', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
