"""GTSRB (Stallkamp et al. 2012) in its official form: folders of PPM images of different sizes, and CSV lists."""

import csv
import re
from pathlib import Path

import numpy as np

from robustperf.data.image_files import read_squares
from robustperf.files import check_regular

CLASSES = 43

_COLUMNS = ("Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId")
_ROW = re.compile(r"[\w-]+\.ppm(;\d{1,9}){7}", re.ASCII)
_TEST_LIST = "GT-final_test.csv"


def read_gtsrb(folder: Path, size: int = 32, crop: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Reads one split and resizes its images: the sign and a border of a tenth of its size, at least 5 pixels, as in R.

    Args:
        folder: `Final_Training/Images`, with one folder per class, 00000..00042, each with its `GT-00000.csv`; or
            `Final_Test/Images`, with `GT-final_test.csv` in it or beside `Final_Test` (it is distributed separately).
        size: the side of the resized images in pixels.
        crop: crop to the sign, the lists' region of interest (which excludes X2 and Y2). R Table 10's thresholds are
            for whole images.

    Returns:
        images uint8 [N, size, size, 3] in the lists' order, and labels int64 [N].

    Raises:
        FileNotFoundError: a list, or an image that it names, is missing.
        ValueError: there are no class folders, a list has wrong columns, a row contradicts its image, its folder or
            (with `crop`) the region of interest, or an image is damaged.
    """
    if folder.parent.name == "Final_Test":
        inside, beside = folder / _TEST_LIST, folder.parent.parent / _TEST_LIST
        lists = [(beside if beside.exists() and not inside.exists() else inside, folder, None)]
    else:
        lists = [
            (folder / f"{label:05}/GT-{label:05}.csv", folder / f"{label:05}", label)
            for label in range(CLASSES)
            if (folder / f"{label:05}").is_dir()
        ]
        if not lists:
            raise ValueError(f"{folder}: expected folders 00000 to {CLASSES - 1:05}, found none")
    paths, sizes, boxes, labels = [], [], [], []
    for file, images, label in lists:
        for name, width, height, *box, found in _read_list(file):
            if label not in (None, found):
                raise ValueError(f"{file}: {name}: expected ClassId {label}, got {found}")
            paths.append(images / name)
            sizes.append((width, height))
            boxes.append(tuple(box))
            labels.append(found)
    return read_squares(paths, size, boxes if crop else None, sizes), np.array(labels, np.int64)


def _read_list(file: Path) -> list[tuple]:
    """The rows of a list: a file name without folders, then the integers of the other columns."""
    read = []
    with open(check_regular(file), newline="", encoding="utf-8") as lines:
        rows = csv.reader(lines, delimiter=";")  # checked one by one: empty rows take much more memory than the file
        try:
            header = next(rows, [])
            if tuple(header) != _COLUMNS:
                raise ValueError(f"expected the columns {';'.join(_COLUMNS)}, found {';'.join(header)!r}")
            for number, row in enumerate(rows, start=2):
                if not _ROW.fullmatch(";".join(row)):
                    raise ValueError(
                        f"line {number}: expected a .ppm file's name and {len(_COLUMNS) - 1} numbers,"
                        f" found {';'.join(row)!r}"
                    )
                read.append((row[0], *map(int, row[1:])))
        except (csv.Error, ValueError) as error:  # including UnicodeDecodeError
            raise ValueError(f"{file}: not a list of images: {error}") from error
    return read
