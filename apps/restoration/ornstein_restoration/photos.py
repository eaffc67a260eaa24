"""The free photographs of the default set: their packages, files, licences and splits."""

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "valid", "test"]


@dataclass(frozen=True)
class Photo:
    """A photograph of a package.

    Args:
        name: of the file that is made, without suffix.
        file: below the folder of its package.
        licence: as the package states it for this file, or as its source does.
        holder: of the copyright.
        split: train, valid or test.
    """

    name: str
    file: str
    licence: str
    holder: str
    split: Split = "train"


@dataclass(frozen=True)
class Package:
    """A Debian package and what is taken from its folder."""

    name: str
    folder: str
    photos: tuple[Photo, ...]


def _lomiri(file: str, licence: str, holder: str, split: Split = "train") -> Photo:
    return Photo(file.split("_by_")[0].lower(), file + ".jpg", licence, holder, split)


def _mate(name: str, holder: str, split: Split = "train") -> Photo:
    return Photo(name.lower(), name + ".jpg", "GPL-2+", holder, split)


def _plasma(theme: str, holder: str, split: Split = "train") -> Photo:
    return Photo(theme.lower(), f"{theme}/contents/images/2560x1600.jpg", "LGPL-3", holder, split)


def _opencv(file: str) -> Photo:
    # the package's copyright file knows no single photographs
    return Photo(file.partition(".")[0], file, "Apache-2.0", "the OpenCV contributors; photographer not named", "test")


_BERASATEGI = "2018 Aitzol Berasategi"
_SAUKONPAA = "Risto Saukonpää"
_BY, _BY_SA = "CC-BY-4.0", "CC-BY-SA-4.0"

