"""`Dataset` and `load`: the promised form, on small files in the real formats and on the real files."""

import gzip
import os
import struct
import sys

import numpy as np
import pytest
import torch

from robustperf.data import Dataset, load

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
def test_emnist_is_turned_upright(tmp_path, split, name, part, classes, first):
    images, _ = draw((classes, 28, 28), 10)
    names = (f"emnist-{part}-{split}-images-idx3-ubyte.gz", f"emnist-{part}-{split}-labels-idx1-ubyte.gz")
    write_idx(tmp_path / "emnist", images, np.arange(first, classes + first, dtype=np.uint8), names)
    data = load(name, split, tmp_path)
    check_form(data, classes, (1, 28, 28), classes)
    assert data.y.tolist() == list(range(classes))
    for row in range(classes):
        np.testing.assert_array_equal(data.x[row, 0].T.numpy(), images[row].astype(np.float32) / np.float32(255))


def test_emnist_letters_that_are_none_and_images_of_another_shape(tmp_path):
    names = ("emnist-letters-test-images-idx3-ubyte.gz", "emnist-letters-test-labels-idx1-ubyte.gz")
    write_idx(tmp_path / "emnist", np.zeros((2, 28, 28), np.uint8), np.array([0, 1], np.uint8), names)
    with pytest.raises(ValueError, match=r"labels in 0\.\.25, got -1"):
        load("emnist-letters", "test", tmp_path)
    write_idx(tmp_path / "emnist", np.zeros((2, 28), np.uint8), np.array([0, 1], np.uint8), names)
    with pytest.raises(ValueError, match=r"images-idx3-ubyte\.gz: expected images \[N, H, W\], found \[2, 28\]"):
        load("emnist-letters", "test", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"emnist-letters-train-images.*official gzip\.zip"):
        load("emnist-letters", "train", tmp_path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_qmnist_takes_the_first_column_as_label(tmp_path, split):
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


def test_kmnist_is_read_as_idx_where_its_npz_files_are_not(root):
    images, labels = draw((6, 28, 28), 10)
    names = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
    write_idx(root / "kmnist", images, labels.astype(np.uint8), names)
    data = load("kmnist", "train", root)
    check_form(data, 6, (1, 28, 28), 10)
    np.testing.assert_array_equal(data.x[:, 0].numpy(), images.astype(np.float32) / np.float32(255))


def test_a_size_is_refused_where_images_have_one(root):
    np.savez(root / "own.npz", images=np.zeros((2, 4, 4), np.uint8), labels=np.zeros(2, int))
    for name in ("mnist", "digits", "svhn", root / "own.npz"):
        with pytest.raises(ValueError, match=r"size: expected None for .*Dataset\.resized.*, got 32"):
            load(name, "test", root, size=32)


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


def test_limit_takes_the_first_points_without_a_copy():
    data = load("digits")
    few = data.limit(5)
    assert len(few) == 5 and few.classes == 10 and few.name == "digits"
    assert few.x.data_ptr() == data.x.data_ptr()
    assert len(data.limit(0)) == 0
    assert len(data.limit(10**6)) == len(data)
    with pytest.raises(ValueError, match="n: expected an integer >= 0, got -1"):
        data.limit(-1)


def test_rows_are_a_copy_in_the_order_asked_for():
    data = load("digits")
    index = torch.tensor([3, 0, 3, 598])
    some = data.rows(index)
    assert some.name == "digits" and some.classes == 10
    for row, number in enumerate(index.tolist()):
        assert some.x[row].equal(data.x[number]) and some.y[row] == data.y[number]
    ones = data.rows(data.y == 1)
    assert len(ones) == (data.y == 1).sum() and set(ones.y.tolist()) == {1}
    before = data.x.clone()
    some.x.zero_()
    data.rows(torch.ones(len(data), dtype=torch.bool)).x.zero_()
    assert data.x.equal(before)
    assert len(data.rows(torch.zeros(0, dtype=torch.int64))) == 0


@pytest.mark.parametrize(
    ("index", "error", "match"),
    [
        (torch.tensor([599]), ValueError, r"numbers in 0\.\.598, got 599 to 599"),
        (torch.tensor([0, -1]), ValueError, "got -1 to 0"),
        (torch.ones(598, dtype=torch.bool), ValueError, r"\[599\], got \[598\]"),
        (torch.zeros(1, 1, dtype=torch.int64), ValueError, r"shape \[M\], got \[1, 1\]"),
        (torch.tensor([0.0]), TypeError, "float32"),
        (torch.tensor([0], dtype=torch.int32), TypeError, "int32"),
        ([0], TypeError, "tensor, got list"),
    ],
)
def test_rows_refuses_other_indices(index, error, match):
    with pytest.raises(error, match=f"index: expected .*{match}"):
        load("digits").rows(index)


def triangle(source: int, target: int) -> np.ndarray:
    """The weights [target, source] of bilinear interpolation, widened where it shrinks so that it averages."""
    scale = source / target
    weights = np.zeros((target, source))
    for row in range(target):
        for column in range(source):
            weights[row, column] = max(0, 1 - abs(column + 0.5 - (row + 0.5) * scale) / max(scale, 1))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("size", [1, 5, 8, 13, 32])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 17)])
def test_resized_is_bilinear_with_antialiasing(monkeypatch, size, shape):
    monkeypatch.setattr("robustperf.data.dataset._CHUNK", 5000)  # a few images at a time
    x = torch.rand(23, *shape, generator=torch.Generator().manual_seed(0))
    x[0], x[1] = 0, 1
    data = Dataset("own", x, torch.arange(23), 23).resized(size)
    down, across = triangle(shape[1], size), triangle(shape[2], size)
    expected = np.einsum("ih,nchw,jw->ncij", down, x.double().numpy(), across)
    assert data.x.dtype == torch.float32 and data.y.tolist() == list(range(23)) and data.name == "own"
    np.testing.assert_allclose(data.x.numpy(), expected, rtol=0, atol=1e-5)
    assert 0 <= data.x.min() and data.x.max() <= 1


def test_resized_refuses_sizes_and_images_that_cannot_be():
    data = load("digits")
    for size in (0, -3, 8.0, True, "8", (8, 8)):
        with pytest.raises(ValueError, match="size: expected an integer above 0"):
            data.resized(size)
    assert data.limit(0).resized(32).x.shape == (0, 1, 32, 32)
    nothing = Dataset("own", torch.zeros(2, 1, 0, 4), torch.zeros(2, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match=r"own: x: expected images with pixels, got shape \[2, 1, 0, 4\]"):
        nothing.resized(32)


def test_rgb_repeats_grey_and_leaves_rgb():
    data = load("digits")
    colours = data.rgb()
    assert colours.x.shape == (599, 3, 8, 8) and all(colours.x[:, c].equal(data.x[:, 0]) for c in range(3))
    assert colours.rgb() is colours
    four = Dataset("own", torch.zeros(2, 4, 3, 3), torch.zeros(2, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match="own: x: expected 1 or 3 channels, got 4"):
        four.rgb()


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
