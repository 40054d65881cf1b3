"""`ImageFolder`: labels, order, resizing against torch's interpolation, workers, and damaged images."""

import os
import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader

from robustperf.data import Dataset, ImageFolder, load
from robustperf.data.image_files import read_image


def noise(width: int, height: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, pixels: np.ndarray, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **kwargs)
    return path


@pytest.fixture
def folder(tmp_path):
    """Three classes in train, two of them in val."""
    root = tmp_path / "signs"
    for number, name in enumerate(("stop/b.png", "stop/a.PNG", "go/1.jpeg", "wait/x.bmp", "wait/y.ppm", "wait/z.webp")):
        save(root / "train" / name, noise(40, 30, number))
    for name in ("wait/1.png", "stop/2.png"):
        save(root / "val" / name, noise(30, 40))
    return root


def test_labels_are_indices_into_the_classes_of_train(folder):
    train = load(folder, "train", size=16)
    assert isinstance(train, ImageFolder) and train.name == "signs"
    assert train.class_names == ["go", "stop", "wait"] and train.classes == 3
    assert len(train) == 6 and train.y.tolist() == [0, 1, 1, 2, 2, 2] and train.y.dtype == torch.int64
    assert [label for _, label in train] == train.y.tolist()
    test = load(folder)
    assert test.y.tolist() == [1, 2] and test.classes == 3 and test[0][0].shape == (3, 224, 224)
    first = ImageFolder(folder, "train", 22)[1][0]  # a.PNG comes before b.png
    assert first.equal(ImageFolder(folder, "train", 22).limit(2)[1][0])


def test_the_test_split_is_its_own_folder_or_val(folder):
    save(folder / "test/go/only.png", noise(9, 9))
    assert len(ImageFolder(folder, "test")) == 1 and len(ImageFolder(folder, "val")) == 2


