"""USPS digits (Hull 1994) as one HDF5 file: groups `train` and `test`, each with `data` [N, 256] and `target` [N]."""

import math
import os
from pathlib import Path

import numpy as np

from robustperf.data.bounded_read import check_size
from robustperf.files import open_regular, user_path

_SIDE = 16
# HDF5's own filters: deflate, shuffle, Fletcher-32. Others may expand without a known limit.
_DEFLATE = 1
_FILTERS = {_DEFLATE, 2, 3}


def read_usps(path: str | os.PathLike[str], split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads one split of `usps.h5`.

    Args:
        path: the HDF5 file.
        split: the group, "train" or "test".

    Returns:
        images float32 [N, 1, 16, 16] in [0, 1] and labels int64 [N].

    Raises:
        ImportError: h5py is missing.
        FileNotFoundError: there is no such file.
        ValueError: not a valid HDF5 file; wrong groups, shapes or dtypes; data that the file cannot hold or that
            another file holds; or values outside [0, 1].
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError("reading USPS needs h5py: pip install 'robustperf[data]'") from error
    path = user_path(path)
    with open_regular(path) as file:  # a missing or forbidden file raises its own error, which HDF5 would hide
        size = os.fstat(file.fileno()).st_size
    try:
        with h5py.File(path, "r") as file:
            images = _read(file, f"{split}/data", "f", 2, size, path)
            labels = _read(file, f"{split}/target", "iu", 1, size, path)
    except (OSError, KeyError, RuntimeError, TypeError, OverflowError) as error:
        raise ValueError(f"{path}: not a valid HDF5 file of {size:,} bytes: {error}") from error
    if images.shape[1] != _SIDE * _SIDE:
        raise ValueError(f"{path}: {split}/data: expected [N, {_SIDE * _SIDE}], found {list(images.shape)}")
    if len(images) != len(labels):
        raise ValueError(f"{path}: {split} has {len(images):,} images but {len(labels):,} labels")
    if images.size and not (images.min() >= 0 and images.max() <= 1):  # written so that NaN fails
        raise ValueError(f"{path}: {split}/data: expected [0, 1], found {images.min()} to {images.max()}")
    return images.astype(np.float32, copy=False).reshape(-1, 1, _SIDE, _SIDE), labels.astype(np.int64)


def _read(file, name: str, kinds: str, ndim: int, size: int, path: Path) -> np.ndarray:
    """The array `name` of `file` (`size` bytes), read after its size was compared with what is stored."""
    import h5py

    where = f"{path}: {name}"
    links = (name.split("/")[0], name)
    if not all(isinstance(file.get(link, getlink=True), h5py.HardLink) for link in links):
        raise ValueError(f"{where}: expected data in the file itself, found an external link or nothing")
    array = file[name]
    if not isinstance(array, h5py.Dataset) or array.dtype.kind not in kinds or len(array.shape or ()) != ndim:
        raise ValueError(f"{where}: expected an array of {ndim} dimensions, dtype kind {kinds!r}, found {array!r}")
    if array.is_virtual or array.external:
        raise ValueError(f"{where}: expected data in the file itself, found data in other files")
    creation = array.id.get_create_plist()
    filters = [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]
    if not _FILTERS.issuperset(filters) or filters.count(_DEFLATE) > 1:
        raise ValueError(f"{where}: expected HDF5's filters {sorted(_FILTERS)}, each once, found {filters}")
    stored = array.id.get_storage_size()
    chunk = math.prod(array.chunks) * array.dtype.itemsize if array.chunks else 0
    promised = max(math.prod(array.shape) * array.dtype.itemsize, chunk)
    check_size(where, promised, min(stored, size), deflated=_DEFLATE in filters)
    return array[()]
