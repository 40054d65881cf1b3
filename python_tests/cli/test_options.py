"""Loading the images of the options, and their size."""

import numpy as np
import pytest
import torch
from PIL import Image

from robustperf.cli.options import load_data, plain, shape_of
from robustperf.data import load


@pytest.fixture
def root(tmp_path):
    """GTSRB as one black image of 32x32 pixels; `official` adds a white one of 50x50 in the official folders."""
    (tmp_path / "gtsrb32").mkdir()
    np.savez(tmp_path / "gtsrb32" / "test.npz", images=np.zeros((1, 32, 32, 3), np.uint8), labels=np.zeros(1, np.int64))
    return tmp_path


@pytest.fixture
def official(root):
    folder = root / "gtsrb" / "Final_Test" / "Images"
    folder.mkdir(parents=True)
    Image.fromarray(np.full((50, 50, 3), 255, np.uint8)).save(folder / "00000.ppm")
    (folder / "GT-final_test.csv").write_text(
        "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\r\n00000.ppm;50;50;5;5;45;45;3\r\n"
    )


@pytest.mark.parametrize("size", [None, 32, 64])
def test_one_size_on_disk(root, size):
    dataset = load_data("gtsrb", "test", root, size=size)
    assert shape_of(dataset) == (3, size or 32, size or 32) and dataset.x.max() == 0


@pytest.mark.parametrize("size, value", [(None, 0), (32, 0), (64, 1)])
def test_the_best_source_of_a_size(root, official, size, value):
    dataset = load_data("gtsrb", "test", root, size=size)
    assert shape_of(dataset) == (3, size or 32, size or 32) and dataset.x.unique().tolist() == [value]


def test_a_domain_is_measured_before_resizing():
    dataset = load_data("digits", "test", None, domain="contrast:-250", limit=5, size=4, rgb=True)
    whole = load("digits", domain="contrast:-250").limit(5)
    assert torch.equal(dataset.x, whole.resized(4).rgb().x) and torch.equal(dataset.y, whole.y)


def test_images_of_that_size_are_unchanged():
    dataset = load_data("digits", "test", None, size=8, limit=3)
    assert torch.equal(dataset.x, load("digits").x[:3])


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="cure-tsr"):
        load_data("cure-tsr", "test", tmp_path, size=64)
    with pytest.raises(ValueError, match="^name: expected one of digits"):
        load_data(str(tmp_path / "nowhere"), "test", None, size=64)


def test_plain_is_strict_json():
    assert plain({"a": [1.5, float("inf")], "b": (float("nan"), None)}) == {"a": [1.5, "inf"], "b": ["nan", None]}


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("0-1", "cat", "dog", "3")):  # names that look like labels come first
        path = tmp_path / f"own/train/{name}/{number}.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(path)
    return tmp_path / "own"


@pytest.mark.parametrize(
    ("text", "names"),
    [("cat,dog", ["cat", "dog"]), ("0-1", ["0-1"]), ("3, 0", ["3", "0-1"]), ("2-3", ["cat", "dog"]), ("1", ["3"])],
)
def test_classes_of_a_folder_are_names_or_labels(folder, text, names):
    data = load_data(str(folder), "train", None, classes=text)  # sorted: 0-1, 3, cat, dog
    assert data.class_names == names and data.y.tolist() == [names.index(name) for name in sorted(names)]


def test_classes_of_a_data_set_in_memory_are_taken_before_the_limit():
    data = load_data("digits", "test", None, classes="7,0-2", limit=9)
    whole = load("digits")
    assert data.name == "digits classes:7,0-2" and data.classes == 4 and data.class_names == ("7", "0", "1", "2")
    kept = [label for label in whole.y.tolist() if label in (0, 1, 2, 7)][:9]
    assert data.y.tolist() == [(7, 0, 1, 2).index(label) for label in kept]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("0-10", r"labels or ranges in 0\.\.9, got '0-10'"),
        ("5-3", r"labels or ranges in 0\.\.9, got '5-3'"),
        ("11", r"labels or ranges in 0\.\.9, got '11'"),
        ("0,", "names out of 0, 1, .*, got ''"),
        ("cat", "names out of 0, 1, .*, got 'cat'"),
        ("0-3,2", "each class once, got '2' twice"),
    ],
)
def test_wrong_classes(text, match):
    with pytest.raises(ValueError, match=f"classes: expected {match}"):
        load_data("digits", "test", None, classes=text)
