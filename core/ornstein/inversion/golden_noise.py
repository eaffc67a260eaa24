"""Golden noise: pairs of a noise and a better one, made by denoising with guidance and inverting without."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.files import atomic_path
from ornstein.inversion.ddim import later_state
from ornstein.inversion.npnet import NPNet
from ornstein.inversion.states import require_finite, require_noise, state_of_noise
from ornstein.noise import SampleNoise
from ornstein.process.affine import combine
from ornstein.samplers.base import Sampler, require_sampler
from ornstein.samplers.ode_solvers import Euler

Score = Callable[[Tensor, dict[str, Tensor]], Tensor]
"""Preference for a sample under its condition, higher is better: (B, *) to (B,)."""

LARGEST = 2.0
"""How many times as large as the noise a better one may be."""


@dataclass(frozen=True)
class Pairs:
    """Noises, the better ones, and the condition of each as the network is given it."""

    noise: Tensor
    """Unit noise z, (B, *)."""
    golden: Tensor
    """The better z', (B, *)."""
    condition: dict[str, Tensor]
    """One row a pair."""

    def __len__(self) -> int:
        return len(self.noise)


@dataclass(frozen=True)
class GoldenNoise:
    """z' = one deterministic step of `sampler` down with guidance, then its inversion with guidance 1 (Zhou et al.
    2025, section 3.1): the difference of the two estimates is written into the noise.

    The sampler fixes the first step and makes the samples that are scored. It must be deterministic, so that the noise
    alone decides the sample, and call the network once a step, so that its first step is the one that is inverted.
    """

    sampler: Sampler = Euler(steps=10)

    def __post_init__(self) -> None:
        require_sampler("golden noise", self.sampler, deterministic=True)

    def improve(
        self,
        guided: DenoiserLike,
        plain: DenoiserLike,
        z: Tensor,
        y: Tensor | None = None,
        **condition: Tensor,
    ) -> Tensor:
        """The noise z' (B, *) for the unit noise `z`; `plain` is `guided` with guidance 1. No gradient.

        Raises:
            UserError: the sampler calls the network more often than once a step, the process has no noise at the start
                of the grid or so little that z' is far larger than z, or a network gives NaN.
        """
        process = guided.process
        require_sampler("golden noise", self.sampler, process)
        t, s = next(iter(self.sampler.pairs(process)))
        require_noise(process, t)
        with torch.no_grad():
            x = state_of_noise(guided.process, t, z, y)
            down = process.step(x, t, s, guided(x, t, y, **condition).x0, y)
            shift = process.coefficients(t).b - process.coefficients(s).b
            guess = combine(down, (torch.ones_like(shift), down), (shift, process.require(y)))
            up = later_state(process, down, s, t, plain(guess, t, y, **condition), y)
        _, b, spread, _ = process.coefficients(t)
        golden = require_finite(
            combine(up, (1 / spread, up), (-b / spread, process.require(y))), "the golden noise of a pair"
        )
        larger = float(golden.abs().square().mean().sqrt() / z.abs().square().mean().sqrt())
        if larger > LARGEST:
            raise UserError(
                f"the golden noise is {larger:.1f} times as large as the noise: at t = {float(t):g} the state holds "
                "little noise, and a step back magnifies what it misses; take more steps or another process"
            )
        return golden

    def sample(self, guided: DenoiserLike, z: Tensor, y: Tensor | None = None, **condition: Tensor) -> Tensor:
        """The sample that the unit noise `z` (B, *) leads to."""
        t, _ = next(iter(self.sampler.pairs(guided.process)))
        return self.sampler(guided, state_of_noise(guided.process, t, z, y), y, noise=None, on_step=None, **condition)

    def pairs(
        self,
        guided: DenoiserLike,
        plain: DenoiserLike,
        z: Tensor,
        score: Score,
        y: Tensor | None = None,
        **condition: Tensor,
    ) -> Pairs:
        """The pairs of `z` (B, *) whose sample scores higher with z'; possibly none."""
        golden = self.improve(guided, plain, z, y, **condition)
        before, after = (score(self.sample(guided, noise, y, **condition), condition) for noise in (z, golden))
        if before.shape != (len(z),):
            raise UserError(f"the score gives {tuple(before.shape)}, it must give one number a sample")
        gain = require_finite(after - before, "the score") > 0
        return Pairs(z[gain], golden[gain], {name: value[gain] for name, value in condition.items()})

    def collect(
        self,
        folder: str | Path,
        guided: DenoiserLike,
        plain: DenoiserLike,
        batches: Iterator[dict[str, Tensor]] | list[dict[str, Tensor]],
        shape: tuple[int, ...],
        score: Score,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> Pairs:
        """Pairs for every batch of conditions, one file a batch in `folder`; a run that was stopped goes on there.

        Args:
            folder: where the files go.
            guided: the denoiser with guidance.
            plain: the same with guidance 1.
            batches: conditions, each with one row a pair, all of one batch equally many; "y" is the observation.
            shape: shape of a sample, without the batch.
            score: preference for a sample under its condition.
            seed: the noise of pair j in batch i depends on it, i and j alone.
            dtype: type of the noise.
            on_batch: called after every batch with the batches done and the pairs kept.

        Raises:
            UserError: a file is damaged or of another run, or no pair was kept.
        """
        found: list[Pairs] = []
        for i, given in enumerate(batches):
            path = Path(folder) / f"pairs_{i:05d}.safetensors"
            if path.exists():
                found.append(read_pairs(path, shape))
            else:
                condition = {name: value for name, value in given.items() if name != "y"}
                count = len(next(iter(given.values())))
                like = torch.empty(count, *shape, dtype=dtype)
                z = SampleNoise([(seed << 40) + (i << 20) + j for j in range(count)])(like)
                found.append(self.pairs(guided, plain, z, score, given.get("y"), **condition))
                write_pairs(path, found[-1])
            if on_batch is not None:
                on_batch(i + 1, sum(map(len, found)))
        return joined(found)


def write_pairs(path: str | Path, pairs: Pairs) -> None:
    """Write pairs as safetensors: "noise", "golden" and "condition.NAME"."""
    tensors = {"noise": pairs.noise, "golden": pairs.golden}
    tensors |= {f"condition.{name}": value for name, value in pairs.condition.items()}
    with atomic_path(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary)


def read_pairs(path: str | Path, shape: tuple[int, ...]) -> Pairs:
    """Read a file of `write_pairs` for noise of `shape`.

    Raises:
        UserError: the file is damaged, or holds pairs of another shape.
    """
    try:
        tensors = load_file(path)
        noise, golden = tensors["noise"], tensors["golden"]
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"{path} is no file of pairs ({error}); delete it, and the run makes it anew") from None
    if noise.shape != golden.shape or noise.shape[1:] != shape:
        raise UserError(f"{path} holds noise of shape {tuple(noise.shape[1:])}, not {shape}; choose another folder")
    marker = "condition."
    return Pairs(noise, golden, {n.removeprefix(marker): v for n, v in tensors.items() if n.startswith(marker)})


