"""How results print, on a line and in a notebook, and that copies and pickles are equal."""

import base64
import copy
import json
import math
import pickle
import re

import pytest
import torch
from torch.utils.data import DataLoader, Subset

import robustperf as rp
from robustperf import nuisance
from robustperf.attacks import BG, FGSM, PGD, Adversarial
from robustperf.equality import same
from robustperf.nuisance import (
    Brightness,
    Compose,
    Contrast,
    L1Ball,
    LabelAware,
    MnistC,
    OnManifold,
    Rotation,
    ball_family,
)
from robustperf.robustness import Band, BasicRobustness, Boundary, LineSearch, MarginCurve, Margins, ScoreValue
from robustperf.training import ERM, MRT, AdversarialTraining, CoTrain, Evaluation, Fitted

DISTANCES = torch.tensor([0.5, 1.0341, 2.0, math.inf], dtype=torch.float64)
FOUR = torch.arange(4)
CURVE = MarginCurve(DISTANCES, 4.0)


def found(distance=DISTANCES, points=None):
    return Margins(
        distance,
        torch.tensor([0, 1, 1, -1]),
        FOUR,
        distance.isfinite(),
        points,
        FOUR.repeat(2, 1),
        ("FGSM", "BG"),
        2.0,
        4.0,
    )


ROWS = [{"epoch": n, "step": 9 * n, "loss": 2 / n, "accuracy": 0.5, "validation_accuracy": 0.25 * n} for n in (1, 2)]
RESULTS = [
    (found(), "Margins(n=4, norm=2, median=1.03, not found=1)"),
    (CURVE, "MarginCurve(n=4, area=1.88, median=1.03, not found=1)"),
    (Band(CURVE, 0.95, 0.25), "Band(confidence=0.95, half width=0.25, area=(0.884, 2.76))"),
    (rp.data.load("digits").limit(3), "Dataset(digits, n=3, shape=(1, 8, 8), classes=10)"),
    (Evaluation(FOUR, DISTANCES[:4].nan_to_num(posinf=0.5), FOUR), "Evaluation(n=4, top-1=0.25, top-5=1, loss=1.01)"),
    (
        Fitted(torch.zeros(18, 2), ROWS, 2),
        "Fitted(epochs=2, steps=18, best=2, loss=1, accuracy=0.5, validation accuracy=0.5)",
    ),
    (
        Fitted(torch.zeros(9, 2), [{"epoch": 1, "loss": 0.5, "accuracy": math.nan}], 1),
        "Fitted(epochs=1, steps=9, best=1, loss=0.5)",
    ),
    (
        ScoreValue(0.98765, 0.01, 0.9, DISTANCES, torch.zeros(0, 0), DISTANCES[:0], 4000),
        "ScoreValue(0.988, standard error=0.01, n=4, draws=4000)",
    ),
    (
        BasicRobustness(DISTANCES[:2] / 10, DISTANCES[:2], DISTANCES[:2], FOUR[:2], FOUR[1:3], FOUR[:2], 0.9),
        "BasicRobustness(n=2, mean rho=0.0767, draws=3, confidence=0.9)",
    ),
    (LineSearch(DISTANCES, torch.zeros(4, 1), DISTANCES.isfinite(), FOUR), "LineSearch(n=4, crossed=3)"),
    (Boundary(DISTANCES, torch.full((4, 1), math.nan), FOUR, FOUR), "Boundary(n=4, found=3)"),
    (Adversarial(torch.zeros(4, 1), DISTANCES - 1, FOUR, FOUR, FOUR > 4), "Adversarial(n=4, crossed=1)"),
]


