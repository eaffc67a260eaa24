"""A pool of training pairs, so that the images of a batch do not share the kinds that were drawn for it."""

import torch
from torch import Tensor


class PairPool:
    """Keeps pairs of past batches and gives a random choice of them in exchange for new ones (Real-ESRGAN).

    The published pool holds 160 pairs. Until it is full, batches pass unchanged and are kept, so that the first 160
    pairs are met twice.

    Args:
        size: number of pairs.
    """

    def __init__(self, size: int = 160) -> None:
        if size < 1:
            raise ValueError(f"a pool of pairs holds at least 1, got {size}")
        self.size = size
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def __len__(self) -> int:
        return len(self._pairs)

    def exchange(self, degraded: Tensor, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Put the pairs of a batch (B, *) in and take as many out.

        Args:
            degraded, clean: (B, 3, h, w) and (B, 3, H, W), of the same sizes in every call.
            generator: on the CPU.
        """
        out = []
        for pair in zip(degraded, clean, strict=True):
            if len(self._pairs) < self.size:
                # stays in the pool too: the first batches have nothing to exchange with
                self._pairs.append((pair[0].clone(), pair[1].clone()))
                out.append(pair)
                continue
            index = int(torch.randint(self.size, (), generator=generator))
            out.append(self._pairs[index])
            self._pairs[index] = (pair[0].clone(), pair[1].clone())
        return torch.stack([pair[0] for pair in out]), torch.stack([pair[1] for pair in out])
