"""`select_classes` of data sets in memory and of folders: labels, order, names, and wrong classes."""

import numpy as np
import pytest
import torch
from PIL import Image

from robustperf.data import Dataset, ImageFolder

NAMES = ["ant", "bee", "cat", "dog"]
LABELS = [0, 0, 1, 2, 3, 3, 3]  # of the folder's images, which are ordered by class


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Grey images: the n-th image has the value 10 n."""
    root = tmp_path_factory.mktemp("classes")
    for number, label in enumerate(LABELS):
        path = root / f"train/{NAMES[label]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 10 * number, np.uint8)).save(path)
    return ImageFolder(root, "train", 8, resize=8)


@pytest.fixture(params=["memory", "folder"])
def data(request, folder):
    return folder.read() if request.param == "memory" else folder


def values(data) -> list[int]:
    return [round(255 * float(data[row][0].mean())) for row in range(len(data))]


@pytest.mark.parametrize(
    ("classes", "greys", "labels", "names"),
    [
        ([3, 0], [0, 10, 40, 50, 60], [1, 1, 0, 0, 0], ["dog", "ant"]),
        (["dog", "ant"], [0, 10, 40, 50, 60], [1, 1, 0, 0, 0], ["dog", "ant"]),
        (range(1, 3), [20, 30], [0, 1], ["bee", "cat"]),
        ((np.int64(2),), [30], [0], ["cat"]),
        (torch.tensor([1]), [20], [0], ["bee"]),
    ],
)
def test_points_keep_their_order_and_labels_follow_the_list(data, classes, greys, labels, names):
    some = data.select_classes(classes)
    assert type(some) is type(data) and len(some) == len(greys) and some.classes == len(names)
    assert values(some) == greys and some.y.tolist() == labels and some.y.dtype == torch.int64
    assert list(some.class_names) == names
    assert [label for _, label in (some[row] for row in range(len(some)))] == labels
    assert data.y.tolist() == LABELS and list(data.class_names) == NAMES  # unchanged


def test_a_selection_of_a_selection_counts_in_the_first_ones_labels(data):
    some = data.select_classes(["dog", "cat", "ant"]).select_classes([2, 1])
    assert list(some.class_names) == ["ant", "cat"] and values(some) == [0, 10, 30] and some.y.tolist() == [0, 0, 1]


def test_a_class_without_points_keeps_its_label():
    data = Dataset("toy", torch.zeros(2, 1, 2, 2), torch.tensor([0, 2]), classes=3)
    assert data.class_names == ("0", "1", "2")
    some = data.select_classes(["1", "2"])
    assert some.y.tolist() == [1] and some.classes == 2 and some.class_names == ("1", "2")
    with pytest.raises(ValueError, match=r"classes: expected images of the classes \[1\], got none"):
        data.select_classes([1])


@pytest.mark.parametrize(
    ("classes", "error", "match"),
    [
        ([], ValueError, "at least one class, got none"),
        ([0, 4], ValueError, r"labels in 0\.\.3, got 4"),
        ([-1], ValueError, r"labels in 0\.\.3, got -1"),
        ([1, 1], ValueError, "each class once, got 1 twice"),
        ([1, "bee"], ValueError, "each class once, got 'bee' twice"),
        (["Dog"], ValueError, "names out of ant, bee, cat, dog, got 'Dog'; did you mean 'dog'"),
        ("dog", TypeError, "a list of labels or class names, got str"),
        (3, TypeError, "a list of labels or class names, got int"),
        ([1.0], TypeError, "labels or class names, got float"),
        ([True], TypeError, "labels or class names, got bool"),
        ([None], TypeError, "labels or class names, got NoneType"),
    ],
)
def test_wrong_classes(data, classes, error, match):
    with pytest.raises(error, match=f"classes: expected {match}"):
        data.select_classes(classes)


@pytest.mark.parametrize("names", [("a",), ("a", "a"), ("a", "b", "c")])
def test_a_name_for_each_class_or_none(names):
    with pytest.raises(ValueError, match="toy: class_names: expected 2 different names, got a"):
        Dataset("toy", torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]), 2, names)


def test_only_the_first_names_are_listed():
    data = Dataset("toy", torch.zeros(1, 1, 2, 2), torch.tensor([0]), 1000)
    with pytest.raises(ValueError, match=r"names out of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\. \(1,000\), got 'ant'"):
        data.select_classes(["ant"])


@pytest.mark.parametrize(
    ("classes", "text"), [([3, 0], "3,0"), (range(4), "0-3"), ([2, 3, 0, 1], "2-3,0-1"), ([3, 2], "3,2")]
)
def test_the_name_says_which_classes(data, classes, text):
    assert data.select_classes(classes).name == f"{data.name} classes:{text}"
