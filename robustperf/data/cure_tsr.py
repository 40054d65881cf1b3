"""CURE-TSR (Temel et al. 2017): traffic signs in bad weather and under camera faults, in folders of BMP images."""

import re
from pathlib import Path

import numpy as np

from robustperf.data.image_files import read_squares

CLASSES = 14
LEVELS = range(6)  # 0: no challenge
# challenge -> its number in the file names, where 00 is no challenge; folder names have no hyphens
CHALLENGES = {
    "decolorization": 1,
    "lens-blur": 2,
    "codec-error": 3,
    "darkening": 4,
    "dirty-lens": 5,
    "exposure": 6,
    "gaussian-blur": 7,
    "noise": 8,
    "rain": 9,
    "shadow": 10,
    "snow": 11,
    "haze": 12,
}

_FREE = "ChallengeFree"
_FOLDERS = {_FREE: ("00", "00")} | {
    f"{challenge.title().replace('-', '')}-{level}": (f"{number:02}", f"{level:02}")
    for challenge, number in CHALLENGES.items()
    for level in LEVELS[1:]
}
# sequenceType_signType_challengeType_challengeLevel_Index
_NAME = re.compile(r"0[12]_(?P<sign>\d\d)_(?P<challenge>\d\d)_(?P<level>\d\d)_\d{4,}\.bmp", re.ASCII)


def folder_of(domain: str | None) -> str:
    """The folder of a domain such as "snow:3"; "ChallengeFree" for "snow:0" and None.

    Raises ValueError for an unknown challenge or level.
    """
    if domain is None:
        return _FREE
    challenge, _, level = domain.partition(":")
    if challenge not in CHALLENGES or level not in map(str, LEVELS):
        raise ValueError(
            f"domain: expected brightness or contrast (see `robustperf.data.domain`), or a challenge and its level such"
            f" as snow:3, of {', '.join(CHALLENGES)} and {LEVELS[0]} to {LEVELS[-1]}, got {domain!r}"
        )
    return _FREE if level == "0" else f"{challenge.title().replace('-', '')}-{level}"


def read_cure_tsr(folder: Path, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Reads a folder such as `Real_Train/Snow-3` and resizes its images.

    Args:
        folder: the folder of the images, named after the challenge and its level.
        size: the side of the resized images in pixels.

    Returns:
        images uint8 [N, size, size, 3] in the order of the file names, which is by class; labels int64 [N], the sign
        type 01..14 minus one.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: there is no image, a file name is malformed or contradicts the folder's challenge or level, or an
            image is damaged.
    """
    if folder.name not in _FOLDERS:
        raise ValueError(f"folder: expected {_FREE}, or a challenge and its level such as Snow-3, got {folder}")
    expected = _FOLDERS[folder.name]
    paths = sorted(path for path in folder.iterdir() if path.suffix == ".bmp" and not path.name.startswith("."))
    if not paths:
        raise ValueError(f"{folder}: expected .bmp images, found none")
    labels = []
    for path in paths:
        match = _NAME.fullmatch(path.name)
        if not match or not 1 <= int(match["sign"]) <= CLASSES or match.group("challenge", "level") != expected:
            raise ValueError(
                f"{path}: expected a name such as 01_01_{'_'.join(expected)}_0001.bmp, with a sign type of"
                f" 01 to {CLASSES}"
            )
        labels.append(int(match["sign"]) - 1)
    return read_squares(paths, size), np.array(labels, np.int64)
