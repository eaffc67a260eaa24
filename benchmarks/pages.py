"""Put the tables that the committed results give into the pages of docs/.

    python benchmarks/pages.py

Every table stands between <!-- name --> and <!-- /name -->; the test suite holds the pages equal to the results.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from command import run
from solver_pages import measured_solvers

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
Row = dict[str, Any]


def read(name: str) -> dict[str, Any]:
    """A file of benchmarks/results/."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table with a line feed at its end."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f} %"


def change(values: Sequence[float], digits: int = 3) -> str:
    """Mean and ends of an interval."""
    mean, low, high = (f"{value:+.{digits}f}" for value in values)
    return f"{mean} ({low} to {high})"


def adaptive_guidance() -> str:
    rows = [row for row in read("guidance_table")["adaptive"] if row["guidance"] != "classifier-free"]
    return markdown(
        ["scale", "guidance", "evaluations saved", "change of the output"],
        [
            [
                f"{row['scale']:g}",
                row["guidance"],
                f"{percent(row['saved'])} ± {100 * row['saved_half_width']:.1f}",
                f"{percent(row['relative_change'], 2)} ± {100 * row['relative_change_half_width']:.2f}",
            ]
            for row in rows
        ],
    )


def minority_guidance() -> str:
    return markdown(
        ["set", "mean score", "share in the rarest tenth"],
        [
            [row["set"], f"{row['mean_score']:.1f}", percent(row["share_in_rarest_tenth"])]
            for row in read("guidance_table")["minority"]
        ],
    )


def experts() -> str:
    rows = [row for row in read("guidance_table")["experts"] if "accuracy_at_t_0.2" in row]
    times, scales = ("0.2", "0.4", "0.6"), ("1", "2", "4", "8")
    return markdown(
        ["guide", "accuracy at t = 0.2", "0.4", "0.6", "recognised at scale 1", "2", "4", "8"],
        [
            [
                row["guide"],
                *(percent(row[f"accuracy_at_t_{t}"]) for t in times),
                *(percent(row[f"recognised_at_scale_{scale}"]) for scale in scales),
            ]
            for row in rows
        ],
    )


def golden_noise() -> str:
    lines = []
    for row in read("golden_noise")["digits"]:
        if "norm" in row:
            kinds = ("right_without_condition", "margin_without_condition", "right_guided", "margin_guided")
            cells = []
            for kind in kinds:
                moved = f"{kind}_change"
                cells.append(f"{row[kind]:.3f}" + (f", {change(row[moved])}" if moved in row else ""))
            lines.append([row["noise"], *cells])
    return markdown(["noise", "right without a label", "margin", "right with guidance", "margin"], lines)


def reconstruction() -> str:
    rows = read("editing")["reconstruction"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    found = {(row["process"], row["method"]): row["rms"] for row in rows}
    return markdown(
        ["process", *(name.replace("DDIM, 0 refinements", "DDIM") for name in methods)],
        [
            [process, *("0" if found[process, m] < 1e-9 else f"{found[process, m]:.2g}" for m in methods)]
            for process in dict.fromkeys(row["process"] for row in rows)
        ],
    )


def interpolation() -> str:
    return markdown(
        ["mixing", "log density", "distance to the straight line", "variance, share of the data's"],
        [
            [
                row["mixing"],
                f"{row['log_density']:.2f}",
                f"{row['to_straight_line']:.2f}" if "to_straight_line" in row else "",
                f"{row['variance']:.2f}",
            ]
            for row in read("editing")["interpolation"]
        ],
    )


def edits() -> str:
    return markdown(
        ["method", "error of the reconstruction", "next digit recognised", "change by the edit"],
        [
            [
                row["method"],
                "0" if row["rms"] < 1e-6 else f"{row['rms']:.2g}",
                percent(row["edited"], 0),
                f"{row['edit_rms']:.2f}",
            ]
            for row in read("editing")["digits"]
        ],
    )


def restored_pictures() -> str:
    rows = read("inverse_problems")["pictures"]
    names = [name for name in rows[0] if name != "problem"]
    return markdown(["problem", *names], [[row["problem"], *(f"{row[n]:.2f}" for n in names)] for row in rows])


def gaussian_posterior() -> str:
    rows = read("inverse_problems")["posterior"]
    data = list(dict.fromkeys(row["data"] for row in rows))
    found = {(row["data"], row["method"]): row for row in rows}
    return markdown(
        ["method", *(head for name in data for head in (f"{name}: error of the mean", "of the covariance"))],
        [
            [
                method,
                *(f"{found[name, method][kind]:.3f}" for name in data for kind in ("mean_error", "covariance_error")),
            ]
            for method in dict.fromkeys(row["method"] for row in rows)
        ],
    )


def sampling_overhead() -> str:
    result = read("sampling_overhead")
    table, limit = result["us_per_call"], result["limit_us"]
    cases = list(next(iter(table.values())))
    lines = []
    for case in cases:
        met = sorted((row[case], name) for name, row in table.items() if row[case] <= limit)
        above = [f"{name} {row[case]}" for name, row in table.items() if row[case] > limit]
        middle = met[len(met) // 2][0]
        first = sorted(row[case] for row in result["us_per_call_in_a_first_run"].values())
        cells = [case, str(met[0][0]), str(middle), f"{met[-1][0]} ({met[-1][1]})", ", ".join(above) or "none"]
        lines.append([*cells, f"{first[len(first) // 2]}, {first[-1]}"])
    heads = ["process, what the network gives", "fewest us", "median", "most within the limit", "above the limit"]
    heads.append("first run: median, most")
    return markdown(heads, lines) + f"\n{result['machine']}, load {result['load']:g}.\n"


def guidance_overhead() -> str:
    result = read("sampling_overhead")
    table = result["guidance"]
    cases = list(next(iter(table.values())))
    lines = []
    for name, row in table.items():
        nfe = ", ".join(dict.fromkeys(f"{row[case]['nfe_per_step']:g}" for case in cases))
        lines.append([name, nfe, *(str(round(row[case]["us_per_step"])) for case in cases)])
    heads = ["guidance", "NFE a step", *(f"us a step: {case}" for case in cases)]
    return markdown(heads, lines) + f"\n{result['machine']}, load {result['guidance_load']:g}.\n"


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "guidance.md": {
        "adaptive guidance": adaptive_guidance,
        "minority guidance": minority_guidance,
        "experts": experts,
    },
    "inversion.md": {
        "golden noise": golden_noise,
        "reconstruction": reconstruction,
        "interpolation": interpolation,
        "edits": edits,
    },
    "inverse-problems.md": {"restored pictures": restored_pictures, "gaussian posterior": gaussian_posterior},
    "samplers.md": {"measured": lambda: measured_solvers(read("solver_table"))},
    "speed.md": {"sampling overhead": sampling_overhead, "guidance overhead": guidance_overhead},
}
"""The tables of every page."""


def main() -> None:
    from timing import write_table

    for page, tables in PAGES.items():
        for name, make in tables.items():
            write_table(name, make(), ROOT / "docs" / page)
        print(page)


if __name__ == "__main__":
    run(main)
