"""IDX files, the format of MNIST and its variants."""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from robustperf.data.bounded_read import array_over, check_size, read_bounded
from robustperf.files import open_regular, user_path

_DTYPES = {0x08: np.dtype(np.uint8), 0x0C: np.dtype(">i4")}  # by the type's code in the header
_MAX_DIMS = 4


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads an IDX file of unsigned bytes or 32-bit integers.

    Args:
        path: the file, raw or gzipped (detected by its first bytes, not its name).

    Returns:
        A writable uint8 or int32 array of the shape in the header: [N] for labels, [N, H, W] for images, int32 [N, 8]
        for QMNIST's labels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such an IDX file, or header and data disagree (truncated, too long, or more than the file can
            hold). Memory grows with the data read, never with the size that the header promises.

    >>> read_idx("train-images-idx3-ubyte.gz").shape  # doctest: +SKIP
    (60000, 28, 28)
    """
    path = user_path(path)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        gzipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        data = bytearray()
        try:
            stream = gzip.GzipFile(fileobj=file) if gzipped else file
            dtype, shape = _read_header(stream, path)
            promised = math.prod(shape) * dtype.itemsize
            stored = size if gzipped else size - 4 - 4 * len(shape)
            check_size(f"{path}: truncated, or not {list(shape)}", promised, stored, deflated=gzipped)
            read_bounded(stream, promised, data)
        except EOFError as error:
            raise ValueError(f"{path}: truncated: the gzip stream stops after {len(data):,} bytes of data") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: broken gzip stream after {len(data):,} bytes of data: {error}") from error
    if len(data) != promised:
        found = f"more than {promised:,}" if len(data) > promised else f"{len(data):,}"
        raise ValueError(f"{path}: the header promises {promised:,} bytes {list(shape)}, the file holds {found}")
    return array_over(data, dtype, shape, path).astype(dtype.newbyteorder("="), copy=False)


def _read_header(stream: BinaryIO, path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    """(dtype, shape) from an IDX header: 0, 0, the dtype's code, the number of dimensions, their big-endian uint32s."""
    magic = stream.read(4)
    if len(magic) < 4:
        raise ValueError(f"{path}: truncated: an IDX header has at least 4 bytes, found {len(magic)}")
    if magic[:2] != b"\0\0" or magic[2] not in _DTYPES or not 1 <= magic[3] <= _MAX_DIMS:
        raise ValueError(
            f"{path}: not an IDX file of unsigned bytes or 32-bit integers: expected the magic number 00 00 08 or"
            f" 00 00 0c and 1 to {_MAX_DIMS} dimensions, found {magic.hex(' ')}"
        )
    dims = stream.read(4 * magic[3])
    if len(dims) < 4 * magic[3]:
        raise ValueError(f"{path}: truncated: expected {4 * magic[3]} bytes of dimensions, found {len(dims)}")
    return _DTYPES[magic[2]], struct.unpack(f">{magic[3]}I", dims)
