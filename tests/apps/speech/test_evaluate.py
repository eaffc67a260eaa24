import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ornstein import checkpoint
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.ncsnpp import NCSNpp
from ornstein.parameterization import X0
from ornstein.process.bridge import SchroedingerBridge
from ornstein.samplers.ancestral import Ancestral
from ornstein_speech import audio, baselines
from ornstein_speech.demo import recordings
from ornstein_speech.evaluate import FILES, Result, evaluate, held_out, summarize
from ornstein_speech.report import Clip, Page, text_table
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
        sampler=Ancestral(steps=2, eta=1.0),
    )
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pairs of real speech with noise, one of them silent."""
    folder = tmp_path_factory.mktemp("pairs")
    clips = recordings() / "clips"
    for index, snr in enumerate((0, 5, 5)):
        clean, rate = audio.read(clips / "speech_en.flac", frames=24000)
        noise = np.random.default_rng(index).normal(size=clean.shape).astype(np.float32)
        noise *= np.sqrt((clean**2).mean() / 10 ** (snr / 10))
        clean = clean * (index < 2)
        audio.write(folder / "clean" / f"{index}-en-white-{snr}dB.wav", clean * 0.5, rate)
        audio.write(folder / "noisy" / f"{index}-en-white-{snr}dB.wav", (clean + noise) * 0.5, rate)
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluate(tiny: Path, pairs: Path, tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    summary = evaluate(
        pairs,
        checkpoint=tiny,
        output=tmp_path,
        steps=[1, 2],
        workers=workers,
        examples=1,
        limit=3 if workers == 0 else 1,
    )
    assert list(summary["systems"]) == ["noisy", "log-MMSE", "RNNoise", "model, NFE 1", "model, NFE 2"]
    noisy = summary["systems"]["noisy"]
    printed = capsys.readouterr().out
    for word in ("PESQ", "RNNoise", "RTF", "threads", "report.html"):
        assert word in printed
    stored = json.loads((tmp_path / "summary.json").read_text())
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    if workers == 0:
        assert noisy["by_snr"]["0"]["si_sdr"] == pytest.approx(0, abs=0.5)
        assert noisy["by_snr"]["5"]["si_sdr"] == pytest.approx(5, abs=0.5)
        assert noisy["metrics"]["pesq"]["files"] == 2  # the silent file has no score
        assert len(rows) == 15
        assert rows[-1]["pesq"] == "nan"
        assert summary["systems"]["log-MMSE"]["metrics"]["si_sdr"]["mean"] > noisy["metrics"]["si_sdr"]["mean"] + 2
    assert stored["systems"]["model, NFE 2"]["nfe"] == 2
    assert rows[0]["snr_db"] == "0"
    page = (tmp_path / "report.html").read_text()
    assert page.count("<audio") == 6
    assert not re.search(r"(src|href)=\"(?!data:)", page)  # nothing from elsewhere
    with pytest.raises(UserError, match="--overwrite"):
        evaluate(pairs, checkpoint=tiny, output=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_steps_given_twice(tiny: Path, pairs: Path) -> None:
    with pytest.raises(UserError, match="NFE 2"):
        evaluate(pairs, checkpoint=tiny, steps=[2, 1, 2], workers=0)


def test_mixes_of_a_prepared_set(tiny: Path) -> None:
    items = held_out(recordings() / "tiny", mixes=4)
    assert len(items) == 4
    assert Result(items[3]["name"], "noisy", {}, 0).snr == 15


def test_missing_rnnoise_is_a_line(
    tiny: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(baselines, "has_rnnoise", lambda: False)
    summary = evaluate(pairs, checkpoint=tiny, limit=1, workers=0)
    assert "RNNoise" not in summary["systems"]
    assert re.search(r"RNNoise +n/a", capsys.readouterr().out)


def test_wrong_data(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        evaluate(tmp_path / "nowhere", checkpoint=tiny)
    with pytest.raises(UserError, match="clean/ and noisy/"):
        evaluate(tmp_path, checkpoint=tiny)
    with pytest.raises(UserError, match="limit"):
        evaluate(tmp_path, checkpoint=tiny, limit=0)


def test_summary_ignores_undefined_scores() -> None:
    scores = {"pesq": 2.0, "estoi": 0.5, "si_sdr": 1.0, "si_sir": 1.0, "si_sar": 1.0}
    results = [Result("a-5dB", "noisy", scores, 9.0), Result("b-5dB", "noisy", scores | {"pesq": math.nan}, 1.0)]
    summary = summarize(results)
    assert summary["files"] == 2
    assert summary["systems"]["noisy"]["metrics"]["pesq"]["mean"] == 2
    assert summary["systems"]["noisy"]["rtf"] == 1  # without the first, which warms up
    assert summary["systems"]["noisy"]["by_snr"] == {"5": scores}


@pytest.mark.parametrize(
    ("name", "snr"),
    [("0-en-pink--5dB", -5), ("en_babble_2.5dB.flac", 2.5), ("p232_001.wav", None), ("10dB_x.wav", None)],
)
def test_snr_from_the_name(name: str, snr: float | None) -> None:
    assert Result(name, "noisy", {}, 0).snr == snr


def test_page_escapes_and_takes_any_clip(tmp_path: Path) -> None:
    page = Page("a < b")
    page.clips([Clip("<script>", np.zeros(0), 16000), Clip("loud", 3 * np.ones(100), 8000)])
    page.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "a &lt; b" in text
    assert "<script>" not in text
    assert text_table(["", "x"], [["long name", "1"]]) == "           x\nlong name  1"