@pytest.mark.parametrize("shape", [(64, 64), (100, 60), (61, 97), (20, 33), (37, 20)])
@pytest.mark.parametrize("size", [28, 31, 56])
def test_the_short_side_is_resized_and_the_centre_cropped(tmp_path, shape, size):
    pixels = noise(*shape)
    save(tmp_path / "own/val/a/1.png", pixels)
    image, label = ImageFolder(tmp_path / "own", "val", size)[0]
    assert image.dtype == torch.float32 and image.shape == (3, size, size) and image.is_contiguous()
    assert type(label) is int and label == 0
    short = round(size * 256 / 224)
    width, height = (short * side // min(shape) for side in shape)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    x = functional.interpolate(x, (height, width), mode="bilinear", antialias=True)[0]
    top, left = round((height - size) / 2), round((width - size) / 2)
    torch.testing.assert_close(image, x[:, top : top + size, left : left + size], rtol=0, atol=1.01 / 255)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("L", (90, 90, 90)),
        ("1", (255, 255, 255)),
        ("RGBA", (51, 102, 153)),
        ("LA", (90, 90, 90)),
        ("P", (51, 102, 153)),
        ("CMYK", (51, 102, 153)),
    ],
)
def test_other_modes_become_rgb(tmp_path, mode, expected):
    image = Image.new(
        "RGB" if mode in ("RGBA", "P", "CMYK") else mode,
        (8, 8),
        {"L": 90, "1": 1, "LA": (90, 0)}.get(mode, (51, 102, 153)),
    ).convert(mode)
    path = tmp_path / f"own/val/a/1.{'jpg' if mode == 'CMYK' else 'png'}"
    path.parent.mkdir(parents=True)
    image.save(path, **({"quality": 100} if mode == "CMYK" else {}))
    found = ImageFolder(tmp_path / "own", "val", 7)[0][0] * 255
    torch.testing.assert_close(
        found,
        torch.tensor(expected).view(3, 1, 1).expand(3, 7, 7).float(),
        rtol=0,
        atol=3.0 if mode == "CMYK" else 1e-4,
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_gives_the_batches_in_order(folder, workers):
    data = ImageFolder(folder, "train", 16)
    batches = list(DataLoader(data, batch_size=4, num_workers=workers))
    assert [len(y) for _, y in batches] == [4, 2]
    assert torch.cat([y for _, y in batches]).equal(data.y)
    assert torch.cat([x for x, _ in batches]).equal(torch.stack([data[row][0] for row in range(6)]))


def test_read_returns_a_data_set_and_limit_the_first_images(folder):
    data = ImageFolder(folder, "train", 16)
    few = data.limit(3)
    assert len(few) == 3 and len(data) == 6 and few.y.tolist() == [0, 1, 1] and few.classes == 3
    assert len(data.limit(99)) == 6 and len(data.limit(0)) == 0
    whole = few.read()
    assert isinstance(whole, Dataset) and whole.name == "signs" and whole.classes == 3
    assert whole.y.equal(few.y) and all(whole.x[row].equal(few[row][0]) for row in range(3))
    with pytest.raises(ValueError, match="n: expected an integer >= 0, got -1"):
        data.limit(-1)
    for row in (-1, 6):
        with pytest.raises(IndexError, match=rf"index: expected one in 0\.\.5, got {row}"):
            data[row]


def test_repr_is_one_line_and_equality_is_by_value(folder):
    data = ImageFolder(folder, "train", 16)
    assert repr(data) == "ImageFolder(signs, n=6, shape=(3, 16, 16), classes=3)"
    assert "<td>signs</td>" in data._repr_html_()
    assert pickle.loads(pickle.dumps(data)) == data == ImageFolder(folder, "train", 16) != data.limit(3)


def test_wrong_arguments_and_folders(folder, tmp_path):
    with pytest.raises(ValueError, match="split: expected one of train, val, test, got 'valid'"):
        ImageFolder(folder, "valid")
    with pytest.raises(ValueError, match="size: expected an integer above 0, got 0"):
        ImageFolder(folder, "val", 0)
    with pytest.raises(FileNotFoundError, match="nothing: expected a folder train that holds a folder of images"):
        ImageFolder(tmp_path / "nothing")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(FileNotFoundError, match="nothing: expected a folder test or val that holds"):
        ImageFolder(tmp_path / "nothing", "test")
    with pytest.raises(ValueError, match="domain: expected None for a folder of images.*'brightness:-40'"):
        load(folder, "train", domain="brightness:-40")
    (tmp_path / "empty/train/a").mkdir(parents=True)
    with pytest.raises(ValueError, match="expected a folder of images for each class, found no image"):
        load(tmp_path / "empty", "train")
    save(folder / "val/turn/1.png", noise(9, 9))
    with pytest.raises(ValueError, match=r"val/turn: expected one of the 3 classes of .*train"):
        ImageFolder(folder, "val")


def png(width: int, height: int) -> bytes:
    """The beginning of a PNG that promises so many pixels."""
    chunks = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b""))):
        chunks += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return chunks


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("width", [10_000, 60_000])  # above Pillow's limit, and above twice it
def test_a_decompression_bomb_is_refused(tmp_path, width):
    path = save(tmp_path / "own/val/a/1.png", noise(9, 9))
    path.write_bytes(png(width, 10_000))
    with pytest.raises(ValueError, match=r"a/1\.png: not a valid image: .*(pixels|bomb)"):
        ImageFolder(tmp_path / "own", "val")[0]


def test_a_narrow_image_that_would_grow_beyond_the_limit_is_refused(tmp_path):
    save(tmp_path / "own/val/a/1.png", noise(60_000, 1))
    with pytest.raises(ValueError, match=r"1\.png: resized: expected at most [\d,]+ pixels, got 15,360,000 x 256"):
        ImageFolder(tmp_path / "own", "val")[0]


