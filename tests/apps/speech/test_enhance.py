import dataclasses
import errno
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from ornstein import checkpoint
from ornstein.cli import main
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.ncsnpp import NCSNpp
from ornstein.parameterization import X0
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.ouve import OUVE
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.predictor_corrector import Langevin, PredictorCorrector
from ornstein.samplers.time_grids import UniformGrid
from ornstein_speech import audio
from ornstein_speech import enhance as module_or_function
from ornstein_speech.enhance import Enhancer, enhance
from ornstein_speech.representation import CompressedSpectrogram

RATE = 16000


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the form of the real checkpoint."""
    torch.manual_seed(0)
    network = NCSNpp(nf=4, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=())
    with torch.no_grad():
        for weight in network.parameters():  # the usual start makes the output nearly zero
            if weight.ndim > 1:
                weight.normal_(std=0.5 * weight[0].numel() ** -0.5)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    checkpoint.save(
        path,
        Denoiser(network, SchroedingerBridge(), X0()),
        app="speech",
        representation=CompressedSpectrogram(n_fft=126, hop=64),
        sampler=Ancestral(steps=2, eta=1.0),
    )
    return path


def sound(frames: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(channels, frames)) * 0.1).astype(np.float32)


@pytest.mark.parametrize(
    ("rate", "channels", "frames", "name"),
    [
        (16000, 1, 8000, "a.wav"),
        (16000, 1, 160, "ten_ms.wav"),
        (16000, 1, 1, "one_sample.wav"),
        (44100, 2, 9001, "stereo.flac"),
        (192000, 1, 50000, "fast.wav"),
        (8000, 8, 3000, "eight.wav"),
        (22050, 1, 30000, "vorbis.ogg"),
        (12347, 1, 6000, "odd_rate.wav"),
    ],
)
def test_any_rate_length_and_channels(
    tiny: Path, tmp_path: Path, rate: int, channels: int, frames: int, name: str
) -> None:
    source, target = tmp_path / name, tmp_path / "out" / name
    audio.write(source, sound(frames, channels), rate)
    assert enhance(source, target, checkpoint=tiny, quiet=True) == [target]
    before, after = audio.info(source), audio.info(target)
    assert (after.rate, after.channels, after.frames, after.subtype) == (rate, channels, before.frames, before.subtype)


def test_the_package_gives_the_function(tiny: Path) -> None:
    assert module_or_function is enhance


def test_channels_are_treated_as_mono_files(tiny: Path) -> None:
    enhancer = Enhancer(tiny, sampler="ode")
    wave = torch.from_numpy(sound(5000, 3)) * torch.tensor([[1.0], [0.01], [3.0]])
    together = enhancer(wave, RATE)
    for channel in range(3):
        assert torch.allclose(together[channel], enhancer(wave[channel], RATE), atol=1e-5)


def test_the_seed_decides_and_batches_do_not(tiny: Path) -> None:
    wave = torch.from_numpy(sound(64 * 200, 2))
    small = {"chunk_frames": 64, "overlap_frames": 16}
    one, three = Enhancer(tiny, batch=1, **small), Enhancer(tiny, batch=3, **small)
    first = one(wave, RATE, seed=1)
    assert torch.equal(first, one(wave, RATE, seed=1))
    scale = float(first.abs().max())
    assert torch.allclose(first, three(wave, RATE, seed=1), atol=1e-4 * scale)
    assert not torch.allclose(first, one(wave, RATE, seed=2), atol=1e-2 * scale)


class Pointwise(nn.Module):
    """A network without reach in time."""

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 0.4 * y + 0.4 * x


def test_long_files_have_no_seams(tiny: Path) -> None:
    """With a local network, chunks give what the whole file gives: they share one noise field."""
    chunked, whole = Enhancer(tiny, chunk_frames=128, overlap_frames=32, batch=2), Enhancer(tiny, chunk_frames=4096)
    wave = torch.from_numpy(sound(64 * 700 + 13, 2))
    for enhancer in (chunked, whole):
        enhancer.denoiser.network = Pointwise()
    found, expected = chunked(wave, RATE), whole(wave, RATE)
    assert (found - expected)[
        :, :-128
    ].abs().max() < 1e-6  # the last frames see added ones in the one and not in the other
    assert not torch.allclose(found, whole(wave, RATE, seed=1), atol=1e-3)


def test_silence_stays_silence(tiny: Path, tmp_path: Path) -> None:
    audio.write(tmp_path / "silent.wav", np.zeros((2, 5000), np.float32), RATE)
    enhance(tmp_path / "silent.wav", tmp_path / "out.wav", checkpoint=tiny, quiet=True)
    assert not audio.read(tmp_path / "out.wav")[0].any()
    half = torch.from_numpy(sound(5000, 2))
    half[1] = 0
    cleaned = Enhancer(tiny)(half, RATE)
    assert cleaned[0].any()
    assert not cleaned[1].any()


def test_offset_is_removed(tiny: Path) -> None:
    wave = torch.from_numpy(sound(8000))
    wave -= wave.mean()
    enhancer = Enhancer(tiny, sampler="ode")
    assert torch.allclose(enhancer(wave + 0.4, RATE), enhancer(wave, RATE), atol=1e-4)


def test_level_beyond_full_scale(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Floating-point files keep it, others are scaled down as a whole."""
    monkeypatch.setattr(Enhancer, "_sample", lambda self, waves, *rest: 3 * waves.squeeze(1)[:, None])
    loud = sound(4000)
    loud *= 0.9 / np.abs(loud).max()
    for name, subtype in (("float.wav", "FLOAT"), ("integer.wav", "PCM_16")):
        audio.write(tmp_path / name, loud, RATE, subtype=subtype)
        enhance(tmp_path / name, tmp_path / "out" / name, checkpoint=tiny, quiet=True)
    assert np.allclose(audio.read(tmp_path / "out" / "float.wav")[0], 3 * loud, atol=1e-5)
    assert np.allclose(audio.read(tmp_path / "out" / "integer.wav")[0], loud / 0.9, atol=1e-3)
    assert "2.70" in capfd.readouterr().err


