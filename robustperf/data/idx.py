"""IDX files, the format of MNIST and its kin; and bounded reading, for files that lie about their size."""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from robustperf.files import open_regular, user_path

# Deflate spends at least 2 bits on a match, which stands for at most 258 bytes: 258 * 8 / 2.
DEFLATE_RATIO = 1032

_BLOCK = 1 << 20
_DTYPES = {0x08: np.dtype(np.uint8), 0x0C: np.dtype(">i4")}  # by the type's code in the header
_MAX_DIMS = 4


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an IDX file of unsigned bytes or of 32-bit integers.

    Args:
        path: the file, raw or gzipped (told apart by its first bytes, not by its name).

    Returns:
        uint8 or int32 array of the shape in the header: [N] for labels, [N, H, W] for images, int32 [N, 8] for
        QMNIST's labels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not an IDX file of these; or header and data disagree (truncated, too long, a promise that
            the file cannot hold). Nothing of the promised size is allocated before the file is known to hold it.
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
            possible = size * DEFLATE_RATIO if gzipped else size - 4 - 4 * len(shape)
            if promised > possible:
                raise ValueError(
                    f"{path}: the header promises {promised:,} bytes {list(shape)}, a file of {size:,} bytes"
                    f" holds at most {possible:,}: truncated, or the header is wrong"
                )
            read_bounded(stream, promised, data)
        except EOFError as error:
            raise ValueError(f"{path}: truncated: the gzip stream stops after {len(data):,} bytes of data") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: broken gzip stream after {len(data):,} bytes of data: {error}") from error
    if len(data) != promised:
        found = f"more than {promised:,}" if len(data) > promised else f"{len(data):,}"
        raise ValueError(f"{path}: the header promises {promised:,} bytes {list(shape)}, the file holds {found}")
    return array_over(data, dtype, shape, path).astype(dtype.newbyteorder("="), copy=False)


def read_bounded(stream: BinaryIO, promised: int, into: bytearray) -> None:
    """Append `stream` to `into` until its end, or until `into` holds `promised` + 1 bytes: one more tells of excess.

    Memory grows with the bytes that arrive, never with the promise; what had arrived before an error stays in `into`.
    """
    while len(into) <= promised and (block := stream.read(min(_BLOCK, promised + 1 - len(into)))):
        into += block


def array_over(data: bytearray, dtype: np.dtype, shape: tuple[int, ...], path: Path, order: str = "C") -> np.ndarray:
    """A writable array over `data`, without a copy; ValueError naming `path` where numpy cannot make that shape."""
    try:
        return np.frombuffer(data, dtype).reshape(shape, order=order)
    except ValueError as error:  # no data at all, yet dimensions like [0, 2**32, 2**32]
        raise ValueError(f"{path}: no array has the shape {list(shape)} in the header: {error}") from error


def _read_header(stream: BinaryIO, path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    """(dtype, shape) from an IDX header: 0, 0, the type's code, the number of dimensions, each as a big-endian uint32."""
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
