"""npy files, read by NumPy without pickle, after their header was compared with their size."""

import io
import math
import os
import tokenize
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy_format

from robustperf.files import open_regular, user_path

HEADER_BYTES = 10_240  # numpy writes 128; its own reader refuses more than 10,000, but only once they are in memory
_NUMERIC = "biufc"
# An npy header is a Python literal: damaged bytes may fail anywhere in its parsing.
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
    """Reads the array of an npy file (`numpy.save`).

    Args:
        path: the file.

    Returns:
        The array, numeric or boolean, in the file's dtype and memory order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not an npy file; an object, text or structured array (pickle is never used); or header and data
            disagree. Sizes are checked before anything is allocated.

    >>> read_npy("fog/test_images.npy").shape  # doctest: +SKIP
    (10000, 28, 28, 1)
    """
    path = user_path(path)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        check_header(file.read(HEADER_BYTES), size, os.fspath(path))
        file.seek(0)
        return read_array(file, os.fspath(path))


def read_array(stream: BinaryIO, where: str) -> np.ndarray:
    """The array of an npy file whose header `check_header` has let through, writable; `where` begins its errors."""
    try:
        return npy_format.read_array(stream, allow_pickle=False)
    except _PARSING as error:  # data that end early, or no data at all for dimensions like [0, 2**70]
        raise ValueError(f"{where}: not a valid npy file: {error}") from error


def check_header(head: bytes, size: int, where: str) -> None:
    """ValueError unless `head`, the first bytes of an npy file of `size` bytes, are a header that this size fits."""
    stream = io.BytesIO(head)
    try:
        version = npy_format.read_magic(stream)
        if version == (1, 0):
            shape, _, dtype = npy_format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, _, dtype = npy_format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"expected npy version 1.0 or 2.0, found {version}")
    except _PARSING as error:
        raise ValueError(f"{where}: damaged npy header: {error}") from error
    if dtype.kind not in _NUMERIC:
        raise ValueError(f"{where}: expected numbers, found dtype {dtype} (pickled objects are never loaded)")
    if any(length < 0 for length in shape):
        raise ValueError(f"{where}: expected lengths of 0 or more, found the shape {list(shape)}")
    promised, stored = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if promised != stored:
        raise ValueError(
            f"{where}: the npy header promises {promised:,} bytes ({list(shape)} of {dtype}), it holds {stored:,}"
        )
