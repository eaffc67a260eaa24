"""Teaching a model a subject from a few signals: low-rank fine-tuning (DreamBooth) and textual inversion.

    add_attention_adapters(unet, generator, rank=4)  # what is trained: low-rank changes of the attention
    trained = list(adapter_state(unet).values())
    Personalization(steps=500)(denoiser, trained, Concept(latents, lambda rows: {...}), generator=generator)

Any tensor with which the output can be differentiated may be trained so: adapters, the vectors of new words, or the
condition itself. The published settings are for pictures; the loop knows nothing of them.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.guidance.adapters import LowRankAdapter, add_adapters
from ornstein.inversion.states import require_finite
from ornstein.objectives.denoising import Objective
from ornstein.objectives.outputs import OutputObjective
from ornstein.objectives.time_sampling import UniformLevels, UniformTimes
from ornstein.process.tabulated import TabulatedProcess


@dataclass(frozen=True)
class Concept:
    """Signals, and what a network is told of them."""

    signals: Tensor
    """Clean signals, (N, *): latents of a few pictures."""
    condition: Callable[[Tensor], dict[str, Tensor]]
    """The condition of the signals with the indices given, (B,); made anew in every step, so it may be learned."""
    observations: Tensor | None = None
    """y of every signal, (N, *), where the process needs it."""

    def __post_init__(self) -> None:
        if len(self.signals) == 0:
            raise UserError("there are no signals to learn from; give at least one")
        if self.observations is not None and len(self.observations) != len(self.signals):
            raise UserError(f"{len(self.observations)} observations for {len(self.signals)} signals; give one for each")


@dataclass(frozen=True)
class Personalization:
    """Fits a few parameters to a subject by the loss that the network was trained with.

    Minimises L(subject) + prior_weight L(prior): the second term, on signals of the class that the model itself made,
    keeps the class (DreamBooth: Ruiz et al. 2023, equation 2). Without it and with the vectors of a word it is textual
    inversion (Gal et al. 2023, equation 2). AdamW; nothing but the parameters given is changed.
    """

    steps: int = 500
    batch: int = 4
    learning_rate: float = 1e-4
    weight_decay: float = 1e-2
    clip: float = 1.0
    """Bound of the norm of the whole gradient."""
    prior_weight: float = 1.0
    objective: Objective | None = None
    """None: squared error of the network's output, at the levels of a table or at uniform times."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.learning_rate <= 0 or self.clip <= 0:
            raise UserError("personalisation needs steps >= 1, batch >= 1, learning_rate > 0 and clip > 0")
        if self.weight_decay < 0 or self.prior_weight < 0:
            raise UserError("personalisation needs weight_decay >= 0 and prior_weight >= 0")

    def __call__(
        self,
        denoiser: Denoiser,
        parameters: Iterable[Tensor],
        subject: Concept,
        prior: Concept | None = None,
        *,
        generator: torch.Generator,
        on_step: Callable[[int, int], None] | None = None,
    ) -> list[float]:
        """Train `parameters` in place; the loss of every step.

        Args:
            denoiser: its weights outside `parameters` stay as they are.
            parameters: leaves that require a gradient.
            subject: what is to be learned.
            prior: what is to be kept.
            generator: draws the signals, the times and the noise.
            on_step: called after every step.

        Raises:
            UserError: there is nothing to train, the loss does not depend on a parameter, or it is not finite.
        """
        trained = list(parameters)
        if not trained or not all(p.requires_grad and p.is_leaf for p in trained):
            raise UserError("nothing can be trained; give leaf tensors that require a gradient, such as adapters")
        objective = self.objective or _output_error(denoiser)
        optimizer = torch.optim.AdamW(trained, lr=self.learning_rate, weight_decay=self.weight_decay)
        losses = []
        for step in range(self.steps):
            loss = self._loss(objective, denoiser, subject, generator)
            if prior is not None and self.prior_weight > 0:
                loss = loss + self.prior_weight * self._loss(objective, denoiser, prior, generator)
            require_finite(loss.detach(), "the loss of the subject")
            gradients = torch.autograd.grad(loss, trained, allow_unused=True)
            for number, (parameter, gradient) in enumerate(zip(trained, gradients, strict=True)):
                if gradient is None:
                    raise UserError(
                        f"the loss does not depend on parameter {number}, {tuple(parameter.shape)}; does the condition "
                        "use the learned words, and is the network the one that has the adapters?"
                    )
                parameter.grad = gradient
            nn.utils.clip_grad_norm_(trained, self.clip)
            optimizer.step()
            losses.append(float(loss.detach()))
            if on_step is not None:
                on_step(step + 1, self.steps)
        optimizer.zero_grad()
        return losses

    def _loss(self, objective: Objective, denoiser: Denoiser, concept: Concept, generator: torch.Generator) -> Tensor:
        device = concept.signals.device
        rows = torch.randint(len(concept.signals), (self.batch,), generator=generator, device=generator.device)
        rows = rows.to(device)
        y = None if concept.observations is None else concept.observations[rows]
        return objective(denoiser, concept.signals[rows], y, generator=generator, **concept.condition(rows))["loss"]


