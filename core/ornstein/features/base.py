"""What a feature extractor is, and how pictures are brought to it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from ornstein.errors import UserError


class FeatureExtractor(nn.Module, ABC):
    """phi: pictures (B, C, H, W) in [-1, 1] to a list of feature maps (B, D, h, w), one a layer; frozen, and always in
    evaluation mode.

    There are no weights by chance: an extractor that is learned reads them from a file, or raises.
    """

    name: str
    """For results: the back end and its layers."""
    channels: int
    """C."""
    minimum: int
    """The shortest side of a picture."""
    weights_source: str
    """For results: where the weights are from."""

    @abstractmethod
    def forward(self, x: Tensor) -> list[Tensor]: ...

    def freeze(self) -> None:
        """No gradient to the weights; a subclass calls it at the end of its `__init__`."""
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Evaluation mode, whatever is asked for."""
        return super().train(False)


def seen_by(extractor: FeatureExtractor, picture: Tensor) -> Tensor:
    """`picture` (B, C, H, W) with the channels and the type of `extractor`: grey is repeated, colours are averaged.

    Raises:
        UserError: no picture, or one that is too small.
    """
    if picture.ndim != 4:
        raise UserError(f"{extractor.name} looks at pictures (B, C, H, W), not at {tuple(picture.shape)}")
    if min(picture.shape[-2:]) < extractor.minimum:
        raise UserError(
            f"a picture of {picture.shape[-2]}x{picture.shape[-1]} is too small for {extractor.name}, which needs "
            f"{extractor.minimum}; choose another extractor or larger pictures"
        )
    if picture.shape[1] != extractor.channels:
        picture = picture.mean(1, keepdim=True).expand(-1, extractor.channels, -1, -1)
    weight = next((tensor for tensor in extractor.state_dict().values() if tensor.is_floating_point()), None)
    return picture if weight is None else picture.to(weight.dtype)


def standardized(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pictures (B, C, H, W) in [-1, 1] as a network wants that saw them in [0, 1], less `mean`, over `std`."""
    m, s = (x.new_tensor(list(values))[:, None, None] for values in (mean, std))
    return ((x + 1) / 2 - m) / s
