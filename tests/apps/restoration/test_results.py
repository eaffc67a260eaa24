"""Means, tables, files and the page of an evaluation."""

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ornstein.journal import Journal
from ornstein.pictures.evaluation_report import TRUTH, before_and_after, worst_crop, write_report
from ornstein.pictures.results import (
    INPUT,
    Result,
    caption,
    differences,
    gains,
    main_table,
    notes,
    pooled_table,
    summarize,
    write_csv,
)
from ornstein.report import plain, text_table

NAMES = {"psnr_rgb": "PSNR", "mae_shadow": "Lab MAE shadow", "lpips_alex": "LPIPS"}


def results() -> list[Result]:
    found = []
    for index, (start, end, pixels) in enumerate([(20.0, 24.0, 10), (22.0, 25.0, 30), (21.0, math.inf, 0)]):
        area = {"mae_shadow": pixels}
        before = {"psnr_rgb": start, "mae_shadow": 8.0 if pixels else math.nan}
        after = {"psnr_rgb": end, "mae_shadow": 4.0 + 4 * index if pixels else math.nan}
        found.append(Result(index, f"{index}.png", INPUT, before, area))
        found.append(Result(index, f"{index}.png", "net", after, area, 1.0 + index, "CPU", first=index == 0))
    return found


def test_means_leave_out_and_count_what_has_none() -> None:
    summary = summarize(results(), list(NAMES))
    net = summary["systems"]["net"]
    psnr = net["metrics"]["psnr_rgb"]
    assert (psnr["mean"], psnr["files"], psnr["infinite"], psnr["undefined"]) == (24.5, 2, 1, 0)
    mae = net["metrics"]["mae_shadow"]
    assert (mae["mean"], mae["pooled"], mae["undefined"]) == (6.0, 7.0, 1)
    assert net["seconds"] == 2.5  # without the first
    assert "lpips_alex" not in net["metrics"]
    assert "pooled" not in psnr
    header, rows = main_table(summary, NAMES)
    assert header == ["", *NAMES.values(), "s"]
    assert rows[1][0] == "net"
    assert rows[1][1].startswith("24.500 ± ")
    assert rows[1][3:] == ["n/a", "2.5"]
    assert rows[0][4] == "-"
    assert pooled_table(summary, NAMES) == (["", "Lab MAE shadow"], [[INPUT, "8.000"], ["net", "7.000"]])
    told = notes(summary, NAMES)
    assert "PSNR is infinite, and left out, for up to 1 pictures that are equal to the truth" in told
    assert "Lab MAE shadow is not defined, and left out, for up to 1 pictures" in told
    assert "psnr_rgb" in str(plain(summary))
    assert text_table(header, rows)


def test_equal_pictures_alone_are_infinite() -> None:
    summary = summarize([Result(0, "a", "net", {"psnr_rgb": math.inf})], ["psnr_rgb"])
    assert main_table(summary, NAMES)[1] == [["net", "inf", "n/a", "n/a", "-"]]
    assert pooled_table(summary, NAMES) is None


def test_gains_and_differences() -> None:
    assert gains(results(), "net", "psnr_rgb") == {0: 4.0, 1: 3.0}
    found = differences(results(), "net", INPUT, ["psnr_rgb", "mae_shadow"])
    assert found["psnr_rgb"].mean == 3.5
    assert found["mae_shadow"].mean == -2
    assert found["psnr_rgb"].low <= 3.5 <= found["psnr_rgb"].high
    assert caption(results()[1].scores, NAMES) == "PSNR 24, Lab MAE shadow 4"
    assert caption(None, NAMES) == ""


def test_csv(tmp_path: Path) -> None:
    write_csv(tmp_path / "scores.csv", results(), list(NAMES), overwrite=False)
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert len(rows) == 6
    assert rows[5]["psnr_rgb"] == "inf"
    assert rows[5]["lpips_alex"] == "nan"
    assert (rows[1]["pixels_mae_shadow"], rows[1]["seconds"]) == ("10", "1.0000")


def test_a_journal_keeps_results(tmp_path: Path) -> None:
    journal = Journal(Result, tmp_path, {"seed": 0})
    for result in results()[2:]:
        journal.add(result)
    again = Journal(Result, tmp_path, {"seed": 0})
    assert again.results[2, "net"].scores["psnr_rgb"] == math.inf
    assert again.results[1, "net"] == results()[3]


def test_the_crop_is_where_the_error_is() -> None:
    truth = np.zeros((3, 50, 60))
    restored = truth.copy()
    restored[:, 31, 45] = 1
    top, left = worst_crop(truth, restored, 16)
    assert top <= 31 < top + 16
    assert left <= 45 < left + 16
    assert worst_crop(truth[:, :5], restored[:, :5], 16) == (0, 0)


def test_report(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)

    def pictures(index: int) -> dict[str, np.ndarray]:
        return {name: generator.random((3, 150, 600)) for name in (INPUT, "net", TRUTH)}

    summary = summarize(results(), list(NAMES)) | {"data": "a <folder>", "checkpoint": "net"}
    write_report(tmp_path / "report.html", summary, NAMES, ["a note"], results(), pictures, examples=3)
    text = (tmp_path / "report.html").read_text()
    assert "a &lt;folder&gt;" in text
    assert "2.png" in text
    assert ": worst gain in PSNR of net (+3.00)" in text
    assert text.count("<figure>") == 3 * 6
    assert "(PP)" in text
    shown = before_and_after(pictures(0), {}, "net")
    sizes = [Image.open(io.BytesIO(figure.png)).size for figure in shown]
    assert sizes == [(480, 120)] * 3 + [(256, 256)] * 3
    small = {name: np.zeros((3, 1, 1)) for name in (INPUT, TRUTH)}
    assert len(before_and_after(small, {}, INPUT)) == 2


def test_report_without_examples_or_gains(tmp_path: Path) -> None:
    found = [Result(0, "a.png", INPUT, {"psnr_rgb": 20.0})]
    summary = summarize(found, ["psnr_rgb"]) | {"data": "d", "checkpoint": ""}

    def none(index: int) -> dict[str, np.ndarray]:
        pytest.fail("no picture is to be shown")

    write_report(tmp_path / "report.html", summary, NAMES, [], found, none, examples=0)
    assert "<figure>" not in (tmp_path / "report.html").read_text()
