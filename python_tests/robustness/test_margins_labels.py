"""Margins of classifiers that give labels only: budgets, curves, starts, trees by brute force, estimators."""

import math
import warnings

import numpy as np
import pandas
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

import robustperf as rp
from python_tests.support.labels import Counted, annulus, tree_margins
from robustperf import LabelOnly, Margins, margins

NORMS = [1, 2, math.inf]
RNG = np.random.default_rng(0)
X = RNG.random((150, 2))
Y = ((X**2).sum(1) > 0.6).astype(int) + (X[:, 0] > 0.8)


def points(count, *shape, seed=1):
    return torch.rand(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


TREE, FOREST = DecisionTreeClassifier(max_depth=6, random_state=0), RandomForestClassifier(5, random_state=0)


@pytest.mark.parametrize(
    ("estimator", "norm"), [(TREE, 1), (TREE, 2), (TREE, math.inf), (FOREST, 1), (FOREST, math.inf)], ids=repr
)
def test_trees(estimator, norm):
    """The exact margin of trees of two features, from their cells: never below it, nearly always equal."""
    estimator.fit(X, Y)
    x = X[:25]
    found = margins(estimator, x, norm=norm, queries=500, keep_points=True)
    exact = tree_margins(estimator, x, norm)
    # trees compare in float32: a point may cross that much before the threshold
    assert (found.distance.numpy() > exact - 1e-6).all()
    ratio = found.distance.numpy() / exact
    assert np.quantile(ratio, 0.8) < 1.001 and np.median(ratio) < 1.0001
    assert (estimator.predict(found.point.numpy()) != estimator.predict(x)).all()
    assert found.access == "labels" and not found.exact.any() and "access=labels" in repr(found)


def test_a_rule_of_three_of_many_features():
    """The last attack moves the other features back to x; the margin in the norm 1 is the sum of what is missing."""
    x = 0.6 * points(6, 40)
    found = margins(LabelOnly(lambda rows: (rows[:, :3] > 0.6).all(1).long(), 2), x, norm=1)
    exact = (0.6 - x[:, :3]).sum(1)
    assert found.attacks == ("SurFree", "HopSkipJump", "CoordinateDescent")
    assert (found.distance >= exact).all() and (found.distance / exact).median() < 1.01


@pytest.mark.parametrize("norm", NORMS)
def test_annulus(norm):
    """Inside the inner sphere the margin in the norm 2 is 0.3 - r; in any norm no point is nearer than that scaled."""
    x = 0.05 + 0.1 * points(15, 3)
    found = margins(LabelOnly(annulus, 2), x, norm=norm, bounds=(-1, 1), queries=1000)
    exact = 0.3 - torch.linalg.vector_norm(x, dim=1)
    if norm == 2:
        assert (found.distance > exact - 1e-9).all() and (found.distance / exact).median() < 1.01
    else:
        scale = 1.0 if norm == 1 else 3**-0.5
        assert (found.distance > scale * exact - 1e-9).all() and (found.distance < math.sqrt(3) * exact + 0.1).all()


def test_budget_of_a_call_is_kept_to_the_query():
    x = 0.5 * points(9, 3)
    for budget in (10, 33, 200):
        counted = Counted(annulus)
        found = margins(LabelOnly(counted, 2), x, queries=budget)
        each = found.evaluations + found.attack_evaluations.sum(0)
        assert counted.count == each.sum() and each.max() <= budget and found.queries[-1] == budget
        assert each[~(torch.arange(9) % 4 == 0)].max() <= budget - 2  # the rest is for the diagnostics
        plain, counted.count = found, 0
        found = margins(LabelOnly(counted, 2), x, queries=budget + 65, lattice=1 / 255)
        each = found.evaluations + found.attack_evaluations.sum(0)
        assert counted.count == each.sum() and each.max() <= budget + 65 and (found.distance >= plain.distance).all()


def test_own_attacks_have_their_own_budgets():
    counted, x = Counted(annulus), 0.5 * points(6, 3)
    found = margins(LabelOnly(counted, 2), x, attacks="surfree(queries=60),hopskipjump(queries=40)")
    assert (found.attack_evaluations.sum(0) == 100).all() and found.attacks == ("SurFree", "HopSkipJump")
    assert counted.count == (found.evaluations + found.attack_evaluations.sum(0)).sum()
    capped = margins(LabelOnly(annulus, 2), x, attacks="surfree(queries=60),hopskipjump(queries=40)", queries=50)
    assert (capped.attack_evaluations.sum(0) + capped.evaluations).max() <= 50


@pytest.mark.parametrize("norm", NORMS)
def test_curve_over_queries(norm):
    x = 0.5 * points(12, 3)
    found = margins(LabelOnly(annulus, 2), x, norm=norm, queries=300)
    assert found.curve.shape == (12, len(found.queries)) and found.queries[0] == 1 and found.queries[-1] == 300
    assert list(found.queries) == sorted(set(found.queries))
    assert (found.curve[:, 1:] <= found.curve[:, :-1]).all() and torch.equal(found.curve[:, -1], found.distance)
    assert (found.curve[:, 0] > 1.2 * found.distance).any()  # the nearest point of x with another label


def test_results_do_not_depend_on_the_batch_size():
    x = 0.5 * points(23, 3)
    one, other = (
        margins(LabelOnly(annulus, 2), x, queries=150, batch_size=size, keep_points=True) for size in (4, 100)
    )
    assert one == other
    third = margins(LabelOnly(annulus, 2), x, queries=150, key=1)
    assert not torch.equal(third.distance, one.distance)


@pytest.mark.parametrize("norm", NORMS)
def test_starts(norm):
    """Never farther than the nearest given start with another label; draws where there is none."""
    x = 0.1 + 0.01 * points(8, 3)  # of one label all
    starts = torch.cat([0.1 + 0.01 * points(3, 3, seed=3), 0.2 + 0.1 * points(20, 3, seed=2)])
    counted = Counted(annulus)
    assert (annulus(starts) == 1).sum() > 5
    length = torch.cdist(x, starts[annulus(starts) == 1], p=norm).amin(1)
    found = margins(LabelOnly(counted, 2), x, norm=norm, queries=40, starts=starts)
    each = (found.evaluations + found.attack_evaluations.sum(0)).sum()
    assert (found.distance <= length + 1e-12).all() and counted.count == each + len(starts)
    assert torch.equal(found.curve[:, 0], length)
    drawn = margins(LabelOnly(annulus, 2), x, norm=norm, queries=100)
    assert drawn.found.all() and drawn.curve[:, 0].isinf().all()
    array = margins(LabelOnly(annulus, 2), x, norm=norm, queries=40, starts=starts.numpy())
    assert array == found


def test_labels():
    """Wrong labels are margin 0; an estimator's labels may be anything that it was fitted with."""
    names = np.array(["low", "high", "far"])
    estimator = DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, names[Y])
    x, y = X[:40], names[Y[:40]]
    y[:5] = np.where(y[:5] == "low", "high", "low")
    found = margins(estimator, x, labels=y, queries=60)
    wrong = torch.from_numpy(estimator.predict(x) != y)
    assert wrong.sum() >= 5 and (found.distance[wrong] == 0).all() and (found.attack[wrong] == -1).all()
    assert (found.distance[~wrong] > 0).all() and (found.curve[wrong] == 0).all() and found.labelled
    assert torch.equal(found.distance, margins(estimator, x, labels=list(y), queries=60).distance)
    assert found.robust_accuracy(0).value == (~wrong).double().mean()
    with pytest.raises(ValueError, match="labels: expected labels among .*, got .*'other'.* at 1"):
        margins(estimator, x[:2], labels=["low", "other"])
    logistic = LogisticRegression().fit(X, names[Y])
    exact = margins(logistic, x, labels=y)
    assert torch.equal(exact.distance == 0, torch.from_numpy(logistic.predict(x) != y)) and exact.access == "module"


