"""Weights that the user brings for a network of another library."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ornstein.errors import UserError
from ornstein.published_files import read_weights


def read(path: str | Path | None, wanted: str) -> dict[str, Tensor]:
    """The named tensors of a .safetensors, .pth or .pt file; nothing in it is executed.

    Raises:
        UserError: there is no path or no such file (nothing is downloaded, or filled by chance), or it is damaged;
            `wanted` says which file to give.
    """
    if path is None:
        raise UserError(f"these features need weights, and nothing is downloaded: give the path of {wanted}")
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there are no weights at {path}; give the path of {wanted}")
    if path.suffix != ".safetensors":
        return read_weights(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or no safetensors file; give {wanted}") from error
