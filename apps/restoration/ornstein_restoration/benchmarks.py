"""What each published benchmark measures; docs/restoration-metrics.md compares them."""

from typing import TYPE_CHECKING, Literal, TypeAlias

from ornstein.pictures.likeness import as_array
from ornstein.pictures.resizing import imresize_rounded
from ornstein.pictures.scoring import Scores
from ornstein_restoration import metrics
from ornstein_restoration.metrics import Picture
from ornstein_restoration.shadow_metrics import istd

if TYPE_CHECKING:
    from ornstein.pictures.lpips import Lpips

Protocol: TypeAlias = Literal[
    "default", "upsr", "lol", "lol-256", "raindrop", "raindrop-256", "rddm-256", "istd", "istd-256"
]

SIZE = (256, 256)

NAMES = {
    "psnr_rgb": "PSNR",
    "psnr_rgb_rounded": "PSNR (8 bit)",
    "psnr_y": "PSNR Y",
    "psnr_y_rounded": "PSNR Y (8 bit)",
    "psnr_y_capped": "PSNR Y (pyiqa)",
    "ssim_y": "SSIM Y",
    "ssim_y_rounded": "SSIM Y (8 bit)",
    "ssim_y_pyiqa": "SSIM Y (pyiqa)",
    "ssim_rgb_uniform": "SSIM 7x7 (8 bit)",
    "ssim_rgb_volume": "SSIM volume",
    "lpips_alex": "LPIPS",
    "ms_ssim_rgb": "MS-SSIM",
    "gmsd": "GMSD",
    "haarpsi": "HaarPSI",
    "vif_pixel": "VIF (pixels)",
    "lite0": "Lite0 distance",
    "psnr_all": "PSNR",
    "psnr_shadow": "PSNR shadow (zeroed)",
    "psnr_nonshadow": "PSNR non-shadow (zeroed)",
    "ssim_all": "SSIM volume",
    "ssim_shadow": "SSIM shadow (zeroed)",
    "ssim_nonshadow": "SSIM non-shadow (zeroed)",
    "mae_all": "Lab MAE",
    "mae_shadow": "Lab MAE shadow",
    "mae_nonshadow": "Lab MAE non-shadow",
}
"""Names to print; PSNR is in dB."""

LOWER_IS_BETTER = ("lpips_alex", "gmsd", "lite0", "mae_all", "mae_shadow", "mae_nonshadow")


def score(
    truth: Picture,
    restored: Picture,
    protocol: Protocol = "default",
    mask: "Picture | None" = None,
    lpips: "Lpips | None" = None,
) -> Scores:
    """The metrics of one picture as `protocol` takes them; NaN where one is not defined.

    Args:
        truth: (3, H, W) in [0, 1]; for "rddm-256" it is brought to the size of `restored`.
        restored: (3, H, W) in [0, 1].
        protocol: whose conventions.
        mask: (H, W) or (1, H, W), shadow wherever it is not 0; for "istd" and "istd-256".
        lpips: network for LPIPS; left out without it.

    Raises:
        ValueError: pictures of different sizes, a shape that is not (3, H, W), values that are not finite, no mask.
    """
    if protocol in ("istd", "istd-256"):
        if mask is None:
            raise ValueError(f"{protocol} needs a mask")
        values, errors = istd(truth, restored, mask, SIZE if protocol == "istd-256" else None)
        means = {f"mae_{region}": error.mean for region, error in errors.items()}
        return Scores(values | means, {f"mae_{region}": error.pixels for region, error in errors.items()})
    if protocol == "rddm-256":
        truth = _at(truth, restored.shape[-2:])
    elif protocol in ("lol-256", "raindrop-256"):
        truth, restored = _at(truth, SIZE), _at(restored, SIZE)
    values = {metric.__name__: metric(truth, restored) for metric in _METRICS[protocol]}
    if protocol == "default":
        values |= _perceptual(truth, restored)
    if lpips is not None:
        values["lpips_alex"] = lpips.score(truth, restored)
    return Scores(values, {})


_Y_ROUNDED = (metrics.psnr_y_rounded, metrics.ssim_y_rounded)
_METRICS = {
    "default": (metrics.psnr_rgb, metrics.psnr_y, metrics.ssim_y, metrics.ssim_rgb_volume),
    "upsr": (metrics.psnr_y_capped, metrics.ssim_y_pyiqa),
    "lol": (metrics.psnr_rgb_rounded, metrics.ssim_rgb_uniform),
    "lol-256": _Y_ROUNDED,
    "raindrop": _Y_ROUNDED,
    "raindrop-256": _Y_ROUNDED,
    "rddm-256": _Y_ROUNDED,
}


def _perceptual(truth: Picture, restored: Picture) -> dict[str, float]:
    from ornstein.pictures import lite0
    from ornstein_restoration import perceptual

    chosen = (perceptual.ms_ssim_rgb, perceptual.gmsd, perceptual.haarpsi, perceptual.vif_pixel)
    found = {metric.__name__: metric(truth, restored) for metric in chosen}
    if lite0.available():
        found["lite0"] = lite0.score(truth, restored)
    return found


def _at(picture: Picture, size: tuple[int, ...]) -> Picture:
    if tuple(picture.shape[-2:]) == tuple(size):
        return picture
    return imresize_rounded(as_array(picture), size=(size[0], size[1]))
