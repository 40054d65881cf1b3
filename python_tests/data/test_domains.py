"""Domains against plain loops over 8-bit pixels and R Table 10; every wrong name."""

import math

import numpy as np
import pytest
import torch

from robustperf.data import Dataset, brightness, contrast, domain, load
from robustperf.data.domains import THRESHOLDS, histogram


def dataset(pixels: np.ndarray, name: str) -> Dataset:
    """uint8 pixels [N, C, H, W] as they come out of a file; the labels are the rows' numbers."""
    x = torch.from_numpy(pixels.astype(np.float32)) / 255
    return Dataset(name, x, torch.arange(len(x)), len(x))


@pytest.fixture
def flat():
    """Images called gtsrb, of one grey each: 0..255."""
    pixels = np.repeat(np.arange(256, dtype=np.uint8), 3 * 4 * 4).reshape(256, 3, 4, 4)
    return dataset(pixels, "gtsrb")


@pytest.mark.parametrize("channels", [1, 3])
def test_both_measures_are_those_of_the_8_bit_pixels(monkeypatch, channels):
    monkeypatch.setattr("robustperf.data.domains._CHUNK", 7000)  # a few images at a time
    pixels = np.random.default_rng(0).integers(0, 256, (1500, channels, 4, 5), dtype=np.uint8)
    pixels[0], pixels[1] = 0, 255
    x = dataset(pixels, "own").x
    lists = pixels.reshape(1500, -1).tolist()
    assert brightness(x).dtype == contrast(x).dtype == torch.float64
    torch.testing.assert_close(brightness(x).tolist(), [sum(row) / len(row) for row in lists], rtol=1e-14, atol=0)
    assert contrast(x).tolist() == [max(row) - min(row) for row in lists]
    assert brightness(x[:0]).shape == contrast(x[:0]).shape == (0,)


@pytest.mark.parametrize("measure", [brightness, contrast])
@pytest.mark.parametrize(
    ("x", "error", "match"),
    [
        (torch.zeros(2, 4, 3, 3), ValueError, r"grey or RGB.*\[2, 4, 3, 3\]"),
        (torch.zeros(2, 1, 0, 3), ValueError, "grey or RGB images with pixels"),
        (torch.zeros(2, 3, 3), ValueError, r"\[N, C, H, W\], got \[2, 3, 3\]"),
        (torch.full((2, 1, 3, 3), math.nan), ValueError, "finite"),
        (torch.full((2, 1, 3, 3), 255.0), ValueError, r"within \[0, 1\]"),
        (torch.zeros(2, 1, 3, 3, dtype=torch.uint8), TypeError, "float32"),
    ],
)
def test_measures_refuse_anything_but_batches_of_images(measure, x, error, match):
    with pytest.raises(error, match=match):
        measure(x)


def test_the_thresholds_are_those_of_table_10():
    inf = math.inf
    assert THRESHOLDS["svhn-mini"] is THRESHOLDS["svhn"]
    assert {name: THRESHOLDS[name] for name in ("svhn", "gtsrb")} == {
        "svhn": {
            "brightness": {"low": (-inf, 60), "medium": (160, 170), "high": (180, inf)},
            "contrast": {"low": (-inf, 80), "medium": (90, 100), "high": (190, inf)},
        },
        "gtsrb": {
            "brightness": {"low": (-inf, 40), "medium": (85, 125), "high": (170, inf)},
            "contrast": {"low": (-inf, 80), "medium": (140, 200), "high": (230, inf)},
        },
    }


@pytest.mark.parametrize(
    ("name", "greys"),
    [
        ("low", range(0, 40)),
        ("medium", range(86, 125)),
        ("high", range(171, 256)),
        ("0-40", range(1, 40)),
        ("-40", range(0, 40)),
        ("170-", range(171, 256)),
        ("84.5-86.5", range(85, 87)),
    ],
)
def test_a_domain_lies_strictly_between_its_bounds_and_keeps_the_order(flat, name, greys):
    found = domain(flat, f"brightness:{name}")
    assert found.y.tolist() == list(greys) and found.classes == 256
    assert found.name == f"gtsrb brightness:{name}"
    torch.testing.assert_close(found.x, flat.x[found.y], rtol=0, atol=0)


