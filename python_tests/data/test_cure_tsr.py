"""CURE-TSR's folders: small ones with the real names, and malformed names."""

import numpy as np
import pytest
from PIL import Image

from robustperf.data import load
from robustperf.data.cure_tsr import CHALLENGES, folder_of, read_cure_tsr


@pytest.fixture
def root(tmp_path):
    """Two splits, without a challenge and under two of them; each image is of one grey: its sign type times ten."""
    for split in ("Train", "Test"):
        for folder, challenge, level in (("ChallengeFree", 0, 0), ("Snow-3", 11, 3), ("DirtyLens-1", 5, 1)):
            path = tmp_path / f"cure-tsr/Real_{split}/{folder}"
            path.mkdir(parents=True)
            for sign in (14, 1, 3) if split == "Train" else (2, 9):
                image = Image.new("RGB", (20 + sign, 30), (10 * sign, challenge, level))
                image.save(path / f"01_{sign:02}_{challenge:02}_{level:02}_0007.bmp")
    return tmp_path


@pytest.mark.parametrize(
    ("domain", "pixel"),
    [(None, (0, 0)), ("snow:0", (0, 0)), ("rain:0", (0, 0)), ("snow:3", (11, 3)), ("dirty-lens:1", (5, 1))],
)
def test_a_domain_is_a_folder(root, domain, pixel):
    for split, signs in (("train", [1, 3, 14]), ("test", [2, 9])):
        data = load("cure-tsr", split, root, domain=domain)
        assert data.name == ("cure-tsr" if domain is None else f"cure-tsr {domain}")
        assert data.classes == 14 and data.y.tolist() == [sign - 1 for sign in signs]
        assert data.x.shape == (len(signs), 3, 32, 32)
        expected = [(10 * sign, *pixel) for sign in signs]
        np.testing.assert_array_equal((data.x * 255).round()[:, :, 5, 9].numpy(), expected)
    assert load("cure-tsr", "test", root, size=28).x.shape == (2, 3, 28, 28)


def test_measures_use_the_images_without_a_challenge(root):
    data = load("cure-tsr", "train", root, domain="brightness:5-20")
    assert data.y.tolist() == [2] and data.name == "cure-tsr brightness:5-20"  # 30/3


@pytest.mark.parametrize(
    ("domain", "red", "levels"),
    [
        ("snow:3 | dirty-lens:1", [10, 30, 140, 10, 30, 140], [3, 3, 3, 1, 1, 1]),
        ("snow:3|snow:3", [10, 30, 140], [3, 3, 3]),
        ("snow:0 | rain:0", [10, 30, 140], [0, 0, 0]),
        ("snow:3 & brightness:10-20", [30], [3]),  # (30 + 11 + 3)/3
        ("snow:3 & brightness:20- | dirty-lens:1 & contrast:-20 & brightness:-6", [140, 10], [3, 1]),
        ("snow:3 & brightness:200- | dirty-lens:1", [10, 30, 140], [1, 1, 1]),  # one of them may be empty
        ("brightness:5-20 | snow:3", [30, 10, 30, 140], [0, 3, 3, 3]),
    ],
)
def test_unions_of_challenges_and_their_intersections_with_measures(root, domain, red, levels):
    data = load("cure-tsr", "train", root, domain=domain)
    pixels = (data.x[:, :, 5, 9] * 255).round().int()
    assert pixels[:, 0].tolist() == red and pixels[:, 2].tolist() == levels
    assert data.name == f"cure-tsr {domain}" and data.y.tolist() == [value // 10 - 1 for value in red]


def test_wrong_unions_and_intersections_of_challenges(root):
    for domain, match in (
        ("snow:3 & dirty-lens:1", "one challenge, for no image is under two, got snow:3 & dirty-lens:1"),
        ("snow:3 | fog:1", "a challenge and its level.*got 'fog:1'"),
        ("snow:3 |", "a domain on both sides"),
        (
            "snow:3 & brightness:200-",
            "images of cure-tsr with snow:3 & brightness:200-, got none: its .*brightness",
        ),
        ("snow:3 & brightness:low", "brightness: and bounds"),
    ):
        with pytest.raises(ValueError, match=f"domain: expected .*{match}"):
            load("cure-tsr", "test", root, domain=domain)


def test_each_challenge_has_the_folder_of_its_name():
    assert {folder_of(f"{challenge}:2") for challenge in CHALLENGES} == {
        "Decolorization-2",
        "LensBlur-2",
        "CodecError-2",
        "Darkening-2",
        "DirtyLens-2",
        "Exposure-2",
        "GaussianBlur-2",
        "Noise-2",
        "Rain-2",
        "Shadow-2",
        "Snow-2",
        "Haze-2",
    }
    assert list(CHALLENGES.values()) == list(range(1, 13))


def test_an_unknown_domain_and_a_missing_folder(root):
    for domain in ("snow", "snow:6", "snow:", "fog:1", "Snow:1", "snow:01", "snow:-1", ""):
        with pytest.raises(ValueError, match=r"domain: expected .*decolorization, lens-blur.*0 to 5, got"):
            load("cure-tsr", "test", root, domain=domain)
    with pytest.raises(FileNotFoundError, match="cure-tsr/Real_Test/Rain-5; put it there.*ChallengeFree"):
        load("cure-tsr", "test", root, domain="rain:5")


@pytest.mark.parametrize(
    "name",
    [
        "01_01_11_04_0001.bmp",
        "01_01_10_03_0001.bmp",
        "01_15_11_03_0001.bmp",
        "01_00_11_03_0001.bmp",
        "03_01_11_03_0001.bmp",
        "01_01_11_03_01.bmp",
        "sign.bmp",
    ],
)
def test_malformed_file_names_are_refused(root, name):
    Image.new("RGB", (9, 9)).save(root / "cure-tsr/Real_Test/Snow-3" / name)
    with pytest.raises(ValueError, match=rf"{name}: expected a name such as 01_01_11_03_0001\.bmp"):
        load("cure-tsr", "test", root, domain="snow:3")


def test_damaged_images_and_folders_without_images(root):
    folder = root / "cure-tsr/Real_Test/Snow-3"
    path = folder / "01_02_11_03_0007.bmp"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"01_02_11_03_0007\.bmp: not a valid image"):
        load("cure-tsr", "test", root, domain="snow:3")
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"Snow-3: expected \.bmp images, found none"):
        load("cure-tsr", "test", root, domain="snow:3")
    with pytest.raises(ValueError, match="folder: expected ChallengeFree, or a challenge"):
        read_cure_tsr(root)


def test_hidden_files_of_macos_are_ignored(root):
    (root / "cure-tsr/Real_Test/ChallengeFree/._01_02_00_00_0007.bmp").write_bytes(b"Mac OS X")
    assert load("cure-tsr", "test", root).y.tolist() == [1, 8]
