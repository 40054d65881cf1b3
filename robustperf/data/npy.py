"""NumPy's npy files, read without pickle and without believing a size before it is checked."""

import io
import math
import os
import tokenize
from pathlib import Path
from typing import BinaryIO

import numpy as np

from robustperf.data.idx import array_over, read_bounded
from robustperf.files import open_regular, user_path

_HEADER_BYTES = 10_240  # numpy writes 128; its own reader refuses more than 10,000
_NUMERIC = "biufc"
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


def read_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """Read the array of an npy file (`numpy.save`).

    Args:
        path: the file.

    Returns:
        The array, numeric or boolean, in the file's dtype and memory order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not an npy file; an object, text or structured array (pickle is never used); or header and data
            disagree. Nothing of a promised size is allocated before the file is known to hold it.
    """
    path = user_path(path)
    with open_regular(path) as file:
        return read_npy_stream(file, os.fstat(file.fileno()).st_size, os.fspath(path), path)


def read_npy_stream(stream: BinaryIO, size: int, where: str, path: Path) -> np.ndarray:
    """The array of an npy file of `size` bytes, its header compared with them before the data are read; `where`, in the
    file `path`, is for the errors."""
    head = io.BytesIO(stream.read(_HEADER_BYTES))
    shape, fortran_order, dtype = _parse_header(head, where)
    promised = math.prod(shape) * dtype.itemsize
    stored = size - head.tell()
    if promised != stored:
        raise ValueError(
            f"{where}: the npy header promises {promised:,} bytes ({list(shape)} of {dtype}), it holds {stored:,}"
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
