"""Names and titles in figures are text, whatever the settings of matplotlib."""

import matplotlib
import pytest
import torch

from python_tests.support import processes
from robustperf import plot
from robustperf.robustness.margin_curve import MarginCurve

NAMES = ["_base", "cost $5 \\q $10", "$", "a_b^c {", "100 % & # ~", "über", "\\alpha", ""]
CURVE = MarginCurve(torch.tensor([0.1, 0.2, 0.3]), 1.0)


def test_names_of_curves_are_verbatim_in_the_legend(tmp_path):
    figure = plot.margin_curves({name: CURVE for name in NAMES}, tmp_path / "curves.png", title=NAMES[1])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"{name}:  R = 0.2000" for name in NAMES]
    shown = [handle.get_color() for handle in legend.legend_handles]
    assert shown == [line.get_color() for line in figure.axes[0].lines]
    assert figure.axes[0].get_title() == NAMES[1]


@pytest.mark.parametrize(
    "text, suffix", [*((text, ".png") for text in NAMES[1:5]), (NAMES[1], ".svg"), (NAMES[3], ".pdf")]
)
def test_titles_labels_and_names_are_not_mathematics(tmp_path, text, suffix):
    path, x, drawn = tmp_path / f"a{suffix}", torch.rand(2, 1, 8, 8), torch.rand(1, 2, 1, 8, 8)
    plot.image_grid(x, drawn, path=path, title=text, labels=[text, "b"], names=[text])
    plot.domain_overview(x, torch.tensor([1.0, 2.0]), torch.tensor([0, 3]), text, {text: (0.0, 3.0)}, path, text)
    rows = [{"epoch": 1, "loss": 1.0, "accuracy": 0.5}]
    plot.training_curves(rows, path, title=text)


def test_the_axes_are_mathematics():
    figure = plot.margin_curves({"a": CURVE})
    assert figure.axes[0].xaxis.label.get_parse_math() and not figure.legends[0].get_texts()[0].get_parse_math()


def test_names_are_not_tex_either():
    with matplotlib.rc_context({"text.usetex": True}):
        figure = plot.margin_curves({"a_b": CURVE}, title="c_d")
    assert not figure.legends[0].get_texts()[0].get_usetex() and not figure.axes[0].title.get_usetex()
    assert figure.axes[0].xaxis.label.get_usetex()  # as the user has said


@pytest.mark.parametrize("named", ["module://matplotlib_inline.nowhere", "nonsense", "svg"])
def test_a_backend_that_is_not_installed_is_not_needed(tmp_path, named):
    script = f"""
import os, sys, torch
assert "matplotlib" not in sys.modules
from robustperf import plot
from robustperf.robustness.margin_curve import MarginCurve
plot.check_path({str(tmp_path / "b.png")!r})
plot.margin_curves({{"a": MarginCurve(torch.tensor([0.1]), 1.0)}}, {str(tmp_path / "a.png")!r})
assert os.environ["MPLBACKEND"] == {named!r}
import matplotlib
assert matplotlib.get_backend() == "svg" or {named!r} != "svg"  # one that is there is the caller's still
"""
    process = processes.start(processes.execute, script, log=tmp_path / "log", MPLBACKEND=named)
    process.join()
    assert process.exitcode == 0, (tmp_path / "log").read_text()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_paths_of_figures(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a.png", "a.PNG", "a.pdf", "a.svg", "a"):
        assert plot.check_path(f"~/{name}") == tmp_path / name
    plot.margin_curves({"a": CURVE}, "~/a.PNG")
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(
        ValueError, match=r"path: expected the suffix of an image format, such as .png, .* got .*/a\.xyz"
    ):
        plot.check_path(tmp_path / "a.xyz")
    with pytest.raises(FileNotFoundError, match="path: expected one in a folder that exists"):
        plot.check_path(tmp_path / "none/a.png")
