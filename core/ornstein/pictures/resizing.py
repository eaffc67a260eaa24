"""Bicubic resizing as imresize of MATLAB does it, which benchmarks are made and measured with."""

import math

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

Array = npt.NDArray[np.float64]


def imresize(image: npt.NDArray[np.floating], scale: float | None = None, size: tuple[int, int] | None = None) -> Array:
    """Bicubic (a = -1/2), widened against aliasing where the picture shrinks, edges mirrored (Keys 1981).

    Args:
        image: (..., H, W).
        scale: of both sides, which become ceil(scale * side).
        size: height and width, instead of `scale`.

    Returns:
        float64, not clipped: values may leave the range of `image` by a little.
    """
    return _resize(image.astype(np.float64), scale, size, rounded=False)


def imresize_rounded(
    image: npt.NDArray[np.floating], scale: float | None = None, size: tuple[int, int] | None = None
) -> Array:
    """`imresize` of a picture that MATLAB holds in 8 bits: rounded and clipped after each direction.

    `image` is in [0, 1], and so is what is returned, in steps of 1/255.
    """
    return _resize(_integers(255 * image.astype(np.float64)), scale, size, rounded=True) / 255


def _resize(image: Array, scale: float | None, size: tuple[int, int] | None, rounded: bool) -> Array:
    sides = image.shape[-2:]
    if size is not None:
        lengths, scales = size, (size[0] / sides[0], size[1] / sides[1])
    else:
        if scale is None:
            raise ValueError("give the scale or the size")
        lengths, scales = (math.ceil(scale * sides[0]), math.ceil(scale * sides[1])), (scale, scale)
    for axis in np.argsort(scales, kind="stable"):  # the direction that shrinks more goes first
        place = int(axis) - 2
        moved = np.moveaxis(image, place, 0)
        matrix = _matrix(moved.shape[0], lengths[axis], scales[axis])
        found = (matrix @ moved.reshape(moved.shape[0], -1)).reshape(lengths[axis], *moved.shape[1:])
        image = np.moveaxis(_integers(found) if rounded else found, 0, place)
    return image


def _integers(values: Array) -> Array:
    return np.floor(values.clip(0, 255) + 0.5)


def _matrix(length: int, wanted: int, scale: float) -> csr_array:
    """Weights (wanted, length) of a resize in one direction; its rows sum to 1."""
    spread = min(scale, 1.0)
    width = 4 / spread
    centre = (np.arange(wanted) + 0.5) / scale - 0.5
    first = np.floor(centre - width / 2)
    places = first[:, None] + np.arange(math.ceil(width) + 3)
    weights = _cubic(spread * (centre[:, None] - places))
    weights /= weights.sum(1, keepdims=True)
    mirrored = places.astype(np.int64) % (2 * length)
    mirrored = np.where(mirrored < length, mirrored, 2 * length - 1 - mirrored)
    rows = np.broadcast_to(np.arange(wanted)[:, None], mirrored.shape)
    return csr_array((weights.ravel(), (rows.ravel(), mirrored.ravel())), shape=(wanted, length))


def _cubic(x: Array) -> Array:
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
