"""GTSRB's official folders: small ones in the real format, and damaged ones."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from robustperf.data import load
from robustperf.data.gtsrb import read_gtsrb

COLUMNS = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"


def picture(width: int, height: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_list(path, rows) -> None:
    path.write_text("\r\n".join([COLUMNS, *(";".join(map(str, row)) for row in rows), ""]))


@pytest.fixture
def root(tmp_path):
    """Classes 0 and 14 in train, three images in test."""
    for label, sizes in ((0, [(29, 30), (50, 41)]), (14, [(33, 70)])):
        folder = tmp_path / f"gtsrb/Final_Training/Images/{label:05}"
        folder.mkdir(parents=True)
        rows = []
        for number, (width, height) in enumerate(sizes):
            name = f"00000_{number:05}.ppm"
            Image.fromarray(picture(width, height, label + number)).save(folder / name)
            rows.append((name, width, height, 5, 6, width - 5, height - 5, label))
        write_list(folder / f"GT-{label:05}.csv", rows)
    folder = tmp_path / "gtsrb/Final_Test/Images"
    folder.mkdir(parents=True)
    rows = []
    for number in range(3):
        Image.fromarray(picture(40, 40, 50 + number)).save(folder / f"{number:05}.ppm")
        rows.append((f"{number:05}.ppm", 40, 40, 4, 4, 36, 36, (42, 7, 7)[number]))
    write_list(folder / "GT-final_test.csv", rows)
    return tmp_path


def test_images_are_cropped_only_on_request(root):
    # 32 x 32 of 40 x 40 need no resizing
    whole, cropped = load("gtsrb", "test", root, size=40), load("gtsrb-cropped", "test", root)
    assert whole.name == "gtsrb" and whole.classes == 43 and whole.x.shape == (3, 3, 40, 40)
    assert cropped.name == "gtsrb-cropped" and cropped.classes == 43 and cropped.x.shape == (3, 3, 32, 32)
    assert whole.y.tolist() == cropped.y.tolist() == [42, 7, 7]
    for row in range(3):
        expected = np.moveaxis(picture(40, 40, 50 + row), 2, 0).astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(whole.x[row].numpy(), expected)
        np.testing.assert_array_equal(cropped.x[row].numpy(), expected[:, 4:36, 4:36])


@pytest.mark.parametrize("name", ["gtsrb", "gtsrb-cropped"])
@pytest.mark.parametrize("size", [None, 16, 64])
def test_images_are_resized_in_the_order_of_the_lists(root, name, size):
    data = load(name, "train", root, size=size)
    side = size or 32
    assert data.y.tolist() == [0, 0, 14] and data.x.shape == (3, 3, side, side)
    for row, (width, height, seed) in enumerate(((29, 30, 0), (50, 41, 1), (33, 70, 14))):
        pixels = picture(width, height, seed)
        region = Image.fromarray(pixels[6 : height - 5, 5 : width - 5] if name == "gtsrb-cropped" else pixels)
        expected = np.asarray(region.resize((side, side), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal((data.x[row] * 255).round().numpy(), np.moveaxis(expected, 2, 0))


def test_the_thresholds_are_those_of_whole_images(root):
    """A frame of another brightness decides (R Table 10; R only resizes)."""
    pixels = np.full((40, 40, 3), 20, np.uint8)
    pixels[4:36, 4:36] = 45
    for number in range(3):
        Image.fromarray(pixels).save(root / f"gtsrb/Final_Test/Images/{number:05}.ppm")
    assert len(load("gtsrb", "test", root, domain="brightness:low")) == 3  # a mean of 36
    with pytest.raises(ValueError, match="domain: .*gtsrb-cropped has no thresholds of its own"):
        load("gtsrb-cropped", "test", root, domain="brightness:low")
    with pytest.raises(ValueError, match="domain: expected images of gtsrb-cropped with brightness:-40, got none"):
        load("gtsrb-cropped", "test", root, domain="brightness:-40")


def test_the_npz_files_are_preferred_unless_a_size_is_given(root):
    (root / "gtsrb32").mkdir()
    np.savez(root / "gtsrb32/test.npz", images=np.zeros((5, 32, 32, 3), np.uint8), labels=np.zeros(5, int))
    assert len(load("gtsrb", "test", root)) == 5
    assert len(load("gtsrb", "test", root, size=32)) == len(load("gtsrb-cropped", "test", root)) == 3
    assert len(load("gtsrb", "train", root)) == 3  # no npz of this split
    with pytest.raises(ValueError, match="size: expected an integer above 0, got 0"):
        load("gtsrb", "test", root, size=0)


def test_the_test_list_may_be_beside_its_folder(root):
    path = root / "gtsrb/Final_Test/Images/GT-final_test.csv"
    path.rename(root / "gtsrb/GT-final_test.csv")
    assert load("gtsrb", "test", root).y.tolist() == [42, 7, 7]


def test_missing_files_are_named(root):
    with pytest.raises(FileNotFoundError, match=r"gtsrb32/train\.npz; put it there.*Final_Training/Images/00000"):
        load("gtsrb", "train", root / "nothing")
    with pytest.raises(FileNotFoundError, match="gtsrb/Final_Training/Images"):
        load("gtsrb", "train", root / "nothing", size=64)
    (root / "gtsrb/Final_Test/Images/00001.ppm").unlink()
    with pytest.raises(FileNotFoundError, match=r"00001\.ppm"):
        load("gtsrb", "test", root)
    (root / "gtsrb/Final_Training/Images/00014/GT-00014.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"GT-00014\.csv"):
        load("gtsrb", "train", root)
    (root / "empty").mkdir()
    with pytest.raises(ValueError, match="expected folders 00000 to 00042, found none"):
        read_gtsrb(root / "empty")


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ("00000.ppm;40;40;4;4;36;36", "line 2: expected a .ppm file's name and 7 numbers, found '00000.ppm;40"),
        ("00000.ppm;40;40;4;4;36;36;-1", "line 2"),
        ("00000.ppm;40;40;4;4;36;x;1", "line 2"),
        ("../../x.ppm;40;40;4;4;36;36;1", "line 2"),
        ("/etc/hostname;40;40;4;4;36;36;1", "line 2"),
        ("00000.ppm;40;40;4;4;36;" + "9" * 5000 + ";1", "line 2"),
        ("00000.ppm;41;40;4;4;36;36;1", r"00000\.ppm: expected 41 x 40 pixels, found 40 x 40"),
        ("00000.ppm;40;40;4;4;41;36;1", r"box within 40 x 40 pixels, got \(4, 4, 41, 36\)"),
        ("00000.ppm;40;40;9;4;9;36;1", "box within"),
        ("00000.ppm;40;40;4;4;36;36;43", r"labels in 0\.\.42, got 43"),
    ],
)
def test_wrong_rows_are_refused(root, row, match):
    path = root / "gtsrb/Final_Test/Images/GT-final_test.csv"
    path.write_text(f"{COLUMNS}\n{row}\n")
    with pytest.raises(ValueError, match=match):
        load("gtsrb-cropped" if "box" in match else "gtsrb", "test", root)


@pytest.mark.parametrize("content", [b"", b"Filename;Width;Height\n", b"\xff\xfe\x00;", b"\0" * 50])
def test_a_list_with_wrong_columns_is_refused(root, content):
    path = root / "gtsrb/Final_Test/Images/GT-final_test.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"GT-final_test\.csv: (not a list|expected the columns)"):
        load("gtsrb", "test", root)


def test_a_class_that_contradicts_its_folder_and_a_damaged_image_are_refused(root):
    path = root / "gtsrb/Final_Training/Images/00014/GT-00014.csv"
    good = path.read_text()
    path.write_text(good.replace(";14\n", ";13\n").replace(";14\r", ";13\r"))
    with pytest.raises(ValueError, match=r"GT-00014\.csv: 00000_00000\.ppm: expected ClassId 14, got 13"):
        load("gtsrb", "train", root)
    path.write_text(good)
    image = path.with_name("00000_00000.ppm")
    image.write_bytes(image.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"00000_00000\.ppm: not a valid image"):
        load("gtsrb", "train", root)


def test_a_list_of_empty_rows_needs_little_memory(root):
    path = root / "gtsrb/Final_Test/Images/GT-final_test.csv"
    path.write_text(COLUMNS + "\n" + ";\n" * 500_000)
    tracemalloc.start()
    with pytest.raises(ValueError, match="line 2: expected a .ppm file's name and 7 numbers, found ';'"):
        read_gtsrb(path.parent)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
