"""Data sets: readers that do not trust the files, one `load` by name, and fetching with checksums."""

from robustperf.data.dataset import Dataset, load
from robustperf.data.fetch import fetch
from robustperf.data.idx import read_idx
from robustperf.data.npz import read_npz

__all__ = ["Dataset", "fetch", "load", "read_idx", "read_npz"]
