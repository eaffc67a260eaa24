"""The device that a command names."""

import torch

from ornstein.errors import UserError


def choose_device(name: str | torch.device) -> torch.device:
    """The device called `name`: auto (a GPU where there is one), cpu, cuda or cuda:N.

    Raises:
        UserError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"there is no device {name!r}; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if count == 0:
            raise UserError(
                f"no GPU was found for --device {name}; use --device cpu, or install a driver and a CUDA build of torch"
            )
        if device.index is not None and device.index >= count:
            raise UserError(f"there is no {name}; this machine has cuda:0 to cuda:{count - 1}")
    elif device.type != "cpu":
        raise UserError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    return device
