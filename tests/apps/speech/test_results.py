import csv
import math
from pathlib import Path

import pytest

from ornstein.report import plain
from ornstein_speech.results import (
    Result,
    condition_tables,
    gains,
    main_table,
    summarize,
    write_csv,
)

SCORES = {"pesq": 2.0, "estoi": 0.5, "si_sdr": 1.0, "si_sir": 1.0, "si_sar": 1.0}
NAMES = {"pesq": "PESQ", "estoi": "ESTOI", "si_sdr": "SI-SDR"}


def test_summary_ignores_undefined_scores() -> None:
    results = [
        Result(0, "a-pink-5dB", "noisy", SCORES, 9.0, first=True),
        Result(1, "b-music-5dB", "noisy", SCORES | {"pesq": math.nan}, 1.0, seconds=1.0),
        Result(2, "c-music-0dB", "noisy", SCORES | {"pesq": 3.0}, 2.0, seconds=3.0),
    ]
    summary = summarize(results, list(SCORES))
    assert summary["files"] == 3
    system = summary["systems"]["noisy"]
    assert system["metrics"]["pesq"]["mean"] == 2.5
    assert system["metrics"]["pesq"]["undefined"] == 1
    assert system["rtf"] == 7 / 4  # time over duration, without the first, which warms up
    assert system["by_snr"] == {"0": SCORES | {"pesq": 3.0}, "5": SCORES}
    assert system["by_noise"]["music"]["pesq"] == 3.0
    assert plain(summarize(results[1:2], ["pesq"]))["systems"]["noisy"]["metrics"]["pesq"]["mean"] is None


@pytest.mark.parametrize(
    ("name", "snr", "noise"),
    [
        ("0-en-pink--5dB", -5, "pink"),
        ("en_babble_2.5dB.flac", 2.5, "babble"),
        ("p232_001.wav", None, None),
        ("10dB_x.wav", None, None),
        ("7-10dB", 10, None),
    ],
)
def test_condition_from_the_name(name: str, snr: float | None, noise: str | None) -> None:
    result = Result(0, name, "noisy", {}, 0)
    assert result.snr == snr
    assert result.noise == noise


def test_gains_and_tables() -> None:
    results = [
        Result(0, "a-pink-5dB", "noisy", SCORES, 0.0),
        Result(0, "a-pink-5dB", "x", SCORES | {"pesq": 2.75}, 0.5),
        Result(1, "b", "noisy", SCORES, 0.0),
        Result(1, "b", "x", SCORES | {"pesq": math.nan}, 0.5),
    ]
    assert gains(results, "x") == {0: 0.75}
    summary = summarize(results, list(NAMES))
    header, rows = main_table(summary, NAMES | {"dnsmos": "DNSMOS"}, ["RNNoise"])
    assert header == ["", "PESQ", "ESTOI", "SI-SDR", "DNSMOS", "RTF"]
    assert rows[0] == ["noisy", "2.000 ± 0.000", "0.500 ± 0.000", "1.000 ± 0.000", "n/a", "-"]
    assert rows[1][1] == "2.750"
    assert rows[2] == ["RNNoise", *["n/a"] * 5]
    titles = [title for title, _ in condition_tables(summary, NAMES)]
    assert titles == [f"{metric} by {what}" for what in ("SNR", "noise") for metric in NAMES.values()]


def test_csv(tmp_path: Path) -> None:
    write_csv(tmp_path / "scores.csv", [Result(0, "a-pink-5dB", "x", {"pesq": math.nan}, 0.5, 2.0)], ["pesq"], False)
    (row,) = csv.DictReader((tmp_path / "scores.csv").open())
    assert list(row) == ["file", "snr_db", "noise", "seconds", "system", "pesq", "rtf"]
    assert list(row.values()) == ["a-pink-5dB", "5", "pink", "2.000", "x", "nan", "0.5000"]
