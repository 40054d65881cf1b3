"""Figures: they equal the curves, are written atomically, and do not touch pyplot."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from robustperf import plot
from robustperf.robustness.margin_curve import MarginCurve


@pytest.fixture
def curves():
    rng = np.random.default_rng(0)
    attacked = rng.gamma(8, 0.14, 60)
    attacked[:7] = math.inf
    return {
        "plain": MarginCurve.from_margins(rng.gamma(6, 0.12, 50), 28.0),
        "robust": MarginCurve.from_margins(attacked, 28.0),
    }


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def last_step(curve):
    return curve.distances[curve.distances < curve.upper].max().item()


@pytest.mark.parametrize(
    "suffix, start", [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml"), ("", b"\x89PNG")]
)
def test_the_suffix_sets_the_format_and_no_other_file_is_left(tmp_path, curves, suffix, start):
    path = tmp_path / f"curves{suffix}"
    plot.margin_curves(curves, path)
    assert path.read_bytes().startswith(start) and path.stat().st_size > 5000
    assert list(tmp_path.iterdir()) == [path]


def test_a_figure_that_fails_leaves_the_old_file(tmp_path, curves):
    path = tmp_path / "curves.xyz"
    path.write_text("old")
    with pytest.raises(ValueError, match="xyz"):
        plot.margin_curves(curves, path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError, match="path: expected one in a folder that exists"):
        plot.margin_curves(curves, tmp_path / "no" / "curves.png")


def test_neither_import_nor_drawing_touches_pyplot(tmp_path):
    script = f"""
import sys
import torch
from robustperf import plot
from robustperf.robustness.margin_curve import MarginCurve
assert "matplotlib" not in sys.modules
plot.margin_curves({{"a": MarginCurve.from_margins([1.0, 2.0], 4.0)}}, {str(tmp_path / "a.png")!r})
MarginCurve.from_margins([1.0, 2.0], 4.0).plot()
plot.image_grid(torch.rand(1, 1, 4, 4), torch.rand(2, 1, 1, 4, 4), path={str(tmp_path / "b.png")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_pyplots_figures_backend_and_settings_are_unchanged(curves):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    import matplotlib

    matplotlib.use("Agg")
    mine = pyplot.figure()
    settings = dict(matplotlib.rcParams)
    plot.margin_curves(curves)
    curves["plain"].plot()
    assert pyplot.get_fignums() == [mine.number] and pyplot.gcf() is mine and not mine.axes
    assert dict(matplotlib.rcParams) == settings
    pyplot.close(mine)


def test_the_line_and_the_shaded_area_are_the_curve_and_its_band(curves):
    figure = plot.margin_curves(curves, confidence=0.8)
    for curve, line, shade in zip(curves.values(), figure.axes[0].lines, figure.axes[0].collections, strict=True):
        x, y = line.get_data()
        assert line.get_drawstyle() == "steps-post" and x[0] == 0 and x[-1] == 28 and (np.diff(x) > 0).all()
        np.testing.assert_array_equal(y, curve.at(x))
        middle = (x[1:] + x[:-1]) / 2
        np.testing.assert_array_equal(y[:-1], curve.at(middle))
        corners = shade.get_paths()[0].vertices
        band = curve.band(0.8)
        assert corners[:, 1].min() == band.lower(28.0) and corners[:, 1].max() == band.upper(0.0)


def test_the_axis_ends_where_the_last_curve_reaches_its_lowest_level(curves):
    def right(*shown):
        return plot.margin_curves(dict(enumerate(shown))).axes[0].get_xlim()

    flat = MarginCurve.from_margins([math.inf] * 3, 28.0)
    last = max(last_step(curve) for curve in curves.values())
    assert right(*curves.values()) == (0, pytest.approx(1.05 * last))
    assert right(flat, *curves.values()) == (0, pytest.approx(1.05 * last))
    assert right(flat) == (0, 28)
    assert right(MarginCurve.from_margins([0.0, 0.0], 3.0)) == (0, 3)
    assert right(MarginCurve.from_margins([2.9, 7.0], 3.0)) == (0, 3)


def test_the_legend_gives_the_area_and_the_points_without_an_example(curves):
    plain, robust = legend_texts(plot.margin_curves(curves))
    assert plain == f"plain:  R = {curves['plain'].area:#.4g}"
    assert robust == f"robust:  R = {curves['robust'].area:#.4g}  (no adversarial example found: 7 of 60)"


def test_the_legend_explains_the_shaded_area(curves):
    assert "99 % confidence band" in plot.margin_curves(curves, confidence=0.99).legends[0].get_title().get_text()


@pytest.mark.parametrize("norm, name", [(2, "$L_2$"), (math.inf, r"$L_\infty$"), (1, "$L_1$"), (2.0, "$L_2$")])
def test_the_axes_name_the_norm_and_the_fraction(curves, norm, name):
    axes = plot.margin_curves(curves, norm=norm, title="digits").axes[0]
    assert axes.get_xlabel() == rf"distance $\epsilon$ ({name})"
    assert axes.get_ylabel().replace("\n", " ") == r"fraction of points with no adversarial example within $\epsilon$"
    assert axes.get_title() == "digits"


def test_no_text_overlaps_the_curves_or_leaves_the_figure(curves):
    figure = plot.margin_curves({f"{name} {i}": curve for i in range(5) for name, curve in curves.items()}, title="t")
    figure.canvas.draw()
    axes, legend = figure.axes[0], figure.legends[0].get_window_extent()
    assert legend.y1 <= axes.get_tightbbox().y0
    assert legend.x0 >= 0 and legend.y0 >= 0 and legend.x1 <= figure.bbox.x1
    assert axes.get_tightbbox().height > 0.4 * figure.bbox.height


def test_many_curves_stay_distinguishable(curves):
    lines = plot.margin_curves({str(i): curves["plain"] for i in range(20)}).axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20


def test_a_curve_plots_itself_on_the_axes_given(curves):
    axes = curves["plain"].plot(label="plain", color="black", linestyle=":")
    (line,) = axes.lines
    assert (line.get_label(), line.get_color(), line.get_linestyle()) == ("plain", "black", ":")
    assert len(axes.collections) == 1
    assert curves["robust"].plot(axes, band=False) is axes
    assert len(axes.lines) == 2 and len(axes.collections) == 1
    last = max(last_step(curve) for curve in curves.values())
    assert axes.get_xlim() == (0, pytest.approx(1.05 * last))


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"curves": [1]}, TypeError, "curves: expected a mapping from names to MarginCurves, .*, got list"),
        ({"curves": {}}, ValueError, "curves: expected at least one"),
        ({"curves": {"a": torch.ones(3)}}, TypeError, r"curves\['a'\]: expected a MarginCurve, got Tensor"),
        ({"norm": 3}, ValueError, "norm: expected 0, 1, 2 or inf, got 3"),
        ({"norm": "max"}, ValueError, "norm: expected 0, 1, 2 or inf, got 'max'"),
        ({"confidence": 95}, ValueError, "confidence: expected .* got 95"),
    ],
)
def test_errors_name_the_argument_and_its_value(curves, change, error, message):
    with pytest.raises(error, match=message):
        plot.margin_curves(**{"curves": curves, **change})


