"""Quality of the shipped speech model on held-out real mixes.

Needs the set of `ornstein speech prepare .data/prompts-16k --minutes 15 --noise_minutes 7` (or --data). Writes
benchmarks/results/speech_quality.json and the table of apps/speech/README.md, which is made from nothing else.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from ornstein.errors import UserError
from ornstein.files import atomic_path
from ornstein_speech.evaluate import evaluate

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "speech_quality.json"
README = ROOT / "apps" / "speech" / "README.md"
NAMES = {"pesq": "PESQ", "estoi": "ESTOI", "si_sdr": "SI-SDR (dB)", "si_sir": "SI-SIR (dB)", "si_sar": "SI-SAR (dB)"}


def measure(data: Path, mixes: int, steps: list[int], device: str) -> dict[str, object]:
    """Run the evaluation; the data folder is noted by its name, since paths differ between machines."""
    summary = evaluate(data, steps=steps, mixes=mixes, device=device, workers=1)
    return summary | {"data": f"{data.name}, test split, {mixes} mixes of 4 s at 0, 5, 10 and 15 dB"}


def markdown(summary: dict[str, object]) -> str:
    """The tables of the README."""
    systems: dict[str, dict] = summary["systems"]  # type: ignore[assignment,type-arg]
    lines = [f"| | {' | '.join(NAMES.values())} | RTF |", "| --- " * (len(NAMES) + 2) + "|"]
    for name, system in systems.items():
        cells = [f"{system['metrics'][m]['mean']:.3g} ± {system['metrics'][m]['ci95']:.2g}" for m in NAMES]
        rtf = f"{system['rtf']:.2g}" if system["rtf"] else "-"
        lines.append(f"| {name} | {' | '.join(cells)} | {rtf} |")
    snrs = list(next(iter(systems.values()))["by_snr"])
    lines += [
        "",
        f"| PESQ / ESTOI / SI-SDR | {' | '.join(f'{s} dB' for s in snrs)} |",
        "| --- " * (len(snrs) + 1) + "|",
    ]
    for name, system in systems.items():
        cells = [
            f"{s['pesq']:.2f} / {s['estoi']:.2f} / {s['si_sdr']:.1f}" for s in (system["by_snr"][snr] for snr in snrs)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    note = f"{summary['data']}; mean ± 95 % interval over files; RTF on {summary['machine']}; seed {summary['seed']}."
    return "\n".join([*lines, "", note])


def write_table(summary: dict[str, object]) -> None:
    """Put the tables between the markers of the README."""
    text = README.read_text()
    table = f"<!-- results -->\n{markdown(summary)}\n<!-- /results -->"
    with atomic_path(README, overwrite=True) as temporary:
        temporary.write_text(re.sub(r"<!-- results -->.*<!-- /results -->", lambda _: table, text, flags=re.DOTALL))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / ".data" / "prompts-16k")
    parser.add_argument("--mixes", type=int, default=24, help="24 are every SNR with every kind of noise once")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--table", action="store_true", help="only make the table again from the last results")
    options = parser.parse_args()
    if options.table:
        write_table(json.loads(RESULT.read_text()))
        return
    if not options.data.is_dir():
        raise UserError(
            f"there is no folder {options.data}; make it with "
            "`ornstein speech prepare .data/prompts-16k --minutes 15 --noise_minutes 7`"
        )
    summary = measure(options.data, options.mixes, options.steps, options.device)
    with atomic_path(RESULT, overwrite=True) as temporary:
        temporary.write_text(json.dumps(summary, indent=1) + "\n")
    write_table(summary)
    print(RESULT, README, sep="\n")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print("ornstein:", error, file=sys.stderr)
        sys.exit(2)
