"""An SVC as a module: scikit-learn's decision values, labels and ties, and errors."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC

import robustperf as rp
from python_tests.support.svms import every_kernel, overlapping, random_labels
from robustperf.transfer import SVMModule


def decided(svc, x):
    """libsvm's own decision values [B, P], in float64: above 0 is a vote for the first class of the pair."""
    shape, svc.decision_function_shape = svc.decision_function_shape, "ovo"
    values = svc.decision_function(x)
    svc.decision_function_shape = shape
    return torch.tensor(values if values.ndim == 2 else -values[:, None])


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_digits(split_digits, settings, dtype):
    (x, y), (test, _) = split_digits
    svc = SVC(**settings).fit(x, y)
    module = SVMModule.from_sklearn(svc, dtype=dtype)
    images = torch.tensor(test, dtype=dtype).view(-1, 1, 8, 8)
    found, expected = module.decisions(images), decided(svc, test)
    assert found.shape == (len(test), 45) and found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-10)
    outputs = module(images)
    assert outputs.shape == (len(test), 10) and outputs.dtype == dtype
    assert np.array_equal(outputs.argmax(1).numpy(), svc.predict(test))
    assert np.array_equal(module.predict(images), svc.predict(test))
    assert ((outputs > 0).sum(1) == 1).all(), "the label's alone"


def test_mnist(data_root):
    train, test = (rp.data.load("mnist", split, data_root) for split in ("train", "test"))
    svc = SVC(gamma=0.05, C=5, decision_function_shape="ovo")
    svc.fit(train.x[:1000].flatten(1).double().numpy(), train.y[:1000].numpy())
    test = test.limit(2000)
    module, flat = SVMModule.from_sklearn(svc), test.x.flatten(1).double().numpy()
    assert test.x.dtype == torch.float32 and len(flat) == 2000
    with torch.no_grad():
        outputs, decisions = (torch.cat([f(part) for part in test.x.split(1000)]) for f in (module, module.decisions))
    labels, values = svc.predict(flat), svc.decision_function(flat)
    assert np.array_equal(svc.classes_[outputs.argmax(1).numpy()], labels)
    assert np.array_equal(module.predict(test.x), labels)
    assert np.abs(decisions.double().numpy() - values).max() <= 1e-5


def votes_of(decisions, classes):
    """[B, C]"""
    votes = np.zeros((len(decisions), classes), dtype=int)
    for p, (i, j) in enumerate(itertools.combinations(range(classes), 2)):
        votes[:, i] += decisions[:, p] > 0
        votes[:, j] += decisions[:, p] <= 0
    return votes


def test_signs_that_float32_cannot_resolve():
    """Decision values moved to within 1e-6 of 0, on both sides of it, where float32's rounding is far larger."""
    x, y = random_labels(2)
    svc = SVC(gamma=0.05, C=1000, max_iter=5000).fit(x, y)
    module = SVMModule.from_sklearn(svc)
    points = torch.tensor(overlapping(2, 300, seed=1)[0], dtype=torch.float32)
    values = module.double().decisions(points.double())[:, 0]
    module.float()
    for value, point in zip(values.tolist(), points, strict=True):
        for shift in (-1e-6, 1e-6):
            module.intercept.sub_(value - shift)
            assert module.predict(point[None])[0] == int(shift < 0)
            assert module(point[None]).argmax(1).item() == int(shift < 0)
            module.intercept.add_(value - shift)


def test_float64_images_whose_rounding_to_float32_changes_the_label():
    """`predict` of float64 images, by a module of float32, at decision values of 1e-9."""
    svc = SVC(gamma=0.05, C=1000, max_iter=5000).fit(*random_labels(2))
    module = SVMModule.from_sklearn(svc)
    points = torch.tensor(overlapping(2, 100, seed=1)[0])
    assert (points != points.float()).any()
    values = torch.tensor(-svc.decision_function(points.numpy()))
    wrong = 0
    for value, point in zip(values.tolist(), points, strict=True):
        module.intercept.sub_(value - 1e-9)
        assert module.predict(point[None])[0] == 0
        wrong += int(module.predict(point[None].float())[0] != 0)
        module.intercept.add_(value - 1e-9)
    assert wrong > 10, "the rounded images are on both sides"


