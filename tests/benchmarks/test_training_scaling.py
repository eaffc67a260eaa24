import pytest
from benchmarks.training_scaling import summarise


def rows(speeds: list[float], losses: list[float], waits: list[float]) -> list[dict[str, float]]:
    """A log as Throughput and the task write it; the first line has no speed."""
    lines = [{"step": 5.0 * i, "train/loss": loss} for i, loss in enumerate(losses)]
    for line, speed, wait in zip(lines[1:], speeds, waits, strict=True):
        line |= {"train/samples_per_second": speed, "train/data_wait": wait}
    return lines


def test_summary() -> None:
    one = rows([10, 30, 20], [4, 3, 2, 1], [0.1, 0.2, 0.3])
    two = rows([30, 25, 45], [4, 3, 3, 2], [0.0, 0.5, 0.1])
    table = summarise({1: one, 2: two})
    assert table["1"]["samples_per_second"] == 20
    assert table["1"]["efficiency"] == 1
    assert table["1"]["loss_difference"] == 0
    assert table["2"]["efficiency"] == pytest.approx(30 / 2 / 20)
    assert table["2"]["data_wait"] == pytest.approx(0.2)
    assert table["2"]["loss_difference"] == pytest.approx(0.5 / 2.5)
    assert table["2"]["loss"] == [4, 3, 3, 2]


def test_efficiency_is_relative_to_the_first_run() -> None:
    two, four = rows([20], [1, 1], [0]), rows([30], [1, 1], [0])
    assert summarise({2: two, 4: four})["4"]["efficiency"] == pytest.approx(0.75)
