"""Files that torch.save wrote, as plain data: read without running anything in them, and written."""

import io
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ornstein import lightning_checkpoint
from ornstein.errors import UserError
from ornstein.files import atomic_path

WRAPPERS = ("module.", "_orig_mod.", "denoising_module.", "ema_model.", "model.")
"""What wrappers put before the names of all weights."""

_DAMAGE = (EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, pickle.UnpicklingError)


def read(path: str | Path) -> Any:
    """What a .pth, .pt or .ckpt file holds, tensors on the CPU; only tensors and plain data are read.

    A Lightning checkpoint that names other classes gives its state_dict and hyper_parameters, in which
    inert objects stand for them.

    Raises:
        UserError: no such file, a damaged one, or one that needs more than plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}; give the path of a checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path):
            checkpoint = lightning_checkpoint.read(path)
            return {"state_dict": checkpoint.state_dict, "hyper_parameters": checkpoint.hyper_parameters}
        raise UserError(f"{path} is no checkpoint of plain tensors; copy it again, or give another") from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path} is damaged or no PyTorch checkpoint ({reason}); copy it again") from error


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The named tensors of a file that is a state dict or holds one as `state_dict`, without the prefixes of wrappers.

    Raises:
        UserError: as `read`, or no named tensors in it.
    """
    content = read(path)
    inner = content.get("state_dict", content) if isinstance(content, dict) else None
    return without_prefixes(named_tensors(path, inner), WRAPPERS)


def named_tensors(path: str | Path, state: Any, entry: str = "") -> dict[str, Tensor]:
    """The named tensors of `state`, which lies in `path` under `entry`.

    Raises:
        UserError: there are none.
    """
    items = state.items() if isinstance(state, Mapping) else ()
    tensors = {name: t for name, t in items if isinstance(name, str) and isinstance(t, Tensor)}
    if not tensors:
        where = f"its entry {entry}" if entry else "it"
        raise UserError(f"{path} has no weights: {where} holds no named tensors; give a published checkpoint")
    return tensors


def write(path: str | Path, content: Any, overwrite: bool = False) -> None:
    """Write plain data and tensors with torch.save.

    Raises:
        UserError: the file exists or cannot be written.
    """
    buffer = io.BytesIO()  # torch has errors of its own for a full disk
    torch.save(content, buffer)
    with atomic_path(path, overwrite) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def plain_copy(tensor: Tensor) -> Tensor:
    """`tensor` on the CPU with memory of its own, contiguous, real numbers in float32."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=dtype).copy_(tensor.detach())


def without_prefixes(tensors: Mapping[str, Tensor], prefixes: Iterable[str]) -> dict[str, Tensor]:
    """`tensors` without each of `prefixes` that all names begin with, as often as they do: what wrappers put there."""
    found, known = dict(tensors), tuple(prefixes)
    while found and (prefix := next((p for p in known if all(name.startswith(p) for name in found)), None)):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found
