"""The pictures: what is drawn equals the curve, the file is written whole, and pyplot never learns of it."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from robustperf import plot
from robustperf.robustness.curves import MarginCurve


@pytest.fixture
def curves():
    rng = np.random.default_rng(0)
    attacked = rng.gamma(8, 0.14, 60)
    attacked[:7] = math.inf
    return {"plain": MarginCurve.from_margins(rng.gamma(6, 0.12, 50), 28.0),
            "robust": MarginCurve.from_margins(attacked, 28.0)}


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def last_step(curve):
    return curve.distances[curve.distances < curve.upper].max().item()


@pytest.mark.parametrize("suffix, start", [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml"),
                                           ("", b"\x89PNG")])
def test_the_picture_is_written_in_its_suffix_format_and_nothing_else_is_left(tmp_path, curves, suffix, start):
    path = tmp_path / f"curves{suffix}"
    plot.margin_curves(curves, path)
    assert path.read_bytes().startswith(start) and path.stat().st_size > 5000
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_that_fails_leaves_the_old_file_whole(tmp_path, curves):
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
from robustperf import plot
from robustperf.robustness.curves import MarginCurve
assert "matplotlib" not in sys.modules
plot.margin_curves({{"a": MarginCurve.from_margins([1.0, 2.0], 4.0)}}, {str(tmp_path / "a.png")!r})
MarginCurve.from_margins([1.0, 2.0], 4.0).plot()
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_pyplot_figures_backend_and_settings_stay_as_they_are(curves):
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


def test_the_line_and_the_shade_are_the_curve_and_its_band(curves):
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


def test_the_axis_ends_where_the_last_curve_reaches_its_floor(curves):
    def right(*shown):
        return plot.margin_curves(dict(enumerate(shown))).axes[0].get_xlim()

    flat = MarginCurve.from_margins([math.inf] * 3, 28.0)
    last = max(last_step(curve) for curve in curves.values())
    assert right(*curves.values()) == (0, pytest.approx(1.05 * last))
    assert right(flat, *curves.values()) == (0, pytest.approx(1.05 * last))
    assert right(flat) == (0, 28)
    assert right(MarginCurve.from_margins([0.0, 0.0], 3.0)) == (0, 3)
    assert right(MarginCurve.from_margins([2.9, 7.0], 3.0)) == (0, 3)


def test_the_legend_gives_the_area_and_how_many_points_have_no_example(curves):
    plain, robust = legend_texts(plot.margin_curves(curves))
    assert plain == f"plain:  R = {curves['plain'].area:#.4g}"
    assert robust == f"robust:  R = {curves['robust'].area:#.4g}  (no adversarial example found: 7 of 60)"


def test_the_legend_says_what_the_shade_is(curves):
    assert "99 % confidence band" in plot.margin_curves(curves, confidence=0.99).legends[0].get_title().get_text()


@pytest.mark.parametrize("norm, name", [(2, "$L_2$"), (math.inf, r"$L_\infty$"), (1, "$L_1$"), (2.0, "$L_2$")])
def test_the_axes_name_the_norm_and_the_share(curves, norm, name):
    axes = plot.margin_curves(curves, norm=norm, title="digits").axes[0]
    assert axes.get_xlabel() == rf"distance $\epsilon$ ({name})"
    assert axes.get_ylabel().replace("\n", " ") == r"share of points with no adversarial example within $\epsilon$"
    assert axes.get_title() == "digits"


def test_no_text_overlaps_the_curves_or_leaves_the_picture(curves):
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


@pytest.mark.parametrize("change, error, message", [
    ({"curves": {}}, ValueError, "curves must name at least one"),
    ({"curves": {"a": torch.ones(3)}}, TypeError, r"curves\['a'\] must be a MarginCurve, got Tensor"),
    ({"norm": 3}, ValueError, "norm must be 1, 2 or inf, got 3"),
    ({"norm": "inf"}, ValueError, "norm must be 1, 2 or inf, got 'inf'"),
    ({"confidence": 95}, ValueError, "confidence must be .* got 95"),
])
def test_errors_name_the_argument_and_its_value(curves, change, error, message):
    with pytest.raises(error, match=message):
        plot.margin_curves(**{"curves": curves, **change})