def test_clipped_input_is_taken_as_it_is(tiny: Path, tmp_path: Path) -> None:
    audio.write(tmp_path / "clipped.wav", np.clip(20 * sound(4000), -1, 1), RATE)
    enhance(tmp_path / "clipped.wav", tmp_path / "out.wav", checkpoint=tiny, quiet=True)
    assert audio.read(tmp_path / "out.wav")[0].any()


def test_folder(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in"
    for name in ("a.wav", "deep/er/b.flac", "deep/c.wav"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        audio.write(source / name, sound(2000), RATE)
    (source / "deep" / "broken.wav").write_bytes(b"this is no sound")
    (source / "notes.txt").write_text("nothing to hear")
    with pytest.raises(UserError, match=r"^1 of 4 files failed, see above; the others are written$"):
        enhance(source, source / "out", checkpoint=tiny)
    out, err = capfd.readouterr()
    assert err.count("broken.wav") == 1
    printed = out.split()
    written = [source / "out" / name for name in ("a.wav", "deep/c.wav", "deep/er/b.flac")]
    assert sorted(printed) == sorted(map(str, written))
    assert all(audio.info(path).frames == 2000 for path in written)
    (source / "deep" / "broken.wav").unlink()
    with pytest.raises(UserError, match=r"^3 of 3 files failed, see above$"):  # not 6: its own results are no inputs
        enhance(source, source / "out", checkpoint=tiny, quiet=True)
    assert capfd.readouterr().err.count("--overwrite") == 3
    assert len(enhance(source, source / "out", checkpoint=tiny, quiet=True, overwrite=True)) == 3


class FullDisk(io.BytesIO):
    """Fails like a buffered file on a full disk: when written, and again when closed."""

    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        super().close()
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("fails_at", ["create", "write"])
def test_full_disk_is_told_and_the_next_file_is_done(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], fails_at: str
) -> None:
    source, real, opened = tmp_path / "in", tempfile.TemporaryFile, []
    for name in ("a.wav", "b.wav"):
        audio.write(source / name, sound(2000), RATE)

    def temporary_file(dir: Path) -> object:
        opened.append(dir)
        if len(opened) > 1:
            return real(dir=dir)
        if fails_at == "create":
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return FullDisk()

    monkeypatch.setattr("ornstein.files.make_folder", lambda folder: folder.mkdir(exist_ok=True))  # tries one too
    monkeypatch.setattr(tempfile, "TemporaryFile", temporary_file)
    with pytest.raises(UserError, match="1 of 2 files failed, see above; the others are written"):
        enhance(source, tmp_path / "out", checkpoint=tiny, quiet=True)
    told = capfd.readouterr().err
    reason = {"create": "Disk quota exceeded", "write": "No space left on device"}[fails_at]
    assert f"cannot write {tmp_path / 'out' / 'a.wav'}: {reason}; free some space" in told
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.wav"]


def test_what_cannot_be_written_is_told_before_the_work(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the network ran")

    monkeypatch.setattr(Enhancer, "stream", never)
    for name in ("a.wav", "b.wav"):
        audio.write(tmp_path / "in" / name, sound(1000), 96000)
    with pytest.raises(UserError, match=r"b.mp3 with 1 channels at 96000 Hz as .*; choose WAV"):
        enhance(tmp_path / "in" / "a.wav", tmp_path / "b.mp3", checkpoint=tiny)
    with pytest.raises(UserError, match=r"^cannot create the folder /proc/x: /proc takes no new files; choose another"):
        enhance(tmp_path / "in" / "a.wav", "/proc/x/b.wav", checkpoint=tiny)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file is a file, so nothing"):
        enhance(tmp_path / "in", tmp_path / "file" / "out", checkpoint=tiny)


def test_paths_may_be_strings(tiny: Path, tmp_path: Path) -> None:
    files = [str(tmp_path / "a.wav"), str(tmp_path / "b.wav")]
    for name in files:
        audio.write(name, sound(2000), RATE)
    assert enhance(files[0], str(tmp_path / "c.wav"), checkpoint=str(tiny), quiet=True) == [tmp_path / "c.wav"]
    assert len(enhance(files, str(tmp_path / "out"), checkpoint=str(tiny), quiet=True)) == 2
    for words, target in ((files[:1], "d.wav"), (files, "out2")):
        assert main(["speech", "enhance", *words, "-o", str(tmp_path / target), "--checkpoint", str(tiny)]) == 0
    assert audio.info(tmp_path / "d.wav").frames == 2000
    assert len(list((tmp_path / "out2").iterdir())) == 2


def test_list_and_folder_targets(tiny: Path, tmp_path: Path) -> None:
    files = [tmp_path / "a.wav", tmp_path / "b.g722"]
    audio.write(files[0], sound(2000), RATE)
    files[1].write_bytes(bytes(1000))
    written = enhance(files, tmp_path / "out", checkpoint=tiny, quiet=True)
    assert [path.name for path in written] == ["a.wav", "b.wav"]
    assert enhance(files[0], tmp_path / "out", checkpoint=tiny, quiet=True, overwrite=True) == [
        tmp_path / "out" / "a.wav"
    ]
    with pytest.raises(UserError, match="folder"):
        enhance(files, tmp_path / "out.wav", checkpoint=tiny)
    (tmp_path / "other").mkdir()
    audio.write(tmp_path / "other" / "a.wav", sound(2000), RATE)
    with pytest.raises(UserError, match="both"):
        enhance([files[0], tmp_path / "other" / "a.wav"], tmp_path / "out2", checkpoint=tiny)


def test_output_rate(tiny: Path, tmp_path: Path) -> None:
    audio.write(tmp_path / "a.wav", sound(4410), 44100)
    enhance(tmp_path / "a.wav", tmp_path / "b.wav", checkpoint=tiny, sample_rate=16000, quiet=True)
    assert (audio.info(tmp_path / "b.wav").rate, audio.info(tmp_path / "b.wav").frames) == (16000, 1600)


def bad_input(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.wav"
    match kind:
        case "missing":
            pass
        case "empty":
            path.write_bytes(b"")
        case "not_audio":
            path.write_text("dear diary")
        case "no_samples":
            soundfile.write(path, np.zeros(0), RATE)
        case "nan":
            samples = sound(1000)[0]
            samples[500] = np.nan
            soundfile.write(path, samples, RATE, subtype="FLOAT")
        case "truncated":
            audio.write(path, sound(1000), RATE)
            path.write_bytes(path.read_bytes()[:1000])
    return path


@pytest.mark.parametrize("kind", ["missing", "empty", "not_audio", "no_samples", "nan", "truncated"])
def test_bad_input_is_one_line_and_nothing_is_lost(
    tiny: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "precious.wav"
    target.write_bytes(b"do not lose me")
    command = [
        "speech",
        "enhance",
        str(bad_input(kind, tmp_path)),
        "-o",
        str(target),
        "--checkpoint",
        str(tiny),
        "--overwrite",
    ]
    assert main([*command, "--quiet"]) == 2
    message = capsys.readouterr().err.strip()
    assert "\n" not in message
    assert kind in message
    assert target.read_bytes() == b"do not lose me"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"checkpoint": "nowhere.safetensors"}, "nowhere"),
        ({"device": "cuda:99"}, "cuda"),
        ({"device": "abacus"}, "abacus"),
        ({"steps": 0}, "steps"),
        ({"batch": 0}, "batch"),
        ({"sample_rate": -1}, "sample_rate"),
        ({"sample_rate": 1}, "sample_rate"),
        ({"steps": 10001}, "at most 10000"),
        ({"precision": "float16"}, "float16 is for GPUs"),
    ],
)
def test_wrong_options(tiny: Path, tmp_path: Path, options: dict, said: str) -> None:
    audio.write(tmp_path / "a.wav", sound(1000), RATE)
    with pytest.raises(UserError, match=said):
        enhance(tmp_path / "a.wav", tmp_path / "b.wav", **{"checkpoint": tiny} | options)
    assert not (tmp_path / "b.wav").exists()


