"""Latents that `ornstein infrared encode` made, as a map-style dataset."""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch.utils.data import Dataset

from ornstein.errors import UserError
from ornstein.manifest import read_json
from ornstein.training.seeds import derive_seed

Item = dict[str, Any]
SET = "infrared latents"
COMMAND = "ornstein infrared encode SOURCE -o"


class LatentFrames(Dataset[Item]):
    """Items {"x0": (D, scale c/f, scale c/f), "y" like it, "measured": (C, c, c), "name"}, float32; for
    `LatentDenoiser.on_latents` with the condition `measured`. Only the cut is read from the file.

    Latents are not mirrored: an autoencoder does not give the mirrored latents of a mirrored frame.

    Args:
        folder: of `encode`.
        crop: c, side of the square in pixels of the measured frame; None for whole frames.
        length: items of an epoch; default: the number of frames.
        seed: of the places of crops.

    Raises:
        UserError: no finished folder of latents, or a crop that does not fit.
    """

    def __init__(self, folder: Path, crop: int | None = None, length: int | None = None, seed: int = 0) -> None:
        self.folder = Path(folder)
        manifest = read_json(self.folder / "manifest.json", COMMAND)
        if manifest.get("set") != SET or manifest.get("format") != 1:
            raise UserError(f"{folder} holds no latents; make them with `{COMMAND} {folder}`")
        self.scale, self.factor = int(manifest["scale"]), int(manifest["factor"])
        if crop is not None and (crop < 1 or crop * self.scale % self.factor):
            raise UserError(f"a crop of {crop} pixels makes no whole latents with scale {self.scale}; change it")
        self.frames = [
            (self.folder / name, index, frame)
            for name, entry in manifest["files"].items()
            for index, frame in enumerate(entry["frames"])
        ]
        self.crop, self.length, self.seed, self.epoch = crop, length or len(self.frames), seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose draws are made."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(index)
        path, number, name = self.frames[index % len(self.frames)]
        try:
            with safe_open(path, framework="pt") as file:
                parts = {part: file.get_slice(f"{number}.{part}") for part in ("x0", "y", "measured")}
                top, left, crop = self._place(parts["measured"].get_shape()[-2:], index, name)
                item: Item = {}
                for part, whole in parts.items():
                    up, down = (1, 1) if part == "measured" else (self.scale, self.factor)
                    rows, columns = (
                        slice(None) if crop is None else slice(first * up // down, (first + crop) * up // down)
                        for first in (top, left)
                    )
                    item[part] = whole[:, rows, columns].float()
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} is missing or damaged ({error}); run `{COMMAND} {self.folder}` again") from error
        return {**item, "name": Path(name).stem}

    def _place(self, size: list[int], index: int, name: str) -> tuple[int, int, int | None]:
        """Where the square begins, on whole latents."""
        if self.crop is None:
            return 0, 0, None
        if min(size) < self.crop:
            raise UserError(f"{name} has {size[1]} x {size[0]} measured pixels, less than the crop of {self.crop}")
        step = self.factor // math.gcd(self.factor, self.scale)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "item", self.epoch, index))
        top, left = (
            int(torch.randint((side - self.crop) // step + 1, (), generator=generator)) * step for side in size
        )
        return top, left, self.crop