def _output_error(denoiser: Denoiser) -> Objective:
    tabulated = isinstance(denoiser.process, TabulatedProcess)
    return OutputObjective(time_sampling=UniformLevels() if tabulated else UniformTimes())


def add_attention_adapters(
    model: nn.Module, generator: torch.Generator, rank: int = 4, alpha: float = 4.0
) -> nn.Module:
    """Freeze `model` and put low-rank adapters on the projections of every attention (modules with to_q, to_k and
    to_v, as in diffusers); returns it. The output is that of the model until the adapters are trained.

    Their first weights are drawn from `generator`. `ornstein.guidance.adapters` saves, loads and merges them.

    Raises:
        UserError: there is no such module, or the model has adapters, which would be lost.
    """
    if any(isinstance(m, LowRankAdapter) for m in model.modules()):
        raise UserError(f"{type(model).__name__} has adapters; merge them first (merge_adapters)")
    found = [m for m in model.modules() if all(isinstance(getattr(m, n, None), nn.Module) for n in _PROJECTIONS)]
    if not found:
        raise UserError(f"{type(model).__name__} has no attention with to_q, to_k and to_v; use add_adapters")
    model.requires_grad_(False)
    for attention in found:
        add_adapters(attention, rank, alpha, biases=False)
    for module in model.modules():
        if isinstance(module, LowRankAdapter):
            first = torch.empty(module.A.shape, device=generator.device)
            nn.init.kaiming_uniform_(first, a=math.sqrt(5), generator=generator)
            with torch.no_grad():
                module.A.copy_(first)
    return model


_PROJECTIONS = ("to_q", "to_k", "to_v")


class LearnedWords(nn.Module):
    """A frozen table of token embeddings with new rows at its end, which are learned: `vectors` (K, width)."""

    def __init__(self, table: nn.Module, vectors: Tensor) -> None:
        super().__init__()
        self.table = table.requires_grad_(False)
        self.vectors = nn.Parameter(vectors.detach().to(torch.promote_types(vectors.dtype, torch.float32)).clone())
        self.known = len(self._old)

    @property
    def _old(self) -> Tensor:
        return cast(Tensor, self.table.weight)

    @property
    def weight(self) -> Tensor:
        """The whole table."""
        return torch.cat([self._old, self.vectors.to(self._old)])

    def forward(self, tokens: Tensor) -> Tensor:
        new = tokens >= self.known
        old: Tensor = self.table(tokens.masked_fill(new, 0))
        learned = self.vectors[(tokens - self.known).clamp(min=0)].to(old)
        return torch.where(new[..., None], learned, old)


def learn_words(encoder: nn.Module, like: Tensor) -> LearnedWords:
    """Freeze a text encoder of transformers and give it new words, the tokens after its last one; each begins as the
    known token in `like` (K,), a word of the class (Gal et al. 2023, section 4).

    Add the same words to the tokenizer (`add_tokens`), in the same order. The parameter is `vectors` of the result; the
    condition of a `Concept` is `encoder(tokens)[0]`, with its gradient (`encode_text` gives none).

    Raises:
        UserError: the encoder has no table of embeddings, or `like` is not in it.
    """
    try:
        table = encoder.get_input_embeddings()  # type: ignore[operator]
        weight: Tensor = table.weight
    except (AttributeError, TypeError) as error:
        raise UserError(f"{type(encoder).__name__} has no table of token embeddings; give a text encoder") from error
    if like.ndim != 1 or len(like) == 0 or bool(((like < 0) | (like >= len(weight))).any()):
        raise UserError(f"new words begin as known tokens from 0 to {len(weight) - 1}, (K,); got {like.tolist()}")
    encoder.requires_grad_(False)
    words = LearnedWords(table, weight[like.to(weight.device)])
    encoder.set_input_embeddings(words)  # type: ignore[operator]
    return words