@pytest.mark.parametrize("result, line", RESULTS, ids=[line.partition("(")[0] for _, line in RESULTS])
def test_repr_and_html_table(result, line):
    assert repr(result) == line
    html = result._repr_html_()
    assert html.count("<table>") == html.count("</table>") == 1
    for text in re.findall(r"[\w .-]+=[\w.]+", line):
        name, value = text.strip().split("=")
        assert f">{name}</th><td>{value}</td>" in html
    for twin in (copy.copy(result), copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert twin == result and hash(twin) == hash(result) and repr(twin) == line
    assert result != line


def test_a_curve_shows_its_figure():
    html = CURVE._repr_html_()
    head = "<img src='data:image/png;base64,"
    assert html.startswith(head)
    assert base64.b64decode(html[len(head) :].partition("'")[0]).startswith(b"\x89PNG")


def test_a_name_cannot_write_html():
    dataset = rp.data.Dataset("<b>", torch.zeros(1, 1, 1, 1), torch.zeros(1, dtype=torch.int64), 1)
    assert "&lt;b&gt;" in dataset._repr_html_() and "<b>" not in dataset._repr_html_()


def test_results_that_differ():
    assert found() != found(DISTANCES + 1) and found() != found(points=torch.zeros(4, 1))
    assert found(points=torch.full((4, 1), math.nan)) == found(points=torch.full((4, 1), math.nan))
    assert MarginCurve(DISTANCES, 4.0) == CURVE != MarginCurve(DISTANCES, 5.0)


@pytest.mark.parametrize("one, other, equal", [
    (torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.nan]), True),
    (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64), False),
    (torch.zeros(2, 1), torch.zeros(1, 2), False), (math.nan, math.nan, True), (1, 1.0, False),
    ([1, {"a": (2,)}], [1, {"a": (2,)}], True), ([1], [1, 2], False), ({"a": 1}, {"b": 1}, False),
    (torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), False),
])  # fmt: skip
def test_same(one, other, equal):
    assert same(one, other) == equal and same(other, one) == equal


def test_margins_summed_up_and_on_disk(tmp_path):
    margins = found(points=torch.rand(4, 1, 2, 2))
    assert len(margins) == 4 and margins.median == 1.0341
    assert margins.summary() == {
        "points": 4, "norm": 2.0, "median": 1.0341, "area": pytest.approx((0.5 + 1.0341 + 2 + 4) / 4), "diameter": 4.0,
        "not_found": 1, "undefined": 0, "evaluations": 1.5, "attack_evaluations": 3.0,
        "closest_by FGSM": pytest.approx(1 / 3),
        "closest_by BG": pytest.approx(2 / 3),
    }  # fmt: skip
    json.dumps(margins.summary(), allow_nan=False)
    margins.save(tmp_path / "margins.npz")
    assert Margins.load(tmp_path / "margins.npz") == margins
    assert [path.name for path in tmp_path.iterdir()] == ["margins.npz"]
    with pytest.raises(ValueError, match="margins"):
        (tmp_path / "margins.npz").write_bytes((tmp_path / "margins.npz").read_bytes()[:-50])
        Margins.load(tmp_path / "margins.npz")
    empty = Margins(
        *(torch.empty(0),) * 3, torch.empty(0, dtype=torch.bool), None, torch.empty(1, 0), ("FGSM",), 2.0, 4.0
    )
    assert len(empty) == 0 and math.isnan(empty.median)
    assert repr(empty) == "Margins(n=0, norm=2, median=nan, not found=0)"


SUMMED = {"l1_ball": 1.0, "l2_ball": 1.0, "linf_ball": 1.0, "mnist_c": "fog"}
KERNELS = [
    *(make(*([SUMMED[name]] if name in SUMMED else [])) for name, make in nuisance.KERNELS.items()),
    Rotation(30) + Brightness(0.4), L1Ball(1.0) + Rotation(3), Compose([Brightness(0.1), Contrast(0.1)], shared=True),
    Brightness((0, 5)).normalised(), LabelAware(Rotation(3), torch.nn.Linear(2, 2)),
    OnManifold(torch.rand(3, 1, 4, 4), 1.0),
]  # fmt: skip
OTHERS = [
    FGSM(),
    PGD(2, steps=3),
    BG(),
    ERM(),
    MRT(Rotation(30) + MnistC("fog"), k=3),
    AdversarialTraining(),
    CoTrain(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), 0.5),
    rp.Score(ball_family(1.0)),
    ball_family(2, 1, True),
]


@pytest.mark.parametrize("thing", KERNELS + OTHERS, ids=lambda thing: type(thing).__name__)
def test_copies_and_pickles_are_equal(thing):
    for twin in (copy.copy(thing), copy.deepcopy(thing), pickle.loads(pickle.dumps(thing))):
        assert twin == thing and hash(twin) == hash(thing)


def test_kernels_that_differ():
    assert all(one != other for place, one in enumerate(KERNELS) for other in KERNELS[:place])
    assert Rotation(30) != Rotation(31) and Rotation(30) != 30 and MnistC("fog") != MnistC("stripe")
    assert ball_family(1.0) != ball_family(2.0) and MRT(Rotation(30)) != MRT(Rotation(31))
    assert len({Rotation(30), Rotation(30), Rotation(31)}) == 2


