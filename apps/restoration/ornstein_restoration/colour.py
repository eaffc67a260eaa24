"""Colours of sRGB pictures: CIE L*a*b*.

Pictures are arrays (3, H, W) in [0, 1]; all is computed in float64.
"""

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
White: TypeAlias = Literal["D50", "D65"]

# Linear sRGB to XYZ for each white; its rows sum to the white. D50: adapted by Bradford, as ICC profiles of sRGB are.
_XYZ = {
    "D50": np.array(
        [
            [0.4360747, 0.3850649, 0.1430804],
            [0.2225045, 0.7168786, 0.0606169],
            [0.0139322, 0.0971045, 0.7141733],
        ]
    ),
    "D65": np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    ),
}


def lab(image: npt.NDArray[np.floating], white: White = "D50") -> Array:
    """L*, a*, b* (3, H, W) of sRGB, with respect to `white`.

    D50 is what makecform('srgb2lab') of MATLAB gives; D65 is the default of scikit-image.
    """
    values = image.astype(np.float64)
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    matrix = _XYZ[white]
    relative = np.tensordot(matrix / matrix.sum(1, keepdims=True), linear, axes=1)
    x, y, z = np.where(relative > 216 / 24389, np.cbrt(relative), (24389 / 27 * relative + 16) / 116)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])
