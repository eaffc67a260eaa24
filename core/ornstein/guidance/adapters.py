"""Low-rank adapters of convolutions and linear layers (LoRA, Hu et al. 2021), as PPAP uses them on its experts."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ornstein.errors import UserError


class LowRankAdapter(nn.Module):
    """A frozen layer plus (alpha/rank) B A, the same in training, evaluation and after `merge`.

    Linear: A (r, inputs), B (outputs, r). Convolution of kernel k: A (r k, inputs k), B (outputs k, r k), and B A
    viewed as the kernel. B starts as zero, so that the layer starts as the base; A is drawn from torch's global
    generator.
    """

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int = 16, alpha: float = 8.0) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank is {rank}; it must be at least 1")
        self.base, self.rank, self.alpha = base.requires_grad_(False), rank, alpha
        outputs, inputs = base.weight.shape[:2]
        k = 1
        if isinstance(base, nn.Conv2d):
            k = base.kernel_size[0]
            if base.kernel_size != (k, k) or base.groups != 1:
                raise ValueError("adapters need square kernels and one group")
        like = base.weight
        self.A = nn.Parameter(torch.empty(rank * k, inputs * k, dtype=like.dtype, device=like.device))
        self.B = nn.Parameter(torch.zeros(outputs * k, rank * k, dtype=like.dtype, device=like.device))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    @property
    def weight(self) -> Tensor:
        """The weight that the layer acts with."""
        return self.base.weight + (self.alpha / self.rank) * (self.B @ self.A).view(self.base.weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.base, nn.Conv2d):
            return self.base._conv_forward(x, self.weight, self.base.bias)
        return nn.functional.linear(x, self.weight, self.base.bias)

    def merge(self) -> nn.Module:
        """The base layer with the adapter added to its weight for good."""
        with torch.no_grad():
            self.base.weight.copy_(self.weight)
        return self.base


def add_adapters(model: nn.Module, rank: int = 16, alpha: float = 8.0, biases: bool = True) -> nn.Module:
    """Freeze `model` and put an adapter on every linear layer and square convolution; returns it.

    `biases` of those layers, and the affine parameters of normalisations, are trained too, as published.

    Raises:
        UserError: there is no layer to adapt.
    """
    model.requires_grad_(False)
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear) or (isinstance(child, nn.Conv2d) and child.groups == 1)
    ]
    if not found:
        raise UserError(f"{type(model).__name__} has no linear layer or convolution to adapt; choose another network")
    for parent, name, child in found:
        setattr(parent, name, LowRankAdapter(child, rank, alpha))
    if biases:
        norms = (nn.GroupNorm, nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d)
        for module in model.modules():
            if isinstance(module, LowRankAdapter) and module.base.bias is not None:
                module.base.bias.requires_grad_(True)
            elif isinstance(module, norms):
                module.requires_grad_(True)
    return model


def merge_adapters(model: nn.Module) -> nn.Module:
    """Put the plain layers back, with the adapters in their weights; returns `model`."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LowRankAdapter):
                setattr(parent, name, child.merge())
    return model


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """What training changes and nothing else: the trainable parameters by name."""
    return dict(_trainable(model))


def load_adapter_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Fill the trainable parameters of `model`; raises UserError where the names differ."""
    own = dict(_trainable(model))
    if own.keys() != state.keys():
        different = sorted(own.keys() ^ state.keys())
        raise UserError(f"the adapters do not fit this network ({different[0]}); give the file that belongs to it")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name])


def _trainable(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)
