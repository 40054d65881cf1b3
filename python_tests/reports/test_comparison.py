"""`compare`: the page and its differences against the single models' results."""

import math

import pytest
import torch
from scipy import stats

import robustperf as rp
from python_tests.support.html_page import check_self_contained, interval
from python_tests.support.small_models import mlp, trained
from robustperf.nuisance import Rotation

HOSTILE = "<script>alert(1)</script>"
SETTINGS = {"attacks": "fgsm", "norms": [2, "inf"], "samples": 10, "batch_size": 16, "seed": 3}


@pytest.fixture(scope="module")
def models():
    return {"plain": trained(steps=12), HOSTILE: trained(steps=30, seed=1), "untrained": mlp(seed=2)}


@pytest.fixture(scope="module")
def data():
    return rp.data.load("digits").limit(40)


@pytest.fixture(scope="module")
def comparison(models, data):
    return rp.compare(models, data, kernels={"rotation(30)": Rotation(30)}, **SETTINGS)


@pytest.fixture(scope="module")
def page(comparison):
    return check_self_contained(comparison.html)


def test_columns_are_the_single_reports(page, models, data):
    assert list(page.rows("models-table").items()) == [("A", ["plain"]), ("B", [HOSTILE]), ("C", ["untrained"])]
    overview = page.rows("overview-table")
    for column, model in enumerate(models.values()):
        single = rp.report(model, data, kernels={"rotation(30)": Rotation(30)}, examples=0, **SETTINGS).summary()
        assert interval(overview["accuracy"][column])[0] == pytest.approx(single["accuracy"][0], abs=5e-5)
        assert overview["median margin, L∞"][column] == f"{single['margins']['inf']['median']:.4g}"
        assert overview["R in L₂"][column] == f"{single['margins']['2']['area']:.4g}"
        rho = single["kernels"]["rotation(30)"]["rho"]
        assert interval(overview["ρ under rotation(30)"][column]) == pytest.approx(rho, abs=5e-4)
        stripe = single["corruptions"]["stripe"]["accuracy"]
        assert interval(page.rows("corruptions-table")["stripe"][column]) == pytest.approx(stripe, abs=5e-4)


def test_differences(comparison, page, models, data):
    """Against the margins and labels of two calls, and scipy's paired test."""
    plain, other = list(models.values())[:2]
    found = {each.quantity: each for each in comparison.differences if each.name == HOSTILE}
    right = [model(data.x).argmax(1) == data.y for model in (plain, other)]
    accuracy = found["accuracy"]
    assert accuracy.value == pytest.approx((right[1].double() - right[0].double()).mean().item())
    assert accuracy.lower < accuracy.value < accuracy.upper

    settings = {"attacks": "fgsm", "key": 3, "batch_size": 16}
    with pytest.warns(RuntimeWarning, match="no adversarial example"):
        margins = [rp.margins(model, data.x, **settings) for model in (plain, other)]
        true = [rp.margins(model, data.x, labels=data.y, **settings) for model in (plain, other)]
    one, two = (each.distance.clamp(max=8) for each in margins)
    mean = found["margin in L₂, mean (R)"]
    scipys = stats.ttest_rel(two.numpy(), one.numpy()).confidence_interval(0.95)
    assert (mean.lower, mean.upper) == pytest.approx((scipys.low, scipys.high))
    assert mean.value == pytest.approx(
        rp.MarginCurve.from_margins(margins[1]).area - rp.MarginCurve.from_margins(margins[0]).area
    )
    (robust,) = (each for name, each in found.items() if name.startswith("accuracy under attack, L₂ ε = "))
    eps = float(robust.quantity.rpartition(" ")[2])
    one, two = (each.robust_accuracy(eps).value for each in true)
    assert robust.value == pytest.approx(two - one) and 0.5 < eps / margins[0].median < 2

    rows = page.rows("differences-table")
    assert set(rows) == {"quantity", *found} and all(len(cells) == 2 for cells in rows.values())
    for name, each in found.items():
        text = f"{100 * each.value:+.2f}%" if each.unit == "fraction" else f"{each.value:+.3g}"
        assert rows[name][0].split(" ")[0] == text


def test_curves_share_a_figure(comparison, page):
    html = comparison.html
    assert len(page.of("svg")) == 2
    for colour in ("--c0", "--c1", "--c2"):
        assert html.count(f"stroke: var({colour})") == 2
    assert HOSTILE not in html and page.text.count(HOSTILE) >= 1


def test_an_interrupted_comparison_resumes(tmp_path, monkeypatch, models, data, comparison):
    arguments = {"kernels": {"rotation(30)": Rotation(30)}, "folder": tmp_path / "run", **SETTINGS}
    evaluate, evaluated = rp.training.evaluate, []

    def interrupted(model, *others, **named):
        if len(evaluated) == 2:
            raise KeyboardInterrupt
        evaluated.append(model)
        return evaluate(model, *others, **named)

    with monkeypatch.context() as patched:
        patched.setattr("robustperf.reports.measure.evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rp.compare(models, data, **arguments)
    with pytest.raises(ValueError, match="holds an earlier run"):
        rp.compare(models, data, **arguments)
    with pytest.raises(ValueError, match="models was"):
        rp.compare({**models, "plain": mlp(seed=5)}, data, **arguments, resume=True)
    margins, found_for = rp.margins, []

    def counted(model, *others, **named):
        found_for.append(model)
        return margins(model, *others, **named)

    monkeypatch.setattr("robustperf.reports.measure.margins", counted)
    found = rp.compare(models, data, **arguments, resume=True)
    assert set(found_for) == {models["untrained"]}  # the others were finished
    for name in models:
        assert torch.equal(
            found.models[name].margins[math.inf].distance, comparison.models[name].margins[math.inf].distance
        )
    assert found.differences == comparison.differences


@pytest.mark.parametrize("change, message", [
    ({"models": {}}, "models: expected at least two, got 0"), ({"norms": []}, "norms: expected"),
    ({"models": {"a": mlp(), "b": mlp(values=9)}}, "data: expected images that the model takes"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_bad_input(models, data, change, message):
    with pytest.raises(ValueError, match=message):
        rp.compare(**{"models": models, "data": data, **change})
    with pytest.raises(TypeError, match="models: expected a mapping"):
        rp.compare(list(models.values()), data)
