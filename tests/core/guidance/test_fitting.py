"""Guides keep the weights that held-out signals liked best."""

import pytest
import torch
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein.guidance.fitting import fit, held_out
from ornstein.guidance.minority import train_noisy_classifier
from ornstein.process.vp import VP


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))


@pytest.mark.parametrize("steps", [20, 100])
def test_the_weights_of_the_smallest_held_out_loss_are_kept(steps: int) -> None:
    """The training pulls to 1, past the held-out optimum at 0.2."""
    point, seen = Point(), list[float]()

    def held() -> Tensor:
        seen.append(float((point.place.detach() - 0.2) ** 2))
        return (point.place - 0.2) ** 2

    found = fit(point, lambda: (point.place - 1) ** 2, held, steps, 0.05)
    assert found.validation == min(seen)
    assert float((point.place.detach() - 0.2) ** 2) == found.validation
    assert found.step < steps
    assert abs(float(point.place.detach()) - 0.2) < 0.1


def test_without_held_out_signals_the_last_weights_stay() -> None:
    point = Point()
    found = fit(point, lambda: (point.place - 1) ** 2, None, 50, 0.05)
    assert (found.validation, found.step) == (None, 50)
    assert float(point.place.detach()) > 0.5


def test_the_split_is_a_partition() -> None:
    train, held = held_out(25, 0.1, torch.Generator().manual_seed(0))
    assert len(held) == 2
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(25))
    with pytest.raises(UserError, match="share of signals"):
        held_out(25, 1.0, torch.Generator())


def test_a_classifier_that_learns_by_heart_is_stopped_early() -> None:
    """Labels that say nothing: the loss on held-out signals can only rise above log 2 once they are learned."""

    class Large(nn.Sequential):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return super().forward(x)

    generator = torch.Generator().manual_seed(0)
    signals = torch.randn(60, 8, generator=generator)
    labels = torch.randint(2, (60,), generator=generator)
    found = {}
    for share in (0.0, 0.3):
        torch.manual_seed(0)
        network = Large(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
        found[share] = train_noisy_classifier(
            network,
            VP(beta_max=0.2),
            signals,
            labels,
            400,
            torch.Generator().manual_seed(1),
            32,
            1e-2,
            None,
            None,
            share,
        )
    assert found[0.0].training < 0.4
    assert found[0.0].validation is None
    assert found[0.3].step < 200
    assert found[0.3].validation is not None
    assert found[0.3].validation > 0.6
