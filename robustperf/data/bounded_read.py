"""Bounded reading: the one size guard of every file reader here, against files that lie about their size.

What each format is read by, and why:

- npy, npz: NumPy, `numpy.lib.format` with `allow_pickle=False`. NumPy allocates what the header promises before it
  reads (32 GiB from a file of 1 kB) and takes a header of up to 4 GiB in memory, so that `npy.check_header` compares
  the header with the file first; the members of a zip archive are compared with what deflate can hold (`npz`).
- HDF5 (USPS): h5py, after shape, chunks, filters and links have been compared with what is stored (`usps`).
- MATLAB (SVHN): our own. SciPy ends the interpreter (SIGSEGV) on a file with one byte changed, which no guard can
  tell beforehand; `test_svhn` holds such a file.
- IDX (MNIST and its variants): our own, because none of our dependencies reads it.
- images: Pillow, with its formats and pixels limited (`image_files`).
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np

DEFLATE_RATIO = 1032
"""The most bytes that a byte of deflate holds: a match takes at least 2 bits and stands for at most 258 bytes."""

_BLOCK = 1 << 20


def check_size(where: str, promised: int, stored: int, *, deflated: bool = False) -> None:
    """The size guard: ValueError where `stored` bytes, deflated or not, cannot hold the `promised` ones.

    Args:
        where: what promises: the file, and the part of it; the error begins with it.
        promised: bytes that the header claims.
        stored: bytes that are there.
        deflated: whether the stored bytes are compressed by deflate (zlib, gzip).
    """
    possible = stored * DEFLATE_RATIO if deflated else stored
    if promised > possible:
        most = f" compressed ones, which hold at most {possible:,}" if deflated else ""
        raise ValueError(f"{where}: the header promises {promised:,} bytes, found {stored:,}{most}")


def read_bounded(stream: BinaryIO, promised: int, into: bytearray) -> None:
    """Appends `stream` to `into` until its end, or until `into` holds `promised` + 1 bytes: one more shows an excess.

    Memory grows with the bytes that arrive, never with the promise; what had arrived before an error stays in `into`.
    """
    while len(into) <= promised and (block := stream.read(min(_BLOCK, promised + 1 - len(into)))):
        into += block


def array_over(data: bytearray, dtype: np.dtype, shape: tuple[int, ...], path: Path) -> np.ndarray:
    """A writable array over `data`, without a copy; ValueError naming `path` where NumPy cannot make that shape."""
    try:
        return np.frombuffer(data, dtype).reshape(shape)
    except ValueError as error:  # no data at all, yet dimensions like [0, 2**32, 2**32]
        raise ValueError(f"{path}: no array has the shape {list(shape)} in the header: {error}") from error