def test_missing_gpu(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="no GPU"):
        Enhancer(tiny, device="cuda")


def test_wrong_checkpoint(tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    checkpoint.save(
        other, Denoiser(NCSNpp(nf=4, ch_mult=(1,), attn_resolutions=()), SchroedingerBridge(), X0()), app="motion"
    )
    (tmp_path / "noise.safetensors").write_bytes(b"0123456789")
    for path, said in ((other, "motion"), (tmp_path / "noise.safetensors", "damaged")):
        with pytest.raises(UserError, match=said):
            Enhancer(path)
    bare = tmp_path / "bare.safetensors"
    checkpoint.save(
        bare, Denoiser(NCSNpp(nf=4, ch_mult=(1,), attn_resolutions=()), SchroedingerBridge(), X0()), app="speech"
    )
    with pytest.raises(UserError, match="spectrogram"):
        Enhancer(bare)


def test_target_exists_or_cannot_be_written(tiny: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "a.wav", tmp_path / "b.wav"
    audio.write(source, sound(1000), RATE)
    target.write_bytes(b"old")
    with pytest.raises(UserError, match="--overwrite"):
        enhance(source, target, checkpoint=tiny)
    assert target.read_bytes() == b"old"
    enhance(source, source, checkpoint=tiny, overwrite=True, quiet=True)  # in place
    assert audio.info(source).frames == 1000
    with pytest.raises(UserError, match=r"b\.wav is a file, so nothing"):
        enhance(source, target / "inside" / "c.wav", checkpoint=tiny)
    with pytest.raises(UserError, match="format"):
        enhance(source, tmp_path / "c.txt", checkpoint=tiny)
    with pytest.raises(UserError, match=r"MP3|mp3"):
        enhance(source, tmp_path / "c.mp3", checkpoint=tiny, sample_rate=12345)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav"]


def test_waveform_interface(tiny: Path) -> None:
    enhancer = Enhancer(tiny)
    wave = torch.from_numpy(sound(3001))[0]
    assert enhancer(wave.double(), 22050).shape == wave.shape
    assert enhancer.sample_rate == RATE
    assert enhancer.evaluations == 2
    assert Enhancer(tiny, steps=5).evaluations == 5
    for name in ("sde", "ode", "2m", "heun"):
        assert torch.isfinite(Enhancer(tiny, sampler=name, steps=2)(wave, RATE)).all()
    with pytest.raises(UserError, match="pc"):
        Enhancer(tiny, sampler="pc")


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(0),
        torch.zeros(0, 5),
        torch.tensor(1.0),
        torch.zeros(1, 1, 100),
        torch.full((10,), torch.nan),
        torch.full((10,), 1e300, dtype=torch.float64),
        torch.zeros(10, dtype=torch.complex64),
        np.zeros((1, 1, 100)),
        np.array(["a", "b"]),
        [0.0, 0.1],
    ],
    ids=str,
)
def test_wrong_waveforms(tiny: Path, wrong: Any) -> None:
    with pytest.raises(UserError, match="waveform"):
        Enhancer(tiny)(wrong, RATE)


