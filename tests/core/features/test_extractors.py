"""Feature extractors: fixed filters in closed form, networks of libraries with files, and what is refused."""

import math
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.models.vgg import cfgs, make_layers

from ornstein.config import build, describe
from ornstein.errors import UserError
from ornstein.features.base import FeatureExtractor, seen_by
from ornstein.features.fixed_bank import FixedBank
from ornstein.features.timm_models import TimmFeatures
from ornstein.features.vgg import VGG16Features
from ornstein.guidance.perceptual import PerceptualTerm

MEAN, STD = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
SMALL_SAM = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 64, "global_attn_indexes": [1], "neck_chans": 16}


def picture(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole state dict of VGG-16 with other numbers than it has by chance, and one tensor of the classifier."""
    torch.manual_seed(5)
    state = {f"features.{name}": tensor for name, tensor in make_layers(cfgs["D"]).state_dict().items()}
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(state | {"classifier.6.bias": torch.zeros(1000)}, path)
    return path


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small image encoder under the names of a published SAM file, with a tensor of its decoder."""
    torch.manual_seed(6)
    state = timm.create_model("samvit_base_patch16", num_classes=0, **SMALL_SAM).state_dict()
    named = {f"image_encoder.{name.replace('mlp.fc', 'mlp.lin')}": t.clone() for name, t in state.items()}
    path = tmp_path_factory.mktemp("sam") / "sam.safetensors"
    save_file(named | {"mask_decoder.weight": torch.zeros(2)}, path)
    return path


def test_vgg_gives_the_layers_that_are_named(vgg: Path) -> None:
    extractor = VGG16Features(vgg)
    x = picture(2, 3, 32, 48)
    found = extractor(x)
    assert [f.shape[1:] for f in found] == [(64, 32, 48), (128, 16, 24), (256, 8, 12), (512, 4, 6)]
    assert (extractor.channels, extractor.minimum, extractor.weights_source) == (3, 8, str(vgg))
    assert extractor.name == "vgg16 relu1_2 relu2_2 relu3_3 relu4_3"

    plain = make_layers(cfgs["D"])
    stored = torch.load(vgg, weights_only=True)
    plain.load_state_dict({n.removeprefix("features."): t for n, t in stored.items() if n.startswith("features.")})
    h = ((x + 1) / 2 - MEAN) / STD
    for place, layer in enumerate(plain[:23]):
        h = layer(h)
        if place in (3, 8, 15, 22):
            torch.testing.assert_close(found[(3, 8, 15, 22).index(place)], h)
            h = h.clone()


def test_extractors_are_frozen_and_differentiable(vgg: Path, sam: Path) -> None:
    extractors: list[FeatureExtractor] = [
        VGG16Features(vgg, ["relu1_1", "relu2_1"]),
        TimmFeatures("samvit_base_patch16", sam, options=SMALL_SAM),
        FixedBank(),
    ]
    for extractor in extractors:
        assert not any(weight.requires_grad for weight in extractor.parameters())
        assert not extractor.train().training
        x = picture(2, 1, 32, 32).requires_grad_()
        loss = PerceptualTerm(extractor)(x, picture(2, 1, 32, 32).flip(-1))
        (gradient,) = torch.autograd.grad(loss.sum(), x)
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0
        again = build(describe(extractor), FeatureExtractor)  # type: ignore[type-abstract]
        assert again.name == extractor.name
        assert all(
            torch.equal(a, b) for a, b in zip(again(seen_by(again, x)), extractor(seen_by(extractor, x)), strict=True)
        )


def test_sam_is_read_under_its_own_names_and_takes_any_size(sam: Path) -> None:
    extractor = TimmFeatures("samvit_base_patch16", sam, options=SMALL_SAM)
    network = timm.create_model("samvit_base_patch16", num_classes=0, **SMALL_SAM)
    stored = {n.removeprefix("image_encoder."): t for n, t in load_file(sam).items() if n.startswith("image_")}
    network.load_state_dict({name.replace("mlp.lin", "mlp.fc"): tensor for name, tensor in stored.items()})
    x = picture(1, 3, 64, 64)
    with torch.no_grad():
        (embedding,) = extractor(x)
        torch.testing.assert_close(embedding, network.eval().forward_features(((x + 1) / 2 - MEAN) / STD))
        assert [f.shape for f in extractor(picture(1, 3, 100, 40))] == [(1, 16, 7, 3)]
        fixed = TimmFeatures("samvit_base_patch16", sam, size=48, options=SMALL_SAM)
        assert [f.shape for f in fixed(picture(1, 3, 100, 40))] == [(1, 16, 3, 3)]
    assert extractor.name == "timm samvit_base_patch16"


def test_stages_of_other_networks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18.pth")  # with its head
    extractor = TimmFeatures("resnet18", tmp_path / "resnet18.pth", layers=[1, 2])
    assert [f.shape for f in extractor(picture(1, 3, 64, 32))] == [(1, 64, 16, 8), (1, 128, 8, 4)]
    assert extractor.name == "timm resnet18 1 2"
    with pytest.raises(UserError, match="does not fit timm's resnet34"):
        TimmFeatures("resnet34", tmp_path / "resnet18.pth")


def test_weights_are_never_made_up(tmp_path: Path, vgg: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    for path, message in (
        (None, "nothing is downloaded"),
        (tmp_path / "none.pth", "no weights at"),
        (broken, "damaged"),
    ):
        with pytest.raises(UserError, match=message):
            VGG16Features(path)
        with pytest.raises(UserError, match=message):
            TimmFeatures("resnet18", path)
    short = {n: t for n, t in torch.load(vgg, weights_only=True).items() if n != "features.2.bias"}
    torch.save(short, tmp_path / "short.pth")
    with pytest.raises(UserError, match=r"missing \(features\.2\.bias\)"):
        VGG16Features(tmp_path / "short.pth")


def test_unknown_layers_models_and_options_are_refused(vgg: Path, sam: Path) -> None:
    for layers in ([], ["relu9_1"], ["relu2_1", "relu1_1"]):
        with pytest.raises(UserError, match="layers of VGG-16 are"):
            VGG16Features(vgg, layers)
    with pytest.raises(UserError, match="no model 'samvit_tiny'"):
        TimmFeatures("samvit_tiny", sam)
    with pytest.raises(UserError, match="does not make"):
        TimmFeatures("samvit_base_patch16", sam, options={"colour": 3})
    for arguments in ({"scales": 0}, {"orientations": 0}, {"wavelength": 2.0}):
        with pytest.raises(UserError, match="a bank of filters needs"):
            FixedBank(**arguments)  # type: ignore[arg-type]


def test_pictures_are_brought_to_the_extractor() -> None:
    bank = FixedBank(1).double()
    colours = picture(2, 3, 16, 16)
    torch.testing.assert_close(seen_by(bank, colours), colours.mean(1, keepdim=True).double(), check_dtype=False)
    with pytest.raises(UserError, match="too small"):
        seen_by(bank, picture(1, 1, 2, 16))
    with pytest.raises(UserError, match=r"\(B, C, H, W\)"):
        seen_by(bank, picture(16, 16))


def test_the_bank_in_closed_form() -> None:
    """A constant has no features; a ramp has its slope, and Haar details of slope 2^k per scale; energy is kept."""
    bank = FixedBank(scales=2, orientations=4, wavelength=4.0).double()
    constant = torch.full((1, 1, 16, 16), 0.7, dtype=torch.float64)
    assert all(float(f.abs().max()) < 1e-6 for f in bank(constant))
    ramp = 0.1 * torch.arange(16, dtype=torch.float64).expand(1, 1, 16, 16)
    sobel, haar1, haar2, _ = bank(ramp)
    inside = sobel[..., 1:-1, 1:-1]
    torch.testing.assert_close(inside[:, 0], torch.full_like(inside[:, 0], 0.1))
    assert float(inside[:, 1].abs().max()) < 1e-12
    for level, details in enumerate((haar1, haar2)):  # the mean of 2^k pixels, times 2^k, differs by 2^k slopes
        wanted = -0.1 * 4**level
        torch.testing.assert_close(details[:, 0], torch.full_like(details[:, 0], wanted))
        assert float(details[:, 1:].abs().max()) < 1e-6
    line = torch.arange(32, dtype=torch.float64)
    wave = (math.pi / 2 * line).cos().expand(1, 1, 32, 32)  # along a row, of the wavelength of the bank
    strengths = bank(wave)[-1][..., 8:-8, 8:-8].square().mean((0, 2, 3)).reshape(4, 2).sum(1)
    assert int(strengths.argmax()) == 0
    assert float(strengths[2]) < 0.01 * float(strengths[0])


def test_haar_details_keep_the_energy() -> None:
    bank = FixedBank(scales=3).double()
    x = picture(1, 1, 16, 16).double()
    details = bank(x)[1:-1]
    low = x.reshape(1, 1, 2, 8, 2, 8).sum((3, 5)) / 8
    total = sum(float(d.square().sum()) for d in details) + float(low.square().sum())
    assert total == pytest.approx(float(x.square().sum()), rel=1e-6)
