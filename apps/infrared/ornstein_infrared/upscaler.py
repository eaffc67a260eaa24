"""A loaded checkpoint that enlarges frames: frame to values, array to array."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ornstein.errors import UserError
from ornstein.pictures.restorer import BlendName, PictureRestorer
from ornstein_infrared.guidance import GuidanceName, guide

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ornstein.guidance.guide import TileGuide
    from ornstein_infrared.normalization import Normalization, Normalized
    from ornstein_infrared.thermal import Frame


class Infrared(PictureRestorer[Any]):
    """A loaded checkpoint, ready for frames: `infrared(frame)`.

    frame = thermal.read("small.tiff")
    values = Infrared("mine.safetensors")(frame)
    thermal.write("large.tiff", values, like=frame)
    """

    guidance: "TileGuide | None"

    def __init__(
        self,
        checkpoint: "Path | str | None" = None,
        *,
        guidance: GuidanceName = "off",
        guidance_scale: float | None = None,
        features: "Path | str | None" = None,
        blend: BlendName = "outputs",
        **options: Any,
    ) -> None:
        """Load `checkpoint`, or the shipped weights; the options are those of `upscale` and `PictureRestorer`."""
        from ornstein_infrared.representation import ThermalSpace

        super().__init__(
            shipped() if checkpoint is None else checkpoint,
            "infrared",
            ThermalSpace,
            blend=blend,
            gradients=guidance != "off",
            **options,
        )
        if guidance != "off" and blend == "steps":
            raise UserError("guidance looks at tiles one by one; leave --blend steps or --guidance out")
        self.guidance = guide(guidance, self.scale, guidance_scale, features)

    def __call__(
        self,
        frame: "Frame | npt.NDArray[np.floating[Any]]",
        normalization: "Normalization | None" = None,
        *,
        seed: int = 0,
        on_progress: Callable[[float], None] | None = None,
    ) -> "npt.NDArray[np.floating[Any]]":
        """The values (scale h, scale w), float64, of a frame or of an array (h, w), in its unit.

        Args:
            frame: as `thermal.read` gives it, or finite values.
            normalization: the range that the network sees as -1 to 1; default: 0 to 255 for levels, percentiles of the
                frame for everything else.
            seed: of the noise.
            on_progress: is told the share done since its last call.

        Raises:
            UserError: an array of another shape or with values that are not finite, or the memory does not suffice.
        """
        from ornstein_infrared.datasets import usual_range
        from ornstein_infrared.normalization import PercentileLinear
        from ornstein_infrared.thermal import Frame

        if isinstance(frame, Frame):
            normal = (normalization or usual_range(frame))(frame.values, frame.mask)
        else:
            normal = (normalization or PercentileLinear())(_checked(frame))
        return self.restore_normalized(normal, seed=seed, on_progress=on_progress)

    @property
    def is_regression(self) -> bool:
        """Whether it is one call without diffusion, which has no steps to guide."""
        from ornstein.process.prediction import Prediction

        return isinstance(self.model.denoiser.process, Prediction)

    def restore_normalized(
        self, frame: "Normalized", *, seed: int = 0, on_progress: Callable[[float], None] | None = None
    ) -> "npt.NDArray[np.floating[Any]]":
        """The values of a normalised frame; a constant one is only enlarged."""
        import numpy as np
        import torch

        if frame.constant:
            size = tuple(self.scale * side for side in frame.z.shape)
            return frame.values(np.zeros(size, np.float32))
        pixels = (torch.from_numpy(frame.z)[None] + 1) / 2
        z = self.restore(pixels, seed=seed, on_progress=on_progress)[0].numpy()
        z *= 2  # in place: results may be large
        z -= 1
        return frame.values(z)


WEIGHTS = Path(__file__).parent / "weights"
UPSCALE = "upscale"
"""Name of the shipped weights."""


def shipped() -> Path:
    """The weights of this installation.

    Raises:
        UserError: there are none.
    """
    path = WEIGHTS / f"{UPSCALE}.safetensors"
    if not path.is_file():
        raise UserError("this installation has no shipped weights for infrared; name some with --checkpoint FILE")
    return path


def _checked(frame: Any) -> Any:
    import numpy as np

    values = np.asarray(frame)
    if values.ndim != 2 or min(values.shape) < 1 or values.dtype.kind not in "fiu":
        raise UserError(f"a frame is an array (height, width) of numbers, not {values.dtype} {values.shape}")
    if not np.isfinite(values).all():
        raise UserError("the frame holds NaN or infinite values; read it with thermal.read, which masks them")
    return values.astype(np.float64)