PACKAGES = (
    Package(
        "lomiri-wallpapers-16.04",
        "usr/share/backgrounds",
        (
            _lomiri("aitzgorri_by_Aitzol_Berasategi", _BY, _BERASATEGI),
            _lomiri("Bridge_by_Sander_Klootwijk", _BY_SA, "2018 Sander Klootwijk"),
            _lomiri("Dragonfly_by_Bolly", _BY_SA, "2018 Bolly"),
            _lomiri("free_by_Peter_Nerlich", _BY_SA, "2018 Peter Nerlich"),
            _lomiri("friends_by_Aitzol_Berasategi", _BY, _BERASATEGI, "valid"),
            _lomiri("greentock_by_Peter_Nerlich", _BY_SA, "2018 Peter Nerlich"),
            _lomiri("life_by_Aitzol_Berasategi", _BY, _BERASATEGI, "valid"),
            _lomiri("picosdeeuropa_by_Aitzol_Berasategi", _BY, _BERASATEGI),
            _lomiri("Picture_0B_by_freespace", _BY, "2018 Trevor (Freespace)"),
            _lomiri("Picture_1A_by_freespace", _BY, "2018 Trevor (Freespace)"),
            _lomiri("seeding_by_Clements_Engelhardt", "CC0-1.0", "2018 Clemens Engelhardt"),
            _lomiri("sunset_by_Aitzol_Berasategi", _BY, _BERASATEGI),
            _lomiri("Wine_by_Jakkub_Mede", _BY, "2018 Jakub Mede"),
        ),
    ),
    Package(
        "lomiri-wallpapers-20.04",
        "usr/share/backgrounds",
        (_lomiri("Kleiber_by_Lukas_Baubkus", "CC-BY-SA-3.0", "2021 Lukas Baubkus"),),
    ),
    Package(
        "mate-backgrounds",
        "usr/share/backgrounds/mate/nature",
        (
            _mate("Aqua", "2008 Charles Barbin"),
            _mate("Blinds", "2008 Lennart Poettering, Andrea Cimitan"),
            _mate("Dune", "2007 Marco Cogoni, 2008 Hylke Bons"),
            _mate("FreshFlower", "2005 Jens Ansorg"),
            _mate("Garden", "2008 Charles Barbin", "valid"),
            _mate("GreenMeadow", "2005 Timothy Schellhase, 2008 Lapo Calamandrei"),
            _mate("LadyBird", "2008 Charles Barbin"),
            _mate("RainDrops", "2008 blackcombwhistler07"),
            _mate("Storm", "2008 Sergey Nazarov"),
            _mate("TwoWings", "2008 Charles Barbin, Hylke Bons"),
            _mate("Wood", "2008 Jean-François Fortin Tam"),
            _mate("YellowFlower", "2008 Charles Barbin"),
        ),
    ),
    Package(
        "plasma-workspace-wallpapers",
        "usr/share/wallpapers",
        (
            _plasma("BytheWater", "Maciej Wiklo"),
            _plasma("ColdRipple", _SAUKONPAA),
            _plasma("ColorfulCups", "Dmitri Popov", "valid"),
            _plasma("DarkestHour", _SAUKONPAA),
            _plasma("EveningGlow", "Ian Hex"),
            _plasma("FallenLeaf", "Martin Klapetek"),
            _plasma("Grey", "Sigi Sagi"),
            _plasma("Kite", _SAUKONPAA),
            _plasma("OneStandsOut", _SAUKONPAA),
            _plasma("Path", _SAUKONPAA),
            _plasma("summer_1am", _SAUKONPAA),
        ),
    ),
    Package(
        "lxqt-themes",
        "usr/share/lxqt/wallpapers",
        (
            Photo("after-the-rain", "after-the-rain.jpg", "CC-BY-SA-3.0", "2022 stefonarch"),
            Photo("fog", "fog.jpg", "CC-BY-SA-3.0", "2022 stefonarch"),
            Photo("this-is-not-windows", "this-is-not-windows.jpg", "CC-BY-SA-3.0", "2022 stefonarch"),
        ),
    ),
    Package(
        "palapeli-data",
        "usr/share/palapeli/collection",
        (
            Photo("castle-maintenon", "castle-maintenon.jpg", "GFDL", "Eric Pouhier", "valid"),
            Photo("cincinnati-bridge", "cincinnati-bridge.jpg", "public domain", "Derek Jensen"),
            Photo("citrus-fruits", "citrus-fruits.jpg", "public domain", "US Department of Agriculture"),
            Photo("european-honey-bee", "european-honey-bee.jpg", "public domain", "John Severns", "valid"),
            Photo("panther-chameleon-female", "panther-chameleon-female.jpg", "GFDL", "B. Navez and others"),
        ),
    ),
    Package(
        "libjxl-testdata",
        "usr/share/libjxl-testdata/jxl/flower",
        (Photo("jxl-flower", "flower.png", "BSD-3-Clause", "the JPEG XL Project Authors"),),
    ),
    Package(
        "python3-skimage",
        "usr/lib/python3/dist-packages/skimage/data",
        (
            Photo("astronaut", "astronaut.png", "public domain", "NASA", "test"),
            Photo("chelsea", "chelsea.png", "CC0-1.0", "Stefan van der Walt", "test"),
            Photo("coffee", "coffee.png", "CC0-1.0", "Rachel Michetti", "test"),
            Photo("motorcycle", "motorcycle_left.png", "Middlebury 2014 stereo, for research", "D. Scharstein", "test"),
            Photo("rocket", "rocket.jpg", "public domain", "SpaceX", "test"),
        ),
    ),
    Package(
        "python3-sklearn",
        "usr/lib/python3/dist-packages/sklearn/datasets/images",
        (
            Photo("china", "china.jpg", "CC-BY-2.0", "danielbuechele", "test"),
            Photo("flower", "flower.jpg", "CC-BY-2.0", "vultilion", "test"),
        ),
    ),
    Package(
        "opencv-doc",
        "usr/share/doc/opencv-doc/examples/data",
        (
            _opencv("baboon.jpg"),
            _opencv("board.jpg"),
            _opencv("building.jpg"),
            _opencv("butterfly.jpg"),
            _opencv("fruits.jpg"),
            _opencv("graf1.png"),
            _opencv("home.jpg"),
            _opencv("rubberwhale1.png"),
            _opencv("squirrel_cls.jpg"),
        ),
    ),
)

REFERENCES = Package(
    "pyiqa",  # a wheel of the Python package index, not a Debian package
    "ResultsCalibra/ref_dir",
    tuple(
        Photo(f"pyiqa-{name.lower()}", f"{name}.bmp", "not stated; the wheel is for non-commercial use", "", "test")
        for name in ("I03", "I04", "I06", "I08", "I19")
    ),
)