# a grid of images


@pytest.fixture
def drawn():
    """Three grey images [8, 6] and five draws of each in colour."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 1, 8, 6, generator=generator), torch.rand(5, 3, 3, 8, 6, generator=generator)


def pictures(figure):
    return [axes.images[0] for axes in figure.axes]


def test_one_row_per_image_x_then_its_draws(drawn):
    x, draws = drawn
    figure = plot.image_grid(x, draws)
    shown = pictures(figure)
    assert len(shown) == 3 * 6
    for row in range(3):
        np.testing.assert_array_equal(shown[6 * row].get_array(), x[row, 0].numpy())
        for k in range(5):
            np.testing.assert_array_equal(shown[6 * row + 1 + k].get_array(), draws[k, row].movedim(0, 2).numpy())
    figure.canvas.draw()
    boxes = [axes.get_window_extent() for axes in figure.axes]
    assert len({round(box.y0) for box in boxes}) == 3 and boxes[0].y0 > boxes[6].y0  # downwards
    for row in range(3):
        left = [box.x0 for box in boxes[6 * row : 6 * row + 6]]
        assert left == sorted(left) and left[1] - boxes[6 * row].x1 > left[2] - boxes[6 * row + 1].x1 > 0
    assert all(box.height / box.width == pytest.approx(8 / 6) for box in boxes)  # squares stay squares


def test_black_is_0_and_white_is_1_everywhere():
    x, draws = torch.full((1, 1, 4, 4), 0.4), torch.tensor([-0.5, 0.3, 1.5]).view(3, 1, 1, 1, 1).expand(3, 1, 1, 4, 4)
    shown = pictures(plot.image_grid(x, draws))
    assert [image.get_clim() for image in shown] == [(0, 1)] * 4
    assert [image.get_array().max() for image in shown] == pytest.approx([0.4, 0, 0.3, 1])
    assert {image.cmap.name for image in shown} == {"gray"}


@pytest.mark.parametrize("size, nearest", [(8, True), (32, True), (64, True), (224, False)])
def test_small_images_are_shown_as_squares(size, nearest):
    shown = pictures(plot.image_grid(torch.rand(1, 3, size, size), torch.rand(1, 1, 3, size, size)))
    assert all((image.get_interpolation() == "nearest") == nearest for image in shown)


def test_a_short_delta_is_above_each_draw(drawn):
    delta = torch.tensor([-12.345, 0.067891, 123.4]).expand(5, 3, 3)
    titles = [axes.get_title() for axes in plot.image_grid(*drawn, delta).axes]
    assert titles[0] == "x" and titles[6] == titles[12] == ""
    assert set(titles[1:6] + titles[7:12]) == {"-12\n0.068\n120"}
    assert [axes.get_title() for axes in plot.image_grid(*drawn, delta[..., :1]).axes][1] == "-12"
    for without in (plot.image_grid(*drawn), plot.image_grid(*drawn, torch.zeros(5, 3, 4))):
        assert [axes.get_title() for axes in without.axes] == ["x"] + [""] * 17


def test_names_stand_above_the_columns(drawn):
    names = ["rotate", "fog", "spatter", "impulse_noise", "canny_edges"]
    figure = plot.image_grid(*drawn, torch.zeros(5, 3, 1), names=names)
    assert [axes.get_title() for axes in figure.axes] == ["x", *names] + [""] * 12
    figure.canvas.draw()
    boxes = [axes.title.get_window_extent() for axes in figure.axes[:6]]
    assert boxes[-1].x1 <= figure.bbox.x1 and all(box.y1 <= figure.bbox.y1 for box in boxes)
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))
    with pytest.raises(ValueError, match="names: expected 5, one for each draw, got 2"):
        plot.image_grid(*drawn, names=names[:2])


@pytest.mark.parametrize("draws", [1, 12])
def test_no_text_of_the_grid_overlaps_or_leaves_the_figure(draws):
    title = " + ".join(["brightness((-0.4, 0.4))"] * 6)
    figure = plot.image_grid(
        torch.rand(2, 1, 8, 8),
        torch.rand(draws, 2, 1, 8, 8),
        torch.full((draws, 2, 3), -0.0012345),
        title=title,
        labels=["point 1234", "point 98765"],
    )
    figure.canvas.draw()
    (heading,) = figure.texts
    assert heading.get_text().replace("\n", " ") == title
    texts = [heading, *(axes.title for axes in figure.axes), *(axes.yaxis.label for axes in figure.axes)]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    assert len(boxes) == 1 + 1 + 2 * draws + 2
    boxes += [axes.get_window_extent() for axes in figure.axes]
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            assert one.x1 <= other.x0 or other.x1 <= one.x0 or one.y1 <= other.y0 or other.y1 <= one.y0


def test_the_grid_is_written_atomically(tmp_path, drawn):
    for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        path = tmp_path / f"grid{suffix}"
        figure = plot.image_grid(*drawn, path=path, title="fog", labels=["a", "b", "c"])
        assert path.read_bytes().startswith(start)
        assert [axes.get_ylabel() for axes in figure.axes][::6] == ["a", "b", "c"]
    with pytest.raises(FileNotFoundError, match="path: expected one in a folder that exists"):
        plot.image_grid(*drawn, path=tmp_path / "no" / "grid.png")
    assert len(list(tmp_path.iterdir())) == 2


def test_images_with_gradients_are_fine(drawn):
    plot.image_grid(drawn[0].requires_grad_(), drawn[1].requires_grad_(), torch.zeros(5, 3, 1).requires_grad_())


@pytest.mark.parametrize(
    "x, draws, delta, message",
    [
        ((3, 2, 8, 8), (5, 3, 1, 8, 8), None, r"x: expected images with 1, 3 or 4 channels, got shape \[3, 2, 8, 8\]"),
        ((3, 8, 8), (5, 3, 1, 8, 8), None, "x: expected images"),
        ((0, 1, 8, 8), (5, 0, 1, 8, 8), None, "x: expected images"),
        ((3, 1, 8, 8), (0, 3, 1, 8, 8), None, "drawn: expected images"),
        ((3, 1, 8, 8), (3, 1, 8, 8), None, r"drawn: expected images .* got shape \[3, 1, 8, 8\]"),
        ((3, 1, 8, 8), (5, 2, 1, 8, 8), None, "drawn: expected draws of 3 images, got 2"),
        ((3, 1, 8, 8), (5, 3, 1, 8, 8), (3, 5, 1), r"delta: expected shape \[5, 3, q\], got \[3, 5, 1\]"),
    ],
)
def test_errors_of_the_grid(x, draws, delta, message):
    with pytest.raises(ValueError, match=message):
        plot.image_grid(torch.zeros(x), torch.zeros(draws), None if delta is None else torch.zeros(delta))
