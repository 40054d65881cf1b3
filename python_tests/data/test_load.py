"""`load`: the form of its results, on small files in the real formats and on the real files."""

import gzip
import os
import struct

import numpy as np
import pytest

from python_tests.support.datasets import POINTS, check_form, draw, idx_bytes
from robustperf.data import load

REAL = os.environ.get("ROBUSTPERF_DATA")
IDX = {"train": "train", "test": "t10k"}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root with every data set but usps, in small; the environment variable is unset."""
    monkeypatch.delenv("ROBUSTPERF_DATA", raising=False)
    for folder in ("mnist", "fashion-mnist", "kmnist", "gtsrb32", "cifar10-prefix", "mnist-m", "svhn-mini"):
        (tmp_path / folder).mkdir()
    for split, n in POINTS.items():
        images, labels = draw((n, 28, 28), 10)
        for name in ("mnist", "fashion-mnist"):
            for kind, array in (("images-idx3", images), ("labels-idx1", labels.astype(np.uint8))):
                path = tmp_path / name / f"{IDX[split]}-{kind}-ubyte.gz"
                path.write_bytes(gzip.compress(idx_bytes(array)))
        for name, classes in (("gtsrb32", 43), ("cifar10-prefix", 10), ("mnist-m", 10), ("svhn-mini", 10)):
            images, labels = draw((n, 32, 32, 3), classes)
            np.savez_compressed(tmp_path / name / f"{split}.npz", images=images, labels=labels)
    images, labels = draw((POINTS["test"], 28, 28), 10)
    np.savez_compressed(tmp_path / "kmnist/kmnist-test-imgs.npz", images)
    np.savez_compressed(tmp_path / "kmnist/kmnist-test-labels.npz", labels.astype(np.uint8))
    return tmp_path


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_data_sets(root, name, split):
    data = load(name, split, root)
    check_form(data, POINTS[split], (1, 28, 28), 10)
    images, labels = draw((POINTS[split], 28, 28), 10)
    np.testing.assert_array_equal(data.x[:, 0].numpy(), images.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(data.y.numpy(), labels)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("name", "classes"), [("gtsrb", 43), ("cifar10", 10), ("mnist-m", 10), ("svhn-mini", 10)])
def test_npz_data_sets(root, name, classes, split):
    data = load(name, split, root)
    check_form(data, POINTS[split], (3, 32, 32), classes)
    images, _ = draw((POINTS[split], 32, 32, 3), classes)
    np.testing.assert_array_equal(data.x[:, 2].numpy(), images[..., 2].astype(np.float32) / np.float32(255))


def write_idx(path, images: np.ndarray, labels: np.ndarray, names: tuple[str, str]) -> None:
    path.mkdir(exist_ok=True)
    for name, array in zip(names, (images, labels), strict=True):
        code = {"u": 8, "i": 0x0C}[array.dtype.kind]
        head = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
        (path / name).write_bytes(gzip.compress(head + array.astype(array.dtype.newbyteorder(">")).tobytes()))


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("name", "part", "classes", "first"),
    [
        ("emnist", "balanced", 47, 0),
        ("emnist-letters", "letters", 26, 1),
        ("emnist-digits", "digits", 10, 0),
        ("emnist-byclass", "byclass", 62, 0),
        ("emnist-bymerge", "bymerge", 47, 0),
        ("emnist-mnist", "mnist", 10, 0),
    ],
)
def test_emnist_is_transposed(tmp_path, split, name, part, classes, first):
    images, _ = draw((classes, 28, 28), 10)
    names = (f"emnist-{part}-{split}-images-idx3-ubyte.gz", f"emnist-{part}-{split}-labels-idx1-ubyte.gz")
    write_idx(tmp_path / "emnist", images, np.arange(first, classes + first, dtype=np.uint8), names)
    data = load(name, split, tmp_path)
    check_form(data, classes, (1, 28, 28), classes)
    assert data.y.tolist() == list(range(classes))
    for row in range(classes):
        np.testing.assert_array_equal(data.x[row, 0].T.numpy(), images[row].astype(np.float32) / np.float32(255))


def test_emnist_with_wrong_labels_or_shapes(tmp_path):
    names = ("emnist-letters-test-images-idx3-ubyte.gz", "emnist-letters-test-labels-idx1-ubyte.gz")
    write_idx(tmp_path / "emnist", np.zeros((2, 28, 28), np.uint8), np.array([0, 1], np.uint8), names)
    with pytest.raises(ValueError, match=r"labels in 0\.\.25, got -1"):
        load("emnist-letters", "test", tmp_path)
    write_idx(tmp_path / "emnist", np.zeros((2, 28), np.uint8), np.array([0, 1], np.uint8), names)
    with pytest.raises(ValueError, match=r"images-idx3-ubyte\.gz: expected images \[N, H, W\], found \[2, 28\]"):
        load("emnist-letters", "test", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"emnist-letters-train-images.*official gzip\.zip"):
        load("emnist-letters", "train", tmp_path)


def test_letters_in_npz_files_are_upright_and_count_from_0(tmp_path):
    (tmp_path / "emnist-letters").mkdir()
    images, labels = draw((9, 28, 28), 26)
    np.savez(tmp_path / "emnist-letters/train.npz", images=images, labels=labels)
    data = load("emnist-letters", "train", tmp_path)
    check_form(data, 9, (1, 28, 28), 26)
    assert data.y.tolist() == labels.tolist()
    np.testing.assert_array_equal(data.x[:, 0].numpy(), images.astype(np.float32) / np.float32(255))
    np.savez(tmp_path / "emnist-letters/train.npz", images=images, labels=np.full(9, 26))
    with pytest.raises(ValueError, match=r"emnist-letters: y: expected labels in 0\.\.25, got 26.*train\.npz"):
        load("emnist-letters", "train", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"or emnist-letters/train\.npz and emnist-letters/test\.npz"):
        load("emnist-letters", "test", tmp_path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_label_of_qmnist_is_the_first_column(tmp_path, split):
    images, labels = draw((9, 28, 28), 10)
    table = np.concatenate([labels[:, None], 10_000 + np.arange(63).reshape(9, 7)], axis=1).astype(np.int32)
    names = (f"qmnist-{split}-images-idx3-ubyte.gz", f"qmnist-{split}-labels-idx2-int.gz")
    write_idx(tmp_path / "qmnist", images, table, names)
    data = load("qmnist", split, tmp_path)
    check_form(data, 9, (1, 28, 28), 10)
    assert data.y.tolist() == labels.tolist()
    write_idx(tmp_path / "qmnist", images, table[:, :7], names)
    with pytest.raises(ValueError, match=r"labels-idx2-int\.gz: expected labels \[N, 8\], found \[9, 7\]"):
        load("qmnist", split, tmp_path)


def test_kmnist_is_read_as_idx_without_its_npz_files(root):
    images, labels = draw((6, 28, 28), 10)
    names = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
    write_idx(root / "kmnist", images, labels.astype(np.uint8), names)
    data = load("kmnist", "train", root)
    check_form(data, 6, (1, 28, 28), 10)
    np.testing.assert_array_equal(data.x[:, 0].numpy(), images.astype(np.float32) / np.float32(255))


def test_a_size_is_refused_for_images_of_one_size(root):
    np.savez(root / "own.npz", images=np.zeros((2, 4, 4), np.uint8), labels=np.zeros(2, int))
    for name in ("mnist", "digits", "svhn", root / "own.npz"):
        with pytest.raises(ValueError, match=r"size: expected None for .*Dataset\.resized.*, got 32"):
            load(name, "test", root, size=32)


def test_kmnist_has_only_its_test_split(root):
    check_form(load("kmnist", "test", root), POINTS["test"], (1, 28, 28), 10)
    with pytest.raises(FileNotFoundError, match=r"kmnist-train-imgs\.npz; put it there, no mirror is known"):
        load("kmnist", "train", root)


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


def test_the_environment_variable_sets_the_root(root, monkeypatch):
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
def test_a_users_npz(tmp_path, shape, chw, names):
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
        (np.zeros((3, 4, 4), np.uint8), np.array([0, 1, -1]), r"labels in 0\.\.1, got -1"),
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
    with pytest.raises(ValueError, match=r"cifar10: y: expected labels in 0\.\.9, got 10"):
        load("cifar10", "test", root)
    path = root / "mnist/t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(3, np.uint8))))
    with pytest.raises(ValueError, match="mnist: 4 images but 3 labels"):
        load("mnist", "test", root)


def test_names_and_splits_are_checked(root):
    with pytest.raises(ValueError, match="name: expected one of digits, mnist.*got 'celeba'"):
        load("celeba", root=root)
    with pytest.raises(ValueError, match="split: expected one of train, test, got 'valid'"):
        load("mnist", "valid", root)


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
def test_real_mnist_and_its_variants(name, split, histogram):
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
        ("mnist-m", "train", 6000, (3, 32, 32), 10),
        ("mnist-m", "test", 3000, (3, 32, 32), 10),
        ("emnist-letters", "test", 4160, (1, 28, 28), 26),
        ("svhn-mini", "train", 554, (3, 32, 32), 10),
        ("svhn-mini", "test", 486, (3, 32, 32), 10),
    ],
)
def test_real_data_of_other_shapes(name, split, n, shape, classes):
    data = load(name, split, REAL)
    check_form(data, n, shape, classes)
    assert data.x.min() == 0 and data.x.max() == 1
    assert data.y.unique().numel() == classes
