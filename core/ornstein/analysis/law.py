"""How far draws are from the law of a Gaussian mixture: what a stochastic sampler is measured by."""

import torch
from torch import Tensor

from ornstein.analysis.mixture import GaussianMixture


class SlicedWasserstein:
    """Sliced Wasserstein-2 distance of `count` draws (B, D) to a mixture: root mean square over `directions` of the
    distance between the sorted projections and the exact quantiles of the projected mixture (Bonneel et al. 2015).

    It is not 0 for exact draws, but falls as 1/sqrt(count).
    """

    def __init__(self, mixture: GaussianMixture, count: int, directions: int = 32) -> None:
        generator = torch.Generator().manual_seed(0)
        ways = torch.randn(mixture.means.shape[1], directions, generator=generator, dtype=mixture.means.dtype)
        self._ways = ways / ways.norm(dim=0)
        means = mixture.means @ self._ways  # (K, directions)
        stds = torch.einsum("id,kij,jd->kd", self._ways, mixture.covariances, self._ways).sqrt()
        levels = (torch.arange(count, dtype=means.dtype) + 0.5)[:, None] / count
        low = (means - 12 * stds).amin(0).expand(count, -1)
        high = (means + 12 * stds).amax(0).expand(count, -1)
        for _ in range(50):
            middle = (low + high) / 2
            below = sum(
                weight * torch.special.ndtr((middle - mean) / std)
                for weight, mean, std in zip(mixture.weights, means, stds, strict=True)
            )
            low, high = torch.where(below < levels, middle, low), torch.where(below < levels, high, middle)
        self._quantiles = (low + high) / 2

    def __call__(self, draws: Tensor) -> float:
        """The distance of `draws`, as many as `count`."""
        projected = (draws.to(self._ways) @ self._ways).sort(0).values
        return float((projected - self._quantiles).square().mean().sqrt())
