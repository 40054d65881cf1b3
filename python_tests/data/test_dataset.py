"""`Dataset`: what it accepts, and the data sets made from one."""

import numpy as np
import pytest
import torch

from robustperf.data import Dataset, load


def test_limit_returns_the_first_points_without_a_copy():
    data = load("digits")
    few = data.limit(5)
    assert len(few) == 5 and few.classes == 10 and few.name == "digits"
    assert few.x.data_ptr() == data.x.data_ptr()
    assert len(data.limit(0)) == 0
    assert len(data.limit(10**6)) == len(data)
    with pytest.raises(ValueError, match="n: expected an integer >= 0, got -1"):
        data.limit(-1)


def test_rows_is_a_copy_in_the_order_of_the_index():
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
        (torch.tensor([599]), ValueError, r"indices in 0\.\.598, got 599 to 599"),
        (torch.tensor([0, -1]), ValueError, "got -1 to 0"),
        (torch.ones(598, dtype=torch.bool), ValueError, r"\[599\], got \[598\]"),
        (torch.zeros(1, 1, dtype=torch.int64), ValueError, r"shape \[M\], got \[1, 1\]"),
        (torch.tensor([0.0]), TypeError, "float32"),
        (torch.tensor([0], dtype=torch.int32), TypeError, "int32"),
        ([0], TypeError, "tensor, got list"),
    ],
)
def test_rows_refuses_wrong_indices(index, error, match):
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


def test_resized_refuses_wrong_sizes_and_empty_images():
    data = load("digits")
    for size in (0, -3, 8.0, True, "8", (8, 8)):
        with pytest.raises(ValueError, match="size: expected an integer above 0"):
            data.resized(size)
    assert data.limit(0).resized(32).x.shape == (0, 1, 32, 32)
    nothing = Dataset("own", torch.zeros(2, 1, 0, 4), torch.zeros(2, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match=r"own: x: expected images with pixels, got shape \[2, 1, 0, 4\]"):
        nothing.resized(32)


def test_rgb_repeats_grey_and_keeps_rgb():
    data = load("digits")
    colours = data.rgb()
    assert colours.x.shape == (599, 3, 8, 8) and all(colours.x[:, c].equal(data.x[:, 0]) for c in range(3))
    assert colours.rgb() is colours
    four = Dataset("own", torch.zeros(2, 4, 3, 3), torch.zeros(2, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match="own: x: expected 1 or 3 channels, got 4"):
        four.rgb()


def test_wrong_dtypes_and_shapes_are_refused():
    x, y = torch.zeros(2, 1, 3, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(TypeError, match="x: expected torch.float32, got torch.float64"):
        Dataset("own", x.double(), y, 1)
    with pytest.raises(TypeError, match="y: expected torch.int64"):
        Dataset("own", x, y.int(), 1)
    with pytest.raises(ValueError, match=r"x: expected the shape \[N, C, H, W\], got \[2, 3, 3\]"):
        Dataset("own", x[:, 0], y, 1)


def toy(name: str, n: int, shape=(1, 4, 4), classes: int = 3, names=()) -> Dataset:
    """A data set of constant images, whose value is the code of the name."""
    x = torch.full((n, *shape), ord(name[0]) / 255)
    return Dataset(name, x, torch.arange(n) % classes, classes, names)


def test_concatenate_appends_one_data_set_to_the_other():
    a, b = toy("a", 4), toy("b", 2)
    whole = Dataset.concatenate([a, b, a.limit(1)])
    assert whole.name == "a + b" and whole.classes == 3 and whole.class_names == ("0", "1", "2")
    assert whole.x.equal(torch.cat([a.x, b.x, a.x[:1]])) and whole.y.tolist() == [0, 1, 2, 0, 0, 1, 0]
    whole.x.zero_()
    assert a.x.min() > 0  # a copy
    assert Dataset.concatenate((a,), name="c").name == "c" and Dataset.concatenate([a]) == a
    assert len(Dataset.concatenate([a.limit(0), b.limit(0)])) == 0


@pytest.mark.parametrize(
    ("datasets", "error", "match"),
    [
        ([], ValueError, "at least one data set, got none"),
        (toy("a", 2), TypeError, "a list of data sets, got Dataset"),
        ([toy("a", 2), (1, 2)], TypeError, "data sets in memory, got tuple"),
        (
            [toy("a", 2), toy("b", 2, (3, 4, 4))],
            ValueError,
            r"one shape .*Dataset\.resized.*Dataset\.rgb.*\[1, 4, 4\] in a and \[3, 4, 4\] in b",
        ),
        ([toy("a", 2), toy("b", 2, (1, 5, 4))], ValueError, r"one shape .*\[1, 4, 4\] in a and \[1, 5, 4\] in b"),
        ([toy("a", 2), toy("b", 2, classes=2)], ValueError, r"3 in a \(0, 1, 2\) and 2 in b \(0, 1\)"),
        (
            [toy("a", 2), toy("b", 2), toy("c", 2, names=("x", "y", "z"))],
            ValueError,
            r"same classes, got 3 in a \(0, 1, 2\) and 3 in c \(x, y, z\)",
        ),
    ],
)
def test_concatenate_refuses_what_does_not_fit(datasets, error, match):
    with pytest.raises(error, match=f"datasets: expected .*{match}"):
        Dataset.concatenate(datasets)


def test_concatenate_refuses_different_classes_of_one_data_set():
    data = load("digits")
    with pytest.raises(ValueError, match=r"same classes, got 2 in digits \(0, 1\) and 2 in digits \(8, 9\)"):
        Dataset.concatenate([data.select_classes([0, 1]), data.select_classes([8, 9])])
