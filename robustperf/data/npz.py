"""NumPy's npz archives, read without pickle and without believing a size before it is checked."""

import io
import math
import os
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from robustperf.data.idx import DEFLATE_RATIO, array_over, read_bounded

_HEADER_BYTES = 10_240  # numpy writes 128; its own reader refuses more than 10,000
_NUMERIC = "biufc"
_ENCRYPTED = 0x1
# An npy header is a Python literal: broken bytes may fail anywhere in its parsing.
_PARSING = (
    ValueError,
    TypeError,
    SyntaxError,
    tokenize.TokenError,
    LookupError,
    ArithmeticError,
    MemoryError,
    RecursionError,
)


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read every array of an npz file (`numpy.savez`, `numpy.savez_compressed`).

    Args:
        path: the file.

    Returns:
        The arrays by name, numeric or boolean, in the file's dtypes and memory order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not an npz file; no array in it; an object, text or structured array (pickle is never used); a
            member whose npy header, size in the archive and data disagree; or sizes that deflate cannot reach (a zip
            bomb). Nothing of a promised size is allocated before the data are there.
    """
    path = Path(path)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            with zipfile.ZipFile(file) as archive:
                _check_sizes(archive, size, path)
                return {info.filename.removesuffix(".npy"): _read(archive, info, path) for info in archive.infolist()}
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a sound npz (zip) file of {size:,} bytes: {error}") from error


def images_and_labels(arrays: dict[str, np.ndarray], path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray | None]:
    """Pick the arrays of a data set by the names in use: `images`, `labels`; or `x`, `y`; or `arr_0` alone.

    Args:
        arrays: what `read_npz` returned.
        path: the file they came from, for the error.

    Returns:
        (images, labels), or (the one array, None) for `arr_0`, which says nothing of its meaning.

    Raises:
        ValueError: none of these names is there.
    """
    for images, labels in (("images", "labels"), ("x", "y")):
        if images in arrays and labels in arrays:
            return arrays[images], arrays[labels]
    if list(arrays) == ["arr_0"]:
        return arrays["arr_0"], None
    raise ValueError(f"{path}: expected the arrays images and labels, or x and y, or arr_0 alone, found {list(arrays)}")


def _check_sizes(archive: zipfile.ZipFile, size: int, path: Path) -> None:
    """Refuse an archive whose directory cannot be true for a file of `size` bytes."""
    members = archive.infolist()
    if not members:
        raise ValueError(f"{path}: expected at least one array, found an empty archive")
    for info in members:
        where = f"{path}: member {info.filename!r}"
        if not info.filename.endswith(".npy"):
            raise ValueError(f"{where}: expected a name that ends in .npy")
        if info.flag_bits & _ENCRYPTED:
            raise ValueError(f"{where} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{where}: expected stored or deflated, found compression method {info.compress_type}")
        if not 0 <= info.header_offset < size:
            raise ValueError(
                f"{where}: expected to start within the file's {size:,} bytes, found {info.header_offset:,}"
            )
        possible = info.compress_size * (1 if info.compress_type == zipfile.ZIP_STORED else DEFLATE_RATIO)
        if info.file_size > possible:
            raise ValueError(
                f"{where} claims {info.file_size:,} bytes,"
                f" its {info.compress_size:,} bytes here hold at most {possible:,}"
            )
    # Members that share their bytes would multiply the ratio by their number.
    claimed = sum(info.compress_size for info in members)
    if claimed > size:
        raise ValueError(f"{path}: the members claim {claimed:,} bytes of a file of {size:,}")
    if len({info.filename for info in members}) < len(members):
        raise ValueError(f"{path}: two members have the same name")


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> np.ndarray:
    """One member as an array, its npy header compared with the member's size before the data are read."""
    where = f"{path}: member {info.filename!r}"
    with archive.open(info) as stream:
        head = io.BytesIO(stream.read(_HEADER_BYTES))
        shape, fortran_order, dtype = _parse_header(head, where)
        promised = math.prod(shape) * dtype.itemsize
        stored = info.file_size - head.tell()
        if promised != stored:
            raise ValueError(
                f"{where}: the npy header promises {promised:,} bytes ({list(shape)} of {dtype}),"
                f" the member holds {stored:,}"
            )
        data = bytearray(head.read())
        read_bounded(stream, promised, data)
    if len(data) != promised:
        raise ValueError(f"{where}: the npy header promises {promised:,} bytes, the data end after {len(data):,}")
    return array_over(data, dtype, shape, path, order="F" if fortran_order else "C")


def _parse_header(head: io.BytesIO, where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, Fortran order, dtype) of an npy header; `head` is left at the first byte of the data."""
    try:
        version = np.lib.format.read_magic(head)
        if version == (1, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(head)
        elif version == (2, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(head)
        else:
            raise ValueError(f"expected npy version 1.0 or 2.0, found {version}")
    except _PARSING as error:
        raise ValueError(f"{where}: broken npy header: {error}") from error
    if dtype.kind not in _NUMERIC:
        raise ValueError(f"{where}: expected numbers, found dtype {dtype} (pickled objects are never loaded)")
    if any(length < 0 for length in shape):
        raise ValueError(f"{where}: expected lengths of 0 or more, found the shape {list(shape)}")
    return shape, fortran_order, dtype
