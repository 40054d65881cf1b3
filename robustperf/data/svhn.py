"""SVHN's cropped digits (Netzer et al. 2011): MATLAB files with X [32, 32, 3, N] and y [N, 1], in which 10 means 0.

SciPy reads such files too, but a damaged file can crash the interpreter there (SIGSEGV, see `bounded_read`); these two
variables need only a small part of the format (MATLAB's "MAT-File Format", level 5).
"""

import math
import os
import struct
import zlib
from collections.abc import Iterator
from itertools import islice

import numpy as np

from robustperf.data.bounded_read import check_size
from robustperf.files import open_regular, user_path

_HEADER = 128
_LEVEL_5 = b"\x00\x01IM"  # at the header's end: version 0x0100 and "MI", little-endian
_MATRIX, _COMPRESSED = 14, 15
_INT8, _INT32, _UINT32 = 1, 5, 6
_DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_IMAGE = (32, 32, 3)
_MOST_DIMS, _LONGEST_NAME = 32, 63  # of a variable in MATLAB


def read_svhn(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Reads `train_32x32.mat`, `test_32x32.mat` or `extra_32x32.mat`.

    Args:
        path: a MATLAB file of level 5 (versions 5 to 7), its variables compressed or not.

    Returns:
        images uint8 [N, 32, 32, 3] and labels int64 [N], the digits.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a valid MATLAB file; wrong shapes or dtypes of X and y; sizes that the file cannot hold, which
            are checked before memory is allocated; labels outside 1..10.
    """
    path = user_path(path)
    with open_regular(path) as file:
        content = file.read()
    try:
        arrays = _read(content)
        images, labels = (arrays[name] for name in ("X", "y"))
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != _IMAGE:
            raise ValueError(f"X: expected uint8 [32, 32, 3, N], found {images.dtype} {list(images.shape)}")
        if labels.dtype.kind not in "iu" or labels.shape != (images.shape[3], 1):
            raise ValueError(f"y: expected integers [{images.shape[3]}, 1], found {labels.dtype} {list(labels.shape)}")
        if labels.size and not (labels.min() >= 1 and labels.max() <= 10):
            raise ValueError(f"y: expected labels in 1..10, found {labels.min()} to {labels.max()}")
    except (ValueError, zlib.error) as error:
        raise ValueError(f"{path}: not a valid MATLAB file of SVHN: {error}") from error
    return images.transpose(3, 0, 1, 2), labels[:, 0].astype(np.int64) % 10


def _read(content: bytes) -> dict[str, np.ndarray]:
    """X and y from the content of a file, read-only."""
    if (found := content[_HEADER - 4 : _HEADER]) != _LEVEL_5:
        raise ValueError(f"expected a header that ends in {_LEVEL_5!r}, found {found!r}")
    arrays = {}
    for kind, part in _elements(memoryview(content)[_HEADER:], padded=False):
        if kind == _COMPRESSED:
            kind, part = _inflated(part)
        if kind != _MATRIX:
            raise ValueError(f"expected matrices, found an element of type {kind}")
        # flags, dimensions, name, real and imaginary part; a small compressed element may hold millions of others
        first = list(islice(_elements(part), 5))
        if [kind for kind, _ in first[:3]] != [_UINT32, _INT32, _INT8]:
            raise ValueError("expected a matrix to begin with flags, dimensions and a name")
        (_, dims), (_, name), *data = first[1:]
        if len(dims) > 4 * _MOST_DIMS or len(name) > _LONGEST_NAME:
            raise ValueError(
                f"expected at most {_MOST_DIMS} dimensions and a name of {_LONGEST_NAME} letters, found "
                f"{len(dims) // 4:,} and {len(name):,}"
            )
        name = bytes(name).decode("latin-1")
        if name in arrays:
            raise ValueError(f"expected each variable once, found {name} again")
        if name in ("X", "y"):
            arrays[name] = _array(name, np.frombuffer(dims, "<i4").tolist(), data)
    if len(arrays) != 2:
        raise ValueError(f"expected the variables X and y, found {', '.join(arrays) or 'neither'}")
    return arrays


def _elements(content: memoryview, padded: bool = True) -> Iterator[tuple[int, memoryview]]:
    """(type, data) of each element; those within a matrix are `padded` to 8 bytes."""
    at = 0
    while at < len(content):
        if len(content) - at < 8:
            raise ValueError(f"truncated: expected a tag of 8 bytes, found {len(content) - at}")
        kind, length = struct.unpack_from("<2I", content, at)
        start, small = at + 8, kind >> 16
        if small:  # at most four bytes, in the tag itself
            kind, length, start = kind & 0xFFFF, small, at + 4
        end = start + length
        if end > len(content) or small > 4:
            raise ValueError(f"truncated: a tag promises {length:,} bytes, {len(content) - start:,} are left")
        yield kind, content[start:end]
        at = at + 8 if small else end + (-length % 8 if padded else 0)


def _inflated(part: memoryview) -> tuple[int, memoryview]:
    """The element in a compressed one."""
    stream = zlib.decompressobj()
    kind, length = struct.unpack("<2I", stream.decompress(part, 8).ljust(8, b"\0"))
    check_size("a tag", length, len(part), deflated=True)
    data = stream.decompress(stream.unconsumed_tail, length + 1)
    if len(data) != length or not stream.eof:
        found = f"more than {length:,}" if len(data) > length else f"{len(data):,}, or end early"
        raise ValueError(f"a tag promises {length:,} bytes, the compressed data hold {found}")
    return kind, memoryview(data)


def _array(name: str, shape: list[int], data: list[tuple[int, memoryview]]) -> np.ndarray:
    """The array of a matrix, from its dimensions and the elements after its name."""
    if len(data) != 1 or data[0][0] not in _DTYPES:
        raise ValueError(f"{name}: expected real numbers, found elements of types {[kind for kind, _ in data]}")
    kind, numbers = data[0]
    dtype = np.dtype("<" + _DTYPES[kind])
    if min(shape, default=-1) < 0 or math.prod(shape) * dtype.itemsize != len(numbers):
        raise ValueError(f"{name}: the header promises {dtype} {shape}, found {len(numbers):,} bytes")
    return np.frombuffer(numbers, dtype).reshape(shape, order="F")
