import json

from benchmarks.solver_table import LAW, RESULT, SOLVERS

from ornstein.analysis.examples import PROCESSES


def test_the_committed_result_has_every_solver_and_process() -> None:
    result = json.loads(RESULT.read_text())
    assert list(result["solvers"]) == list(SOLVERS)
    assert list(result["law"]) == list(LAW)
    for row in result["solvers"].values():
        assert all(list(part) == list(PROCESSES) for part in row.values())
    assert all(list(row) == list(PROCESSES) for row in (*result["law"].values(), *result["adaptive"].values()))
