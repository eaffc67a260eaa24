import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

from ornstein import checkpoint
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.journal import FOLDER
from ornstein.networks.ncsnpp import NCSNpp
from ornstein.parameterization import X0
from ornstein.process.bridge import SchroedingerBridge
from ornstein.samplers.ancestral import Ancestral
from ornstein.scoring import FILES
from ornstein_speech import audio, baselines, scoring
from ornstein_speech.demo import recordings
from ornstein_speech.evaluate import evaluate, held_out
from ornstein_speech.representation import CompressedSpectrogram
from ornstein_speech.results import Result


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
    assert list(summary["systems"]) == ["noisy", "log-MMSE", "RNNoise", "tiny, NFE 1", "tiny, NFE 2"]
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
        assert "PESQ is not defined, and left out, for up to 1 files" in printed
        assert noisy["by_noise"]["white"]["si_sdr"] == pytest.approx(noisy["metrics"]["si_sdr"]["mean"], abs=1e-6)
    assert stored["version"] == 2
    assert stored["systems"]["tiny, NFE 2"]["nfe"] == 2
    assert rows[0]["snr_db"] == "0"
    page = (tmp_path / "report.html").read_text()
    assert page.count("<audio") == (
        12 if workers == 0 else 6
    )  # the worst, the best; they are also the median and the first
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
    assert Result(3, items[3]["name"], "noisy", {}, 0).snr == 15


def test_mixes_of_pairs_and_results_among_the_data_are_refused(tiny: Path, pairs: Path) -> None:
    with pytest.raises(UserError, match=r"to mix, so that --mixes means nothing; .* --limit 3$"):
        evaluate(pairs, checkpoint=tiny, mixes=3)
    with pytest.raises(UserError, match="is the folder of the data; give the results a folder of their own"):
        evaluate(pairs, checkpoint=tiny, output=pairs / "clean" / "..")
    assert sorted(path.name for path in pairs.iterdir()) == ["clean", "noisy"]


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
    for rate in (5, 500000):
        with pytest.raises(UserError, match=f"--rate {rate} is no usable rate; give 8000 to 384000 Hz"):
            evaluate(tmp_path, checkpoint=tiny, rate=rate)