def joined(parts: list[Pairs]) -> Pairs:
    """All pairs in one.

    Raises:
        UserError: there is none.
    """
    if not sum(map(len, parts)):
        raise UserError("no noise scored higher after the step; use a stronger guidance, another score or more noises")
    names = parts[0].condition
    return Pairs(
        torch.cat([part.noise for part in parts]),
        torch.cat([part.golden for part in parts]),
        {name: torch.cat([part.condition[name] for part in parts]) for name in names},
    )


def train_npnet(
    network: NPNet,
    pairs: Pairs,
    embedding: str | None = None,
    epochs: int = 30,
    batch: int = 64,
    learning_rate: float = 1e-4,
    seed: int = 0,
    on_epoch: Callable[[int, int, float], None] | None = None,
) -> list[float]:
    """Fit `network` to z -> z' by mean squared error with AdamW (the published setting); the loss of every epoch.

    Args:
        network: is changed.
        pairs: from `GoldenNoise.collect`.
        embedding: name of the condition that the network is told, None for a network without one.
        epochs: passes over the pairs.
        batch: pairs a step; every pair comes with its own condition.
        learning_rate: of AdamW.
        seed: of the order.
        on_epoch: called with the epochs done, all epochs and the loss.

    Raises:
        UserError: the pairs lack the condition, or the loss is not finite.
    """
    if embedding is not None and embedding not in pairs.condition:
        raise UserError(f"the pairs have no condition {embedding}; they have {sorted(pairs.condition) or 'none'}")
    if min(epochs, batch) < 1:
        raise UserError(f"epochs and batch are at least 1, got {epochs} and {batch}")
    order, losses = torch.Generator().manual_seed(seed), []
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate)
    weight = next(network.parameters())
    network.train()
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(pairs), generator=order).split(batch):
            z, golden = (part[rows].to(weight) for part in (pairs.noise, pairs.golden))
            told = None if embedding is None else pairs.condition[embedding][rows].to(weight)
            loss = (network(z, told) - golden).square().mean()
            optimizer.zero_grad(set_to_none=True)
            require_finite(loss, "the loss of NPNet").backward()
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        losses.append(total / len(pairs))
        if on_epoch is not None:
            on_epoch(epoch + 1, epochs, losses[-1])
    network.eval()
    return losses
