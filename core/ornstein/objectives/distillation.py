"""One step that gives what many deterministic ones give (SinSR)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ornstein.acceleration import Acceleration, accelerate
from ornstein.acceleration.denoiser import Precision
from ornstein.checkpoint import load
from ornstein.denoiser import Denoiser, DenoiserLike
from ornstein.errors import UserError
from ornstein.guidance.terms import GuidanceTerm
from ornstein.latent import at_full_size
from ornstein.objectives.denoising import Objective
from ornstein.objectives.outputs import with_outputs
from ornstein.process.affine import as_time
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler, require_sampler

HALVES = (torch.float16, torch.bfloat16)
PRECISIONS: dict[torch.dtype, Precision] = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}


@dataclass(frozen=True)
class Term:
    """weight * distance(found, truth), a further loss on an estimate of x0 and what it should be.

    DifIISR (arXiv 2503.01187) names two, of spectra and of features, both with 0.001 and between latents
    (`SpectrumTerm`, `PerceptualTerm`).
    """

    distance: GuidanceTerm | Callable[[Tensor, Tensor], Tensor]
    """Of two batches; its mean counts."""
    weight: float = 0.001
    decoded: bool = False
    """Compare pictures, where the process runs on latents; the weight is then another one."""
    clean: bool = False
    """In `OneStepDistillation`: compare with the clean signal, not with what the teacher makes of it."""

    def between(self, denoiser: Denoiser, found: Tensor, truth: Tensor) -> Tensor:
        """The mean distance of two batches (B, *) of what the process of `denoiser` runs on; not weighted."""
        if self.decoded:
            found, truth = (at_full_size(denoiser, each) for each in (found, truth))
        distance = self.distance.to(found.device) if isinstance(self.distance, nn.Module) else self.distance
        with torch.autocast(found.device.type, enabled=False):
            return distance(*(each.float() if each.dtype in HALVES else each for each in (found, truth))).mean()


class OneStepDistillation(Objective):
    """The student learns where the deterministic sampler of the teacher leads, from the same x_T (SinSR, Wang et al.
    2024, arXiv 2311.14760, section 3).

        |f(x_T, T) - x0'|^2                   x0' = the teacher's sample from x_T,
        |f(x0', 1) - x_T|^2                   with `learn_noise`: the way back, at the first level,
        |f(sg[f(x0, 1)], T) - x0|^2           with `use_clean`: the noise of the clean signal leads to the clean signal.

    f is the estimate of x0, which in the publication is the network's output (`X0`). Means over all values. The student
    begins as the teacher.

    Args:
        teacher: the trained denoiser, or a checkpoint (.safetensors) of it; frozen, in no checkpoint of the student.
        sampler: deterministic; published: all levels.
        learn_noise: the option `learn_xT`.
        use_clean: the option `finetune_use_gt`.
        terms: further losses between f(x_T, T) and x0'; DifIISR names weights of 0.001.

    Raises:
        UserError: no such checkpoint, `use_clean` without `learn_noise`, or a sampler that draws noise.
    """

    def __init__(
        self,
        teacher: Path | Denoiser,
        sampler: Sampler = Ancestral(15, eta=0.0),  # noqa: B008  # frozen
        learn_noise: bool = True,
        use_clean: bool = True,
        terms: Sequence[Term] = (),
    ) -> None:
        if use_clean and not learn_noise:
            raise UserError("use_clean needs the noise of a clean signal; set learn_noise as well")
        require_sampler("distillation", sampler, deterministic=True)
        self.teacher, self.sampler = teacher, sampler
        self.learn_noise, self.use_clean, self.terms = learn_noise, use_clean, tuple(terms)
        self._copies: dict[tuple[torch.device, torch.dtype], Denoiser] = {}
        self._teacher = (load(teacher).denoiser if isinstance(teacher, Path) else teacher).requires_grad_(False).eval()

    def __call__(
        self,
        denoiser: DenoiserLike,
        x0: Tensor,
        y: Tensor | None = None,
        *,
        generator: torch.Generator,
        **condition: Tensor,
    ) -> dict[str, Tensor]:
        student, y, seen = with_outputs(denoiser).prepare(y)
        condition = seen | condition
        process = student.process
        last, first = as_time(process.T), process.nearest(as_time(process.T / round(process.T)))
        z = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=generator.device).to(x0.device)
        start = process.start(z, y)
        aim = self.sampler(self._fast(x0.device).seeing(y, condition), start, y, None, None, **condition)

        found = student(start, last, y, **condition).x0
        losses = {"student": (found - aim).square().mean()}
        if self.learn_noise:
            back = student(aim, first, y, **condition).x0
            losses["noise"] = (back - start).square().mean()
        if self.use_clean:
            with torch.no_grad():
                clean_start = student(x0, first, y, **condition).x0
            losses["clean"] = (student(clean_start, last, y, **condition).x0 - x0).square().mean()
        loss = torch.stack(list(losses.values())).sum()
        for index, term in enumerate(self.terms):
            losses[f"term_{index}"] = term.between(student, found, x0 if term.clean else aim)
            loss = loss + term.weight * losses[f"term_{index}"]
        return {"loss": loss, **{name: value.detach() for name, value in losses.items()}}

    def _fast(self, device: torch.device) -> Denoiser:
        """The teacher on `device`; on a GPU its calls, many in a step, are CUDA graphs in the precision of training."""
        if device.type == "cpu":
            return self._teacher.to(device)
        half = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32
        key = (device, half)
        if key not in self._copies:
            how = Acceleration(PRECISIONS[half], graphs=2)
            self._copies[key] = accelerate(self._teacher.to(device), how)
        return self._copies[key]
