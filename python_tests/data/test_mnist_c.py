"""MNIST-C's folders of npy files: small ones in the published layout, and damaged files."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
from typer.testing import CliRunner

from robustperf.cli.data import app
from robustperf.data import load
from robustperf.data.npy import read_npy
from robustperf.names import CORRUPTIONS

POINTS = {"train": 7, "test": 4}


def written(corruption, split):
    """What stands in the files: images [N, 28, 28, 1] and labels [N]."""
    rng = np.random.default_rng(CORRUPTIONS.index(corruption) + 100 * len(split))
    return rng.integers(0, 256, (POINTS[split], 28, 28, 1), np.uint8), rng.integers(0, 10, POINTS[split])


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Three of the sets; the environment variable is unset."""
    monkeypatch.delenv("ROBUSTPERF_DATA", raising=False)
    for corruption in ("identity", "shot_noise", "fog"):
        folder = tmp_path / "mnist_c" / corruption
        folder.mkdir(parents=True)
        for split in POINTS:
            images, labels = written(corruption, split)
            np.save(folder / f"{split}_images.npy", images)
            np.save(folder / f"{split}_labels.npy", labels)
    return tmp_path


@pytest.mark.parametrize("corruption", ["identity", "shot_noise", "fog"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_each_set_is_a_data_set(root, corruption, split):
    data = load(f"mnist-c/{corruption}", split, root)
    images, labels = written(corruption, split)
    assert data.name == f"mnist-c/{corruption}" and data.classes == 10 and data.y.tolist() == labels.tolist()
    assert data.x.shape == (POINTS[split], 1, 28, 28)
    np.testing.assert_array_equal(data.x[:, 0].numpy(), images[..., 0].astype(np.float32) / 255)


def test_unknown_names_and_missing_files(root):
    for name in ("mnist-c", "mnist-c/snow", "mnist-c/", "mnist_c/fog"):
        with pytest.raises(ValueError, match="name: expected one of .*mnist-c/canny_edges"):
            load(name, "test", root)
    with pytest.raises(ValueError, match="split: expected one of train, test, got 'extra'"):
        load("mnist-c/fog", "extra", root)
    with pytest.raises(FileNotFoundError, match=r"mnist_c/zigzag/test_images\.npy; put it there.*mnist_c\.zip"):
        load("mnist-c/zigzag", "test", root)
    (root / "mnist_c/fog/test_labels.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"mnist_c/fog/test_labels\.npy"):
        load("mnist-c/fog", "test", root)


def test_the_list_shows_them(root):
    output = CliRunner().invoke(app, ["list", "--data-root", str(root)], env={"COLUMNS": "400"}).output
    line = {name: next(row for row in output.splitlines() if f" mnist-c/{name} " in row) for name in CORRUPTIONS}
    assert " 7 " in line["fog"] and " 4 " in line["fog"]
    assert "missing mnist_c/stripe/train_images.npy, mnist_c/stripe/train_labels.npy" in line["stripe"]


@pytest.mark.parametrize("file, array, message", [
    ("images", np.zeros((4, 28, 28), np.uint8), r"expected uint8 images \[N, 28, 28, 1\], found \[4, 28, 28\]"),
    ("images", np.zeros((4, 28, 28, 3), np.uint8), "expected uint8 images"),
    ("images", np.zeros((4, 32, 32, 1), np.uint8), "expected uint8 images"),
    ("images", np.zeros((4, 28, 28, 1), np.float32), "expected uint8 images .* of float32"),
    ("labels", np.zeros(3, int), r"expected integer labels \[4\], found \[3\] of int64"),
    ("labels", np.zeros((4, 1), int), r"expected integer labels \[4\], found \[4, 1\]"),
    ("labels", np.zeros(4), "expected integer labels .* of float64"),
    ("labels", np.array([0, 1, 10, 3]), "labels"),
    ("labels", np.array([0, 1, -1, 3]), "labels"),
    ("images", np.array([{"a": 1}], object), "dtype object .pickled objects are never loaded"),
])  # fmt: skip
def test_wrong_arrays_are_refused_by_name(root, file, array, message):
    path = root / f"mnist_c/fog/test_{file}.npy"
    np.save(path, array)
    with pytest.raises(ValueError, match=message) as error:
        load("mnist-c/fog", "test", root)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.dtype(">f4"), np.bool_])
@pytest.mark.parametrize("order", ["C", "F"])
def test_round_trip_of_any_numeric_array(tmp_path, dtype, order):
    array = np.asarray(np.arange(24).reshape(2, 3, 4) % 5, dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    found = read_npy(tmp_path / "a.npy")
    assert found.dtype == array.dtype and found.flags.writeable
    np.testing.assert_array_equal(found, array)


def test_a_file_cut_or_damaged_anywhere_is_refused_or_right(tmp_path):
    array, path = np.arange(40, dtype=np.uint8), tmp_path / "a.npy"
    np.save(path, array)
    whole = path.read_bytes()
    for content in [whole[:kept] for kept in range(len(whole))] + [whole + b"\0"]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.npy"):
            read_npy(path)
    for at in range(128):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            assert read_npy(path).nbytes == 40
        except ValueError as error:
            assert str(path) in str(error)


def test_a_header_that_asks_for_32_gib_allocates_nothing(root):
    path, out = root / "mnist_c/fog/test_images.npy", io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": (43826197, 28, 28, 1)})
    path.write_bytes(out.getvalue() + bytes(1000))
    bomb = root / "mnist_c/fog/train_images.npy"
    bomb.write_bytes(b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + b" " * (16 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"promises 34,359,738,448 bytes.*holds 1,000") as error:
            load("mnist-c/fog", "test", root)
        with pytest.raises(ValueError, match="damaged npy header"):
            load("mnist-c/fog", "train", root)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in str(error.value) and peak < 1 << 20
