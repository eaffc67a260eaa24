"""Latents of a folder of frames, made once: training on them needs no autoencoder.

FOLDER/manifest.json                what they were made of, and every file with its checksum
FOLDER/shards/00000.safetensors     for frame i of the shard: i.x0 (D, H/f, W/f) of the clean frame, i.y (like x0)
                                    of its bicubic enlargement, i.measured (C, H/scale, W/scale)
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ornstein.errors import UserError
from ornstein.files import atomic_path
from ornstein.manifest import announce, bar, checksum, close_folder, open_folder

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ornstein.networks.vq import VQAutoencoder

SHARD = 64
"""Frames in a file."""


def encode(
    source: Path,
    output: Path,
    *,
    autoencoder: Path,
    scale: int = 4,
    half: bool = False,
    device: str = "auto",
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Encode the clean frames of a folder once, for training on latents.

    Small frames are made by Pillow's bicubic filter; the range of each frame comes from its small one, as when it is
    enlarged. Stopped, the same command goes on where it was.

    Args:
        source: The folder of clean frames.
        output: The folder to make.
        autoencoder: autoencoder_vq_f4.pth, or a .safetensors file of ours with an autoencoder.
        scale: How many times smaller the measured frames are.
        half: Store in float16, half the size.
        device: auto, cpu or cuda:N.
        overwrite: Replace latents that were made with other options.
        quiet: Show no progress.

    Returns:
        The folder.

    Raises:
        UserError: no frames, an autoencoder that does not fit, or a folder with other files.
    """
    import torch
    from safetensors.torch import save_file

    from ornstein.device import choose_device
    from ornstein.published_shift import read_autoencoder
    from ornstein_infrared import thermal
    from ornstein_infrared.latent_frames import SET

    if scale < 1:
        raise UserError(f"--scale {scale} must be at least 1")
    files = thermal.find(source)
    network = read_autoencoder(autoencoder, "infrared").eval()
    where = choose_device(device)
    names = [file.relative_to(source).as_posix() if source.is_dir() else file.name for file in files]
    settings = {
        "format": 1,
        "set": SET,
        "autoencoder": checksum(autoencoder),
        "scale": scale,
        "factor": network.factor,
        "half": half,
        "frames": names,
    }
    manifest = open_folder(output, settings, ["shards"], overwrite)
    if manifest is not None:
        print(output)
        return output
    network = network.to(where)
    dtype = torch.float16 if half else torch.float32
    done: dict[str, Any] = {}
    shards = [range(first, min(first + SHARD, len(files))) for first in range(0, len(files), SHARD)]
    (output / "shards").mkdir(exist_ok=True)
    for number, shard in enumerate(bar(shards, "encode", quiet)):
        name = f"shards/{number:05d}.safetensors"
        if not (output / name).exists():
            announce(output, [name])
            tensors: dict[str, Tensor] = {}
            for index, i in enumerate(shard):
                for part, tensor in encoded(files[i], network, scale, where).items():
                    tensors[f"{index}.{part}"] = tensor.to("cpu", dtype).contiguous()
            with atomic_path(output / name, overwrite=True) as temporary:
                save_file(tensors, temporary)
        done[name] = {"sha256": checksum(output / name), "frames": [names[i] for i in shard]}
    close_folder(output, {**settings, "files": done})
    print(output)
    return output


def encoded(file: Path, network: "VQAutoencoder", scale: int, device: "torch.device") -> "dict[str, Tensor]":
    """x0, y and the measured frame of one file, whose sides are cut to what scale and f divide.

    Raises:
        UserError: a frame that is smaller than that.
    """
    import math

    import numpy as np
    import torch

    from ornstein.pictures.sizes import upscale
    from ornstein_infrared import thermal
    from ornstein_infrared.datasets import usual_range
    from ornstein_infrared.degradations.bicubic import shrink
    from ornstein_infrared.normalization import normalize

    frame = thermal.read(file)
    unit = math.lcm(scale, network.factor)
    height, width = (side - side % unit for side in frame.size)
    if not height or not width:
        raise UserError(f"{file} has {frame.size[1]} x {frame.size[0]} pixels, less than {unit}; take it out")
    values = frame.values[:height, :width]
    small = shrink(values.astype(np.uint8) if frame.dtype == np.uint8 else values, scale)
    measured = usual_range(frame)(small)
    clean = normalize(values, measured.low, measured.high)

    def picture(z: Any) -> "Tensor":
        return torch.from_numpy(z)[None, None].to(device).expand(-1, network.in_channels, -1, -1)

    with torch.inference_mode():
        lq = picture(measured.z)
        x0, y = network.encode(picture(clean.z)), network.encode(upscale(lq, scale))
    return {"x0": x0[0], "y": y[0], "measured": lq[0]}
