"""Reading PyTorch Lightning checkpoints of unknown origin without running anything in them.

A .ckpt file is a zip archive with a pickle and one raw file per tensor storage. The pickle may name any function of any
installed package. This reader knows the few names that tensors need and makes its own objects for them; each other name
becomes an inert placeholder class: what it names is neither imported nor called. So files that refer to classes of a
training code read without that code.
"""

import pickle
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ornstein.errors import UserError

_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_DAMAGE = (  # what pickle, zipfile and torch raise on bytes that are not what they should be
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class PublishedEMA:
    """The `ema` entry that torch-ema writes: averaged parameters as a nameless list, in the order of `parameters()`."""

    shadow_params: list[Tensor]
    decay: float
    num_updates: int | None


@dataclass(frozen=True)
class LightningCheckpoint:
    """What is of use in a Lightning checkpoint."""

    path: Path
    state_dict: dict[str, Tensor]
    """Raw weights by name."""
    hyper_parameters: dict[str, Any]
    """Options as stored; classes among them are placeholders."""
    ema: PublishedEMA | None
    """Averaged weights of published checkpoints."""
    averages: dict[str, dict[str, Tensor]]
    """Averaged weights of our own fits, by name of the average."""
    config: dict[str, Any] | None
    """Specs of the components of our own fits."""
    epoch: int
    global_step: int

    def ema_state_dict(self, prefix: str | tuple[str, ...] = "", average: str | None = None) -> dict[str, Tensor]:
        """`state_dict` with the averaged weights in place of the raw ones, buffers as they are.

        Args:
            prefix: names the parts of the state dict that a published `ema` averages; `dnn.` in SGMSE+.
            average: which of our own averages; the first if None.

        Raises:
            UserError: the checkpoint has no averaged weights, not this average, or they do not match the names.
        """
        if self.averages:
            name = average or next(iter(self.averages))
            if name not in self.averages:
                raise UserError(f"{self.path} has no average {name}; it has {', '.join(self.averages)}")
            return self.state_dict | self.averages[name]
        if self.ema is None:
            raise UserError(f"{self.path} has no averaged weights; ask for the raw weights")
        names = [n for n in self.state_dict if n.startswith(prefix) and not n.endswith(_BUFFERS)]
        shadows = self.ema.shadow_params
        if [self.state_dict[n].shape for n in names] != [shadow.shape for shadow in shadows]:
            raise UserError(
                f"{self.path}: its {len(shadows)} averaged tensors do not match the {len(names)} weights "
                f"{'* and '.join([prefix] if isinstance(prefix, str) else prefix)}*; "
                "ask for the raw weights"
            )
        return self.state_dict | dict(zip(names, shadows, strict=True))


class Placeholder:
    """Stands for an object of a class that is not ours: takes whatever the pickle gives it, and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.items: list[Any] = []

    def __call__(self, *args: Any) -> "Placeholder":
        return Placeholder(self, *args)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, item: Any) -> None:
        self.items.append(item)

    def extend(self, items: Iterable[Any]) -> None:
        self.items.extend(items)

    def add(self, item: Any) -> None:
        self.items.append(item)


def read(path: str | Path) -> LightningCheckpoint:
    """Read a Lightning checkpoint (.ckpt) of a published model or of our own `fit`; tensors arrive on the CPU.

    Raises:
        UserError: no such file, not a Lightning checkpoint, or a damaged one.
    """
    path = Path(path)
    content = _read_archive(path)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(
            f"{path} is not a Lightning checkpoint: it has no state_dict; give a .ckpt file of a training run"
        )
    hyper_parameters = content.get("hyper_parameters")
    config = content.get("ornstein")
    return LightningCheckpoint(
        path=path,
        state_dict=dict(state),
        hyper_parameters=dict(hyper_parameters) if isinstance(hyper_parameters, dict) else {},
        ema=_published_ema(content.get("ema")),
        averages=_own_averages(content.get("callbacks")),
        config=config if isinstance(config, dict) else None,
        epoch=_whole(content.get("epoch")),
        global_step=_whole(content.get("global_step")),
    )


def _published_ema(entry: Any) -> PublishedEMA | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("shadow_params"), list):
        return None
    updates = entry.get("num_updates")
    shadows = [tensor for tensor in entry["shadow_params"] if isinstance(tensor, Tensor)]
    return PublishedEMA(shadows, float(entry.get("decay", 0)), updates if isinstance(updates, int) else None)


def _own_averages(callbacks: Any) -> dict[str, dict[str, Tensor]]:
    state = callbacks.get("EMA") if isinstance(callbacks, dict) else None
    averages = state.get("averages") if isinstance(state, dict) else None
    if not isinstance(averages, dict):
        return {}
    return {name: entry["tensors"] for name, entry in averages.items()}


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _read_archive(path: Path) -> Any:
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a .ckpt file")
    if not path.is_file():
        raise UserError(f"there is no file {path}; give the path of a .ckpt file")
    if path.suffix == ".safetensors":
        raise UserError(f"{path} is no .ckpt file of a training; a .safetensors file of ours is used as it is")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is damaged or no PyTorch checkpoint; copy it again")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
            if len(names) != 1:
                raise ValueError("it holds no data.pkl")
            folder = names[0].removesuffix("data.pkl")
            if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
                raise ValueError("its numbers are stored big-endian")
            with archive.open(names[0]) as file:
                return _Reader(file, archive, folder).load()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; check the file and its permissions") from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is damaged or no PyTorch checkpoint ({reason[:120]}); copy it again") from error


class _Reader(pickle.Unpickler):
    """Unpickles with a closed list of names. All objects that a pickle could alter are made anew for every reader."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive = archive
        self._folder = folder
        self._storages: dict[str, Tensor] = {}
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda *args: _tensor(*args),  # noqa: PLW0108  # a new object
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            ("torch", "Size"): torch.Size,
            ("torch", "device"): torch.device,
            **{("torch", name): dtype for name, dtype in _STORAGES.items()},
            **{("torch", str(dtype).removeprefix("torch.")): dtype for dtype in _STORAGES.values()},
        }
        for module in ("lightning", "pytorch_lightning", "lightning_fabric"):  # the options of some Lightning versions
            for place in ("pytorch.utilities.parsing", "utilities.parsing", "fabric.utilities.data", "utilities.data"):
                self._known[f"{module}.{place}", "AttributeDict"] = dict

    def find_class(self, module: str, name: str) -> Any:
        key = (module, name)
        if key not in self._known:
            self._known[key] = types.new_class("Placeholder", (Placeholder,), exec_body=_named(f"{module}.{name}"))
        return self._known[key]

    def persistent_load(self, pid: Any) -> Tensor:
        """One storage as a flat tensor: ("storage", type, key, device, number of elements)."""
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise ValueError("an unknown kind of stored object")
        if key not in self._storages:
            entry = self._archive.getinfo(f"{self._folder}data/{key}")
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError("its tensors are compressed, which PyTorch never does")
            data = bytearray(self._archive.read(entry))
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _named(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda namespace: namespace.update(stands_for=name)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Tensor):
        raise ValueError("a tensor without storage")
    return storage.as_strided(tuple(size), tuple(stride), offset)  # torch refuses what lies outside the storage
