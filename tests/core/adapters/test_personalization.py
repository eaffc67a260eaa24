"""Low-rank fine-tuning, learned words, optimised noise and experts on a tiny network of diffusers."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ornstein.adapters.diffusers import diffusers_denoiser
from ornstein.adapters.personalization import (
    Concept,
    LearnedWords,
    Personalization,
    add_attention_adapters,
    learn_words,
)
from ornstein.adapters.schedulers import FlowMatching
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.guidance.adapters import (
    LowRankAdapter,
    adapter_state,
    add_adapters,
    load_adapter_state,
    merge_adapters,
)
from ornstein.guidance.experts import NoiseRangeExperts, distil
from ornstein.guidance.gradient import ClassifierGuidance, class_log_probability
from ornstein.inversion.noise_optimization import NoiseOptimization
from ornstein.noise import SampleNoise
from ornstein.process.betas import ScaledLinearBetas
from ornstein.process.ddpm import DDPM
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.ode_solvers import Euler
from ornstein.samplers.time_grids import DiscreteGrid, UniformGrid
from tests.core.adapters.tiny import sd3, unet
from tests.core.inversion.exact import random

SD = DDPM(ScaledLinearBetas(1000, 0.00085, 0.012))
TEXT = random(1, 5, 6, seed=4).float()
SUBJECT = 0.5 * random(3, 4, 8, 8, seed=5).float() + 2.0


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def said(text: Tensor, **more: Tensor) -> Concept:
    """The subject, under one text for all."""

    def condition(rows: Tensor) -> dict[str, Tensor]:
        named = {"encoder_hidden_states": text, **more}
        return {name: value.expand(len(rows), *value.shape[1:]) for name, value in named.items()}

    return Concept(SUBJECT, condition)


def error(denoiser: Denoiser, concept: Concept) -> float:
    """Mean squared error of the noise on the subject, at the same times and noise in every call."""
    rows = torch.arange(3).repeat(8)
    t = torch.linspace(0.1, 0.9, 24, dtype=torch.float64) * denoiser.process.T
    z = random(24, 4, 8, 8, seed=6).float()
    with torch.no_grad():
        x = denoiser.process.sample(concept.signals[rows], t, z)
        return float((denoiser(x, t, **concept.condition(rows)).noise - z).square().mean())


def frozen_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}


@pytest.mark.parametrize("layout", ["unet", "sd3"])
def test_low_rank_adapters_learn_a_subject_and_change_nothing_else(layout: str, tmp_path: Path) -> None:
    if layout == "unet":
        model, concept = unet(), said(TEXT)
        denoiser = diffusers_denoiser(model, SD)
    else:
        model, concept = sd3(), said(TEXT, pooled_projections=random(1, 5).float())
        denoiser = diffusers_denoiser(model, FlowMatching(), "flow_prediction")
    plain = copy.deepcopy(denoiser)
    add_attention_adapters(model, seeded(1), rank=2)
    adapted = [name for name, m in model.named_modules() if isinstance(m, LowRankAdapter)]
    assert adapted
    assert all("attn" in name for name in adapted)
    before, frozen = error(denoiser, concept), frozen_state(model)
    assert before == pytest.approx(error(plain, concept), rel=1e-6)
    seen: list[tuple[int, int]] = []
    trained = adapter_state(model)
    losses = Personalization(steps=40, learning_rate=2e-2)(
        denoiser, trained.values(), concept, generator=seeded(2), on_step=lambda done, all_: seen.append((done, all_))
    )
    assert len(losses) == len(seen) == 40
    assert seen[-1] == (40, 40)
    after = error(denoiser, concept)
    assert after < 0.97 * before
    for name, value in frozen_state(model).items():
        assert torch.equal(value, frozen[name]), name
    path = tmp_path / "subject.safetensors"
    save_file({name: p.detach() for name, p in trained.items()}, path)
    other = add_attention_adapters(copy.deepcopy(plain).network.model, seeded(3), rank=2)
    load_adapter_state(other, load_file(path))
    for give_back in (lambda m: m, merge_adapters):
        again = diffusers_denoiser(
            give_back(other), denoiser.process, "epsilon" if layout == "unet" else "flow_prediction"
        )
        assert error(again, concept) == pytest.approx(after, rel=1e-4)


def test_training_is_reproducible_and_the_prior_keeps_the_class() -> None:
    base = diffusers_denoiser(unet(), SD)
    clean = random(3, 4, 8, 8, seed=9).float()
    kept = Concept(clean, said(-TEXT).condition)

    def drift(prior_weight: float) -> tuple[float, list[float]]:
        denoiser = copy.deepcopy(base)
        model = add_attention_adapters(denoiser.network.model, seeded(1), rank=2)
        fit = Personalization(steps=15, batch=2, learning_rate=2e-2, prior_weight=prior_weight)
        losses = fit(denoiser, adapter_state(model).values(), said(TEXT), kept, generator=seeded(2))
        return error(denoiser, kept), losses

    alone, together = drift(0.0), drift(1.0)
    assert drift(0.0) == alone
    assert together[0] < alone[0]


class Encoder(nn.Module):
    """A text encoder as transformers has them: a table of 10 tokens, then something that mixes them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table: nn.Module = nn.Embedding(10, 6)
        self.mix = nn.Linear(6, 6)

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def set_input_embeddings(self, table: nn.Module) -> None:
        self.table = table

    def forward(self, tokens: Tensor) -> tuple[Tensor]:
        states = self.table(tokens)
        return (self.mix(states + states.mean(1, keepdim=True)).tanh(),)


