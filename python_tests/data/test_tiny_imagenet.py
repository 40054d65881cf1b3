"""Tiny ImageNet's class folders: whole images, the names of classes, damage; and the real files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustperf.data import Dataset, ImageFolder, load

CLASSES = ("n01443537", "n01629819", "n02666196")


@pytest.fixture
def root(tmp_path):
    """Images of the real size in the real folders; those of the test split leave one class out."""
    generator = np.random.default_rng(0)
    for split, classes in (("train", CLASSES), ("test", CLASSES[::2])):
        for number, name in enumerate(classes):
            path = tmp_path / f"tiny-imagenet/{split}/{name}/{split}_{number}.JPEG"
            path.parent.mkdir(parents=True)
            Image.fromarray(generator.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    return tmp_path


def pixels(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path), np.float32)).permute(2, 0, 1) / 255


def test_images_are_whole_and_labels_those_of_the_training_folders(root):
    train, test = load("tiny-imagenet", "train", root), load("tiny-imagenet", "test", root)
    assert isinstance(train, Dataset) and train.name == test.name == "tiny-imagenet"
    assert train.class_names == test.class_names == CLASSES and train.classes == 3
    assert train.y.tolist() == [0, 1, 2] and test.y.tolist() == [0, 2]
    for row, name in enumerate(CLASSES):
        assert train.x[row].equal(pixels(root / f"tiny-imagenet/train/{name}/train_{row}.JPEG"))
    assert test.select_classes([CLASSES[2]]).x[0].equal(test.x[1])


def test_a_size_and_a_domain(root):
    assert load("tiny-imagenet", "train", root, size=32).x.shape == (3, 3, 32, 32)
    assert len(load("tiny-imagenet", "train", root, domain="brightness:100-150 & contrast:200-")) == 3
    with pytest.raises(ValueError, match="size: expected an integer above 0, got 0"):
        load("tiny-imagenet", "train", root, size=0)


def test_missing_and_damaged_files(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tiny-imagenet/train; put it there.*official .*val/images"):
        load("tiny-imagenet", "train", tmp_path / "none")
    path = root / f"tiny-imagenet/train/{CLASSES[1]}/train_1.JPEG"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"n01629819/train_1\.JPEG: not a valid image"):
        load("tiny-imagenet", "train", root)


def test_the_official_form_is_refused_with_what_was_left_out(root):
    for name in CLASSES:
        folder = root / "tiny-imagenet/train" / name
        (folder / "images").mkdir()
        for file in folder.glob("*.JPEG"):
            file.rename(folder / "images" / file.name)
    with pytest.raises(ValueError, match="found no image; left out: folders within a class"):
        load("tiny-imagenet", "train", root)


def test_resize_is_the_short_side_before_the_crop(tmp_path):
    image = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    path = tmp_path / "own/val/a/1.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(image).save(path)
    found = ImageFolder(tmp_path / "own", "val", 40, resize=40)[0][0]
    assert found.equal(torch.from_numpy(image[:, 10:50].astype(np.float32)).permute(2, 0, 1) / 255)
    assert ImageFolder(tmp_path / "own", "val", 224).resize == 256
    with pytest.raises(ValueError, match="resize: expected an integer >= 40, got 39"):
        ImageFolder(tmp_path / "own", "val", 40, resize=39)


def test_the_real_classes_are_in_the_order_of_their_list(data_root):
    folder = Path(data_root) / "tiny-imagenet"
    listed = [line.split("\t")[0] for line in (folder / "classes.txt").read_text().splitlines()]
    for split, n in (("train", 90), ("test", 50)):
        data = ImageFolder(folder, split, 64, resize=64)
        assert data.class_names == listed and data.y.tolist() == [label for label in range(60) for _ in range(n)]
    few = data.select_classes([59, 0]).limit(51).read()
    assert few.class_names == (listed[59], listed[0]) and few.y.tolist() == [1] * 50 + [0]
    file = sorted((folder / "test" / listed[59]).iterdir())[0]
    torch.testing.assert_close(few.x[50], pixels(file), rtol=0, atol=0)
