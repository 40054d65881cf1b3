"""scikit-learn classifiers as modules: labels, decision values and probabilities are the estimators', in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC

import robustperf as rp
from robustperf.attacks import BG, PGD
from robustperf.transfer import EstimatorModule, SVMModule, module_from_sklearn

X, Y = load_iris(return_X_y=True)
BINARY = make_classification(150, 4, n_informative=3, n_redundant=0, random_state=0)
WITHIN = np.random.default_rng(0).uniform(X.min(0), X.max(0), (400, 4))


def data(classes):
    return (X, Y) if classes == 3 else BINARY


def logits(module, points):
    return module(torch.tensor(points, dtype=torch.float64)).numpy()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:lbfgs failed")
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("estimator", [
    LinearSVC(), LinearSVC(fit_intercept=False), LinearSVC(multi_class="crammer_singer"),
    LogisticRegression(), LogisticRegressionCV(cv=3), OneVsRestClassifier(LogisticRegression(solver="liblinear")),
    OneVsRestClassifier(LinearSVC(fit_intercept=False)), make_pipeline(StandardScaler(), LogisticRegression()),
], ids=repr)  # fmt: skip
def test_linear_classifiers(estimator, classes):
    x, y = data(classes)
    estimator.fit(x, y)
    module = module_from_sklearn(estimator)
    values = estimator.decision_function(WITHIN)
    expected = values if classes == 3 else np.stack([np.zeros(len(values)), values], 1)
    np.testing.assert_allclose(logits(module, WITHIN), expected, rtol=1e-12, atol=1e-12)
    assert np.array_equal(module.predict(WITHIN), estimator.predict(WITHIN))


@pytest.mark.parametrize("classes", [2, 3])
def test_the_softmax_is_the_multinomial_probability(classes):
    estimator = LogisticRegression(max_iter=300).fit(*data(classes))
    ours = torch.tensor(logits(module_from_sklearn(estimator), WITHIN)).softmax(1).numpy()
    np.testing.assert_allclose(ours, estimator.predict_proba(WITHIN), rtol=1e-12, atol=1e-15)


def test_the_normalised_sigmoids_are_the_one_vs_rest_probability():
    estimator = OneVsRestClassifier(LogisticRegression()).fit(X, Y)
    ours = torch.tensor(logits(module_from_sklearn(estimator), WITHIN)).sigmoid()
    np.testing.assert_allclose((ours / ours.sum(1, keepdim=True)).numpy(), estimator.predict_proba(WITHIN), rtol=1e-12)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_perceptrons(activation, classes):
    estimator = MLPClassifier((7, 5), activation=activation, max_iter=40, random_state=0).fit(*data(classes))
    module = module_from_sklearn(estimator)
    ours = torch.tensor(logits(module, WITHIN)).softmax(1).numpy()
    np.testing.assert_allclose(ours, estimator.predict_proba(WITHIN), rtol=1e-10, atol=1e-14)
    assert np.array_equal(module.predict(WITHIN), estimator.predict(WITHIN))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("scalers", [
    [StandardScaler()], [StandardScaler(with_mean=False)], [StandardScaler(with_std=False)], [MinMaxScaler((-1, 2))],
    [MinMaxScaler(clip=True)], [MaxAbsScaler()], [RobustScaler()], [RobustScaler(with_centering=False)],
    [Normalizer()], [Normalizer("l1")], [Normalizer("max")], ["passthrough", StandardScaler(), MinMaxScaler()],
], ids=repr)  # fmt: skip
def test_pipelines(scalers, classes):
    x, y = data(classes)
    for classifier in (SVC(decision_function_shape="ovo"), LinearSVC()):
        estimator = make_pipeline(*scalers, classifier).fit(x, y)
        module = module_from_sklearn(estimator)
        assert np.array_equal(module.predict(WITHIN), estimator.predict(WITHIN))
        outputs = logits(module, WITHIN)
        assert np.array_equal(module.classes_[outputs.argmax(1)], estimator.predict(WITHIN))
        if classes == 2:
            np.testing.assert_allclose(outputs[:, 1], estimator.decision_function(WITHIN), rtol=1e-10, atol=1e-10)


def test_rows_of_zeros_stay_zero():
    estimator = make_pipeline(Normalizer(), LinearSVC()).fit(X, Y)
    zeros = np.zeros((1, 4))
    np.testing.assert_allclose(logits(module_from_sklearn(estimator), zeros), estimator.decision_function(zeros))


def test_estimators_that_contain_others():
    grid = GridSearchCV(make_pipeline(StandardScaler(), SVC()), {"svc__C": [0.1, 10]}, cv=3).fit(X, Y)
    drawn = RandomizedSearchCV(LogisticRegression(max_iter=300), {"C": [0.1, 10]}, n_iter=2, cv=3).fit(X, Y)
    inside = make_pipeline(StandardScaler(), GridSearchCV(SVC(), {"C": [1, 10]}, cv=3)).fit(X, Y)
    for estimator in (grid, drawn, inside, FrozenEstimator(grid)):
        assert np.array_equal(module_from_sklearn(estimator).predict(WITHIN), estimator.predict(WITHIN))
    assert isinstance(SVMModule.from_sklearn(grid), EstimatorModule)
    assert isinstance(SVMModule.from_sklearn(GridSearchCV(SVC(), {"C": [1, 10]}, cv=3).fit(X, Y)), SVMModule)


@pytest.mark.parametrize("labels", [
    np.array(["setosa", "versicolor", "virginica"]), np.array([-3, 7, 100], np.int8), np.array([0.0, 5.0, 9.0]),
    np.array([1, 2, 9], np.uint16),
])  # fmt: skip
@pytest.mark.parametrize("estimator", [SVC(), LinearSVC(), LogisticRegression(max_iter=300)], ids=repr)
def test_labels_keep_their_kind(estimator, labels):
    estimator.fit(X, labels[Y])
    module, expected = module_from_sklearn(estimator), estimator.predict(WITHIN)
    of_array, of_tensor = module.predict(WITHIN), module.predict(torch.tensor(WITHIN))
    assert isinstance(of_array, np.ndarray) and of_array.dtype == expected.dtype and np.array_equal(of_array, expected)
    assert isinstance(of_tensor, torch.Tensor) == (labels.dtype.kind in "iuf")
    assert np.array_equal(np.asarray(of_tensor), expected)


def test_arrays_of_any_numbers():
    estimator = SVC().fit(X, Y)
    module = module_from_sklearn(estimator)
    for points in (
        WITHIN,
        WITHIN.astype(np.float32),
        WITHIN.round().astype(np.int64),
        WITHIN[::-1],
        WITHIN.astype("f2"),
    ):
        assert np.array_equal(module.predict(points), estimator.predict(points))
    WITHIN.flags.writeable = False
    assert np.array_equal(module.predict(WITHIN), estimator.predict(WITHIN))
    WITHIN.flags.writeable = True


def test_float32_and_devices_keep_the_parameters_exact():
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    module = module_from_sklearn(estimator).float().half().to("cpu")
    x = torch.tensor(WITHIN, dtype=torch.float32)
    assert module(x).dtype == torch.float32
    np.testing.assert_allclose(module(x).numpy(), estimator.decision_function(x.double().numpy()), rtol=1e-6, atol=1e-6)
    assert np.array_equal(module.predict(x).numpy(), estimator.predict(x.double().numpy()))


def test_margins_of_an_estimator():
    """The margin of a linear classifier of two classes in L2 is |d(x)| / ||w||, inside a wide box."""
    x, y = BINARY
    estimator = LinearSVC().fit(x, y)
    margins = rp.margins(estimator, x[:40], attacks=[BG(norm=2)], bounds=(-50, 50))
    exact = np.abs(estimator.decision_function(x[:40])) / np.linalg.norm(estimator.coef_)
    np.testing.assert_allclose(margins.distance.numpy(), exact, rtol=1e-4)
    module = module_from_sklearn(estimator, dtype=torch.float64)
    assert rp.margins(module, torch.tensor(x[:40]), attacks=[BG(norm=2)], bounds=(-50, 50)) == replace(
        margins, access="model"
    )
    assert margins.access == "module"


def test_gradients_lead_through_scalers():
    estimator = make_pipeline(MinMaxScaler(), MLPClassifier((6,), max_iter=60, random_state=0))
    with pytest.warns(UserWarning):
        estimator.fit(X, Y)
    module, x = module_from_sklearn(estimator), torch.tensor(X[:3], requires_grad=True)
    assert torch.autograd.gradcheck(module, x)
    found = PGD(norm=2, eps=3.0)(module, torch.tensor(X), torch.tensor(Y), bounds=(0, 10))
    assert (estimator.predict(found.point.numpy()) != Y).mean() > 0.9


@pytest.mark.parametrize("estimator, error, message", [
    (RandomForestClassifier(3).fit(X, Y), TypeError, "got RandomForestClassifier; robustperf.margins takes it"),
    (make_pipeline(PolynomialFeatures(), LinearSVC()).fit(X, Y), TypeError, "got one with PolynomialFeatures"),
    (MLPClassifier((2,), max_iter=3).fit(X, np.eye(3, dtype=int)[Y]), TypeError, "got MLPClassifier; robustperf"),
    (OneVsRestClassifier(RandomForestClassifier(3)).fit(X, Y), TypeError, "got OneVsRestClassifier; robustperf"),
    (SVC(kernel="sigmoid").fit(X, Y), TypeError, "got 'sigmoid'"),
    (LinearSVC(), ValueError, "got a LinearSVC that is not fitted"),
    (GridSearchCV(SVC(), {"C": [1]}, refit=False).fit(X, Y), ValueError, "refit=True"),
    (torch.nn.Linear(2, 2), TypeError, "expected a fitted scikit-learn classifier, got Linear"),
], ids=lambda value: type(value).__name__)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_other_estimators_are_rejected(estimator, error, message):
    with pytest.raises(error, match=message):
        module_from_sklearn(estimator)
    if isinstance(estimator, MLPClassifier):  # of several labels
        with pytest.raises(ValueError, match="expected one label for each of 3 points, got shape"):
            rp.margins(estimator, X[:3], bounds=(0, 10))
    elif error is TypeError and not isinstance(estimator, torch.nn.Module):
        found = rp.margins(estimator, X[::50], bounds=(0, 10), queries=40, keep_points=True)
        assert found.access == "labels" and found.found.all()
        assert (estimator.predict(found.point.numpy()) != estimator.predict(X[::50])).all()


def test_wrong_input():
    module = module_from_sklearn(make_pipeline(StandardScaler(), LinearSVC()).fit(X, Y))
    with pytest.raises(ValueError, match="x: expected images of 4 values, got 3"):
        module.predict(WITHIN[:, :3])
    with pytest.raises(ValueError, match="x: expected finite pixels"):
        module.predict(np.full((1, 4), np.nan))
    with pytest.raises(TypeError, match="x: expected torch.float32 or torch.float64, got torch.int64"):
        module(torch.zeros(1, 4, dtype=torch.int64))
