from pathlib import Path

import pytest
import torch

from ornstein import checkpoint
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.ncsnpp import NCSNpp
from ornstein.parameterization import X0
from ornstein.process.bridge import SchroedingerBridge
from ornstein.samplers.ancestral import Ancestral
from ornstein_speech import demo as module
from ornstein_speech.demo import demo, recordings
from ornstein_speech.representation import CompressedSpectrogram


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    checkpoint.save(
        path,
        Denoiser(NCSNpp(nf=4, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=()), SchroedingerBridge(), X0()),
        app="speech",
        representation=CompressedSpectrogram(n_fft=126, hop=64),
        sampler=Ancestral(steps=1, eta=1.0),
    )
    return path


def test_demo(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = demo(tmp_path / "demo", checkpoint=tiny)
    assert page == tmp_path / "demo" / "index.html"
    printed = capsys.readouterr().out.splitlines()
    clips = sorted(path.name for path in (recordings() / "noisy").iterdir())
    assert "PESQ before" in printed[0]
    assert "SI-SDR after" in printed[0]
    assert [line.split()[0] for line in printed[1 : len(clips) + 2]] == [*clips, "mean"]
    assert printed[-1] == str(page)
    assert page.read_text().count("<audio") == 3 * len(clips)
    with pytest.raises(UserError, match="--overwrite"):
        demo(tmp_path / "demo", checkpoint=tiny)


def test_speed_is_a_mean_without_the_first_file() -> None:
    assert module._speed([(9.0, 1.0), (1.0, 1.0), (6.0, 2.0)]) == pytest.approx(7 / 3)
    assert module._speed([(9.0, 3.0)]) == 3


def test_without_recordings(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert recordings().is_dir()  # the checkout is found from anywhere
    monkeypatch.setattr(module, "__file__", str(tmp_path / "site-packages" / "a" / "b" / "demo.py"))
    with pytest.raises(UserError, match="--data"):
        demo(tmp_path / "demo", checkpoint=tiny)
