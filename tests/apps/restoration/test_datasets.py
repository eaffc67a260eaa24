"""Items of pairs and of clean pictures: what is read, cut, mirrored and degraded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ornstein.errors import UserError
from ornstein.training.data import ResumableLoader
from ornstein_restoration.data import RestorationData
from ornstein_restoration.datasets import Pictures, resized
from ornstein_restoration.degradations import RealESRGAN
from ornstein_restoration.layouts import Pair

Save = Callable[[Path, np.ndarray], Path]


@dataclass(frozen=True)
class Result:
    image: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True)
class NoisyHalf:
    """Half the size, with noise."""

    scale: int = 2

    def __call__(self, image: Tensor, generator: torch.Generator) -> Result:
        small = image[:, ::2, ::2]
        return Result((small + 0.1 * torch.randn(small.shape, generator=generator)).clamp(0, 1))


@dataclass(frozen=True)
class DarkCorner:
    """A shadow with its mask."""

    def __call__(self, image: Tensor, generator: torch.Generator) -> Result:
        mask = torch.zeros_like(image[:1])
        mask[:, :8, :8] = float(torch.rand((), generator=generator))
        return Result(image * (1 - mask / 2), mask)


@pytest.fixture
def pairs(tmp_path: Path, photo: Callable[..., np.ndarray], save: Save) -> list[Pair]:
    """Three pairs with masks: the degraded picture is the clean one, darker."""
    found = []
    for i in range(3):
        clean = photo(i, 40, 52)
        mask = np.zeros((40, 52), np.uint8)
        mask[:, i * 10 :] = 255
        found.append(
            Pair(
                str(i),
                save(tmp_path / f"lq/{i}.png", clean // 2),
                save(tmp_path / f"gt/{i}.png", clean),
                save(tmp_path / f"mask/{i}.png", mask),
            )
        )
    return found


def test_items_are_the_files(pairs: list[Pair]) -> None:
    item = Pictures(pairs)[1]
    assert item["name"] == "1"
    assert pairs[1].gt is not None
    expected = torch.from_numpy(np.array(Image.open(pairs[1].gt))).permute(2, 0, 1) / 255
    assert torch.equal(item["gt"], expected)
    assert item["mask"].shape == (1, 40, 52)
    assert item["mask"][0, 0, 9:11].tolist() == [0, 1]


@pytest.mark.parametrize("augment", ["flip", "flip_rotate"])
def test_pair_and_mask_are_cut_and_mirrored_alike(pairs: list[Pair], augment: Any) -> None:
    data = Pictures(pairs, crop=24, augment=augment, length=60)
    for index in range(60):
        item = data[index]
        assert {name: tuple(item[name].shape) for name in ("lq", "gt", "mask")} == {
            "lq": (3, 24, 24),
            "gt": (3, 24, 24),
            "mask": (1, 24, 24),
        }
        assert torch.equal(item["lq"], (item["gt"] * 255).round().div(2, rounding_mode="floor") / 255)


def test_half_of_the_pictures_are_mirrored(pairs: list[Pair]) -> None:
    data = Pictures(pairs[:1], augment="flip", length=200)
    plain = Pictures(pairs)[0]["gt"]
    mirrored = [not torch.equal(data[i]["gt"], plain) for i in range(200)]
    assert 70 < sum(mirrored) < 130
    flipped = data[mirrored.index(True)]["gt"]
    assert torch.equal(flipped.flip(-1), plain)


def test_all_eight_symmetries_occur(pairs: list[Pair]) -> None:
    data = Pictures(pairs[:1], crop=40, crop_at="centre", augment="flip_rotate", length=120)
    seen = {data[i]["gt"].numpy().tobytes() for i in range(120)}
    assert len(seen) == 8


def test_draws_are_a_function_of_seed_epoch_and_index(pairs: list[Pair]) -> None:
    def items(seed: int, epoch: int, **options: Any) -> list[Tensor]:
        data = Pictures(pairs, crop=16, augment="flip", length=9, seed=seed, **options)
        data.set_epoch(epoch)
        return [data[i]["gt"] for i in reversed(range(9))]

    def same(one: list[Tensor], other: list[Tensor]) -> bool:
        return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))

    assert same(items(0, 1), items(0, 1))
    assert not same(items(0, 1), items(0, 2))
    assert not same(items(0, 1), items(1, 1))
    assert same(items(0, 1, epochs=False), items(0, 2, epochs=False))


def test_degradation_on_the_fly(pairs: list[Pair]) -> None:
    clean = [Pair(pair.name, None, pair.gt) for pair in pairs]
    data = Pictures(clean, degradation=NoisyHalf(), scale=2, crop=24, length=6)
    item = data[4]
    assert item["lq"].shape == (3, 12, 12)
    assert (item["lq"] - item["gt"][:, ::2, ::2]).std() > 0.02
    again = data[4]
    assert torch.equal(item["lq"], again["lq"])
    data.set_epoch(1)
    assert not torch.equal(item["lq"], data[4]["lq"])
    whole = Pictures(clean, degradation=NoisyHalf(), scale=2)[0]
    assert whole["gt"].shape == (3, 40, 52)
    shadow = Pictures(clean, degradation=DarkCorner(), crop=24)[0]
    assert shadow["mask"].shape == (1, 24, 24)


def test_super_resolution_pairs_are_cut_at_the_same_place(
    tmp_path: Path, photo: Callable[..., np.ndarray], save: Save
) -> None:
    clean = photo(0, 40, 52)
    pair = Pair("a", save(tmp_path / "l.png", clean[::4, ::4]), save(tmp_path / "h.png", clean))
    data = Pictures([pair], crop=16, scale=4, augment="none", length=20)
    for i in range(20):
        item = data[i]
        assert torch.equal(item["lq"], item["gt"][:, ::4, ::4])


def test_odd_sizes_lose_a_line_at_scale_two(tmp_path: Path, photo: Callable[..., np.ndarray], save: Save) -> None:
    pair = Pair("a", None, save(tmp_path / "a.png", photo(0, 41, 53)))
    item = Pictures([pair], degradation=NoisyHalf(), scale=2)[0]
    assert (item["gt"].shape, item["lq"].shape) == ((3, 40, 52), (3, 20, 26))


@pytest.mark.parametrize(
    ("size", "fit", "expected"),
    [((40, 52), 1024, (48, 64)), ((480, 720), 1024, (480, 720)), ((70, 100), 64, (48, 64)), ((100, 70), 64, (64, 48))],
)
def test_fitting_as_for_raindrop(
    size: tuple[int, int], fit: int, expected: tuple[int, int], tmp_path: Path, save: Save
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    pair = Pair("a", save(tmp_path / "l.png", picture), save(tmp_path / "h.png", picture))
    assert Pictures([pair], fit=fit)[0]["gt"].shape[-2:] == expected


def test_resizing_is_that_of_pillow(photo: Callable[..., np.ndarray]) -> None:
    picture = photo(1, 60, 80)
    ours = resized(torch.from_numpy(picture.copy()).permute(2, 0, 1) / 255, 32, 48)
    theirs = np.asarray(Image.fromarray(picture).resize((48, 32), Image.Resampling.BICUBIC))
    difference = (ours.permute(1, 2, 0) * 255 - torch.from_numpy(theirs.astype(np.float32))).abs()
    assert difference.max() <= 1.5  # Pillow rounds to 8 bits between the two passes, too


def test_memory_holds_the_same_pictures(pairs: list[Pair]) -> None:
    plain, kept = Pictures(pairs), Pictures(pairs, in_memory=True)
    for pair in pairs:
        assert pair.gt is not None
        pair.gt.unlink()
    with pytest.raises(UserError):
        plain[0]
    assert kept[0]["gt"].shape == (3, 40, 52)


def test_pictures_that_do_not_fit(tmp_path: Path, pairs: list[Pair], save: Save) -> None:
    small = save(tmp_path / "small.png", np.zeros((8, 9, 3), np.uint8))
    gt, lq, mask = pairs[0].gt, pairs[0].lq, pairs[0].mask
    for pair, options, message in [
        (Pair("a", small, gt), {}, "9 x 8 and .* 52 x 40 pixels"),
        (Pair("a", lq, gt), {"scale": 4}, "differ by that factor"),
        (Pair("a", lq, gt, small), {}, r"the mask .* has 9 x 8"),
        (Pair("a", lq, gt, mask), {"crop": 64}, "less than the crop of 64"),
    ]:
        with pytest.raises(UserError, match=message):
            Pictures([pair], **options)[0]  # type: ignore[arg-type]
    (tmp_path / "broken.png").write_bytes(small.read_bytes()[:60])
    with pytest.raises(UserError, match=r"broken\.png"):
        Pictures([Pair("a", tmp_path / "broken.png", gt)])[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": "turn"}, "augment"),
        ({"crop": 10, "scale": 4}, "multiple of it"),
        ({"crop": 0}, "crop of 0"),
        ({"length": 0}, "at least 1"),
        ({"scale": 2, "resize": 32}, "super-resolution"),
        ({"degradation": NoisyHalf()}, "shrinks 2 times"),
    ],
)
def test_settings_that_do_not_fit(options: dict[str, Any], message: str, pairs: list[Pair]) -> None:
    with pytest.raises(UserError, match=message):
        Pictures(pairs, **options)


def test_clean_pictures_need_a_degradation(pairs: list[Pair]) -> None:
    with pytest.raises(UserError, match="name a degradation"):
        Pictures([Pair("a", None, pairs[0].gt)])


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_gives_the_same_with_any_number_of_workers(pairs: list[Pair], workers: int) -> None:
    data = Pictures(pairs, crop=16, augment="flip", length=12)
    loader = ResumableLoader(data, 4, train=True, num_workers=workers)
    batches = list(loader)
    assert [batch["gt"].shape for batch in batches] == [(4, 3, 16, 16)] * 3
    for batch in batches:
        for index, picture in zip(batch["index"].tolist(), batch["gt"], strict=True):
            assert torch.equal(picture, data[index]["gt"])


def test_the_device_degrades_as_the_loading_processes_do(
    tmp_path: Path, photo: Callable[..., np.ndarray], save: Save
) -> None:
    for i in range(8):
        save(tmp_path / f"{i}.png", photo(i, 40, 40))

    def batch(group: int | None) -> dict[str, Any]:
        data = RestorationData(
            tmp_path, "clean", RealESRGAN(), 4, 4, crop=32, num_workers=0, device_group=group, held_out=0.2
        )
        (first, *_) = data.train_dataloader()
        assert ("lq" in first) == (group is None)
        return data.on_after_batch_transfer(first, 0)

    alone, one, three = batch(None), batch(1), batch(3)
    assert torch.equal(alone["lq"], one["lq"])
    assert torch.equal(alone["gt"], three["gt"])
    assert alone.keys() == three.keys()
    assert not torch.equal(three["lq"], one["lq"])
    assert torch.equal(three["lq"][3:], one["lq"][3:])  # a group of one
    assert torch.equal(three["lq"], batch(3)["lq"])
    for degradation, group in ((RealESRGAN(), 0), (NoisyHalf(), 2), (None, 2)):
        with pytest.raises(UserError, match="device_group"):
            RestorationData(tmp_path, "clean", degradation, device_group=group)


def test_scale_chooses_the_folder_of_a_set_with_several(
    tmp_path: Path, photo: Callable[..., np.ndarray], save: Save
) -> None:
    for scale in (2, 4):
        save(tmp_path / f"Canon/Test/{scale}/Canon_001_HR.png", photo(0, 32, 32))
        save(tmp_path / f"Canon/Test/{scale}/Canon_001_LR{scale}.png", photo(0, 32 // scale, 32 // scale))
    data = RestorationData(tmp_path, "realsr", scale=4, num_workers=0)
    (batch,) = data.test_dataloader()
    assert (batch["lq"].shape, batch["gt"].shape) == ((1, 3, 8, 8), (1, 3, 32, 32))
    with pytest.raises(UserError, match=r"--data\.root"):
        RestorationData(tmp_path / "gone").test_dataloader()


def test_data_module_never_validates_on_the_test_split(
    tmp_path: Path, photo: Callable[..., np.ndarray], save: Save
) -> None:
    for i in range(12):
        save(tmp_path / f"{i}.png", photo(i, 32, 32))
    data = RestorationData(
        tmp_path, "clean", NoisyHalf(), scale=2, batch_size=2, crop=16, num_workers=0, held_out=0.2, valid_files=1
    )
    names = [
        {name for batch in loader for name in batch["name"]}
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    ]
    assert [len(part) for part in names] == [8, 1, 2]
    assert not names[0] & names[1]
    assert not (names[0] | names[1]) & names[2]
    first, second = ([batch["lq"] for batch in data.val_dataloader()] for _ in range(2))
    assert torch.equal(first[0], second[0])


def test_data_module_refuses_bad_numbers(tmp_path: Path) -> None:
    for options in ({"valid_files": 0}, {"test_files": 0}, {"scale": 0}):
        with pytest.raises(UserError, match="at least 1"):
            RestorationData(tmp_path, **options)  # type: ignore[arg-type]
