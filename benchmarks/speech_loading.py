"""How fast training items of speech come: CPU time of one item by kind of noise, and items per second by workers.

    python benchmarks/speech_loading.py --data .data/prompts-16k --workers 1 2 4 8 14

A training step that takes 20 ms for a batch of 16 needs 800 items per second. Writes
benchmarks/results/speech_loading.json.
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import torch
from command import machine, run

from ornstein.errors import UserError
from ornstein.report import write_json
from ornstein_speech.data import SpeechData
from ornstein_speech.datasets import MixedOnTheFly

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "speech_loading.json"


def cpu_times(data: Path, items: int) -> dict[str, float]:
    """CPU time of one item in ms by kind of noise, and their mean, on one thread."""
    torch.set_num_threads(1)
    dataset = MixedOnTheFly(data / "speech/train", data / "noise/train", length=items + 1)
    dataset[items]
    spent = defaultdict(list)
    for index in range(items):
        begin = time.process_time()
        item = dataset[index]
        spent[item["name"].split("-")[-2]].append((time.process_time() - begin) * 1e3)
    every = [value for values in spent.values() for value in values]
    return {kind: round(fmean(values), 3) for kind, values in sorted(spent.items())} | {"mean": round(fmean(every), 3)}


def items_per_second(data: Path, workers: int, batch_size: int, seconds: float) -> float:
    """Items per second that leave the training loader, after every worker has given its first batches."""
    batches = 4 * max(workers, 1) + round(4000 * seconds / batch_size)
    source = SpeechData(data, batch_size=batch_size, num_workers=workers, epoch_length=batches * batch_size)
    batch = iter(source.train_dataloader())
    for _ in range(4 * max(workers, 1)):
        next(batch)
    begin, done = time.perf_counter(), 0
    for _ in batch:
        done += batch_size
        if time.perf_counter() - begin > seconds:
            break
    return done / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / ".data" / "prompts-16k")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--items", type=int, default=500, help="items whose CPU time is measured")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured for each number of workers")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    if not (options.data / "speech/train").is_dir():
        raise UserError(f"there is no folder {options.data}/speech/train; make it with `ornstein speech prepare`")
    result = {
        "data": options.data.name,
        "batch_size": options.batch_size,
        "machine": machine(),
        "cpu_ms_per_item": cpu_times(options.data, options.items),
        "items_per_second": {},
    }
    for kind, spent in result["cpu_ms_per_item"].items():
        print(f"{kind:>10}  {spent:7.2f} ms of CPU time per item")
    for workers in options.workers:
        speed = items_per_second(options.data, workers, options.batch_size, options.seconds)
        result["items_per_second"][str(workers)] = round(speed)
        print(f"{workers:>3} workers  {speed:7.0f} items/s")
    write_json(options.output, result, overwrite=True)
    print(options.output)


if __name__ == "__main__":
    run(main)
