"""Several conditions of one state in one network call, as guidance needs them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike, require_rows
from ornstein.estimate import Estimate
from ornstein.process.affine import as_time


def evaluate_together(
    denoiser: DenoiserLike,
    x: Tensor,
    t: Tensor | float,
    conditions: Sequence[Mapping[str, Tensor]],
    y: Tensor | None = None,
) -> list[Estimate]:
    """One Estimate of `x` (B, *) per condition, from one call on a batch of len(conditions) * B.

    Args:
        denoiser: treats the items of a batch one by one.
        x: state, the same for all.
        t: () or (B,).
        conditions: keyword arguments of the denoiser, (B, *) or (1, *) each, all with the same names and shapes. An
            entry `y` is the observation of that condition.
        y: observation of the conditions that bring none.

    An estimate that took `y` as it is holds `y` itself.

    Raises:
        ValueError: no condition, or conditions with different names.
        UserError: a condition of neither 1 nor B rows.
    """
    if len({frozenset(condition) for condition in conditions}) != 1:
        raise ValueError(f"conditions need the same names, got {[sorted(condition) for condition in conditions]}")
    count, size = len(conditions), len(x)
    t = as_time(t)

    def repeated(tensor: Tensor) -> Tensor:
        return torch.cat([tensor] * count)

    every = [one_a_row(condition, size) for condition in conditions]
    joined = {name: torch.cat([condition[name] for condition in every]) for name in every[0]}
    given = joined.pop("y", None)
    observation = repeated(y) if given is None and y is not None else given
    whole = denoiser(repeated(x), t if t.ndim == 0 else repeated(t), observation, **joined)
    parts = []
    for begin in range(0, count * size, size):
        own = slice(begin, begin + size)
        parts.append(
            Estimate(
                whole.process,
                x,
                t,
                whole.x0[own],
                whole.noise[own],
                y if given is None and whole.y is observation else None if whole.y is None else whole.y[own],
            )
        )
    return parts


def one_a_row(condition: Mapping[str, Tensor], size: int) -> dict[str, Tensor]:
    """The condition with `size` rows: what is given once, () or (1, *), is for all samples."""
    require_rows(condition, size)
    return {
        name: value if value.ndim and len(value) == size else value.expand(size, *value.shape[1:])
        for name, value in condition.items()
    }