def test_contrast_thresholds_are_excluded_too():
    pixels = np.zeros((256, 3, 2, 2), np.uint8)
    pixels[:, 1, 0, 1] = np.arange(256)
    data = dataset(pixels, "svhn")
    assert domain(data, "contrast:medium").y.tolist() == list(range(91, 100))
    assert domain(data, "contrast:high").y.tolist() == list(range(191, 256))


def test_a_domain_of_a_domain_is_the_intersection(flat):
    found = domain(domain(flat, "brightness:20-"), "brightness:low")
    assert found.name == "gtsrb brightness:20- brightness:low" and found.y.tolist() == list(range(21, 40))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("brightness:low&contrast:low", lambda mean, spread: mean < 40 and spread < 80),
        ("brightness:low | contrast:low", lambda mean, spread: mean < 40 or spread < 80),
        (
            "brightness:low|contrast:low & brightness:170-|contrast:230-",  # & binds more tightly
            lambda mean, spread: mean < 40 or (spread < 80 and mean > 170) or spread > 230,
        ),
        ("brightness:20- & brightness:-60", lambda mean, spread: 20 < mean < 60),
        ("brightness:low | brightness:low", lambda mean, spread: mean < 40),
    ],
)
def test_unions_and_intersections(name, wanted):
    generator = np.random.default_rng(3)
    low = generator.integers(0, 200, (300, 1, 1, 1))
    pixels = generator.integers(low, low + generator.integers(1, 57, (300, 1, 1, 1)), (300, 3, 2, 2)).astype(np.uint8)
    pixels[::7, 0] = 255
    data = dataset(pixels, "gtsrb")
    found = domain(data, name)
    lists = [row.reshape(-1).tolist() for row in pixels]
    expected = [number for number, row in enumerate(lists) if wanted(sum(row) / len(row), max(row) - min(row))]
    assert 0 < len(expected) < 300 and found.y.tolist() == expected
    assert found.name == f"gtsrb {name}" and found.x.equal(data.x[expected])


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("brightness:low &", "a domain on both sides of each & and |, got 'brightness:low &'"),
        ("| contrast:low", "a domain on both sides of each"),
        ("brightness:low && contrast:low", "a domain on both sides of each"),
        ("(brightness:low | contrast:low) & contrast:-9", r"no parentheses \(write A & C"),
        ("brightness:low & snow:3", "one of brightness, contrast, then a colon and a level, got 'snow:3'"),
        ("brightness:low + contrast:low", r"brightness: and one of low.*got 'brightness:low \+ contrast:low'"),
        ("brightness:low & brightness:high", "images of gtsrb with brightness:low & brightness:high, got none: its"),
        ("contrast:1- | brightness:255-", "images of .* of contrast are 0, 0, 0, 0, 0; its .* of brightness are 0, 63"),
    ],
)
def test_malformed_and_empty_unions_and_intersections(flat, name, match):
    with pytest.raises(ValueError, match=f"domain: expected {match}".replace("|", r"\|")):
        domain(flat, name)


def test_a_concatenation_has_thresholds_if_all_its_parts_are_of_one_data_set(flat):
    dark, bright = domain(flat, "brightness:low"), domain(flat, "brightness:high")
    both = Dataset.concatenate([dark, bright])
    assert domain(both, "brightness:low").y.tolist() == list(range(40))
    mixed = Dataset.concatenate([dark, dataset(np.zeros((256, 3, 4, 4), np.uint8), "svhn")])
    with pytest.raises(ValueError, match=r"bounds \(gtsrb brightness:low \+ svhn has no thresholds of its own"):
        domain(mixed, "brightness:low")