def test_support_vectors_that_float32_cannot_hold():
    """float32 values near 2^20 are 1/8 apart: the first vector would be 0.5 from the point, nearer than the second."""
    point = np.full((1, 8), 2.0**20)
    vectors = np.concatenate([point + 0.53, point - 0.5])
    vectors[1, 0] -= 0.125
    svc = SVC(gamma=0.05).fit(vectors, ["first", "second"])
    module = SVMModule.from_sklearn(svc)
    assert svc.predict(point) == module.predict(torch.tensor(point, dtype=torch.float32)) == "second"


@pytest.mark.parametrize("settings", [{}, {"break_ties": True}], ids=["first", "break_ties"])
@pytest.mark.parametrize("classes", [2, 3, 4, 7])
@pytest.mark.parametrize("svc_class", [SVC, NuSVC])
def test_split_votes_and_ties(svc_class, classes, settings):
    kind = {"nu": 0.3} if svc_class is NuSVC else {}
    svc = svc_class(gamma=0.05, **kind, **settings).fit(*random_labels(classes))
    x = overlapping(classes, 1000, seed=1)[0]
    module = SVMModule.from_sklearn(svc, dtype=torch.float64)
    assert np.array_equal(module(torch.tensor(x)).argmax(1).numpy(), svc.predict(x))
    assert np.array_equal(module.predict(torch.tensor(x)), svc.predict(x))
    if classes > 2:
        votes = votes_of(decided(svc, x).numpy(), classes)
        tied = (votes == votes.max(1, keepdims=True)).sum(1) > 1
        assert tied.sum() >= 5, "otherwise nothing is tested"


def test_the_two_rules_for_ties_differ_where_scikit_learns_do():
    x = overlapping(4, 1000, seed=1)[0]
    first, confident = (SVC(gamma=0.05, break_ties=b).fit(*random_labels(4)) for b in (False, True))
    assert (first.predict(x) != confident.predict(x)).any()


@pytest.mark.parametrize("labels", [["no", "yes"], ["cat", "ant", "dog"], [7, -3, 5], [True, False]], ids=str)
def test_labels_are_kept(labels):
    x, y = overlapping(len(labels))
    svc = SVC().fit(x, np.array(labels)[y])
    module = SVMModule.from_sklearn(svc)
    assert np.array_equal(module.classes_, svc.classes_)
    found, expected = module.predict(x.astype(np.float32)), svc.predict(x)
    assert found.dtype == expected.dtype and np.array_equal(found, expected)
    of_tensor = module.predict(torch.tensor(x))  # float64, of a module of float32
    assert isinstance(of_tensor, np.ndarray if isinstance(labels[0], str) else torch.Tensor)
    assert np.array_equal(of_tensor, expected)


def test_two_classes_are_the_decision_value_and_its_negative():
    x, y = overlapping(2)
    svc = SVC(gamma=0.05).fit(x, y)
    outputs = SVMModule.from_sklearn(svc, dtype=torch.float64)(torch.tensor(x))
    expected = torch.tensor(svc.decision_function(x))
    torch.testing.assert_close(outputs, torch.stack([-expected, expected], 1), rtol=0, atol=1e-12)


def test_a_decision_value_of_zero_is_a_vote_as_in_scikit_learn():
    """Points on a plane between classes; with values that float64 represents exactly."""
    x, y = np.array([[-1.0, 0.0], [1.0, 0.0]]), np.array([0, 1])
    svc = SVC(kernel="linear").fit(x, y)
    between = np.array([[0.0, 3.0], [0.0, -1.0], [0.5, 0.0], [-0.5, 0.0]])
    assert (svc.decision_function(between)[:2] == 0).all()
    for dtype in (torch.float32, torch.float64):
        module = SVMModule.from_sklearn(svc, dtype=dtype)
        images = torch.tensor(between, dtype=dtype)
        assert np.array_equal(module(images).argmax(1).numpy(), svc.predict(between))
        assert np.array_equal(module.predict(images), svc.predict(between))


def test_no_vector_of_a_class_and_sparse_images():
    from scipy.sparse import csr_matrix

    x, y = overlapping(3)
    for kernel in ("rbf", "linear", "poly"):
        svc = SVC(kernel=kernel, gamma=0.05, degree=2).fit(csr_matrix(x), y)
        module = SVMModule.from_sklearn(svc, dtype=torch.float64)
        assert np.array_equal(module.predict(torch.tensor(x)), svc.predict(csr_matrix(x)))


FITTED = SVC().fit(*overlapping(3, 30))


def altered(**changes):
    svc = SVC().fit(*overlapping(3, 30))
    for name, value in changes.items():
        setattr(svc, name, value)
    return svc


