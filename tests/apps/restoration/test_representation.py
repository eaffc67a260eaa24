"""Pictures to tensors and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_vectors import ReferenceFile, reference_files

from ornstein.pictures.sizes import pad_to_multiple, upscale
from ornstein_restoration.representation import PictureSpace, equalized

SIDES = st.integers(1, 40)


@reference_files("restoration", "upsr_process*.npz", needs=["lr", "bicubic"])
def test_enlargement_is_the_published_one(vectors: ReferenceFile) -> None:
    small, large = vectors.tensor("lr").float(), vectors.tensor("bicubic").float()
    space = PictureSpace(scale=large.shape[-1] // small.shape[-1], patch=1)
    torch.testing.assert_close(space.observation((small + 1) / 2), large, atol=1e-5, rtol=0)


@given(height=SIDES, width=SIDES, patch=st.sampled_from([1, 2, 4]))
def test_round_trip_of_any_size(height: int, width: int, patch: int) -> None:
    picture = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height))
    space = PictureSpace(patch=patch, multiple=8)
    x0 = space.forward(space.pad(picture))
    assert x0.shape[1] == 3 * patch**2
    assert not any(side % (8 // patch) for side in x0.shape[-2:])
    torch.testing.assert_close(space.inverse(x0, (height, width)), picture, atol=1e-6, rtol=0)


@given(height=SIDES, width=SIDES, multiple=st.sampled_from([8, 16, 64]))
def test_padding_reflects_or_repeats(height: int, width: int, multiple: int) -> None:
    picture = torch.rand(3, height, width, generator=torch.Generator().manual_seed(width))
    padded = pad_to_multiple(picture, multiple)
    assert padded.shape == (3, height + -height % multiple, width + -width % multiple)
    assert torch.equal(padded[:, :height, :width], picture)
    for dim, side in ((1, height), (2, width)):
        extra = padded.shape[dim] - side
        added = padded.narrow(dim, side, extra)
        inside = padded.narrow(dim, side - 1 - extra, extra).flip(dim) if extra < side else None
        expected = padded.narrow(dim, side - 1, 1).expand_as(added) if inside is None else inside
        assert torch.equal(added, expected)


def test_padding_agrees_with_torch() -> None:
    picture = torch.rand(1, 3, 21, 30, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.pad(picture, (0, 2, 0, 3), mode="reflect")
    assert torch.equal(pad_to_multiple(picture, 8), expected)


def test_masks_in_both_forms() -> None:
    grey = torch.tensor([[[[0.0, 0.5, 254 / 255, 1.0]]]])
    one_hot = PictureSpace(mask="one_hot").condition(grey)["mask"]
    assert one_hot[0, :, 0].tolist() == [[1, 1, 1, -1], [-1, -1, -1, 1]]  # only 255 is the class, as published
    assert torch.equal(PictureSpace(mask="image").condition(grey)["mask"], grey.expand(1, 3, 1, 4))
    assert PictureSpace().condition(None) == {}
    with pytest.raises(ValueError, match="needs a mask"):
        PictureSpace(mask="image").condition(None)


def test_equalisation_flattens_the_histogram() -> None:
    dark = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) ** 1.5 * 0.6
    flat = equalized(dark)
    levels = torch.linspace(0, 1, 9)
    for channel in flat.flatten(0, 1):
        share = torch.tensor([(channel <= level).double().mean() for level in levels[1:-1]])
        assert (share - levels[1:-1].double()).abs().max() < 0.05
    assert flat.amin() == 0
    assert flat.amax() == 1
    order = dark[0, 0].flatten().mul(255).round().argsort()
    assert bool((flat[0, 0].flatten()[order].diff() >= 0).all())


def test_equalisation_leaves_one_grey_alone() -> None:
    grey = torch.full((3, 4, 4), 77 / 255)
    torch.testing.assert_close(equalized(grey), grey)


@pytest.mark.parametrize(
    "settings",
    [{"padding": "zero"}, {"mask": "grey"}, {"scale": 0}, {"patch": 4, "multiple": 2}, {"mask": "image", "scale": 4}],
)
def test_settings_that_do_not_fit(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        PictureSpace(**settings)  # type: ignore[arg-type]


def test_no_enlargement_at_scale_one() -> None:
    picture = torch.rand(1, 3, 5, 7)
    assert upscale(picture, 1) is picture
