"""The set of `ornstein restoration prepare`: its size, and how well plain interpolation restores it (PSNR in dB).

    python benchmarks/restoration_photos.py [--folder .data/photos]

Each test image is cut to multiples of 4, downscaled by 4 and upscaled, both bicubic with 8 bits; scores leave out 4
pixels at the border and are means over images. Y is the studio-range luma of BT.601, not rounded.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ornstein.manifest import read_json
from ornstein.pictures.degraded import to_eight_bits
from ornstein_restoration.degradations import Bicubic
from ornstein_restoration.degradations.bicubic import resize
from ornstein_restoration.prepare import COMMAND

PATCH, SCALE, BORDER = 128, 4, 4


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of images in [0, 255]."""
    return float(10 * torch.log10(255**2 / (a - b).square().mean()))


def luma(rgb: torch.Tensor) -> torch.Tensor:
    """Y (H, W) in [16, 235] of an image (3, H, W) in [0, 255]."""
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=rgb.dtype) / 255
    return 16 + torch.einsum("c,chw->hw", weights, rgb)


def scores(path: Path) -> tuple[float, float]:
    """PSNR of Y and of RGB after bicubic x4 of one file."""
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1).float() / 255
    height, width = (side // SCALE * SCALE for side in pixels.shape[1:])
    clean = pixels[:, :height, :width]
    up = to_eight_bits(resize(Bicubic(SCALE)(clean, torch.Generator()).image.unsqueeze(0), (height, width))[0])
    inner = (slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    a, b = (image[inner].double().mul(255).round() for image in (clean, up))
    return psnr(luma(a), luma(b)), psnr(a, b)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".data/photos"))
    folder = parser.parse_args().folder
    if not (folder / "manifest.json").exists():
        print(f"no set in {folder}; make it with `{COMMAND} {folder}`")
        return
    files = read_json(folder / "manifest.json", COMMAND)["files"]
    print(f"{'split':8}{'images':>8}{'Mpx':>8}{'patches of 128':>16}{'MiB':>8}")
    for split in ("train", "valid", "test"):
        part = {name: entry for name, entry in files.items() if name.startswith(f"{split}/")}
        pixels = sum(entry["width"] * entry["height"] for entry in part.values()) / 1e6
        patches = sum((entry["width"] // PATCH) * (entry["height"] // PATCH) for entry in part.values())
        size = sum((folder / name).stat().st_size for name in part) / 2**20
        print(f"{split:8}{len(part):8}{pixels:8.1f}{patches:16}{size:8.1f}")
    results = {name: scores(folder / name) for name in files if name.startswith("test/")}
    own = [score for name, score in results.items() if "pyiqa" not in name]
    for label, rows in (("all", list(results.values())), ("without those of pyiqa", own)):
        y, rgb = np.mean(rows, axis=0)
        print(f"bicubic x4, {len(rows)} test images ({label}): {y:.2f} dB Y, {rgb:.2f} dB RGB")


if __name__ == "__main__":
    main()
