"""The work of an evaluation: enhancing on the device while other processes score what is done."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ornstein import scoring
from ornstein.journal import Journal
from ornstein_speech.report import write_sound
from ornstein_speech.results import NOISY, Result

if TYPE_CHECKING:
    from ornstein_speech.enhance import Enhancer

Array = npt.NDArray[np.floating]
Method = Callable[[Array, int], Array]


def timed(enhancer: "Enhancer", noisy: Array, rate: int, seed: int) -> tuple[Array, float]:
    """The estimate of a waveform and the real-time factor; the result is on the CPU, so the device has finished."""
    import torch

    begin = time.perf_counter()
    estimate = enhancer(torch.from_numpy(noisy), rate, seed=seed).numpy()
    return estimate, (time.perf_counter() - begin) / (len(noisy) / rate)


class Work(scoring.Work[Result]):
    """Enhances on the device and, at the same time, scores in other processes."""

    def __init__(
        self,
        items: Any,
        enhancers: Mapping[str, "Enhancer"],
        methods: Mapping[str, Method | None],
        rate: int,
        seed: int,
        dnsmos: bool,
        journal: Journal[Result],
        sounds: bool,
    ) -> None:
        from ornstein.hardware import processor

        self.enhancers, self.methods, self.rate, self.seed, self.dnsmos = enhancers, methods, rate, seed, dnsmos
        self.items, self.names = items, [*methods, *enhancers]
        self.journal, self.sounds, self.processor = journal, sounds, processor()
        self.warm: set[tuple[str, int]] = set()

    def item(self, index: int) -> Any:
        return self.items[index]

    def failure(self, item: Any, index: int, name: str, error: Exception) -> Result:
        file = str(getattr(self.items, "names", {index: index})[index]) if item is None else item["name"]
        return Result(index, file, name, {}, 0.0, error=str(error))

    def job(self, item: Any, index: int, name: str) -> Callable[[], Result]:
        from ornstein.hardware import machine

        clean, noisy = item["clean"][0].numpy(), item["noisy"][0].numpy()
        about: dict[str, Any] = {
            "index": index,
            "file": item["name"],
            "system": name,
            "seconds": len(noisy) / self.rate,
        }
        sound = None
        if self.sounds and name != NOISY:
            sound = self.journal.estimate(index, self.names.index(name), ".flac")
        if name in self.methods:
            about["machine"] = self.processor
            return partial(_score, about, self.methods[name], clean, noisy, None, self.rate, self.dnsmos, sound)
        enhancer = self.enhancers[name]
        about["first"] = self._prepare(name, noisy)
        estimate, about["rtf"] = timed(enhancer, noisy, self.rate, self.seed)
        about["machine"] = machine(enhancer.device)
        return partial(_score, about, None, clean, noisy, estimate, self.rate, self.dnsmos, sound)

    def _prepare(self, name: str, noisy: Array) -> bool:
        """Have what is compiled and recorded once for signals of this length done before the clock runs.

        Returns whether the next run is the first one of the system all the same: where nothing is compiled, a run for
        nothing would cost more than it tells.
        """
        enhancer = self.enhancers[name]
        if not enhancer.prepares:
            first = (name, 0) not in self.warm
            self.warm.add((name, 0))
            return first
        shape = (name, enhancer.frames(len(noisy), self.rate))
        if shape not in self.warm:
            timed(enhancer, noisy, self.rate, self.seed)
            self.warm.add(shape)
        return False


def _score(
    about: Mapping[str, Any],
    method: Method | None,
    clean: Array,
    noisy: Array,
    estimate: Array | None,
    rate: int,
    with_dnsmos: bool,
    sound: Path | None,
) -> Result:
    """Scores of an estimate, or of what `method` makes of the noisy signal (None: the signal itself), in a worker."""
    from ornstein_speech.metrics import score

    rtf = about.get("rtf", 0.0)
    if estimate is None and method is not None:
        begin = time.perf_counter()
        estimate = method(noisy, rate)
        rtf = (time.perf_counter() - begin) / (len(noisy) / rate)
    elif estimate is None:
        estimate = noisy
    scores = score(clean, noisy, estimate, rate)
    if with_dnsmos:
        from ornstein_speech.dnsmos import dnsmos

        scores |= dnsmos(estimate, rate)
    if sound is not None:
        write_sound(sound, estimate, rate)
    return Result(**{**about, "rtf": rtf}, scores=scores, peak=float(np.abs(estimate).max(initial=0.0)))
