"""Pictures of the benchmarks, through matplotlib's objects: groups, colours, whiskers, the paper's marks, titles."""

from dataclasses import dataclass, field

import pytest
from matplotlib.colors import same_color

from benchmarks.common.pictures import bar_chart, line_chart, split_label
from benchmarks.common.settings import Settings
from benchmarks.paper import robey, tibo, tibo_transfer
from robustperf.plot.figure import COLOURS

ROWS = [
    {"case": "signs, 10 to 20 images, ERM", "accuracy %": 40.0, "deviation": 1.5, "paper %": 44.5},
    {"case": "signs, 10 to 20 images, MDA", "accuracy %": 60.0, "deviation": 3.0, "paper %": 69.4},
    {"case": "digits, ERM", "accuracy %": 50.0, "deviation": None, "paper %": None},
    {"case": "digits, MDA", "accuracy %": 55.0, "deviation": 0.5, "paper %": 48.3},
]


def chart(rows=ROWS, label="case", value="accuracy %", settings="width 4, epochs 1"):
    figure = bar_chart(rows, label, value, "R Table 6: trained in A, tested in B", settings)
    (axes,) = figure.axes
    return figure, axes


@pytest.mark.parametrize(
    "label, parts",
    [
        ("mnist, ERM", ("mnist", "ERM")),
        ("32x32, width 32: draw", ("32x32, width 32", "draw")),
        ("a, b, MAT (start=1, k: 3)", ("a, b", "MAT (start=1, k: 3)")),
        ("[10, 64] float32 sample", ("", "[10, 64] float32 sample")),
        ("plain loop", ("", "plain loop")),
    ],
)
def test_a_label_is_split_at_its_last_separator_outside_brackets(label, parts):
    assert split_label(label) == parts


def test_bars_have_the_values_and_a_colour_for_each_method():
    _, axes = chart()
    bars = sorted(axes.patches, key=lambda bar: bar.get_y())
    assert [bar.get_width() for bar in bars] == [40.0, 60.0, 50.0, 55.0]
    colours = [bar.get_facecolor() for bar in bars]
    assert same_color(colours[0], COLOURS[0]) and same_color(colours[1], COLOURS[1])
    assert colours[2] == colours[0] and colours[3] == colours[1]
    centres = [bar.get_y() + bar.get_height() / 2 for bar in bars]
    assert centres[1] - centres[0] == pytest.approx(1) and centres[2] - centres[1] > 2  # room for the group's name
    assert list(axes.get_yticks()) == pytest.approx(centres)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["ERM", "MDA", "ERM", "MDA"]
    texts = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert {"signs, 10 to 20 images", "digits", "40 ± 1.5", "50", "55 ± 0.5"} <= texts.keys()
    assert texts["signs, 10 to 20 images"] < centres[0] and centres[1] < texts["digits"] < centres[2]
    low, high = axes.get_ylim()
    assert low > centres[3] and high < texts["signs, 10 to 20 images"]  # the first row is at the top


def test_whiskers_are_the_deviations_and_marks_the_papers_values():
    _, axes = chart()
    (marks,) = [line for line in axes.lines if line.get_marker() == "D"]
    assert list(marks.get_xdata()) == [44.5, 69.4, 48.3]
    ticks = list(axes.get_yticks())
    assert list(marks.get_ydata()) == [ticks[0], ticks[1], ticks[3]]
    segments = [part for drawn in axes.collections for part in drawn.get_segments() if len(part)]
    assert [(part[0][0], part[1][0]) for part in segments] == [(38.5, 41.5), (57.0, 63.0), (54.5, 55.5)]
    assert [part[0][1] for part in segments] == pytest.approx([ticks[0], ticks[1], ticks[3]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["the paper", "deviation over seeds"]


def test_a_title_in_words_and_the_settings():
    figure, axes = chart()
    assert figure.get_suptitle() == "R Table 6: trained in A, tested in B"
    assert figure.get_supxlabel() == "width 4, epochs 1" and axes.get_xlabel() == "accuracy %"


def test_rows_without_common_methods_have_one_colour_and_whole_labels():
    rows = [{"case": case, "ms": 2.0} for case in ("plain loop, fused", "fit", "a: b")] + [{"case": "x", "ms": None}]
    _, axes = chart(rows, value="ms", settings="")
    assert [text.get_text() for text in axes.get_yticklabels()] == ["plain loop, fused", "fit", "a: b"]
    assert len({bar.get_facecolor() for bar in axes.patches}) == 1 and axes.get_legend() is None


def test_more_methods_than_colours_differ_by_hatching():
    names = [f"method {number}" for number in range(9)]
    _, axes = chart([{"case": f"a, {name}", "ms": 1.0} for name in names], value="ms")
    looks = {(bar.get_facecolor(), bar.get_hatch()) for bar in axes.patches}
    assert len(looks) == 9


def test_lines_have_whiskers_where_a_deviation_belongs_to_them():
    rows = [
        {"iterations": 10, "MRT %": 20.0, "MRT deviation": 2.0, "ERM %": 25.0},
        {"iterations": 1000, "MRT %": 45.0, "MRT deviation": 1.0, "ERM %": 25.0},
    ]
    figure = line_chart(rows, "iterations", "R Figure 8", log=True)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["MRT %", "ERM %"]
    assert [list(drawn[0].get_ydata()) for drawn in axes.containers] == [[20.0, 45.0], [25.0, 25.0]]
    segments = [part for drawn in axes.collections for part in drawn.get_segments()]
    assert [(part[0][1], part[1][1]) for part in segments] == [(18.0, 22.0), (44.0, 46.0)]
    assert axes.get_xscale() == "log" and [text.get_text() for text in axes.get_xticklabels()] == ["10", "1,000"]


@dataclass(frozen=True)
class Trial(Settings):
    width: int = 4
    lr: tuple = (0.05, 0.001)
    samples: int | None = None
    large: bool = False
    learning: dict = field(default_factory=lambda: {"batch_size": 1, "cycle": 0.0})


def test_settings_in_words():
    assert str(Trial()) == f"{Trial()}" == "width 4, lr 0.05 0.001, learning batch size 1, learning cycle 0.0"
    assert str(Trial(samples=7, large=True, learning={})) == "width 4, lr 0.05 0.001, samples 7, large"


def test_no_scale_of_a_paper_shows_code_in_a_title():
    scales = [robey.SMOKE, robey.CPU, robey.FULL, *tibo.SCALES.values(), *tibo_transfer.SCALES.values()]
    assert all(not set(str(scale)) & set("()=_{}") for scale in scales)