def test_a_constant_model_has_no_adversarial_examples():
    with pytest.warns(RuntimeWarning, match="no adversarial example was found for 100.00% of the points"):
        found = margins(LabelOnly(lambda x: torch.zeros(len(x), dtype=torch.int64), 3), points(6, 2), keep_points=True)
    assert not found.found.any() and found.distance.isinf().all() and found.point.isnan().all()
    assert (found.attack == -1).all() and found.curve.isinf().all()
    assert (found.attack_evaluations.sum(0) < 800).all()


def test_a_noisy_model_is_reported():
    generator = torch.Generator().manual_seed(0)
    noisy = LabelOnly(lambda x: torch.randint(2, (len(x),), generator=generator), 2)
    with pytest.warns(RuntimeWarning, match="changed when evaluated again"):
        margins(noisy, points(40, 2), queries=30)


def test_functions_of_arrays_and_of_tensors():
    """A function is given what `margins` was given."""

    def of_array(rows):
        assert isinstance(rows, np.ndarray)
        return (rows[:, 0] > 0.5).astype(int)

    def of_tensor(rows):
        assert isinstance(rows, torch.Tensor)
        return (rows[:, 0] > 0.5).long()

    x = points(20, 2)
    one = margins(LabelOnly(of_array, 2), x.numpy(), queries=100)
    other = margins(LabelOnly(of_tensor, 2), x, queries=100)
    assert one == other
    torch.testing.assert_close(one.distance, (x[:, 0] - 0.5).abs(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_tabular_data_with_bounds_of_each_feature(norm):
    """A pipeline without an exact module, on features of different scales: the margin of one threshold."""
    x = RNG.random((80, 3)) * [1, 100, 1e4]
    y = (x[:, 1] > 40).astype(int)
    estimator = make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=1)).fit(x, y)
    scaler, tree = estimator[0], estimator[1].tree_
    cut = tree.threshold[0] * scaler.scale_[1] + scaler.mean_[1]
    found = margins(estimator, x[:20], norm=norm, bounds=(x.min(0), x.max(0)), queries=400)
    np.testing.assert_allclose(found.distance.numpy(), np.abs(x[:20, 1] - cut), rtol=1e-3, atol=1e-3)


