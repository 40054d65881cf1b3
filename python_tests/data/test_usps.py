"""USPS's HDF5 file: the round trip, and files that are damaged or lie about their size."""

import sys

import numpy as np
import pytest

from python_tests.support.datasets import POINTS, check_form, draw
from robustperf.data import load


def write_usps(path, points=POINTS) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    h5py = pytest.importorskip("h5py", reason="h5py, the extra named data, is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    written = {}
    with h5py.File(path, "w") as file:
        for split, n in points.items():
            images, labels = draw((n, 256), 10)
            written[split] = (images.astype(np.float32) / 255, labels)
            file.create_dataset(f"{split}/data", data=written[split][0], compression="gzip")
            file.create_dataset(f"{split}/target", data=labels.astype(np.int32), compression="gzip")
    return written


def test_usps(tmp_path):
    written = write_usps(tmp_path / "usps/usps.h5")
    for split, (images, labels) in written.items():
        data = load("usps", split, tmp_path)
        check_form(data, POINTS[split], (1, 16, 16), 10)
        np.testing.assert_array_equal(data.x.flatten(1).numpy(), images)
        np.testing.assert_array_equal(data.y.numpy(), labels)


def test_usps_without_h5py_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "usps").mkdir()
    (tmp_path / "usps/usps.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'robustperf\[data\]'"):
        load("usps", "test", tmp_path)


def test_a_truncated_h5_is_refused(tmp_path):
    path = tmp_path / "usps/usps.h5"
    write_usps(path)
    whole = path.read_bytes()
    for kept in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=r"usps\.h5"):
            load("usps", "test", tmp_path)


def test_an_h5_with_wrong_sizes_or_links_is_refused(tmp_path):
    write_usps(tmp_path / "usps/usps.h5")
    h5py = sys.modules["h5py"]

    def refused(match: str, make, key: str = "data") -> None:
        path = tmp_path / "usps/usps.h5"
        path.unlink()
        write_usps(path)
        with h5py.File(path, "a") as file:
            del file["test"][key]
            make(file["test"])
        with pytest.raises(ValueError, match=match):
            load("usps", "test", tmp_path)

    huge = (1 << 25, 256)
    refused("promises 34,359,738,368 bytes, found 0", lambda g: g.create_dataset("data", huge, "f4", chunks=(16, 256)))
    refused("promises 34,359,738,368", lambda g: g.create_dataset("data", huge, "f4", compression="gzip"))
    refused("promises 34,359,738,368", lambda g: g.create_dataset("data", huge, "f4"))
    refused("filters", lambda g: g.create_dataset("data", (4, 256), "f4", compression="lzf"))
    refused("external link", lambda g: g.__setitem__("data", h5py.ExternalLink("other.h5", "/data")))
    refused("external link or nothing", lambda g: None)
    refused("other files", lambda g: g.create_dataset("data", (4, 256), "f4", external=[("/etc/hostname", 0, 4096)]))
    refused(r"expected \[N, 256\]", lambda g: g.create_dataset("data", data=np.zeros((4, 255), "f4")))
    refused("4 images but 3 labels", lambda g: g.create_dataset("target", data=np.zeros(3, int)), "target")
    refused(r"\[0, 1\], found nan", lambda g: g.create_dataset("data", data=np.full((4, 256), np.nan, "f4")))
    refused("array of 1 dimensions", lambda g: g.create_dataset("target", data=np.zeros(4, "f4")), "target")
    refused("array of 2 dimensions", lambda g: g.create_group("data"))
    refused("array of 1 dimensions", lambda g: g.create_dataset("target", data=["a"] * 4), "target")
