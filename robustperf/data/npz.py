"""npz archives, whose members NumPy reads without pickle, after every size was compared with what the file can hold."""

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from robustperf.data.bounded_read import check_size
from robustperf.data.npy import HEADER_BYTES, check_header, read_array
from robustperf.files import open_regular, user_path

_ENCRYPTED = 0x1


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads every array of an npz file (`numpy.savez`, `numpy.savez_compressed`).

    Args:
        path: the file.

    Returns:
        The arrays by name, numeric or boolean, in the file's dtypes and memory order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not an npz file; no array in it; an object, text or structured array (pickle is never used); a
            member whose npy header, size in the archive and data disagree; or sizes that deflate cannot reach (a zip
            bomb). Sizes are checked before anything is allocated.

    >>> np.savez("digits.npz", images=np.zeros((3, 8, 8)), labels=np.arange(3))
    >>> sorted(read_npz("digits.npz"))
    ['images', 'labels']
    """
    path = user_path(path)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            with zipfile.ZipFile(file) as archive:
                _check_sizes(archive, size, path)
                return {info.filename.removesuffix(".npy"): _read(archive, info, path) for info in archive.infolist()}
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a valid npz (zip) file of {size:,} bytes: {error}") from error


def images_and_labels(
    arrays: dict[str, np.ndarray], path: str | os.PathLike[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Picks the arrays of a data set by the usual names: `images`, `labels`; or `x`, `y`; or `arr_0` alone.

    Args:
        arrays: what `read_npz` returned.
        path: the file they came from, for the error.

    Returns:
        (images, labels), or (the array, None) for `arr_0`, whose meaning is unknown.

    Raises:
        ValueError: the archive has none of these names.
    """
    for images, labels in (("images", "labels"), ("x", "y")):
        if images in arrays and labels in arrays:
            return arrays[images], arrays[labels]
    if list(arrays) == ["arr_0"]:
        return arrays["arr_0"], None
    raise ValueError(f"{path}: expected the arrays images and labels, or x and y, or arr_0 alone, found {list(arrays)}")


def _check_sizes(archive: zipfile.ZipFile, size: int, path: Path) -> None:
    """ValueError for an archive whose directory contradicts the file's `size` in bytes."""
    members = archive.infolist()
    if not members:
        raise ValueError(f"{path}: expected at least one array, found an empty archive")
    for info in members:
        where = f"{path}: member {info.filename!r}"
        if not info.filename.endswith(".npy"):
            raise ValueError(f"{where}: expected a name that ends in .npy")
        if info.flag_bits & _ENCRYPTED:
            raise ValueError(f"{where}: expected no encryption, found an encrypted member")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{where}: expected stored or deflated, found compression method {info.compress_type}")
        if not 0 <= info.header_offset < size:
            raise ValueError(
                f"{where}: expected to start within the file's {size:,} bytes, found {info.header_offset:,}"
            )
        check_size(where, info.file_size, info.compress_size, deflated=info.compress_type == zipfile.ZIP_DEFLATED)
    # Members that overlap would multiply the ratio by their number.
    claimed = sum(info.compress_size for info in members)
    if claimed > size:
        raise ValueError(f"{path}: the members claim {claimed:,} bytes of a file of {size:,}")
    if len({info.filename for info in members}) < len(members):
        raise ValueError(f"{path}: two members have the same name")


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> np.ndarray:
    where = f"{path}: member {info.filename!r}"
    with archive.open(info) as stream:
        check_header(stream.read(HEADER_BYTES), info.file_size, where)
    with archive.open(info) as stream:  # opened again, for a member that was sought in has no checksum
        return read_array(stream, where)
