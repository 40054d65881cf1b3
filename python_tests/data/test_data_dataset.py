"""`Dataset` and `load`: the promised form, on small files in the real formats and on the real files."""

import gzip
import os
import struct
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from robustperf.cli.data import app
from robustperf.data import Dataset, load
from robustperf.data.dataset import NAMES

REAL = os.environ.get("ROBUSTPERF_DATA")
IDX = {"train": "train", "test": "t10k"}
POINTS = {"train": 7, "test": 4}


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def draw(shape: tuple[int, ...], classes: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, shape, dtype=np.uint8), generator.integers(0, classes, shape[0])


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


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root with every data set but usps, in small; the environment variable is unset."""
    monkeypatch.delenv("ROBUSTPERF_DATA", raising=False)
    for folder in ("mnist", "fashion-mnist", "kmnist", "gtsrb32", "cifar10-prefix"):
        (tmp_path / folder).mkdir()
    for split, n in POINTS.items():
        images, labels = draw((n, 28, 28), 10)
        for name in ("mnist", "fashion-mnist"):
            for kind, array in (("images-idx3", images), ("labels-idx1", labels.astype(np.uint8))):
                path = tmp_path / name / f"{IDX[split]}-{kind}-ubyte.gz"
                path.write_bytes(gzip.compress(idx_bytes(array)))
        for name, classes in (("gtsrb32", 43), ("cifar10-prefix", 10)):
            images, labels = draw((n, 32, 32, 3), classes)
            np.savez_compressed(tmp_path / name / f"{split}.npz", images=images, labels=labels)
    images, labels = draw((POINTS["test"], 28, 28), 10)
    np.savez_compressed(tmp_path / "kmnist/kmnist-test-imgs.npz", images)
    np.savez_compressed(tmp_path / "kmnist/kmnist-test-labels.npz", labels.astype(np.uint8))
    return tmp_path


def check_form(data: Dataset, n: int, shape: tuple[int, ...], classes: int) -> None:
    assert data.x.dtype == torch.float32 and data.y.dtype == torch.int64
    assert data.x.shape == (n, *shape) and data.y.shape == (n,) and len(data) == n
    assert data.x.is_contiguous()
    assert 0 <= data.x.min() and data.x.max() <= 1
    assert data.classes == classes and 0 <= data.y.min() and data.y.max() < classes


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_data_sets(root, name, split):
    data = load(name, split, root)
    check_form(data, POINTS[split], (1, 28, 28), 10)
    images, labels = draw((POINTS[split], 28, 28), 10)
    np.testing.assert_array_equal(data.x[:, 0].numpy(), images.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(data.y.numpy(), labels)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("name", "classes"), [("gtsrb", 43), ("cifar10", 10)])
def test_npz_data_sets(root, name, classes, split):
    data = load(name, split, root)
    check_form(data, POINTS[split], (3, 32, 32), classes)
    images, _ = draw((POINTS[split], 32, 32, 3), classes)
    np.testing.assert_array_equal(data.x[:, 2].numpy(), images[..., 2].astype(np.float32) / np.float32(255))


def test_kmnist_has_its_test_part_and_says_what_is_not_there(root):
    check_form(load("kmnist", "test", root), POINTS["test"], (1, 28, 28), 10)
    with pytest.raises(FileNotFoundError, match=r"kmnist-train-imgs\.npz; put it there, no mirror is known"):
        load("kmnist", "train", root)


def test_usps(root):
    written = write_usps(root / "usps/usps.h5")
    for split, (images, labels) in written.items():
        data = load("usps", split, root)
        check_form(data, POINTS[split], (1, 16, 16), 10)
        np.testing.assert_array_equal(data.x.flatten(1).numpy(), images)
        np.testing.assert_array_equal(data.y.numpy(), labels)


def test_digits_need_no_root_and_split_as_documented(monkeypatch):
    monkeypatch.delenv("ROBUSTPERF_DATA", raising=False)
    train, test = load("digits", "train"), load("digits")
    check_form(train, 1198, (1, 8, 8), 10)
    check_form(test, 599, (1, 8, 8), 10)
    counts = [split.y.bincount(minlength=10) for split in (train, test)]
    assert (counts[0] - 2 * counts[1]).abs().max() <= 3  # stratified
    rows = {tuple(row) for row in train.x.flatten(1).tolist()} | {tuple(row) for row in test.x.flatten(1).tolist()}
    assert len(rows) == 1797
    assert test.y[:10].tolist() == [2, 3, 7, 0, 8, 4, 8, 4, 6, 5]  # the split is fixed


def test_the_environment_variable_is_the_root(root, monkeypatch):
    monkeypatch.setenv("ROBUSTPERF_DATA", str(root))
    assert len(load("mnist")) == POINTS["test"]


def test_no_root_names_both_ways_and_the_command(monkeypatch):
    monkeypatch.delenv("ROBUSTPERF_DATA", raising=False)
    with pytest.raises(ValueError, match=r"root=DIR.*ROBUSTPERF_DATA.*robustperf data fetch"):
        load("mnist")


def test_a_missing_file_names_the_command_that_fetches_it(root):
    (root / "mnist/t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(
        FileNotFoundError, match="t10k-labels-idx1-ubyte.gz; fetch it with: robustperf data fetch"
    ) as error:
        load("mnist", "test", root)
    assert str(error.value).endswith(f"robustperf data fetch mnist --data-root {root}")
    with pytest.raises(FileNotFoundError, match=r"usps\.h5; put it there.*groups train and test"):
        load("usps", "test", root)


def test_raw_idx_files_are_read_instead_of_the_gz(root):
    for path in (root / "mnist").glob("t10k-*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    check_form(load("mnist", "test", root), POINTS["test"], (1, 28, 28), 10)


@pytest.mark.parametrize(
    ("shape", "chw"),
    [((5, 6, 7), (1, 6, 7)), ((5, 6, 7, 3), (3, 6, 7)), ((5, 6, 7, 1), (1, 6, 7)), ((5, 3, 6, 7), (3, 6, 7))],
)
@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y")])
def test_an_npz_of_ones_own(tmp_path, shape, chw, names):
    images, labels = draw(shape, 4)
    labels[0] = 3
    for array in (images, images / 255, (images / 255).astype(">f4")):
        np.savez(tmp_path / "own.npz", **dict(zip(names, (array, labels), strict=True)))
        data = load(tmp_path / "own.npz")
        assert data.name == "own"
        check_form(data, 5, chw, 4)
        pixels = images if chw == shape[1:] or len(shape) == 3 else np.moveaxis(images, 3, 1)
        np.testing.assert_allclose(data.x.numpy(), pixels.reshape(5, *chw) / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("images", "labels", "match"),
    [
        (np.zeros((3, 4, 4), np.uint8), np.zeros(2, int), "3 images but 2 labels"),
        (np.zeros((3, 4, 4), np.uint8), np.array([0, 1, -1]), r"labels in 0\.\.1, got -1 to 1"),
        (np.zeros((3, 4, 4), np.uint8), np.zeros((3, 1), int), r"integer labels \[N\], found \[3, 1\]"),
        (np.zeros((3, 4, 4), np.uint8), np.zeros(3), "integer labels.*float64"),
        (np.zeros((3, 4, 4), np.int64), np.zeros(3, int), "uint8 or floats.*int64"),
        (np.zeros((3, 5, 4, 5), np.uint8), np.zeros(3, int), r"found \[3, 5, 4, 5\]"),
        (np.full((3, 4, 4), 1.5), np.zeros(3, int), r"\[0, 1\], got 1.5 to 1.5"),
        (np.full((3, 4, 4), np.nan), np.zeros(3, int), r"\[0, 1\], got nan"),
    ],
)
def test_wrong_arrays_are_refused_with_the_files_name(tmp_path, images, labels, match):
    np.savez(tmp_path / "own.npz", x=images, y=labels)
    with pytest.raises(ValueError, match=match) as error:
        load(tmp_path / "own.npz")
    assert str(tmp_path / "own.npz") in str(error.value)


def test_labels_out_of_range_and_wrong_counts_are_refused_in_a_known_set(root):
    np.savez(root / "cifar10-prefix/test.npz", images=np.zeros((2, 32, 32, 3), np.uint8), labels=np.array([0, 10]))
    with pytest.raises(ValueError, match=r"cifar10: y: expected labels in 0\.\.9, got 0 to 10"):
        load("cifar10", "test", root)
    path = root / "mnist/t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(3, np.uint8))))
    with pytest.raises(ValueError, match="mnist: 4 images but 3 labels"):
        load("mnist", "test", root)


def test_names_and_splits_are_checked(root):
    with pytest.raises(ValueError, match="name: expected one of digits, mnist.*got 'svhn'"):
        load("svhn", root=root)
    with pytest.raises(ValueError, match="split: expected one of train, test, got 'valid'"):
        load("mnist", "valid", root)


def test_limit_takes_the_first_points_without_a_copy():
    data = load("digits")
    few = data.limit(5)
    assert len(few) == 5 and few.classes == 10 and few.name == "digits"
    assert few.x.data_ptr() == data.x.data_ptr()
    assert len(data.limit(0)) == 0
    assert len(data.limit(10**6)) == len(data)
    with pytest.raises(ValueError, match="n: expected 0 or more, got -1"):
        data.limit(-1)


def test_dataset_refuses_other_dtypes_and_shapes():
    x, y = torch.zeros(2, 1, 3, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(TypeError, match="x: expected torch.float32, got torch.float64"):
        Dataset("own", x.double(), y, 1)
    with pytest.raises(TypeError, match="y: expected torch.int64"):
        Dataset("own", x, y.int(), 1)
    with pytest.raises(ValueError, match=r"x: expected the shape \[N, C, H, W\], got \[2, 3, 3\]"):
        Dataset("own", x[:, 0], y, 1)


def test_usps_without_h5py_names_the_extra(root, monkeypatch):
    (root / "usps").mkdir()
    (root / "usps/usps.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'robustperf\[data\]'"):
        load("usps", "test", root)


def test_a_truncated_h5_is_refused(root):
    path = root / "usps/usps.h5"
    write_usps(path)
    whole = path.read_bytes()
    for kept in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=r"usps\.h5"):
            load("usps", "test", root)


def test_an_h5_that_lies_is_refused(root):
    write_usps(root / "usps/usps.h5")
    h5py = sys.modules["h5py"]

    def refused(match: str, make, key: str = "data") -> None:
        path = root / "usps/usps.h5"
        path.unlink()
        write_usps(path)
        with h5py.File(path, "a") as file:
            del file["test"][key]
            make(file["test"])
        with pytest.raises(ValueError, match=match):
            load("usps", "test", root)

    huge = (1 << 25, 256)
    refused("promises 34,359,738,368 bytes, 0 bytes", lambda g: g.create_dataset("data", huge, "f4", chunks=(16, 256)))
    refused("promises 34,359,738,368", lambda g: g.create_dataset("data", huge, "f4", compression="gzip"))
    refused("promises 34,359,738,368", lambda g: g.create_dataset("data", huge, "f4"))
    refused("filters", lambda g: g.create_dataset("data", (4, 256), "f4", compression="lzf"))
    refused("link to elsewhere", lambda g: g.__setitem__("data", h5py.ExternalLink("other.h5", "/data")))
    refused("link to elsewhere or nothing", lambda g: None)
    refused("other files", lambda g: g.create_dataset("data", (4, 256), "f4", external=[("/etc/hostname", 0, 4096)]))
    refused(r"expected \[N, 256\]", lambda g: g.create_dataset("data", data=np.zeros((4, 255), "f4")))
    refused("4 images but 3 labels", lambda g: g.create_dataset("target", data=np.zeros(3, int)), "target")
    refused(r"\[0, 1\], found nan", lambda g: g.create_dataset("data", data=np.full((4, 256), np.nan, "f4")))
    refused("array of 1 dimensions", lambda g: g.create_dataset("target", data=np.zeros(4, "f4")), "target")
    refused("array of 2 dimensions", lambda g: g.create_group("data"))
    refused("array of 1 dimensions", lambda g: g.create_dataset("target", data=["a"] * 4), "target")


def test_the_list_command_shows_counts_and_what_is_missing(root):
    (root / "mnist/train-labels-idx1-ubyte.gz").unlink()
    (root / "gtsrb32/test.npz").write_bytes(b"PK\3\4")
    result = CliRunner().invoke(app, ["list", "--data-root", str(root)], env={"COLUMNS": "400"})
    assert result.exit_code == 0
    line = {name: next(row for row in result.output.splitlines() if f" {name} " in row) for name in NAMES}
    assert "1,198" in line["digits"] and "599" in line["digits"]
    assert "missing mnist/train-labels-idx1-ubyte.gz " in line["mnist"] and " 4 " in line["mnist"]
    assert " 7 " in line["cifar10"] and " 4 " in line["cifar10"]
    assert "missing usps/usps.h5" in line["usps"]
    assert "not a sound npz" in line["gtsrb"]


def test_the_list_command_without_a_root_shows_digits(monkeypatch):
    monkeypatch.delenv("ROBUSTPERF_DATA", raising=False)
    result = CliRunner().invoke(app, ["list"])
    assert result.exit_code == 0
    assert "1,198" in result.output and "no --data-root" in result.output


real = pytest.mark.skipif(not REAL, reason="ROBUSTPERF_DATA is not set: no real data to read")


@real
@pytest.mark.parametrize(
    ("name", "split", "histogram"),
    [
        ("mnist", "train", [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        ("mnist", "test", [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
        ("fashion-mnist", "train", [6000] * 10),
        ("fashion-mnist", "test", [1000] * 10),
        ("kmnist", "test", [1000] * 10),
    ],
)
def test_real_mnist_and_its_kin(name, split, histogram):
    data = load(name, split, REAL)
    check_form(data, sum(histogram), (1, 28, 28), 10)
    assert data.x.min() == 0 and data.x.max() == 1
    assert data.y.bincount().tolist() == histogram


@real
@pytest.mark.parametrize(
    ("name", "split", "n", "shape", "classes"),
    [
        ("usps", "train", 7291, (1, 16, 16), 10),
        ("usps", "test", 2007, (1, 16, 16), 10),
        ("gtsrb", "train", 19605, (3, 32, 32), 43),
        ("gtsrb", "test", 12630, (3, 32, 32), 43),
        ("cifar10", "train", 5085, (3, 32, 32), 10),
        ("cifar10", "test", 1017, (3, 32, 32), 10),
    ],
)
def test_real_data_of_other_shapes(name, split, n, shape, classes):
    data = load(name, split, REAL)
    check_form(data, n, shape, classes)
    assert data.x.min() == 0 and data.x.max() == 1
    assert data.y.unique().numel() == classes