def test_data_frames():
    frame = pandas.DataFrame(X, columns=["a", "b"])
    estimator = make_pipeline(QuantileTransformer(n_quantiles=20), DecisionTreeClassifier(max_depth=2)).fit(frame, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = margins(estimator, frame[:10], bounds=(frame.min(), frame.max()), starts=frame, queries=60)
    plain = make_pipeline(QuantileTransformer(n_quantiles=20), DecisionTreeClassifier(max_depth=2)).fit(X, Y)
    assert found == margins(plain, X[:10], bounds=(X.min(0), X.max(0)), starts=X, queries=60)
    rule = LabelOnly(lambda rows: (rows[:, 0] > 0.5).astype(int), 2)
    assert margins(rule, frame[:10], queries=60) == margins(rule, X[:10], queries=60)


@pytest.mark.parametrize("kind", [LogisticRegression, DecisionTreeClassifier])
def test_columns_of_another_order_are_an_error(kind):
    frame = pandas.DataFrame(X, columns=["a", "b"])
    estimator = kind().fit(frame, Y)
    with pytest.raises(ValueError, match=r"x: expected the columns \['a', 'b'\] in this order, got \['b', 'a'\]"):
        margins(estimator, frame[["b", "a"]])
    with pytest.raises(ValueError, match="x: expected columns of numbers, got others: .*'text'"):
        margins(estimator, pandas.DataFrame({"a": [0.5], "b": ["text"]}))


@pytest.mark.parametrize("dtype", [object, str])
def test_classes_of_text(dtype):
    """pandas gives labels of dtype object, whose order NumPy cannot compare with numbers."""
    names = np.where(Y > 0, "high", "low").astype(dtype)
    estimator = RandomForestClassifier(3, random_state=0).fit(X, names)
    found = margins(estimator, X[:9], labels=pandas.Series(names[:9]), queries=40)
    assert torch.equal(found.distance == 0, torch.from_numpy(estimator.predict(X[:9]) != names[:9]))
    for labels in ([0, 1], ["low", None]):
        with pytest.raises(ValueError, match="labels: expected labels among"):
            margins(estimator, X[:2], labels=labels, queries=40)


def test_estimators_of_several_outputs_and_of_one_class():
    several = RandomForestClassifier(3).fit(X, np.stack([Y, Y > 0], 1))
    with pytest.raises(TypeError, match="of one output, .* got RandomForestClassifier of several outputs"):
        margins(several, X)
    with pytest.raises(ValueError, match="classes: expected at least two"):
        margins(RandomForestClassifier(3).fit(X, 0 * Y), X)


@pytest.mark.parametrize("names", [2, [7, 3]])
def test_data_sets(names):
    """Their labels are the function's; the starts are queried once, not once for each part that is read."""
    x = points(300, 3).float()
    y = torch.as_tensor(names if isinstance(names, list) else [0, 1])[annulus(x)]
    y[:4] = y[:4].flip(0)
    counted = Counted(lambda rows: y.new_tensor(names if isinstance(names, list) else [0, 1])[annulus(rows)])
    starts = points(11, 3, seed=4).float()
    found = margins(LabelOnly(counted, names), (x, y), labels="true", queries=20, starts=starts)
    each = found.evaluations + found.attack_evaluations.sum(0)
    assert counted.count == each.sum() + 11 and found.labelled
    right = torch.as_tensor(names if isinstance(names, list) else [0, 1])[annulus(x)] == y
    assert torch.equal(found.distance > 0, right)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"attacks": "fgsm"}, ValueError, "attacks: expected ones that need labels only .*, got FGSM"),
        ({"queries": 9}, ValueError, "queries: expected an integer >= 10"),
        ({"starts": torch.zeros(4, 3)}, ValueError, "starts: expected shape"),
        ({"starts": torch.full((4, 2), 3.0)}, ValueError, "starts: expected pixels within"),
        ({"starts": [1.0]}, TypeError, "starts: expected a tensor"),
        ({"labels": torch.full((5,), 7)}, ValueError, "labels: expected labels in 0..1, got 7"),
        ({"norm": 3}, ValueError, "norm: "),
        ({"tol": 0}, ValueError, "tol: "),
        ({"batch_size": 0}, ValueError, "batch_size: "),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        margins(LabelOnly(annulus, 2), points(5, 2), **options)


@pytest.mark.parametrize("options", [{"queries": 100}, {"starts": torch.zeros(2, 2)}])
def test_options_for_labels_only(options):
    """A network's attacks have budgets of their own; an estimator with an exact module needs none."""
    with pytest.raises(ValueError, match="queries, starts: expected None for a model that gives logits"):
        margins(torch.nn.Linear(2, 2), torch.rand(3, 2), **options)
    assert margins(LogisticRegression().fit(X, Y), X[:3], **options).exact.all()


def test_no_points():
    found = margins(LabelOnly(annulus, 2), torch.empty(0, 3), keep_points=True)
    assert len(found) == 0 and found.point.shape == (0, 3) and found.curve.shape[0] == 0


def test_saved_and_loaded(tmp_path):
    found = margins(LabelOnly(annulus, 2), 0.5 * points(7, 3), queries=50, labels=torch.ones(7, dtype=torch.int64))
    found.save(tmp_path / "margins.npz")
    again = Margins.load(tmp_path / "margins.npz")
    assert again == found and again.access == "labels" and again.labelled and again.queries == found.queries


@pytest.mark.parametrize("name", ["attacks", "LabelOnly"])
def test_public_names(name):
    assert hasattr(rp, name)