@pytest.mark.parametrize("svc, error, message", [
    (LinearSVC(), TypeError, r"svc: expected a fitted sklearn.svm.SVC or NuSVC, got LinearSVC"),
    (SVR(), TypeError, r"svc: expected a fitted sklearn.svm.SVC or NuSVC, got SVR"),
    (LogisticRegression(), TypeError, r"svc: expected .*, got LogisticRegression"),
    (SimpleNamespace(kernel="rbf"), TypeError, r"svc: expected .*, got SimpleNamespace"),
    (SVC, TypeError, r"svc: expected .*, got the class SVC; robustperf.transfer.module_from_sklearn"),
    (SVC(), ValueError, r"svc: expected a fitted SVC, got one that is not fitted"),
    (SVC(kernel=lambda a, b: a @ b.T).fit(*overlapping(3, 30)), ValueError, r"svc: expected .* got a function"),
    (SVC(kernel="sigmoid").fit(*overlapping(3, 30)), ValueError, r"svc: expected the kernel .*, got 'sigmoid'"),
    (SVC(kernel="precomputed").fit(np.eye(4), [0, 1, 0, 1]), ValueError, r"svc: expected .*, got 'precomputed'"),
    (altered(classes_=np.array([5])), ValueError, r"svc: expected at least two classes, got \[.*5.*\]"),
    (altered(support_vectors_=FITTED.support_vectors_ * math.nan), ValueError,
     r"svc.support_vectors_: expected finite numbers, got nan at \[0, 0\]"),
    (altered(dual_coef_=np.full_like(FITTED.dual_coef_, math.inf)), ValueError, r"svc.dual_coef_: expected finite "),
    (altered(dual_coef_=FITTED.dual_coef_[:1]), ValueError, r"svc.dual_coef_: expected shape \[2, \d+\]"),
    (altered(dual_coef_=FITTED.dual_coef_[:, :-1]), ValueError, r"svc.dual_coef_: expected shape \[2, \d+\]"),
    (altered(support_vectors_=FITTED.support_vectors_[1:]), ValueError, r"svc.dual_coef_: expected shape \[2, \d+\]"),
    (altered(intercept_=FITTED.intercept_[:2]), ValueError, r"svc.intercept_: expected 3 values, got 2"),
    (altered(break_ties=True, decision_function_shape="ovo"), ValueError, r"svc: expected break_ties=False with"),
])  # fmt: skip
def test_other_estimators_are_rejected(svc, error, message):
    with pytest.raises(error, match=message):
        SVMModule.from_sklearn(svc)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, "float32", None])
def test_wrong_dtypes(dtype):
    with pytest.raises(TypeError, match="dtype: expected torch.float32 or torch.float64, got"):
        SVMModule.from_sklearn(FITTED, dtype=dtype)


@pytest.mark.parametrize("kernel", ["rbf", "linear", "poly"])
@pytest.mark.parametrize("x, error, message", [
    (torch.zeros(3, 5), ValueError, r"x: expected images of 4 values, got shape \[3, 5\]"),
    (torch.zeros(0, 5), ValueError, r"x: expected images of 4 values, got shape \[0, 5\]"),
    (torch.zeros(4), ValueError, r"x: expected images of 4 values, got shape \[4\]"),
    (torch.zeros(3, 4).half(), TypeError, r"x: expected torch.float32.*, got torch.float16"),
    (np.zeros((3, 4)), TypeError, r"x: expected a tensor, got ndarray"),
    (torch.zeros(3, 4, device="meta"), ValueError, r"x: expected a tensor on cpu, got one on meta"),
])  # fmt: skip
def test_wrong_images(kernel, x, error, message):
    module = SVMModule.from_sklearn(SVC(kernel=kernel).fit(*overlapping(3, 30)))
    with pytest.raises(error, match=message):
        module(x)


@pytest.mark.parametrize("kernel", ["rbf", "linear", "poly"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_images_that_are_not_finite(kernel, value):
    module = SVMModule.from_sklearn(SVC(kernel=kernel).fit(*overlapping(3, 30)))
    x = torch.zeros(3, 4)
    x[1, 2] = value
    with pytest.raises(ValueError, match=r"x: expected finite pixels, got .* at \[1, 2\]"):
        module.predict(x)
    for outputs in (module(x), module.decisions(x)):
        assert outputs[1].isnan().all() and outputs[[0, 2]].isfinite().all()