def test_new_words_begin_as_known_ones_and_are_all_that_is_learned() -> None:
    encoder, denoiser = Encoder(), diffusers_denoiser(unet(), SD).requires_grad_(False)
    old = torch.tensor([[1, 2, 3, 4, 5]])
    before = encoder(old)[0]
    words = learn_words(encoder, torch.tensor([3, 7]))
    assert isinstance(words, LearnedWords)
    assert words.weight.shape == (12, 6)
    torch.testing.assert_close(encoder(torch.tensor([[1, 2, 10, 4, 5]]))[0], before)
    assert [name for name, p in encoder.named_parameters() if p.requires_grad] == ["table.vectors"]
    tokens = torch.tensor([[1, 10, 11, 2, 0]])
    concept = Concept(SUBJECT, lambda rows: {"encoder_hidden_states": encoder(tokens.expand(len(rows), -1))[0]})
    first, frozen = error(denoiser, concept), frozen_state(encoder)
    Personalization(steps=30, learning_rate=0.1)(denoiser, [words.vectors], concept, generator=seeded())
    assert error(denoiser, concept) < first
    assert torch.equal(encoder(old)[0], before)
    for name, value in frozen_state(encoder).items():
        assert torch.equal(value, frozen[name])
    assert not torch.allclose(words.vectors[0], words.table.weight[3], atol=0.05)
    fresh = learn_words(Encoder(), torch.tensor([0, 0]))
    fresh.load_state_dict(words.state_dict())
    assert torch.equal(fresh.weight, words.weight)


def test_the_condition_itself_can_be_learned() -> None:
    denoiser = diffusers_denoiser(unet(), SD).requires_grad_(False)
    text = TEXT.clone().requires_grad_()
    before = error(denoiser, said(text))
    Personalization(steps=30, learning_rate=0.1)(denoiser, [text], said(text), generator=seeded())
    assert error(denoiser, said(text)) < before


def test_optimised_noise_raises_the_score_of_the_sample() -> None:
    denoiser = diffusers_denoiser(unet(), SD).requires_grad_(False)
    fit = NoiseOptimization(Ancestral(4, DiscreteGrid(), eta=0.0), iterations=3, learning_rate=0.1)
    found = fit(
        denoiser,
        lambda sample: sample.mean((1, 2, 3)),
        random(2, 4, 8, 8).float(),
        encoder_hidden_states=TEXT.expand(2, -1, -1),
    )
    assert (found.scores.amax(0) > found.scores[0]).all()
    flow = diffusers_denoiser(sd3(), FlowMatching(), "flow_prediction").requires_grad_(False)
    text = {"encoder_hidden_states": TEXT, "pooled_projections": random(1, 5).float()}
    fit = NoiseOptimization(Euler(3, UniformGrid()), iterations=4, learning_rate=0.1)
    found = fit(flow, lambda sample: sample.mean((1, 2, 3)), random(1, 4, 8, 8).float(), **text)
    assert (found.scores.amax(0) > found.scores[0]).all()