def test_kernels_compose_as_they_print():
    kernel = Rotation(30) + Brightness(0.4) + Contrast(0.2)
    assert repr(kernel) == "rotation((-30, 30)) + brightness((-0.4, 0.4)) + contrast((-0.2, 0.2))"
    assert kernel == Compose([Rotation(30), Brightness(0.4), Contrast(0.2)])
    x, index = torch.rand(2, 1, 8, 8), torch.arange(2)
    one, two = (
        each.draw(x, key=1, index=index) for each in (kernel, Compose([Rotation(30), Brightness(0.4), Contrast(0.2)]))
    )
    assert torch.equal(one, two)
    with pytest.raises(TypeError):
        Rotation(30) + 1


def test_a_data_set_is_one_of_torch():
    dataset = rp.data.load("digits")
    image, label = dataset[-1]
    assert torch.equal(image, dataset.x[-1]) and label == dataset.y[-1] and isinstance(label, int)
    assert isinstance(dataset, torch.utils.data.Dataset)
    x, y = zip(*DataLoader(dataset, 100), strict=True)
    assert torch.equal(torch.cat(x), dataset.x) and torch.equal(torch.cat(y), dataset.y)
    x, y = next(iter(DataLoader(Subset(dataset, [5, 3]), 2)))
    assert torch.equal(x, dataset.x[[5, 3]]) and torch.equal(y, dataset.y[[5, 3]])
    assert len(list(dataset)) == len(dataset)
    for index in (599, -600):
        with pytest.raises(IndexError, match=f"index: expected one of 599 points, got {index}"):
            dataset[index]
    with pytest.raises(TypeError, match="index: expected an integer, got slice; `rows` takes several"):
        dataset[:2]
    torch.manual_seed(0)
    model = rp.nets.build("small-cnn", size=8)
    part, whole = (rp.training.evaluate(model, each) for each in (Subset(dataset, range(60)), dataset.limit(60)))
    assert torch.equal(part.rank, whole.rank) and torch.allclose(part.loss, whole.loss)


def test_attacks_by_name():
    torch.manual_seed(0)
    model, x = rp.nets.build("small-cnn", size=8), rp.data.load("digits").x[:6]
    for names, norm, attacks in (
        (None, 2, "fast"),
        ("tibo", 2, [FGSM(), PGD(math.inf), BG(2)]),
        ("tibo", math.inf, [FGSM(), PGD(math.inf), BG(math.inf)]),
        ("fgsm,pgd(eps=2, steps=3),bg", 1, [FGSM(), PGD(2, eps=2, steps=3), BG(1)]),
        (["fgsm", BG(2, steps=2)], 2, [FGSM(), BG(2, steps=2)]),
        (FGSM(0.1), 2, [FGSM(0.1)]),
        (["fgsm, bg", "pgd(2, 4.0, steps=2)"], 2, [FGSM(), BG(2), PGD(2, 4.0, steps=2)]),
    ):
        given = {} if names is None else {"attacks": names}
        assert rp.margins(model, x, norm=norm, **given) == rp.margins(model, x, norm=norm, attacks=attacks)


@pytest.mark.parametrize("attacks, error, message", [
    ("deepfool", ValueError, "attacks: expected one of fgsm, pgd, bg"), ("", ValueError, "attacks: expected names"),
    ([], ValueError, "attacks: expected at least one"), ([FGSM], TypeError, "attacks: expected instances of Attack or"),
    (FGSM, TypeError, "attacks: expected instances"), (3, TypeError, "attacks: expected instances"),
])  # fmt: skip
def test_wrong_attacks(attacks, error, message):
    with pytest.raises(error, match=message):
        rp.margins(torch.nn.Flatten(), torch.zeros(1, 2), attacks=attacks)


def test_progress_on_request(capfd):
    torch.manual_seed(0)
    model, x = rp.nets.build("small-cnn", size=8), rp.data.load("digits").x[:6]

    def calls(**options):
        rp.margins(model, x, attacks="fgsm", batch_size=4, **options)
        rp.basic_robustness(model, x, Rotation(3), samples=2, batch_size=4, **options)
        rp.Score(ball_family(1.0), G="empirical", nodes=3)(model, x, samples=2, **options)

    calls()
    assert capfd.readouterr() == ("", "")
    calls(progress=True)
    out, err = capfd.readouterr()
    assert out == "" and all(text in err for text in ("margins", "basic robustness", "score", "6/6", "18/18"))
