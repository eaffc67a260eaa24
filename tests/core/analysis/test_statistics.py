import math

import numpy as np
import pytest

from ornstein.analysis import statistics


def test_paired_difference() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=40) * 5  # what the files have in common cancels
    second = hard + rng.normal(size=40)
    first = hard + rng.normal(size=40) + 1
    found = statistics.paired([*first, math.nan, math.inf], [*second, 1.0, 1.0])
    differences = first - second
    assert found.mean == pytest.approx(differences.mean())
    half = statistics.interval(differences).half_width  # Student's t: nearly the same for 40 Gaussian differences
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    assert found.low < found.mean < found.high
    backward = statistics.paired(second, first)
    assert backward.mean == pytest.approx(-found.mean)
    assert statistics.paired([1.0, 2.0], [0.5, 1.5]) == (0.5, 0.5, 0.5)
    assert math.isnan(statistics.paired([1.0], [0.5]).low)
    with pytest.raises(ValueError, match="pairs"):
        statistics.paired([1.0], [])
    assert str(statistics.Difference(0.1, -0.1, 0.25)) == "+0.100 [-0.100, +0.250]"


def test_interval() -> None:
    found = statistics.interval([1.0, 2.0, 3.0, math.nan])
    assert found.mean == 2
    assert found.files == 3
    assert found.half_width == pytest.approx(4.302652729911275 / math.sqrt(3))  # t of 2 degrees of freedom
    assert str(found) == "2.000 ± 2.484"
    assert str(statistics.interval([0.001, 0.002, 0.003])) == "0.00200 ± 0.00248"
    assert [str(statistics.interval(values)) for values in ([0.00123456], [], [0.0])] == ["0.00123", "n/a", "0.000"]
    assert str(statistics.Difference(-0.00054, -0.0008, -0.0003)) == "-0.000540 [-0.000800, -0.000300]"
    assert str(statistics.Difference(0.0004, -0.0102, 0.011)) == "+0.000 [-0.010, +0.011]"
    assert str(statistics.Difference(1e-9, math.nan, math.nan)) == "+0.000 [+nan, +nan]"
    assert str(statistics.interval([math.nan])) == "n/a"
    assert str(statistics.interval([2.0])) == "2.000"