def test_a_bad_file_is_left_out_and_told(
    tiny: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "pairs", tmp_path / "scores"
    shutil.copytree(pairs, folder)
    bad = folder / "noisy" / "1-en-white-5dB.wav"
    samples, rate = sf.read(bad)
    samples[100] = np.nan
    sf.write(bad, samples, rate, subtype="FLOAT")
    options: dict[str, Any] = {"checkpoint": tiny, "baselines": False, "workers": 0, "quiet": True}
    with pytest.raises(UserError, match="1 of 3 files failed, see above; the others are scored"):
        evaluate(folder, output=output, **options)
    assert f"failed: 1-en-white-5dB.wav: {bad} holds NaN" in capsys.readouterr().err
    assert {row["file"] for row in scores(output)} == {"0-en-white-0dB.wav", "2-en-white-5dB.wav"}
    assert "1 files failed, and are left out" in (output / "report.html").read_text()
    for part in ("clean", "noisy"):
        for name in ("0-en-white-0dB.wav", "2-en-white-5dB.wav"):
            (folder / part / name).unlink()
    with pytest.raises(UserError, match="all 1 files failed"):
        evaluate(folder, **options)


def scores(folder: Path) -> list[dict[str, str]]:
    """The lines of scores.csv without the speed, which is never the same."""
    return [{k: v for k, v in row.items() if k != "rtf"} for row in csv.DictReader((folder / "scores.csv").open())]


class Interrupting:
    """Stands for the enhancement; interrupts at one of the calls, like Ctrl-C."""

    def __init__(self, at: int | None) -> None:
        self.at, self.calls, self.real = at, 0, scoring.timed

    def __call__(self, *args: Any) -> Any:
        if self.calls == self.at:
            raise KeyboardInterrupt
        self.calls += 1
        return self.real(*args)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_interrupted_evaluation_goes_on(
    tiny: Path, pairs: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"checkpoint": tiny, "steps": [1, 2], "baselines": False, "quiet": True, "limit": 2}
    evaluate(pairs, output=tmp_path / "whole", workers=0, **options)
    output = tmp_path / "parts"
    timed = Interrupting(at=3)
    monkeypatch.setattr(scoring, "timed", timed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(pairs, output=output, workers=workers, **options)
    assert [path.name for path in output.iterdir()] == [FOLDER]
    journal = output / FOLDER / "scores-0.jsonl"
    with journal.open("a") as file:
        file.write('{"index": 1, "file"')  # cut off in the middle of a line
    with pytest.raises(UserError, match="another seed"):
        evaluate(pairs, output=output, workers=workers, seed=1, **options)
    with pytest.raises(UserError, match="another systems"):
        evaluate(pairs, output=output, workers=workers, **options | {"steps": 2})
    timed.at, timed.calls = None, 0
    evaluate(pairs, output=output, workers=workers, **options)
    assert timed.calls == 1
    assert scores(output) == scores(tmp_path / "whole")
    assert (output / "report.html").read_text().count("<audio") == 2 * 4
    assert sorted(path.name for path in output.iterdir()) == sorted(FILES)
    evaluate(pairs, output=output, workers=0, overwrite=True, **options)
    assert timed.calls == 1 + 4


def test_two_processes_share_the_files(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    words = [str(pairs), "-o", str(tmp_path / "both"), "--checkpoint", str(tiny), "--quiet", "--no_baselines"]
    command = [sys.executable, "-m", "ornstein", "speech", "evaluate", *words, "--workers", "0"]
    started = [
        subprocess.Popen(command, env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2"}, stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    for process in started:
        assert process.communicate(timeout=120) == (None, b"")
        assert process.returncode == 0
    evaluate(pairs, output=tmp_path / "one", checkpoint=tiny, baselines=False, workers=0, quiet=True)
    assert scores(tmp_path / "both") == scores(tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == sorted(FILES)


def test_processes_that_share_need_a_folder(tiny: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="-o"):
        evaluate(pairs, checkpoint=tiny)


def test_many_systems(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"limit": 1, "workers": 0, "baselines": False, "quiet": True}
    other = tmp_path / "other.safetensors"
    other.write_bytes(tiny.read_bytes())
    crossed = evaluate(pairs, checkpoint=[tiny, other], sampler=["2m", "sde"], steps=[1, 3], **options)
    assert list(crossed["systems"])[1:4] == ["tiny, 2m, NFE 1", "tiny, 2m, NFE 3", "tiny, sde, NFE 1"]
    assert len(crossed["systems"]) == 1 + 8
    listed = evaluate(pairs, systems=[f"{tiny}:heun:3", f"{tiny}::5", f"{tiny}:2m:3:power"], **options)
    assert list(listed["systems"]) == [
        "noisy",
        "tiny, heun, NFE 4",
        "tiny, stored, NFE 5",
        "tiny, 2m, power, NFE 3",
    ]
    assert listed["systems"]["tiny, 2m, power, NFE 3"]["settings"]["grid"]["class_path"].endswith("PowerGrid")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/tiny.safetensors").write_bytes(tiny.read_bytes())
    alike = evaluate(pairs, checkpoint=[tiny, tmp_path / "b/tiny.safetensors"], steps=1, **options)
    assert list(alike["systems"])[1:] == [f"{tiny.parent.name}/tiny, NFE 1", "b/tiny, NFE 1"]
    with pytest.raises(UserError, match="leave --checkpoint, --sampler and --steps out"):
        evaluate(pairs, systems=[f"{tiny}:2m"], steps=[1], **options)


def test_other_rates(pairs: Path, tmp_path: Path) -> None:
    """At 48 kHz the network, ESTOI and the SI-* metrics see all of the band, PESQ its 16 kHz."""
    path = tmp_path / "48k.safetensors"
    network = NCSNpp(nf=4, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=())
    checkpoint.save(
        path,
        Denoiser(network, SchroedingerBridge(), X0()),
        app="speech",
        representation=CompressedSpectrogram(n_fft=126, hop=64, sample_rate=48000),
        sampler=Ancestral(steps=1),
    )
    summary = evaluate(pairs, checkpoint=path, output=tmp_path / "out", limit=1, workers=0, quiet=True)
    assert summary["rate"] == 48000
    narrow = evaluate(pairs, checkpoint=path, rate=16000, limit=1, workers=0, quiet=True)
    for metric in ("pesq", "estoi", "si_sdr"):
        wide_value, value = (s["systems"]["noisy"]["metrics"][metric]["mean"] for s in (summary, narrow))
        assert wide_value == pytest.approx(value, abs=0.4)
    with pytest.raises(UserError, match="--rate"):
        evaluate(pairs, systems=["", f"{path}:ode"], workers=0)


def test_dnsmos_is_optional(
    tiny: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"checkpoint": tiny, "limit": 1, "workers": 0, "baselines": False, "dnsmos": True}
    summary = evaluate(pairs, **options)
    assert 1 <= summary["systems"]["noisy"]["metrics"]["dnsmos_ovrl"]["mean"] <= 5
    monkeypatch.setattr("ornstein_speech.dnsmos.available", lambda: False)
    capsys.readouterr()
    summary = evaluate(pairs, **options)
    assert "dnsmos_ovrl" not in summary["systems"]["noisy"]["metrics"]
    printed = capsys.readouterr().out
    assert re.search(r"noisy .* n/a +n/a +n/a +n/a +-", printed)
    assert "DNSMOS: n/a, needs the packages speechmos and onnxruntime" in printed