def test_wrong_rate(tiny: Path) -> None:
    for rate in (0, -16000):
        with pytest.raises(UserError, match="sample rate"):
            Enhancer(tiny)(torch.zeros(10), rate)


def test_numpy_waveforms(tiny: Path) -> None:
    enhancer, wave = Enhancer(tiny), sound(3000, 2)
    expected = enhancer(torch.from_numpy(wave), RATE)
    assert torch.equal(enhancer(wave, RATE), expected)
    assert torch.equal(enhancer(np.asfortranarray(wave.astype(np.float64)), RATE), expected)
    assert enhancer(wave[0, ::-1], RATE).shape == (3000,)


def test_pc_keeps_the_stored_settings(tmp_path: Path) -> None:
    stored = PredictorCorrector(
        steps=7, grid=UniformGrid(end=0.05), corrector=Langevin(snr=0.33), corrector_steps=2, noise_scale=0.9
    )
    path = tmp_path / "pc.safetensors"
    checkpoint.save(
        path,
        Denoiser(NCSNpp(nf=4, ch_mult=(1,), attn_resolutions=()), OUVE(), X0()),
        app="speech",
        representation=CompressedSpectrogram(n_fft=126, hop=64),
        sampler=stored,
    )
    assert Enhancer(path).sampler == stored
    assert Enhancer(path, sampler="pc").sampler == stored
    assert Enhancer(path, sampler="pc", steps=3).sampler == dataclasses.replace(stored, steps=3)
    assert isinstance(Enhancer(path, sampler="ode").sampler, Ancestral)


def test_progress_adds_up(tiny: Path) -> None:
    enhancer = Enhancer(tiny, chunk_frames=64, overlap_frames=16, batch=2)
    for seconds in (0.2, 1.0):
        told: list[float] = []
        enhancer(torch.from_numpy(sound(int(seconds * RATE), 2)), RATE, on_progress=told.append)
        assert sum(told) == pytest.approx(seconds, rel=0.4)
