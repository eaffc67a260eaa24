"""Frames larger than a tile: no seams, and memory that does not grow with them but for the frame and its result."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from infrared_models import model

from ornstein import checkpoint
from ornstein.networks.swin_unet import SwinUNet
from ornstein.parameterization import Residual
from ornstein.process.residual_shift import ResidualShift
from ornstein.samplers.ancestral import Ancestral
from ornstein.tiles import tile_starts
from ornstein.uncertainty import UncertaintyGuided
from ornstein_infrared import Infrared
from ornstein_infrared.representation import ThermalSpace

PEAK = """
import resource, sys
from ornstein_infrared import upscale
upscale(sys.argv[1], sys.argv[2], checkpoint=sys.argv[3], device="cpu", tile=int(sys.argv[4]), quiet=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak(source: Path, target: Path, weights: Path, tile: int) -> float:
    """The largest resident memory of a process that enlarges a frame, in MiB."""
    words = [sys.executable, "-c", PEAK, str(source), str(target), str(weights), str(tile)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1])


def scene(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (7000 + 200 * np.sin(rows / 40) * np.cos(columns / 50) + 0.1 * rows).round().astype(np.uint16)


def attentive(path: Path, noise_scale: float) -> Path:
    """A Swin-UNet, whose results depend on all of its tile."""
    torch.manual_seed(0)
    network = SwinUNet(
        1, 1, 1, model_channels=32, channel_mult=(1, 1), num_res_blocks=(1, 1), attention_resolutions=(8,),
        image_size=8, num_head_channels=16, swin_embed_dim=32, window_size=4, mlp_ratio=2,
    )  # fmt: skip
    process = ResidualShift(steps=4, noise_scale=noise_scale)
    denoiser = UncertaintyGuided(network, process, Residual(), None, 4, 1)
    space = ThermalSpace(multiple=8)
    checkpoint.save(path, denoiser, app="infrared", representation=space, sampler=Ancestral(steps=1, eta=0.0))
    return path


def seam(result: np.ndarray, size: int, overlap: int) -> float:
    """Mean step between neighbouring lines where tiles end, over that between the lines beside them."""
    at, beside = [], []
    for axis, length in enumerate(result.shape):
        steps = np.abs(np.diff(result, axis=axis)).mean(axis=1 - axis)
        starts = tile_starts(length, size, size - overlap)
        for line in {*starts[1:], *(start + size for start in starts[:-1])}:
            at.append(steps[line - 1])
            beside += [steps[line - 3], steps[line + 1]]
    return float(np.mean(at) / np.mean(beside))


def test_tiles_have_no_seams(tmp_path: Path) -> None:
    """Every tile of a network with attention is another one, and draws of the noise are one field."""
    infrared = Infrared(attentive(tmp_path / "swin.safetensors", 0.05), device="cpu", tile=32, overlap=8)
    result = infrared(scene(80, 96).astype(np.float64))
    whole = Infrared(tmp_path / "swin.safetensors", device="cpu", tile=0)(scene(80, 96).astype(np.float64))
    assert np.abs(result - whole).max() > 0.01  # tiles do differ from the whole
    assert seam(result, 128, 32) < 1.1


@pytest.mark.parametrize("size", [(768, 1024)])
def test_memory_of_large_frames(size: tuple[int, int], tmp_path: Path) -> None:
    """1024 x 768 become 4096 x 3072: beside the result, held in float32, float64 and as counts, little is needed."""
    weights = model(tmp_path / "x4.safetensors", scale=4, size=0.05, steps=1)
    for name, frame in (("small", scene(16, 16)), ("large", scene(*size))):
        tifffile.imwrite(tmp_path / f"{name}.tif", frame)
    start = peak(tmp_path / "small.tif", tmp_path / "small-out.tif", weights, 128)
    found = peak(tmp_path / "large.tif", tmp_path / "large-out.tif", weights, 128)
    result = tifffile.imread(tmp_path / "large-out.tif")
    assert result.shape == (4 * size[0], 4 * size[1])
    assert result.dtype == np.uint16
    pixels = result.size / 2**20
    assert found - start < (4 + 8 + 2 + 6) * pixels + 150
    assert seam(result.astype(np.float64), 512, 64) < 1.1
