"""Figures of adversarial examples: what is drawn where, and what is written above it."""

import math

import numpy as np
import pytest
import torch

import robustperf as rp
from robustperf import plot


def threshold(at):
    """A model that gives label 1 to images whose first pixel is above `at`."""
    return lambda x: torch.stack([torch.full((len(x),), at), x.flatten(1)[:, 0]], 1)


@pytest.fixture(scope="module")
def x():
    images = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    images[:, 0, 0, 0] = torch.tensor([0.25, 0.875])
    return images


@pytest.fixture(scope="module")
def found(x):
    """Distances: |0.25 - 0.5|, |0.875 - 0.5|; none below 2 and above 0, whose labels no image in the box changes."""
    models = {"half": threshold(0.5), "constant": lambda x: threshold(0.5)(x) * 0 + torch.tensor([1.0, 0.0])}
    with pytest.warns(RuntimeWarning, match="gradient"):
        return {name: rp.margins(model, x, attacks="bg", keep_points=True) for name, model in models.items()}


def test_one_row_per_image_and_one_column_per_model(x, found, tmp_path):
    figure = plot.adversarial_examples(x, found, tmp_path / "examples.png", title="t", labels=["a", "b"])
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert len(shown) == 2 * 3
    for row in range(2):
        np.testing.assert_array_equal(shown[3 * row], x[row, 0].numpy())
        np.testing.assert_array_equal(shown[3 * row + 1], found["half"].point[row, 0].numpy())
        assert np.ma.getmaskarray(shown[3 * row + 2]).all() or np.isnan(shown[3 * row + 2]).all()
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["x", "half\n0.25", "constant\nnone found", "", "0.375", "none found"]
    assert [axes.get_ylabel() for axes in figure.axes][::3] == ["a", "b"]
    assert (tmp_path / "examples.png").stat().st_size > 0


def test_the_labels_of_the_examples_follow_the_distances(x, found):
    half = {"half": found["half"]}
    figure = plot.adversarial_examples(x, half, predicted={"half": torch.tensor([1, 0])})
    assert [axes.get_title() for axes in figure.axes] == ["x", "half\n0.25  → 1", "", "0.375  → 0"]


def test_no_text_overlaps_or_leaves_the_figure(x, found):
    figure = plot.adversarial_examples(x, found, title="two lines of a title " * 3)
    figure.canvas.draw()
    boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    boxes += [figure.texts[0].get_window_extent(), *(axes.get_window_extent() for axes in figure.axes)]
    for i, one in enumerate(boxes):
        assert one.x0 >= 0 and one.y0 >= 0 and one.x1 <= figure.bbox.x1 and one.y1 <= figure.bbox.y1
        for other in boxes[:i]:
            assert one.x1 <= other.x0 or other.x1 <= one.x0 or one.y1 <= other.y0 or other.y1 <= one.y0


def test_errors_name_the_argument(x, found):
    half = found["half"]
    with pytest.raises(ValueError, match="found: expected a mapping from models to Margins, got {}"):
        plot.adversarial_examples(x, {})
    with pytest.raises(TypeError, match=r"found\['a'\]: expected Margins with points, .*, got Tensor"):
        plot.adversarial_examples(x, {"a": torch.ones(2)})
    with pytest.raises(ValueError, match=r"found\['a'\]: expected points of shape \[1, 1, 6, 6\], got \[2, 1, 6, 6\]"):
        plot.adversarial_examples(x[:1], {"a": half})
    with pytest.raises(ValueError, match="predicted: expected labels of a, got those of b"):
        plot.adversarial_examples(x, {"a": half}, predicted={"b": [0, 1]})
    with pytest.raises(ValueError, match=r"predicted\['a'\]: expected 2 labels, got 1"):
        plot.adversarial_examples(x, {"a": half}, predicted={"a": [0]})
    with pytest.raises(ValueError, match=r"texts: expected 1 x 2, got \[1\]"):
        plot.image_grid(x, x[None], texts=[["one"]])
    assert math.isinf(found["constant"].distance[0])
