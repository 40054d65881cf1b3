"""Data sets: readers that do not trust the files, one `load` by name, domains, and fetching with checksums."""

from robustperf.data.dataset import Dataset
from robustperf.data.domains import brightness, contrast, domain
from robustperf.data.fetch import fetch
from robustperf.data.idx import read_idx
from robustperf.data.image_folder import ImageFolder
from robustperf.data.load import load
from robustperf.data.normalise import normalise
from robustperf.data.npz import read_npz

__all__ = [
    "Dataset",
    "ImageFolder",
    "brightness",
    "contrast",
    "domain",
    "fetch",
    "load",
    "normalise",
    "read_idx",
    "read_npz",
]
