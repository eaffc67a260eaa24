"""Clean recordings: from files to files, or tensors to tensors."""

import contextlib
import copy
import errno
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ornstein import jobs
from ornstein.errors import UserError
from ornstein.files import check_target
from ornstein_speech.jobs import find_jobs, seconds
from ornstein_speech.solvers import GridName, SamplerName

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor

SHIPPED = Path(__file__).parent / "weights" / "prompts-16k.safetensors"
"""The weights used unless a checkpoint is given."""

PrecisionName = Literal["auto", "float32", "bfloat16", "float16"]

BLOCK_SECONDS = 10
"""How much of a file is read at once."""


def enhance(
    inputs: Path | str | list[Path] | list[str],
    output: Path | str,
    *,
    checkpoint: Path | str | None = None,
    steps: int | None = None,
    sampler: SamplerName | None = None,
    device: str = "auto",
    seed: int = 0,
    batch: int | None = None,
    precision: PrecisionName = "auto",
    compile: bool = False,
    sample_rate: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> list[Path]:
    """Remove noise from recordings of any length, rate and number of channels.

    Every channel is treated by itself. A folder is searched at any depth and its structure is kept; files that fail are
    reported, the others are done. Output beyond full scale is kept in floating-point formats; in all others
    the file is scaled down, and that is said. A constant offset of more than 1 % of the peak is removed. Silence stays
    silence. On a CPU a call of the shipped network takes about as long as the sound lasts.

    Args:
        inputs: A sound file, a folder, or a list of files.
        output: File to write, or a folder when the input is a folder or a list. The suffix gives the format: .wav,
            .flac, .ogg or .mp3; in folders every file keeps its own, where it can be written (else .wav).
        checkpoint: Weights to use: a .safetensors file of this project. Default: the shipped ones.
        steps: Steps of the sampler; fewer are faster. Default: stored in the checkpoint.
        sampler: How to step: sde, ode (deterministic), 2m or heun (second order), pc (predictor-corrector), published
            (the bridge sampler of SGMSE+). Default: stored in the checkpoint.
        device: auto, cpu, cuda or cuda:N.
        seed: Of the random draws; the same seed gives the same result, whatever else is in the folder.
        batch: Chunks of 4 s that go through the network at once. Default: 4 on a GPU, 1 on a CPU.
        precision: Of the network: float32, bfloat16, float16, or auto: bfloat16 on a GPU, float32 on a CPU.
        compile: Compile the network first: a minute or more per length of sound, then several times as fast on a
            GPU; for many files.
        sample_rate: Rate of the output in Hz. Default: that of each input.
        overwrite: Replace existing files.
        quiet: No progress bar and no list of written files.

    Returns:
        The files written.

    Raises:
        UserError: an input cannot be read, an output not be written, or options do not fit.
    """
    from ornstein_speech import audio

    if sample_rate is not None:
        audio.require_rate(sample_rate, "--sample_rate")
    work = find_jobs(inputs, Path(output))
    if len(work) == 1:
        audio.info(work[0][0])
        check_target(work[0][1], overwrite)
    else:
        check_target(Path(output) / "any", overwrite)  # once, and not again for every file
    enhancer = Enhancer(
        checkpoint, steps=steps, sampler=sampler, device=device, batch=batch, precision=precision, compile=compile
    )

    def enhance_file(source: Path, target: Path, on_progress: Callable[[float], None]) -> str | None:
        return _enhance_file(enhancer, source, target, seed, sample_rate, overwrite, on_progress)

    return jobs.run_jobs(work, enhance_file, "s of sound", quiet, sizes=seconds(work))


class Enhancer:
    """A loaded checkpoint, ready to clean waveforms: `enhancer(wave, rate)`.

    Attributes:
        denoiser, representation, stored_sampler: what the checkpoint holds.
        sampler: the stored one with the options given here.
        info: what the checkpoint says about itself.
        device: where it runs.
        precision: of its network.
        prepares: whether the first run at every length also compiles or records.
        evaluations: network calls a chunk (NFE), None where the step size adapts.
    """

    def __init__(
        self,
        checkpoint: "Path | str | None" = None,
        *,
        steps: int | None = None,
        sampler: SamplerName | None = None,
        device: "str | torch.device" = "auto",
        batch: int | None = None,
        precision: PrecisionName = "auto",
        compile: bool = False,
        grid: GridName | None = None,
        chunk_frames: int = 512,
        overlap_frames: int = 64,
    ) -> None:
        """Load `checkpoint` (default: the shipped one); the options are those of `enhance`.

        `grid` spreads the steps over time in another way than the sampler's own. Chunks have `chunk_frames` STFT frames
        and overlap by at least `overlap_frames`.
        """
        from ornstein.acceleration import Acceleration, accelerate
        from ornstein.checkpoint import load
        from ornstein.device import choose_device
        from ornstein_speech.representation import CompressedSpectrogram
        from ornstein_speech.solvers import choose, starts_from_noise

        if batch is not None and batch < 1:
            raise UserError(f"--batch {batch} must be at least 1")
        self.device = choose_device(device)
        path = Path(checkpoint) if checkpoint is not None else SHIPPED
        if checkpoint is None and not path.exists():
            raise UserError("this installation has no shipped weights; name some with --checkpoint FILE")
        loaded = load(path, app="speech")
        if not isinstance(loaded.representation, CompressedSpectrogram):
            raise UserError(f"{path} says nothing about its spectrogram; export it again with a representation")
        if loaded.sampler is None and sampler is None:
            raise UserError(f"{path} names no sampler; choose one with --sampler")
        self.batch = batch or (1 if self.device.type == "cpu" else 4)
        # graphs for the lengths that occur (multiples of 64 frames), batches rounded up to powers of 2
        batches = tuple(2**i for i in range(self.batch.bit_length() + 1))
        how = Acceleration.usual(self.device, precision, compile, graphs=16, batches=batches)
        self.precision = how.precision
        self.prepares = how.compile or how.graphs > 0
        self.denoiser = accelerate(loaded.denoiser.to(self.device), how)
        self.representation = loaded.representation
        self.stored_sampler = loaded.sampler
        self.sampler = choose(loaded.sampler, self.denoiser.process, sampler, steps, grid)
        self.from_noise = starts_from_noise(self.denoiser.process)
        self.info = loaded.info
        self.chunk_frames = chunk_frames
        self.overlap_frames = overlap_frames

    def having(
        self, *, steps: int | None = None, sampler: SamplerName | None = None, grid: GridName | None = None
    ) -> "Enhancer":
        """The same network with another sampler; the options are those of the constructor."""
        from ornstein_speech.solvers import choose

        if self.stored_sampler is None and sampler is None:
            raise UserError("the checkpoint names no sampler; choose one with --sampler")
        other = copy.copy(self)
        other.sampler = choose(self.stored_sampler, self.denoiser.process, sampler, steps, grid)
        return other

    @property
    def sample_rate(self) -> int:
        """Rate in Hz the network works at."""
        return self.representation.sample_rate

    def frames(self, samples: int, rate: int) -> int:
        """The frames that a recording of `samples` at `rate` Hz is rounded up to, all alike beyond the largest batch.

        What is compiled and recorded serves all recordings with the same number.
        """
        frames = 1 + math.ceil(samples * self.sample_rate / rate) // self.representation.hop
        return min(-(-frames // 64) * 64, self.chunk_frames * self.batch + 1)

    @property
    def evaluations(self) -> int | None:
        """Network calls a chunk (NFE), None where the step size adapts."""
        calls = self.sampler.evaluations(self.denoiser.process)
        return None if calls is None else calls + self.denoiser.observe_evaluations

    def __call__(
        self,
        wave: "Tensor | npt.NDArray[np.number]",
        sample_rate: int,
        *,
        seed: int = 0,
        on_progress: Callable[[float], None] | None = None,
    ) -> "Tensor":
        """Clean `wave`, (C, L) or (L,), and return a float32 tensor of the same shape, rate and device.

        A NumPy array gives a tensor on the CPU. `on_progress` is told the seconds of sound finished since its last
        call.

        Raises:
            UserError: neither (C, L) nor (L,), no samples, complex, NaN or infinite ones, or a rate below 1 Hz.
        """
        import torch

        if sample_rate < 1:
            raise UserError(f"a sample rate of {sample_rate} Hz is impossible; give that of the waveform, at least 1")
        signal = _waveform(wave)
        device = wave.device if isinstance(wave, torch.Tensor) else "cpu"
        pieces = list(self.stream(lambda: [signal], sample_rate, seed=seed, on_progress=on_progress))
        return torch.cat(pieces, dim=1)[:, : signal.shape[1]].reshape(wave.shape).to(device)

    def stream(
        self,
        read: "Callable[[], Iterable[Tensor]]",
        sample_rate: int,
        *,
        output_rate: int | None = None,
        seed: int = 0,
        on_progress: Callable[[float], None] | None = None,
    ) -> "Iterator[Tensor]":
        """Clean a signal of any length in bounded memory; yields the result in blocks (C, n).

        There may be a few more samples than were read (at most one period of the resampling).

        Args:
            read: gives the signal in blocks (C, n), float32 on the CPU; called twice, to measure and to work.
            sample_rate: of these blocks in Hz.
            output_rate: of the result; default: sample_rate.
            seed: of the noise field.
            on_progress: is told the seconds of sound finished since its last call.
        """
        from ornstein_speech.streaming import enhance_stream, resample_blocks

        def process(chunks: "Tensor", starts: Sequence[int]) -> "Tensor":
            return self._process(chunks, starts, seed, on_progress)

        results = enhance_stream(
            lambda: resample_blocks(read(), sample_rate, self.sample_rate),
            process,
            hop=self.representation.hop,
            frames=self.chunk_frames,
            overlap=self.overlap_frames,
            batch=self.batch,
        )
        return resample_blocks(results, self.sample_rate, output_rate or sample_rate)

    def _process(
        self, chunks: "Tensor", starts: Sequence[int], seed: int, on_progress: Callable[[float], None] | None
    ) -> "Tensor":
        """Clean chunks (N, C, n) of normalised sound, `batch` rows at a time; rows of digital silence stay silent."""
        import torch

        count, channels, length = chunks.shape
        rows = chunks.reshape(count * channels, 1, length)
        places = [(channel, start) for start in starts for channel in range(channels)]
        result = torch.zeros_like(rows)
        live = [row for row in range(len(rows)) if bool(rows[row].any())]
        whole = 1 + length // self.representation.hop < self.chunk_frames
        overlapped = 0 if whole else self.overlap_frames * self.representation.hop
        seconds = (length - overlapped) * count / self.sample_rate  # overlaps counted once
        for begin in range(0, len(live), self.batch):
            part = live[begin : begin + self.batch]
            share = seconds * len(part) / len(live)
            result[part] = self._sample(rows[part], [places[row] for row in part], seed, on_progress, share)
        if not live and on_progress is not None:
            on_progress(seconds)
        return result.reshape(chunks.shape)

    def _sample(
        self,
        waves: "Tensor",
        places: Sequence[tuple[int, int]],
        seed: int,
        on_progress: Callable[[float], None] | None,
        seconds: float,
    ) -> "Tensor":
        """Run the sampler on waveforms (B, 1, n) at the given places (channel, first frame) of the noise field."""
        import torch

        from ornstein_speech.streaming import NoiseField

        process = self.denoiser.process
        noise = NoiseField(seed, places)

        def on_step(done: int, total: int) -> None:
            if on_progress is not None:
                on_progress(seconds / total)

        try:
            with torch.inference_mode():
                spec = self.representation.pad_frames(self.representation.forward(waves.to(self.device)))
                y, condition = self.denoiser.observe(spec)
                start = process.start(noise(spec) if self.from_noise else torch.zeros_like(spec), y)
                estimate = self.sampler(self.denoiser, start, y, noise, on_step, **condition)
                return self.representation.inverse(estimate, waves.shape[-1]).cpu()
        except torch.OutOfMemoryError:
            raise UserError(
                f"out of memory on {self.device} with {len(waves)} chunks at once; lower --batch or use --device cpu"
            ) from None


def _waveform(wave: "Tensor | npt.NDArray[np.number]") -> "Tensor":
    """`wave`, (C, L) or (L,), as float32 (C, L) on the CPU.

    Raises:
        UserError: it is something else, or holds no samples, complex, NaN or infinite ones.
    """
    import numpy as np
    import torch

    if not isinstance(wave, (torch.Tensor, np.ndarray)):
        raise UserError(f"the waveform is a {type(wave).__name__}; give a tensor or a NumPy array")
    if wave.ndim not in (1, 2):
        raise UserError(
            f"the waveform has shape {tuple(wave.shape)}; give (samples,) or (channels, samples), one recording a call"
        )
    if 0 in wave.shape:
        raise UserError("the waveform is empty; give at least one sample")
    if isinstance(wave, np.ndarray):
        if wave.dtype.kind not in "fiu":
            raise UserError(f"the waveform holds {wave.dtype} values; give real numbers")
        wave = torch.from_numpy(wave.astype(np.float32, order="C"))
    if wave.is_complex() or wave.dtype == torch.bool:
        raise UserError(f"the waveform holds {wave.dtype} values; give real numbers")
    signal = torch.atleast_2d(wave).detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(signal).all()):
        raise UserError("the waveform holds NaN or infinite samples; repair it first")
    return signal


def _enhance_file(
    enhancer: Enhancer,
    source: Path,
    target: Path,
    seed: int,
    sample_rate: int | None,
    overwrite: bool,
    on_progress: Callable[[float], None],
) -> str | None:
    """Clean one file; returns a remark if its level had to be changed."""
    import numpy as np
    import torch

    from ornstein_speech import audio

    header = audio.info(source)
    check_target(target, overwrite)
    rate = sample_rate or header.rate
    subtype = audio.fitting_subtype(target, header)
    audio.require_format(target, rate, header.channels, subtype)  # before the work, not after it
    frames = -(-header.frames * rate // header.rate)  # resampling there and back may add a few

    def read() -> Iterator["Tensor"]:
        return (torch.from_numpy(block) for block in audio.blocks(source, BLOCK_SECONDS * header.rate))

    # The level of the result is known at its end only: it waits beside the target, as raw float32.
    # Closing it after a failed write flushes and fails again, therefore the guard is around the whole.
    with _space_for(target), tempfile.TemporaryFile(dir=target.parent) as waiting:
        peak, left = 0.0, frames
        for piece in enhancer.stream(read, header.rate, output_rate=rate, seed=seed, on_progress=on_progress):
            samples = piece[:, :left].numpy()
            left -= samples.shape[1]
            peak = max(peak, float(np.abs(samples).max(initial=0.0)))
            waiting.write(np.ascontiguousarray(samples.T).tobytes())
        gain = 1.0 if peak <= 1 or subtype in ("FLOAT", "DOUBLE") else 1 / peak
        waiting.seek(0)
        with audio.writer(target, rate, header.channels, subtype=subtype, overwrite=overwrite) as put:
            while data := waiting.read(4 * header.channels * BLOCK_SECONDS * rate):
                put(np.clip(np.frombuffer(data, np.float32).reshape(-1, header.channels).T * gain, *_limits(gain)))
    if gain < 1:
        return f"{target}: the result peaked at {peak:.2f}, scaled down to 1.00 ({subtype} cannot hold more)"
    return None


@contextlib.contextmanager
def _space_for(target: Path) -> Iterator[None]:
    """Failures of the system while writing `target`, such as a full disk or quota, are told as such."""
    try:
        yield
    except OSError as error:
        mend = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another folder"
        raise UserError(f"cannot write {target}: {error.strerror or error}; {mend}") from error


def _limits(gain: float) -> tuple[float, float]:
    """Scaling leaves rounding errors beyond full scale, which a writer would report as clipping."""
    return (-1.0, 1.0) if gain < 1 else (-math.inf, math.inf)