def test_errors_for_wrong_names_list_the_known_ones(flat):
    for name, match in (
        ("snow:3", "one of brightness, contrast, then a colon and a level, got 'snow:3'"),
        ("brightness", "brightness: and one of low, medium, high, or bounds such as brightness:0-40, got 'brightness'"),
        ("brightness:", "one of low"),
        ("brightness:dark", "one of low.*'brightness:dark'"),
        ("brightness:-", "bounds such as"),
        ("brightness:nan-3", "bounds such as"),
        ("brightness:40-0", "lower bound below the upper one, got 'brightness:40-0'"),
        ("brightness:40-40", "lower bound below"),
    ):
        with pytest.raises(ValueError, match=f"domain: expected .*{match}"):
            domain(flat, name)
    own = dataset(np.zeros((2, 1, 2, 2), np.uint8), "own")
    with pytest.raises(ValueError, match=r"bounds \(own has no thresholds .*svhn, gtsrb, svhn-mini\).*brightness:0-40"):
        domain(own, "brightness:low")


def test_the_error_for_an_empty_domain_gives_the_quartiles(flat):
    with pytest.raises(ValueError, match="gtsrb with contrast:3-9, got none: .*contrast are 0, 0, 0, 0, 0"):
        domain(flat, "contrast:3-9")
    with pytest.raises(ValueError, match="quartiles and maximum of brightness are 0, 63.75, 127.5, 191.2, 255"):
        domain(flat, "brightness:254.5-254.7")
    with pytest.raises(ValueError, match="there are no images"):
        domain(flat.limit(0), "brightness:low")


def test_load_takes_unions_and_intersections():
    whole = load("digits", domain="brightness:80- | contrast:-200 & brightness:-60")
    mean, spread = brightness(load("digits").x), contrast(load("digits").x)
    assert len(whole) == ((mean > 80) | ((spread < 200) & (mean < 60))).sum() > 0


def test_load_returns_a_domain_of_any_data_set_in_memory():
    whole = load("digits")
    found = load("digits", domain="brightness:80-")
    assert found.name == "digits brightness:80-" and 0 < len(found) < len(whole)
    assert (whole.x.flatten(1).double().mean(1) * 255 > 80).sum() == len(found)
    with pytest.raises(ValueError, match="domain: expected one of brightness, contrast.*'snow:3'"):
        load("digits", domain="snow:3")


@pytest.mark.parametrize(
    "values",
    [
        [0.0, 255.0],
        [255.0],
        [0.0],
        [12.5, 12.5, 30.0],
        [253.0, 255.0, 254.0],
        [0.0, 19.0, 20.0],
        np.random.default_rng(0).uniform(9, 240, 500).tolist(),
    ],
)
def test_the_histogram_counts_each_value_once(values):
    edges, counts = histogram(torch.tensor(values, dtype=torch.float64))
    assert len(edges) == 21 and len(counts) == 20 and edges.diff().unique().numel() == 1 and edges[0] >= 0
    pairs = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    assert counts.tolist() == [sum(low <= value < high for value in values) for low, high in pairs]
    assert counts.sum() == len(values)


def test_real_gtsrb_has_all_six_domains(data_root):
    data = load("gtsrb", "test", data_root)
    sizes = {
        f"{measure}:{level}": len(domain(data, f"{measure}:{level}"))
        for measure, levels in THRESHOLDS["gtsrb"].items()
        for level in levels
    }
    pixels = (data.x.flatten(1) * 255).round().int()
    mean, spread = pixels.sum(1) / pixels.shape[1], pixels.amax(1) - pixels.amin(1)
    assert sizes == {
        "brightness:low": int((mean < 40).sum()),
        "brightness:medium": int(((mean > 85) & (mean < 125)).sum()),
        "brightness:high": int((mean > 170).sum()),
        "contrast:low": int((spread < 80).sum()),
        "contrast:medium": int(((spread > 140) & (spread < 200)).sum()),
        "contrast:high": int((spread > 230).sum()),
    }
    assert min(sizes.values()) > 500
    both, either = (domain(data, f"brightness:low {symbol} contrast:low") for symbol in "&|")
    assert len(both) == int(((mean < 40) & (spread < 80)).sum())
    assert len(either) == sizes["brightness:low"] + sizes["contrast:low"] - len(both)