def test_adapters_on_every_layer_of_a_unet_start_as_it_and_merge() -> None:
    model, x = unet(), random(2, 4, 8, 8).float()
    text = TEXT.expand(2, -1, -1)
    with torch.no_grad():
        plain = model(x, 500, text).sample
        adapted = add_adapters(copy.deepcopy(model), rank=2)
        torch.testing.assert_close(adapted(x, 500, text).sample, plain)
        for module in adapted.modules():
            if isinstance(module, LowRankAdapter):
                nn.init.normal_(module.B, std=0.05, generator=seeded())
        changed = adapted(x, 500, text).sample
        assert not torch.allclose(changed, plain, atol=1e-2)
        torch.testing.assert_close(merge_adapters(adapted)(x, 500, text).sample, changed, rtol=1e-4, atol=1e-5)


def test_experts_guide_a_network_of_diffusers() -> None:
    torch.manual_seed(0)
    judge = nn.Sequential(nn.Conv2d(4, 4, 3, stride=2), nn.SiLU(), nn.Flatten(), nn.Linear(36, 3))
    experts = NoiseRangeExperts(judge, count=2, T=SD.T, rank=2)
    denoiser = diffusers_denoiser(unet(), SD).requires_grad_(False)
    losses = distil(experts, judge, SD, SUBJECT, 20, seeded(), batch=8, learning_rate=1e-2)
    assert len(losses) == 2
    sampler, start = Ancestral(8, DiscreteGrid(), eta=0.0), random(4, 4, 8, 8).float()
    text = {"encoder_hidden_states": TEXT.expand(4, -1, -1)}
    towards = class_log_probability(experts, 1)
    free = sampler(denoiser, start, None, SampleNoise([0] * 4), None, **text)
    led = sampler(ClassifierGuidance(denoiser, towards, 20.0), start, None, SampleNoise([0] * 4), None, **text)
    with torch.no_grad():
        chance = [towards(sample, torch.zeros((), dtype=torch.float64)) for sample in (free, led)]
    assert (chance[1] > chance[0]).all()


def test_bad_requests() -> None:
    denoiser, fit = diffusers_denoiser(unet(), SD), Personalization(steps=2)
    stranger = torch.zeros(3, requires_grad=True)
    for parameters, message in (
        ([], "nothing can be trained"),
        ([torch.zeros(3)], "nothing can"),
        ([stranger], "depend"),
    ):
        with pytest.raises(UserError, match=message):
            fit(denoiser, parameters, said(TEXT), generator=seeded())
    bad = Concept(SUBJECT * torch.nan, said(TEXT).condition)
    with pytest.raises(UserError, match="the loss of the subject"):
        fit(denoiser, [next(denoiser.parameters())], bad, generator=seeded())
    with pytest.raises(UserError, match="no signals"):
        Concept(SUBJECT[:0], said(TEXT).condition)
    with pytest.raises(UserError, match="one for each"):
        Concept(SUBJECT, said(TEXT).condition, SUBJECT[:1])
    for options in (
        {"steps": 0},
        {"learning_rate": 0.0},
        {"prior_weight": -1.0},
        {"clip": 0.0},
        {"weight_decay": -1.0},
    ):
        with pytest.raises(UserError, match="personalisation needs"):
            Personalization(**options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no attention"):
        add_attention_adapters(nn.Linear(2, 2), seeded())
    with pytest.raises(UserError, match="merge them first"):
        add_attention_adapters(add_attention_adapters(unet(), seeded()), seeded())
    with pytest.raises(UserError, match="no table"):
        learn_words(nn.Linear(2, 2), torch.tensor([0]))
    for like in (torch.tensor([10]), torch.tensor([-1]), torch.tensor([[1]])):
        with pytest.raises(UserError, match="from 0 to 9"):
            learn_words(Encoder(), like)
