"""The measured part of docs/samplers.md, from benchmarks/results/solver_table.json and what the samplers declare."""

from collections.abc import Callable
from typing import Any

from solver_table import LAW, SOLVERS
from timing import rows

from ornstein.samplers.base import Sampler
from ornstein.samplers.ode import ProbabilityFlowODE


def measured_solvers(result: dict[str, Any]) -> str:
    """Declarations, orders, errors and stability of all samplers, of the `result` of solver_table.py."""
    names = list(next(iter(result["adaptive"].values())))

    def table(cell: Callable[[dict[str, Any], str], str], part: str = "solvers") -> str:
        return _markdown(["solver", *names], [[row, *(cell(of, p) for p in names)] for row, of in result[part].items()])

    page = (
        "\nWhat the samplers of these tables declare (`convergence_order`, `stochastic`, `differentiable`; where no "
        f"order stands, none is claimed):\n\n{declarations()}\n"
        "Orders inside, from a cold start (a multistep method of order 3 or 4 is limited to 2 by its first step):\n\n"
        + table(lambda row, p: f"{row['order'][p]:.2f}")
        + "\nOrders from T. There a = 0 on rectified flow, cosine VP and RDDM, a < 0 on the last Resfusion, for many "
        "steps of first order, and s = 0 on the bridge and the interpolants:\n\n"
        + table(lambda row, p: _order(row["order_from_T"][p]))
    )
    for i, calls in enumerate(result["calls"]):
        page += (
            f"\nRMS error of (x - b y)/a with {calls} calls from kappa 0.05 to 8, steps uniform in t (VE, EDM: "
            f"Karras):\n\n{table(lambda row, p: _error(row['errors'][p][i]))}"  # noqa: B023
        )
    page += (
        "\nThe adaptive flow in t (`ProbabilityFlowODE`, Dormand-Prince) between the same ends: calls, and in brackets "
        f"the same error:\n\n{table(lambda row, p: f'{row[p][0]} ({_error(row[p][1])})', 'adaptive')}"
    )
    for i, calls in enumerate(result["law_calls"]):
        page += (
            f"\nStochastic samplers: sliced Wasserstein distance to the data of {result['draws']} draws at t = 0 with "
            f"{calls} calls, from exact draws at kappa 0.05. The row of exact draws is what a perfect sampler has, "
            "other draws in every table; the two rows without noise are for comparison. The network of the consistency "
            "model is the exact end of the flow, a stronger one than the others have:\n\n"
            f"{table(lambda row, p: _distance(row[p][i]), 'law')}"  # noqa: B023
        )
    intervals = [[name, f"{value:.2f}"] for name, value in result["stability"].items()]
    return f"{page}\nStability intervals, to -x:\n\n{_markdown(['method', 'interval'], intervals)}\n"


def declarations() -> str:
    """What every sampler of the tables says of itself."""
    known: dict[str, Sampler] = {name: sampler for name, (sampler, _, _) in SOLVERS.items()}
    known |= {name: sampler for name, (sampler, _) in LAW.items() if sampler is not None}
    known["adaptive flow"] = ProbabilityFlowODE()
    return _markdown(
        ["sampler", "order of a run", "draws noise", "gradients pass"],
        [
            [name, str(s.convergence_order or ""), _yes(s.stochastic), _yes(s.differentiable)]
            for name, s in known.items()
        ],
    )


def _markdown(heads: list[str], lines: list[list[str]]) -> str:
    return "\n".join(rows(heads, lines)) + "\n"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _order(value: float | str) -> str:
    return "no" if isinstance(value, str) else f"{value:.2f}"


def _error(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    return f"{value:.1e}" if value < 0.01 else f"{value:.2f}"


def _distance(value: float | str | None) -> str:
    return f"{value:.2f}" if isinstance(value, float) else value or "-"
