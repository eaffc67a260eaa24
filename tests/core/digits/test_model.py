"""The shipped digits model: it draws what is asked, on held-out data it denoises, and its command runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ornstein import checkpoint
from ornstein.digits.data import digits
from ornstein.digits.model import WEIGHTS, digit_classifier, digit_denoiser
from ornstein.digits.train import GRID, frechet, v_loss
from ornstein.errors import UserError
from ornstein.networks.unet import UNet
from ornstein.noise import SampleNoise
from ornstein.samplers.dpm_multistep import DPMSolverPP


def test_split_is_fixed_and_disjoint() -> None:
    train, test = digits("train"), digits("test")
    assert (len(train.images), len(test.images)) == (1500, 297)
    assert train.images.min() == -1
    assert train.images.max() == 1
    assert set(test.labels.tolist()) == set(range(10))
    with pytest.raises(UserError, match="no part"):
        digits("valid")


def test_conditional_samples_are_the_wanted_digits() -> None:
    denoiser, label = digit_denoiser(), torch.arange(60) % 10
    start = denoiser.process.start(SampleNoise(range(60))(torch.zeros(60, 1, 8, 8)))
    samples = DPMSolverPP(steps=15, grid=GRID)(denoiser, start, label=label)
    assert float((digit_classifier()(samples).argmax(1) == label).float().mean()) > 0.9
    assert frechet(samples.flatten(1), digits().images.flatten(1)) < 2.5


def test_losses_and_accuracy_of_the_card() -> None:
    card, test = json.loads((WEIGHTS / "metrics.json").read_text()), digits("test")
    generator = torch.Generator().manual_seed(7)
    losses = [float(v_loss(digit_denoiser(), test.images, test.labels, generator)) for _ in range(20)]
    assert sum(losses) / 20 == pytest.approx(card["v_loss_test"], rel=0.01)
    right = (digit_classifier()(test.images).argmax(1) == test.labels).float().mean()
    assert float(right) == pytest.approx(card["classifier_accuracy_test"], abs=0.004)


def test_no_label_is_the_empty_label_and_an_embedding_stands_for_a_label() -> None:
    denoiser = digit_denoiser()
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    ten, three = torch.full((2,), 10), torch.full((2,), 3)
    assert torch.equal(denoiser(x, 0.5).x0, denoiser(x, 0.5, label=ten).x0)
    embedded = denoiser(x, 0.5, embedding=denoiser.network.embed(three)).x0
    assert torch.equal(embedded, denoiser(x, 0.5, label=three).x0)
    assert not torch.allclose(embedded, denoiser(x, 0.5).x0, atol=1e-2)


def test_bad_input_is_named() -> None:
    with pytest.raises(UserError, match="width divisible by 8"):
        UNet(width=12)
    with pytest.raises(ValueError, match="multiples of 2"):
        UNet()(torch.zeros(1, 1, 7, 8), torch.zeros(1))
    with pytest.raises(ValueError, match="labels are 0 to 9"):
        UNet().embed(torch.tensor([11]))


def test_the_training_command_writes_files_that_load(tmp_path: Path) -> None:
    from ornstein.digits import train as module

    metrics = module.train(tmp_path, 40, overwrite=False)
    assert metrics["steps"] == 40
    assert isinstance(checkpoint.load(tmp_path / "denoiser.safetensors", "digits").denoiser.network, UNet)
    command = [sys.executable, "-m", "ornstein.digits.train", str(tmp_path)]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2
    assert "exists" in again.stderr
    assert "Traceback" not in again.stderr
