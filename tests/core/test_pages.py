"""The Python of the pages runs as it stands, in order: on digits, mixtures and tiny networks of diffusers."""

import ast
import re
import textwrap
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, FlowMatchEulerDiscreteScheduler

from tests.core.adapters.tiny import sd3, unet

DOCS = Path(__file__).parents[2] / "docs"
SMALLER = {r"steps=\d{3,}": "steps=2", r", 64, 64\)": ", 16, 16)"}
"""Fewer training steps and smaller latents, for time."""


def blocks(page: str) -> list[str]:
    """The Python of a page: what is indented by four spaces, but for shell commands."""
    regions = re.findall(r"^(?:    .*\n|\n)+", (DOCS / page).read_text(), re.MULTILINE)
    code = [re.sub(r"^pip .*\n", "", textwrap.dedent(region), flags=re.MULTILINE) for region in regions]
    return [block for block in code if block.strip()]


def run(page: str) -> dict[str, object]:
    """The names that the blocks of `page` define."""
    names: dict[str, object] = {"__name__": page}
    for block in blocks(page):
        code = block
        for long, short in SMALLER.items():
            code = re.sub(long, short, code)
        if "transformers" in code:  # not a requirement of the tests
            ast.parse(code, page)
        else:
            exec(compile(code, page, "exec"), names)
    return names


@pytest.fixture
def pipelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of tiny random networks in the place of published ones."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    first, third = Path("stable-diffusion-v1-5"), Path("stable-diffusion-3-medium")
    unet(width=768).save_pretrained(first / "unet")
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
    ).save_pretrained(first / "vae")
    schedule = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    DDIMScheduler(**schedule).save_pretrained(first / "scheduler")
    sd3(channels=16, width=4096, pooled=2048, patches=32).save_pretrained(third / "transformer")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(third / "scheduler")


def test_samplers() -> None:
    names = run("samplers.md")
    assert names["x"].isfinite().all()  # type: ignore[attr-defined]


def test_inversion(pipelines: None) -> None:
    names = run("inversion.md")
    torch.testing.assert_close(names["again"], names["x0"], rtol=0, atol=1e-4)
    assert names["found"].scores[-1] > names["found"].scores[0]  # type: ignore[attr-defined]
    assert names["golden"].shape == (10, 1, 8, 8)  # type: ignore[attr-defined]
    assert names["sample"].shape == (1, 16, 16, 16)  # type: ignore[attr-defined]
    assert Path("subject.safetensors").is_file()


def test_guidance() -> None:
    names = run("guidance.md")
    assert names["digits"].isfinite().all()  # type: ignore[attr-defined]
    assert names["counted"].evaluations < 400  # type: ignore[attr-defined]


def test_inverse_problems() -> None:
    names = run("inverse-problems.md")
    residual = names["H"](names["restored"]) - names["r"]  # type: ignore[operator]
    assert residual.square().mean().sqrt() < 0.1