def test_damaged_images_are_refused_by_name(tmp_path):
    path = save(tmp_path / "own/val/a/1.png", noise(20, 20))
    data, whole = ImageFolder(tmp_path / "own", "val", 16), path.read_bytes()
    for content in (
        b"",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"GIF89a" + bytes(30),
        whole[:40],
        whole[: len(whole) // 2],
        whole[:60] + bytes(30) + whole[90:],
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a/1\.png: not a valid image"):
            data[0]
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(path)
    with pytest.raises(ValueError, match=r"1\.png: not a valid image: mode: expected 8 bits a channel, found I;16"):
        data[0]
    path.unlink()
    with pytest.raises(FileNotFoundError):
        data[0]


def test_hidden_files_of_other_systems_are_left_out(folder):
    apple = b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(66)
    for name in ("stop/._a.PNG", "stop/.DS_Store", "._x.jpg"):
        (folder / "train" / name).write_bytes(apple)
    save(folder / "train/@eaDir/thumbnail.jpg", noise(9, 9))  # a NAS's
    (folder / "train/empty").mkdir()
    save(folder / "train/go/deep/1.png", noise(9, 9))
    Image.new("L", (9, 9)).save(folder / "train/go/a.tif")
    (folder / "train/list.csv").write_text("")
    os.mkfifo(folder / "train/go/fifo.png")
    with pytest.warns(
        UserWarning,
        match=r"train: read 6 images; left out: .*hidden files and folders \(4, such as "
        r".*files of other formats \(1, such as go/a.tif\)",
    ) as told:
        data = ImageFolder(folder, "train", 16)
    assert len(told) == 1
    assert data.class_names == ["go", "stop", "wait"] and data.y.tolist() == [0, 1, 1, 2, 2, 2]
    assert data.read().x.shape == (6, 3, 16, 16)
    assert data.left_out == {
        "hidden files and folders": 4,
        "files beside the class folders": 1,
        "folders within a class": 1,
        "files of other formats": 1,
        "folders without images": 1,
        "links to nothing, FIFOs, sockets or devices": 1,
    }
    assert data.limit(2).left_out == data.left_out
    with pytest.warns(UserWarning, match="such as empty"):
        load(folder, "train", size=16)


def test_no_warning_if_nothing_is_left_out(folder, recwarn):
    save(folder / "test/go/1.png", noise(9, 9))
    (folder / "train/empty").mkdir()  # no class of train either
    data = ImageFolder(folder, "test", 16)
    assert data.left_out == {} and data.class_names == ["go", "stop", "wait"] and not recwarn.list


def test_a_class_without_training_images_is_refused(folder):
    (folder / "train/late").mkdir()
    save(folder / "val/late/1.png", noise(9, 9))
    with pytest.raises(ValueError, match="val/late: expected one of the 3 classes of .*train"):
        ImageFolder(folder, "val", 16)


def sixteen_bits(colour: int, channels: int) -> bytes:
    """A PNG of 4 x 4 pixels, each channel 1000/65535."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress((b"\0" + struct.pack(">H", 1000) * channels * 4) * 4)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.mark.parametrize(
    "content",
    [
        sixteen_bits(0, 1),
        sixteen_bits(2, 3),
        sixteen_bits(4, 2),
        sixteen_bits(6, 4),
        b"P6 2 2 65535\n" + bytes(24),
        b"P6 2 2 1000\n" + bytes(24),
        b"P3 1 1 256 0 1 2\n",
        b"P5 2 2 65535\n" + bytes(8),
    ],
    ids=["grey", "rgb", "grey-alpha", "rgba", "ppm", "ppm-1000", "plain-ppm", "pgm"],
)
def test_more_than_8_bits_per_channel_are_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match="a.png: not a valid image: mode: expected 8 bits a channel, found"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"P6 1 1 255\n\x33\x66\x99", b"P6 1 1 5\n\1\2\3", b"P3 1 1 5 1 2 3\n"])
def test_8_bits_or_fewer_are_read(tmp_path, content):
    (tmp_path / "a.ppm").write_bytes(content)
    assert read_image(tmp_path / "a.ppm").getpixel((0, 0)) == (51, 102, 153)
