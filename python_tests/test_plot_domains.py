"""The figure of domains: bars, shaded ranges, texts and images match the values."""

import math

import matplotlib.colors
import pytest
import torch

from robustperf import plot

RANGES = {"low": (-math.inf, 40.0), "medium": (85.0, 125.0), "high": (170.0, math.inf)}
EDGES = torch.arange(0, 261, 13)


@pytest.fixture
def values():
    return torch.rand(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 255


@pytest.fixture
def x(values):
    """One grey an image, from which the value can be read."""
    return (values / 255).float().view(-1, 1, 1, 1).expand(-1, 3, 6, 6)


def tiles(axes):
    """(column, row from the top, value) of each image of a strip."""
    found = []
    for image in axes.images:
        left, _, _, top = image.get_extent()
        found.append((math.floor(left), math.floor(top), float(image.get_array()[0, 0, 0]) * 255))
    return found


def test_bars_shades_and_texts(x, values, tmp_path):
    path = tmp_path / "domains.png"
    figure = plot.domain_overview(x, values, EDGES, "brightness", RANGES, path, "a title")
    bars = figure.axes[0].containers[0]
    assert [bar.get_height() for bar in bars] == [
        int(((values >= low) & (values < low + 13)).sum()) for low in range(0, 260, 13)
    ]
    assert [(bar.get_x(), bar.get_width()) for bar in bars] == [(low, 13) for low in range(0, 260, 13)]
    shades = [patch for patch in figure.axes[0].patches if patch not in bars.patches]
    assert [(shade.get_x(), shade.get_x() + shade.get_width()) for shade in shades] == [(0, 40), (85, 125), (170, 260)]
    assert figure.axes[0].get_xlabel() == "brightness"
    texts = [text.get_text() for text in figure.texts]
    assert texts == [
        "a title",
        *(
            f"{name}\n{words}\n{int(count)} images"
            for name, words, count in (
                ("low", "brightness < 40", (values < 40).sum()),
                ("medium", "85 < brightness < 125", ((values > 85) & (values < 125)).sum()),
                ("high", "brightness > 170", (values > 170).sum()),
            )
        ),
    ]
    colours = [matplotlib.colors.to_hex(text.get_color()) for text in figure.texts[1:]]
    assert colours == [matplotlib.colors.to_hex(shade.get_facecolor()) for shade in shades]
    assert path.read_bytes().startswith(b"\x89PNG")


def test_images_are_under_their_bins_and_beside_their_domain(x, values):
    figure = plot.domain_overview(x, values, EDGES, "brightness", RANGES)
    _, bins, *domains = figure.axes
    shown = tiles(bins)
    assert all(13 * column - 1e-3 <= value < 13 * (column + 1) for column, _, value in shown)
    assert len(shown) == sum(min(3, int(((values >= low) & (values < low + 13)).sum())) for low in range(0, 260, 13))
    assert {row for _, row, _ in shown} == {0, 1, 2}
    for axes, (low, high) in zip(domains, RANGES.values(), strict=True):
        inside = values[(values > low) & (values < high)]
        shown = tiles(axes)
        assert len(shown) == min(40, len(inside)) and all(low < value < high for _, _, value in shown)
        # the first and the last of the domain, and the order of the data set
        ordered = [value for _, _, value in sorted(shown, key=lambda tile: (tile[1], tile[0]))]
        assert ordered[0] == pytest.approx(inside[0].item()) and ordered[-1] == pytest.approx(inside[-1].item())
        places = [int((values - value).abs().argmin()) for value in ordered]
        assert places == sorted(places)


def test_nothing_overlaps(x, values):
    figure = plot.domain_overview(x, values, EDGES, "contrast", RANGES, title="a title")
    renderer = figure.canvas.get_renderer()
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes] + [
        text.get_window_extent(renderer) for text in figure.texts
    ]
    assert all(not one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[:number])
    width, height = figure.bbox.size
    assert all(0 <= box.x0 and box.x1 <= width and 0 <= box.y0 and box.y1 <= height for box in boxes)


def test_the_histogram_and_its_images_without_domains(x, values):
    figure = plot.domain_overview(x[:, :1], values, EDGES, "contrast")
    assert len(figure.axes) == 2 and not figure.texts
    empty = plot.domain_overview(x[:1], values[:1], EDGES, "contrast", {"none": (-5.0, -1.0)})
    assert len(empty.axes) == 2 and empty.texts[0].get_text() == "none\n-5 < contrast < -1\n0 images"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"x": torch.zeros(0, 1, 3, 3)}, "x: expected images"),
        ({"x": torch.zeros(400, 2, 3, 3)}, "x: expected images with 1, 3 or 4 channels"),
        ({"values": torch.zeros(3)}, r"values: expected shape \[400\], got \[3\]"),
        ({"edges": torch.tensor([1])}, "edges: expected two or more in ascending order"),
        ({"edges": torch.tensor([1, 1, 2])}, "edges: expected"),
    ],
)
def test_wrong_arguments(x, values, change, match):
    arguments = {"x": x, "values": values, "edges": EDGES} | change
    with pytest.raises(ValueError, match=match):
        plot.domain_overview(**arguments, measure="brightness")
