"""What an evaluation does with the frames of a test set."""

import io
import math
from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ornstein.errors import UserError
from ornstein.pictures.scoring import Scores
from ornstein_infrared import metrics, thermal
from ornstein_infrared.layouts import Pair
from ornstein_infrared.normalization import Normalization, Normalized

if TYPE_CHECKING:
    from ornstein.pictures.lpips import Lpips
    from ornstein_infrared.degradations import Degradation
    from ornstein_infrared.upscaler import Infrared

Array = npt.NDArray[np.floating[Any]]

NAMES = {
    "psnr_gray": "PSNR (dB)",
    "psnr_y": "PSNR Y",
    "ssim_gray": "SSIM",
    "ssim_y": "SSIM Y",
    "spectrum": "spectrum",
    "spectrum_log": "spectrum (log)",
    "slope_error": "slope",
    "lpips": "LPIPS",
    "lite0": "Lite0 distance",
    "error_degc": "error (K)",
    "rmse_degc": "RMSE (K)",
    "hot_iou": "hot IoU",
    "hot_recall": "hot recall",
}
"""Names to print; `spectrum` is the distance of amplitudes, errors of temperatures are in kelvin.

The Lite0 distance is one of features as LPIPS is, of another network: it compares with itself alone."""


class Item(NamedTuple):
    """A frame of the set; `z` of the measured one is what systems get, and all that they get."""

    measured: Normalized
    truth: Array
    """(1, H, W), 0 and 1 at the ends of the range of the measured frame."""
    degrees: float | None
    """Kelvin of that range, where the values are temperatures."""
    hot: npt.NDArray[np.bool_] | None


class FrameTrial:
    """Clean frames with their measured partners, or with those that `degradation` makes of them.

    The range of both is that of the measured frame, the only one that is known when a frame is enlarged.

    Args:
        pairs: the files.
        scale: clean sides over measured ones.
        degradation: for pairs without a measured frame; default: Pillow's bicubic filter of the stored values.
        normalization: the range of a frame; default: `usual_range`.
        temperatures: what the numbers of the files mean, where they do not say it.
        lpips: weights for LPIPS.
        seed: of the degradation.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        scale: int = 4,
        degradation: "Degradation | None" = None,
        normalization: Normalization | None = None,
        temperatures: thermal.Scale | None = None,
        lpips: Path | None = None,
        seed: int = 0,
    ) -> None:
        self.pairs, self.scale, self.degradation, self.normalization = list(pairs), scale, degradation, normalization
        self.temperatures, self.lpips, self.seed = temperatures, lpips, seed
        self.score = score

    def name(self, index: int) -> str:
        return self.pairs[index].name

    def item(self, index: int) -> Item:
        from ornstein_infrared.datasets import usual_range

        pair = self.pairs[index]
        large = thermal.read(pair.gt, scale=self.temperatures)
        small = self._measured(pair, large, index)
        height, width = (self.scale * side for side in small.size)
        if pair.lq is not None and (height, width) != large.size:
            raise UserError(
                f"{pair.lq} has {small.size[1]} x {small.size[0]} and {pair.gt} {large.size[1]} x {large.size[0]} "
                f"pixels; with scale {self.scale} their sides must differ by that factor"
            )
        if small.unit != large.unit:
            raise UserError(f"{pair.lq} holds {small.unit} and {pair.gt} {large.unit}; give both in one unit")
        found = (self.normalization or usual_range(small))(small.values, small.mask)
        if found.constant:
            raise UserError(f"{pair.gt} is constant; there is nothing to score")
        truth = _in_range(large.values[:height, :width].astype(np.float64), found)
        degrees = found.high - found.low if small.unit in ("degC", "K") else None
        hot = None if pair.hot is None else thermal.read(pair.hot).values[:height, :width] > 127
        return Item(found, truth, degrees, hot)

    def start(self, item: Item) -> Array:
        """The bicubic enlargement (a = -3/4), which the diffusion starts from."""
        import torch

        from ornstein_infrared.degradations.bicubic import enlarge

        z = torch.from_numpy(item.measured.z)[None, None].double()
        return _in_range(item.measured.values(enlarge(z, self.scale)[0, 0].numpy()), item.measured)

    def restore(self, restorer: "Infrared", item: Item, seed: int) -> Array:
        return _in_range(restorer.restore_normalized(item.measured, seed=seed), item.measured)

    def shape(self, item: Item) -> Hashable:
        return item.measured.z.shape

    def arguments(self, item: Item) -> tuple[Any, ...]:
        return item.truth, item.degrees, item.hot, self.lpips

    def _measured(self, pair: Pair, large: thermal.Frame, index: int) -> thermal.Frame:
        from ornstein.training.seeds import item_generator
        from ornstein_infrared.datasets import measured

        if pair.lq is not None:
            return thermal.read(pair.lq, scale=self.temperatures)
        return measured(large, self.scale, self.degradation, self.normalization, item_generator(self.seed, 0, index))


def _in_range(values: Array, found: Normalized) -> Array:
    """(1, H, W) with 0 and 1 at the ends of the range."""
    scaled: Array = (values - found.low) / (found.high - found.low)
    return scaled[None]


def score(
    estimate: Array,
    truth: Array,
    degrees: float | None,
    hot: npt.NDArray[np.bool_] | None,
    lpips: Path | None,
) -> Scores:
    """`metrics.score`, and the errors of temperatures and the hot objects, where these are known."""
    values = metrics.score(truth, estimate, None if lpips is None else _lpips(lpips))
    if degrees is not None:
        error = metrics.temperature_error(degrees * truth, degrees * estimate)
        values |= {"error_degc": error.mean_absolute, "rmse_degc": error.root_mean_square}
    if hot is not None:
        seen = metrics.hot_objects(truth, estimate, hot)
        values |= {"hot_iou": seen.iou, "hot_recall": seen.recall}
    return Scores({name: value for name, value in values.items() if name in NAMES}, {})


@cache
def _lpips(weights: Path) -> "Lpips":
    from ornstein.pictures.lpips import Lpips

    return Lpips(weights)


def read_png(path: Path) -> Array:
    """An estimate that was kept for the report, (1, H, W) in [0, 1]."""
    return thermal.read(path).values[None] / 255


def spectra_png(pictures: Mapping[str, Array]) -> tuple[str, bytes]:
    """Radial power over frequency of every system and of the truth, as a plot."""
    import torch
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from ornstein.pictures.evaluation_report import TRUTH
    from ornstein.spectrum import radial_power

    figure = Figure(figsize=(7, 3.4), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, picture in pictures.items():
        side = min(picture.shape[-2:])
        if side < 4:
            continue
        power = radial_power(torch.from_numpy(np.asarray(picture, np.float64)[0, :side, :side].copy())).numpy()
        frequency = np.arange(len(power)) / side
        style = {"color": "black", "linewidth": 1.6} if name == TRUTH else {"linewidth": 1.1}
        axes.loglog(frequency[1:], np.maximum(power[1:], math.ulp(0.0)), label=name, **style)
    axes.set_xlabel("cycles per pixel")
    axes.set_ylabel("power")
    axes.legend(fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return f"radial power of {', '.join(pictures)}", buffer.getvalue()
