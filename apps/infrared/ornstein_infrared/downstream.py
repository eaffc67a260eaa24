"""What restored frames are worth to a detector or a segmentation network: frozen, the same for all rows of a table.

The network is one of torchvision's, with a file of weights that the user trained on large infrared frames. Nothing is
downloaded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein.published_files import read_weights


@dataclass(frozen=True)
class Boxes:
    """Objects of a frame.

    Attributes:
        boxes: (n, 4), left, top, right, bottom in pixels.
        labels: (n,), 1 for the first class; torchvision keeps 0 for the background.
        scores: (n,), of a detector; None for what is true.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor | None = None


class Detector:
    """A frozen detector of torchvision.

    Args:
        name: of the model, for example `fasterrcnn_resnet50_fpn`.
        weights: state dict, `.pth` or `.safetensors`.
        classes: number of classes, without the background.
        device: where it runs.

    Raises:
        UserError: no such model, or weights that do not fit it.
    """

    def __init__(self, name: str, weights: Path, classes: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.network = _frozen(name, Path(weights), classes + 1, "detection").to(self.device)

    @torch.no_grad()
    def __call__(self, frame: Tensor) -> Boxes:
        """Objects of a frame (1, H, W) in [0, 1]."""
        found = self.network([_colours(frame).to(self.device)])[0]
        return Boxes(*(found[name].cpu() for name in ("boxes", "labels", "scores")))


class Segmenter:
    """A frozen segmentation network of torchvision; arguments as those of `Detector`, `classes` with the background."""

    def __init__(self, name: str, weights: Path, classes: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.network = _frozen(name, Path(weights), classes, "segmentation").to(self.device)

    @torch.no_grad()
    def __call__(self, frame: Tensor) -> Tensor:
        """Class of every pixel, (H, W), of a frame (1, H, W) in [0, 1]."""
        found: Tensor = self.network(_colours(frame)[None].to(self.device))["out"][0]
        return found.argmax(0).cpu()


def mean_average_precision(found: Iterable[Boxes], truth: Iterable[Boxes]) -> dict[str, float]:
    """`map` (COCO, 0.5 to 0.95), `map_50` and `map_75` over frames, by torchmetrics; -1 where there is no object.

    Raises:
        UserError: the package that torchmetrics needs for it is missing.
    """
    from torchmetrics.detection import MeanAveragePrecision

    try:
        metric = MeanAveragePrecision()
    except ImportError:
        raise UserError("mAP needs the package pycocotools; pip install 'ornstein-infrared[detection]'") from None
    for one, true in zip(found, truth, strict=True):
        if one.scores is None:
            raise ValueError("what a detector found needs scores")
        metric.update(
            [{"boxes": one.boxes, "labels": one.labels, "scores": one.scores}],
            [{"boxes": true.boxes, "labels": true.labels}],
        )
    result = metric.compute()
    return {name: float(result[name]) for name in ("map", "map_50", "map_75")}


def mean_iou(found: Iterable[Tensor], truth: Iterable[Tensor], classes: int, ignore: int = 255) -> float:
    """Mean over the classes that occur of intersection over union of all frames (H, W); `ignore` does not count."""
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    for one, true in zip(found, truth, strict=True):
        counts = true != ignore
        if _largest(true[counts]) >= classes:
            raise UserError(f"a segmentation has labels above {classes - 1}; give the number of its classes")
        pairs = classes * true[counts].long() + one[counts].long()
        matrix += torch.bincount(pairs.flatten(), minlength=classes**2).view(classes, classes)
    both = matrix.diagonal().double()
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    return float((both[union > 0] / union[union > 0]).mean())


def read_yolo(path: Path, height: int, width: int) -> Boxes:
    """True objects in a file of YOLO: class, centre x, y, width and height in parts of the frame, one line an object.

    Raises:
        UserError: no such file, or another form.
    """
    path = Path(path)
    form = "give five numbers a line: class, x, y, width, height"
    try:
        rows = [[float(word) for word in line.split()] for line in path.read_text().splitlines() if line.strip()]
    except FileNotFoundError:
        raise UserError(f"there are no labels at {path}; check the name") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not of YOLO ({error}); {form}") from None
    if any(len(row) != 5 for row in rows):
        raise UserError(f"{path} is not of YOLO; {form}")
    table = torch.tensor(rows, dtype=torch.float64).view(-1, 5)
    centre, half = table[:, 1:3], table[:, 3:] / 2
    boxes = torch.cat([centre - half, centre + half], 1) * torch.tensor([width, height, width, height])
    return Boxes(boxes.float(), table[:, 0].long() + 1)


def _largest(labels: Tensor) -> int:
    return int(labels.max()) if labels.numel() else 0


def _colours(frame: Tensor) -> Tensor:
    return frame.expand(3, -1, -1).float()


def _frozen(name: str, path: Path, classes: int, kind: str) -> nn.Module:
    import torchvision

    module = getattr(torchvision.models, kind)
    known = torchvision.models.list_models(module)
    if name not in known:
        raise UserError(f"torchvision has no {kind} model {name}; use one of {', '.join(known)}")
    options: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": classes}
    network: nn.Module = torchvision.models.get_model(name, **options)
    if not path.is_file():
        raise UserError(f"there are no weights at {path}; give a state dict of {name}")
    weights = _tensors(path)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit {name} with {classes} classes: {_line(error)}; check both") from None
    return network.requires_grad_(False).eval()


def _tensors(path: Path) -> Mapping[str, Tensor]:
    if path.suffix != ".safetensors":
        return read_weights(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({_line(error)}); copy it again") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
