import io
import json
import lzma
import shutil
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from ornstein.errors import UserError
from ornstein.manifest import verify
from ornstein_restoration.photos import PACKAGES, REFERENCES, Photo
from ornstein_restoration.prepare import COMMAND, load, prepare

ROOT = Path(__file__).parents[3]
MODULE = sys.modules["ornstein_restoration.prepare"]


def picture(width: int, height: int, seed: int) -> Image.Image:
    colours = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)


def save(path: Path, photo: Photo, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = (1100, 40) if photo.name == "dune" else (60 + seed % 7, 40)
    picture(*size, seed).save(path)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpacked packages with the real names and small synthetic pictures."""
    root = tmp_path_factory.mktemp("trees")
    for number, package in enumerate(PACKAGES):
        for k, photo in enumerate(package.photos):
            save(root / package.name / package.folder / photo.file, photo, 100 * number + k)
    return root


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "pyiqa-0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for k, photo in enumerate(REFERENCES.photos):
            data = io.BytesIO()
            picture(48, 32, k).save(data, "bmp")
            archive.writestr(f"{REFERENCES.folder}/{photo.file}", data.getvalue())
        archive.writestr("pyiqa/__init__.py", "raise SystemExit")
    return path


def test_the_plan_has_the_stated_counts() -> None:
    photos = [photo for package in PACKAGES for photo in package.photos]
    assert Counter(photo.split for photo in photos) == {"train": 40, "valid": 6, "test": 16}
    assert len({photo.name for photo in photos}) == len(photos)
    assert all(photo.licence and photo.holder for photo in photos)
    assert len(REFERENCES.photos) == 5


def test_the_note_names_every_photograph() -> None:
    note = (ROOT / "data/restoration/README.md").read_text(encoding="utf-8")
    for package in PACKAGES:
        assert package.name in note
        for photo in package.photos:
            row = next(line for line in note.splitlines() if line.startswith(f"| {photo.name} |"))
            assert photo.licence in row
            assert photo.holder in row
            assert photo.split in row


def test_set_is_made_described_and_verified(trees: Path, tmp_path: Path, wheel: Path) -> None:
    target = tmp_path / "set"
    manifest = prepare(target, source=trees, references=wheel, quiet=True)
    files = manifest["files"]
    assert verify(target, COMMAND) == len(files) == 67
    on_disk = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert on_disk == {*files, "manifest.json"}
    assert json.loads((target / "manifest.json").read_text(encoding="utf-8")) == manifest
    assert Counter(name.split("/")[0] for name in files) == {"train": 40, "valid": 6, "test": 21}
    for name, entry in files.items():
        with Image.open(target / name) as image:
            assert image.size == (entry["width"], entry["height"])
            assert image.mode == "RGB"
    assert (files["train/dune.png"]["width"], files["train/dune.png"]["height"]) == (1024, 37)
    original = Image.open(trees / "python3-skimage/usr/lib/python3/dist-packages/skimage/data/coffee.png")
    assert np.array_equal(np.array(original), np.array(Image.open(target / "test/coffee.png")))
    assert np.array_equal(np.array(Image.open(target / "test/pyiqa-i03.png")), np.array(picture(48, 32, 0)))


def test_jpeg_form(trees: Path, tmp_path: Path) -> None:
    manifest = prepare(tmp_path / "set", source=trees, form="jpeg", quiet=True)
    suffixes = Counter((name.split("/")[0], Path(name).suffix) for name in manifest["files"])
    assert suffixes == {("train", ".jpg"): 40, ("valid", ".jpg"): 6, ("test", ".png"): 16}
    with Image.open(tmp_path / "set/train/path.jpg") as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]  # 4:4:4


def test_an_interrupted_run_goes_on(trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, count = tmp_path / "set", 0
    whole = prepare(tmp_path / "whole", source=trees, quiet=True)
    make = MODULE._make  # type: ignore[attr-defined]

    def stops(*args: object) -> object:
        nonlocal count
        count += 1
        if count > 20:
            raise KeyboardInterrupt
        return make(*args)

    monkeypatch.setattr(MODULE, "_make", stops)
    with pytest.raises(KeyboardInterrupt):
        prepare(target, source=trees, quiet=True)
    monkeypatch.setattr(MODULE, "_make", make)
    assert not (target / "manifest.json").exists()
    first = next(iter(target.rglob("*.png")))
    stamp = first.stat().st_mtime_ns
    with pytest.raises(UserError, match="other options"):
        prepare(target, source=trees, form="jpeg", quiet=True)
    assert prepare(target, source=trees, quiet=True) == whole
    assert first.stat().st_mtime_ns == stamp
    assert prepare(target, source=trees, quiet=True) == whole  # complete: checked only
    first.write_bytes(b"changed")
    with pytest.raises(UserError, match=f"has changed.*{COMMAND}"):
        prepare(target, source=trees, quiet=True)
    assert prepare(target, source=trees, overwrite=True, quiet=True) == whole


def test_other_files_are_kept(trees: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="other files"):
        prepare(tmp_path / "full", source=trees, overwrite=True, quiet=True)
    assert (tmp_path / "full/thesis.txt").read_text() == "precious"


def test_another_version_of_a_package(trees: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(trees, other)
    (other / "mate-backgrounds/usr/share/backgrounds/mate/nature/Aqua.jpg").unlink()
    with pytest.raises(UserError, match=r"1 photographs are missing, mate-backgrounds/.*Aqua\.jpg.*--partial"):
        prepare(tmp_path / "set", source=other, quiet=True)
    manifest = prepare(tmp_path / "set", source=other, partial=True, quiet=True)
    assert len(manifest["files"]) == 61
    assert manifest["missing"] == ["mate-backgrounds/usr/share/backgrounds/mate/nature/Aqua.jpg"]


def make_deb(path: Path, tree: Path) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.add(tree, ".")
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for member, data in (
            ("debian-binary", b"2.0\n"),
            ("control.tar.xz", lzma.compress(b"\0" * 10240)),
            ("data.tar.xz", lzma.compress(tar.getvalue(), preset=0)),
        ):
            header = f"{member:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n"
            file.write(header.encode() + data + b"\n" * (len(data) % 2))


def test_set_from_package_files(trees: Path, tmp_path: Path) -> None:
    debs = tmp_path / "debs"
    debs.mkdir()
    for package in PACKAGES:
        make_deb(debs / f"{package.name}_1_all.deb", trees / package.name)
    manifest = prepare(tmp_path / "set", packages=debs, quiet=True)
    assert len(manifest["files"]) == 62
    assert all(len(package["sha256"]) == 64 for package in manifest["packages"])
    assert manifest["files"] == prepare(tmp_path / "same", source=trees, quiet=True)["files"]


def test_bad_sources(trees: Path, tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"holds no lomiri-wallpapers-16\.04"):
        prepare(tmp_path / "a", packages=tmp_path, quiet=True)
    with pytest.raises(UserError, match="holds no unpacked"):
        prepare(tmp_path / "b", source=tmp_path, quiet=True)
    with pytest.raises(UserError, match="png or jpeg"):
        prepare(tmp_path / "c", source=trees, form="webp", quiet=True)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="pip download"):
        prepare(tmp_path / "d", source=trees, references=tmp_path / "none.whl", quiet=True)
    wheel.write_bytes(wheel.read_bytes()[:-50])
    with pytest.raises(UserError, match="cannot be read"):
        prepare(tmp_path / "e", source=trees, references=wheel, quiet=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pyiqa/__init__.py", "")
    with pytest.raises(UserError, match="lacks an image"):
        prepare(tmp_path / "f", source=trees, references=wheel, quiet=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no apt-get"):
        prepare(tmp_path / "g", quiet=True)


def test_photographs_are_read_upright_as_srgb(tmp_path: Path) -> None:
    image = picture(30, 20, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    assert load(tmp_path / "turned.png", to_srgb=True).size == (20, 30)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.save(tmp_path / "tagged.png", icc_profile=profile)
    assert np.abs(np.array(load(tmp_path / "tagged.png", to_srgb=True)).astype(int) - np.array(image)).max() <= 1
    image.convert("L").save(tmp_path / "grey.png")
    assert load(tmp_path / "grey.png", to_srgb=True).mode == "RGB"
    image.save(tmp_path / "odd.png", icc_profile=b"no profile")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "odd.png", to_srgb=True)
    assert load(tmp_path / "odd.png", to_srgb=False).info == {}
    data = (tmp_path / "tagged.png").read_bytes()
    for name, bad in (("cut.png", data[: len(data) // 2]), ("text.png", b"no picture"), ("empty.png", b"")):
        (tmp_path / name).write_bytes(bad)
        with pytest.raises(UserError, match="cannot be read"):
            load(tmp_path / name, to_srgb=True)
