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
