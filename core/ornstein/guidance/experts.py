"""PPAP: an off-the-shelf model of clean signals guides by experts for noise ranges (Go et al., CVPR 2023, arXiv
2212.05973)."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.guidance.adapters import add_adapters
from ornstein.guidance.corruption import corrupted, require_pairs, require_steps
from ornstein.guidance.fitting import Fit, fit, held_out, spread
from ornstein.noise import Noise
from ornstein.process.affine import Process
from ornstein.samplers.base import Sampler


class NoiseRangeExperts(nn.Module):
    """N copies of a model with adapters; expert n answers for t in [n T/N, (n + 1) T/N), sample by sample.

    Called as experts(x_t, t) with t (B,), or experts.at_time(x_t, t) with one number; t = T belongs to the last expert.
    Every expert starts from the model itself. Times on a GPU are waited for, because their values choose the experts.

    Args:
        model: gives an output of its own for a clean signal (B, *); it stays as it is.
        count: N.
        T: last time of the process.
        rank: of the adapters; 0 makes frozen copies.
        alpha: of the adapters.
    """

    def __init__(self, model: nn.Module, count: int = 5, T: float = 1.0, rank: int = 16, alpha: float = 8.0) -> None:
        super().__init__()
        if count < 1:
            raise ValueError(f"count is {count}; at least one expert is needed")
        self.T = T
        copies = [copy.deepcopy(model).eval() for _ in range(count)]
        self.experts = nn.ModuleList(add_adapters(one, rank, alpha) if rank else one for one in copies)

    def route(self, t: Tensor) -> Tensor:
        """Index of the expert for each of `t` (B,)."""
        if bool((outside := (t < 0) | (t > self._end)).any()):
            raise self._no_expert(float(t[outside][0]))
        return (t.double() * len(self.experts) / self.T).floor().long().clamp(0, len(self.experts) - 1)

    def at_time(self, x: Tensor, t: float) -> Tensor:
        """The answer of the expert for `t`, the time of all samples."""
        if not 0 <= t <= self._end:
            raise self._no_expert(t)
        experts = self.experts
        output: Tensor = experts[min(int(t * len(experts) / self.T), len(experts) - 1)](x)
        return output

    @property
    def _end(self) -> float:
        """T, and a little more: times may have been rounded to float32."""
        return self.T * (1 + 1e-6)

    def _no_expert(self, t: float) -> UserError:
        return UserError(f"the experts divide times from 0 to {self.T:g}, and t is {t:g}; give them that T")

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        chosen = self.route(t)
        output: Tensor | None = None
        for index in chosen.unique().tolist():
            rows = (chosen == index).nonzero()[:, 0]
            part = self.experts[index](x[rows])
            if output is None:
                output = part.new_zeros(len(x), *part.shape[1:])
            output = output.index_put((rows,), part)
        if output is None:
            raise ValueError("the batch is empty")
        return output


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 0.25) -> Tensor:
    """KL(softmax(teacher/temperature) || softmax(student)) of logits (B, C), mean over the classes: (B,)."""
    wanted = (teacher / temperature).log_softmax(-1)
    return (wanted.exp() * (wanted - student.log_softmax(-1))).mean(-1)


@torch.no_grad()
def generate_clean(
    denoiser: DenoiserLike,
    sampler: Sampler,
    noise: Noise,
    like: Tensor,
    batches: int,
    y: Tensor | None = None,
    **condition: Tensor,
) -> Tensor:
    """The data of data-free distillation: `batches` times len(like) samples of the diffusion model itself; `y` is the
    observation of a batch, the same for each."""
    starts = (denoiser.process.start(noise(like), y) for _ in range(batches))
    return torch.cat([sampler(denoiser, start, y, noise, None, **condition) for start in starts])


def distil(
    experts: NoiseRangeExperts,
    teacher: nn.Module,
    process: Process,
    clean: Tensor,
    steps: int,
    generator: torch.Generator,
    batch: int = 64,
    learning_rate: float = 1e-4,
    observations: Tensor | None = None,
    on_step: Callable[[int, int], None] | None = None,
    validation: float = 0.1,
) -> list[Fit]:
    """Teach each expert, on corrupted `clean` (N, *) of its range, what `teacher` says of the clean signal.

    AdamW with weight decay 0.05 and a linear fall of the rate; `steps` for each expert, a fresh optimizer for each.
    The share `validation` of the signals is held out, and each expert keeps the weights with the smallest loss on them;
    0 trains on all and keeps the last weights. `observations` (N, *) are the y of the signals where the process has
    one. `on_step(done, all)` is called after every step of any expert.

    Raises:
        UserError: no step, no signal, an empty batch, another number of observations, a bad share, or experts for
            another T than the process has.
    """
    count = len(experts.experts)
    require_pairs(clean, observations, "observations")
    require_steps(steps, batch)
    if experts.T != process.T:
        raise UserError(
            f"the experts divide times up to {experts.T:g}, the process ends at {process.T:g}; give them its T"
        )
    rows, held = (part.to(clean.device) for part in held_out(len(clean), validation, generator))

    def drawn(index: int, chosen: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        t = (index + u.to(clean.device)) / count * experts.T
        y = None if observations is None else observations[chosen]
        with torch.no_grad():
            return corrupted(process, clean[chosen], t, generator, y), teacher(clean[chosen])

    def taught(index: int, expert: nn.Module) -> Fit:
        def loss(x: Tensor, wanted: Tensor) -> Tensor:
            return distillation_loss(expert(x), wanted).mean()

        def of_batch() -> Tensor:
            chosen = torch.randint(len(rows), (batch,), generator=generator, device=generator.device)
            u = torch.rand(batch, generator=generator, dtype=torch.float64, device=generator.device)
            return loss(*drawn(index, rows[chosen.to(rows.device)], u))

        fixed = drawn(index, held, spread(len(held))) if len(held) else None  # the same noise at every look
        return fit(
            expert,
            of_batch,
            None if fixed is None else lambda: loss(*fixed),
            steps,
            learning_rate,
            None if on_step is None else lambda done: on_step(index * steps + done, count * steps),
        )

    return [taught(index, expert) for index, expert in enumerate(experts.experts)]
