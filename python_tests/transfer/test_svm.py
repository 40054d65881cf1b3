"""A scikit-learn SVC as a module: its decision values, its labels and ties, gradients, and attacks on it."""

import copy
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC

import robustperf as rp
from robustperf.attacks import BG, FGSM, PGD
from robustperf.transfer import SVMModule

KERNELS = {
    "rbf": {"gamma": 0.05, "C": 5}, "rbf, scaled": {"gamma": "scale"}, "rbf, auto": {"gamma": "auto"},
    "linear": {"kernel": "linear"}, "cubic": {"kernel": "poly", "coef0": 0.5},
    "quadratic": {"kernel": "poly", "degree": 2, "gamma": 0.1},
    "rbf, large sums": {"gamma": 0.01, "C": 100}, "cubic, large sums": {"kernel": "poly", "coef0": 1, "C": 5},
}  # fmt: skip

every_kernel = pytest.mark.parametrize("settings", KERNELS.values(), ids=KERNELS.keys())


@pytest.fixture(scope="module")
def digits():
    """(images in [0, 1], labels) to fit on, and those to look at."""
    x, y = load_digits(return_X_y=True)
    x = x / 16
    return (x[:500], y[:500]), (x[500:], y[500:])


def overlapping(classes, count=300, seed=0):
    """Points of classes that overlap, so that votes are split and tied."""
    return make_blobs(count, n_features=4, centers=classes, cluster_std=6.0, random_state=seed)


def without_sense(classes, count=300, seed=0):
    """Labels that have nothing to do with the points: no pair of classes agrees with the next."""
    return overlapping(classes, count, seed)[0], np.random.default_rng(seed).integers(classes, size=count)


def decided(svc, x):
    """libsvm's own decision values [B, P], in float64: above 0 is a vote for the first class of the pair."""
    shape, svc.decision_function_shape = svc.decision_function_shape, "ovo"
    values = svc.decision_function(x)
    svc.decision_function_shape = shape
    return torch.tensor(values if values.ndim == 2 else -values[:, None])


# ---- scikit-learn's values and labels


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_digits(digits, settings, dtype):
    (x, y), (test, _) = digits
    svc = SVC(**settings).fit(x, y)
    module = SVMModule.from_sklearn(svc, dtype=dtype)
    images = torch.tensor(test, dtype=dtype).view(-1, 1, 8, 8)
    got, want = module.decisions(images), decided(svc, test)
    assert got.shape == (len(test), 45) and got.dtype == dtype
    torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-10)
    outputs = module(images)
    assert outputs.shape == (len(test), 10) and outputs.dtype == dtype
    assert np.array_equal(outputs.argmax(1).numpy(), svc.predict(test))
    assert np.array_equal(module.predict(images), svc.predict(test))
    assert ((outputs > 0).sum(1) == 1).all(), "the label's alone"


def test_mnist(data_root):
    train, test = (rp.data.load("mnist", split, data_root) for split in ("train", "test"))
    svc = SVC(gamma=0.05, C=5, decision_function_shape="ovo")
    svc.fit(train.x[:1000].flatten(1).double().numpy(), train.y[:1000].numpy())
    module, flat = SVMModule.from_sklearn(svc), test.x.flatten(1).double().numpy()
    assert test.x.dtype == torch.float32 and len(flat) == 10_000
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


def test_signs_that_float32_cannot_tell():
    """Decision values moved to within 1e-6 of 0, on both sides of it, where float32's rounding is far larger."""
    x, y = without_sense(2)
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


def test_support_vectors_that_float32_cannot_hold():
    """At 2^20 its numbers are 1/8 apart: the first vector's would be 0.5 from the point, nearer than the second."""
    point = np.full((1, 8), 2.0**20)
    vectors = np.concatenate([point + 0.53, point - 0.5])
    vectors[1, 0] -= 0.125
    svc = SVC(gamma=0.05).fit(vectors, ["first", "second"])
    module = SVMModule.from_sklearn(svc)
    assert svc.predict(point) == module.predict(torch.tensor(point, dtype=torch.float32)) == "second"


@pytest.mark.parametrize("settings", [{}, {"break_ties": True}], ids=["first", "break_ties"])
@pytest.mark.parametrize("classes", [2, 3, 4, 7])
@pytest.mark.parametrize("machine", [SVC, NuSVC])
def test_split_votes_and_ties(machine, classes, settings):
    kind = {"nu": 0.3} if machine is NuSVC else {}
    svc = machine(gamma=0.05, **kind, **settings).fit(*without_sense(classes))
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
    first, confident = (SVC(gamma=0.05, break_ties=b).fit(*without_sense(4)) for b in (False, True))
    assert (first.predict(x) != confident.predict(x)).any()


@pytest.mark.parametrize("labels", [["no", "yes"], ["cat", "ant", "dog"], [7, -3, 5], [True, False]], ids=str)
def test_labels_are_kept(labels):
    x, y = overlapping(len(labels))
    svc = SVC().fit(x, np.array(labels)[y])
    module = SVMModule.from_sklearn(svc)
    assert np.array_equal(module.classes_, svc.classes_)
    got, want = module.predict(x.astype(np.float32)), svc.predict(x)
    assert got.dtype == want.dtype and np.array_equal(got, want)
    of_tensor = module.predict(torch.tensor(x))  # float64, of a module of float32
    assert isinstance(of_tensor, np.ndarray if isinstance(labels[0], str) else torch.Tensor)
    assert np.array_equal(of_tensor, want)


def test_two_classes_are_the_decision_value_and_its_negative():
    x, y = overlapping(2)
    svc = SVC(gamma=0.05).fit(x, y)
    outputs = SVMModule.from_sklearn(svc, dtype=torch.float64)(torch.tensor(x))
    want = torch.tensor(svc.decision_function(x))
    torch.testing.assert_close(outputs, torch.stack([-want, want], 1), rtol=0, atol=1e-12)


def test_a_decision_value_of_zero_is_a_vote_as_in_scikit_learn():
    """Points on a plane between classes; numbers so round that float64 is exact."""
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


# ---- the outputs, as functions of the decision values


def plain_outputs(decisions, classes):
    """By how much each class leads, by trial: the largest shift of every value against it that leaves it the winner,
    or with the sign turned the smallest shift in its favour, over pairs of classes."""
    pairs = {pair: p for p, pair in enumerate(itertools.combinations(range(classes), 2))}

    def beats(c, j, shift):  # every value of c lower and every value of j higher by `shift`
        def votes(k, by):
            return sum(
                (decisions[pairs[k, m]] if k < m else -decisions[pairs[m, k]]) + by > 0
                for m in range(classes)
                if m != k
            )

        return votes(c, -shift) > votes(j, shift) or (votes(c, -shift) == votes(j, shift) and c < j)

    sizes = sorted({s * abs(d) for d in decisions for s in (-1, 1)})
    lead = []
    for c in range(classes):
        # beaten beyond its lead, not before; between two sizes nothing changes
        leads = [max((s for s in sizes if beats(c, j, s - 1e-6)), default=-math.inf) for j in range(classes) if j != c]
        lead.append(min(leads))
    return lead


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
def test_the_outputs_are_how_far_the_decision_values_must_move(classes):
    g = torch.Generator().manual_seed(classes)
    pairs = classes * (classes - 1) // 2
    module = machine_of(classes)
    decisions = torch.randn(40, pairs, generator=g, dtype=torch.float64)
    outputs = module(decisions)
    want = [plain_outputs(row, classes) for row in decisions.tolist()]
    torch.testing.assert_close(outputs, torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-12)


def machine_of(classes, break_ties=False):
    """A linear machine whose decision values are its inputs."""
    pairs = classes * (classes - 1) // 2
    eye, nothing = torch.eye(pairs, dtype=torch.float64), torch.zeros(pairs, dtype=torch.float64)
    return SVMModule(
        np.arange(classes), "linear", eye, None, nothing, gamma=1.0, coef0=0.0, degree=3, break_ties=break_ties
    )


@pytest.mark.parametrize("break_ties", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_the_outputs_are_continuous(classes, break_ties):
    g = torch.Generator().manual_seed(0)
    pairs = classes * (classes - 1) // 2
    begin, end = torch.randn(2, 30, pairs, generator=g, dtype=torch.float64)
    steps = torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None]
    for a, b in zip(begin, end, strict=True):
        outputs = machine_of(classes, break_ties)(a + steps * (b - a))
        # a class's summed values change by at most 2 (C - 1) times as much as one value
        most = (b - a).abs().max() / 2000 * (2 * (classes - 1) if break_ties else 1)
        assert (outputs.diff(dim=0).abs() <= most * (1 + 1e-9)).all()


@pytest.mark.parametrize("break_ties", [False, True])
def test_every_pattern_of_votes(break_ties):
    """All signs of the six values of four classes, with sizes that no sum of others equals, and zeros among them."""
    signs = torch.tensor(list(itertools.product([-1.0, 0.0, 1.0], repeat=6)), dtype=torch.float64)
    decisions = signs * torch.tensor([1.0, 0.31, 0.17, 0.73, 0.057, 0.43], dtype=torch.float64)
    votes, confidence = torch.zeros(2, len(signs), 4, dtype=torch.float64)
    for p, (i, j) in enumerate(itertools.combinations(range(4), 2)):
        first = decisions[:, p] >= 0 if break_ties else decisions[:, p] > 0
        votes[:, i] += first
        votes[:, j] += ~first
        confidence[:, i] += decisions[:, p]
        confidence[:, j] -= decisions[:, p]
    score = votes + confidence / (3 * (confidence.abs() + 1)) if break_ties else votes
    clear = (score.topk(2).values.diff().abs() > 1e-9)[:, 0] | (not break_ties)
    machine = machine_of(4, break_ties)
    got = machine(decisions).argmax(1)
    assert (machine.predict(decisions) == got.numpy())[clear].all()
    assert torch.equal(got[clear], score.argmax(1)[clear]) and clear.sum() > 600


# ---- as a module


@every_kernel
def test_gradients(digits, settings):
    (x, y), (test, _) = digits
    module = SVMModule.from_sklearn(SVC(**settings).fit(x, y), dtype=torch.float64)
    images = torch.tensor(test[:3], dtype=torch.float64).view(3, 1, 8, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: module(x), images)
    (gradient,) = torch.autograd.grad(module(images).amax(1).sum(), images)
    assert (gradient.flatten(1).abs().amax(1) > 1e-3).all()


@every_kernel
def test_margins(digits, settings):
    (x, y), (test, _) = digits
    svc = SVC(**settings).fit(x, y)
    module = SVMModule.from_sklearn(svc)
    images = torch.tensor(test[:12], dtype=torch.float32).view(-1, 1, 8, 8)
    attacks = [FGSM(eps=0.3), PGD(norm=2, eps=3.0, steps=20), BG(norm=2)]
    margins = rp.margins(module, images, attacks=attacks, keep_points=True)
    assert margins.found.all() and (margins.distance > 0.01).all() and (margins.distance < 3).all()
    own = svc.predict(test[:12])
    alone = torch.cat([module(point[None]) for point in margins.point]).argmax(1)
    assert (svc.classes_[alone.numpy()] != own).all()
    assert (svc.predict(margins.point.flatten(1).double().numpy()) != own).all()


def test_the_margin_of_a_linear_machine_of_two_classes_is_the_distance_to_the_plane():
    x, y = make_blobs(100, n_features=3, centers=[[0.3] * 3, [0.7] * 3], cluster_std=0.05, random_state=0)
    svc = SVC(kernel="linear", C=100).fit(x, y)
    images = torch.tensor(x[:20], dtype=torch.float64)
    margins = rp.margins(SVMModule.from_sklearn(svc, dtype=torch.float64), images, attacks=[BG(norm=2)])
    want = np.abs(svc.decision_function(x[:20])) / np.linalg.norm(svc.coef_)
    np.testing.assert_allclose(margins.distance.numpy(), want, rtol=1e-5)


def test_its_state_moves_and_is_kept():
    module = SVMModule.from_sklearn(SVC().fit(*overlapping(3)))
    assert set(module.state_dict()) == {"support", "dual", "intercept"} and not list(module.parameters())
    x = torch.tensor(overlapping(3, 20)[0])
    with pytest.raises(TypeError, match="x: expected torch.float32, got torch.float64"):
        module(x)
    assert module.double()(x).dtype == torch.float64 and module.dtype == torch.float64
    want = module(x)
    module.float()  # the machine itself is not rounded
    assert module(x.float()).dtype == torch.float32
    assert {value.dtype for value in module.state_dict().values()} == {torch.float64}
    assert torch.equal(module.double()(x), want)
    other = SVMModule.from_sklearn(SVC().fit(*overlapping(3)), dtype=torch.float64)
    other.load_state_dict({name: value + 0 for name, value in module.state_dict().items()})
    assert torch.equal(other(x), want) and torch.equal(copy.deepcopy(module)(x), want)
    assert module.to("meta").intercept.device.type == "meta"


def test_labels_follow_the_machine():
    """What `predict` keeps between calls is made anew for another state, on another device or in another precision."""
    points, labels = overlapping(3)
    first, second = SVC(gamma=0.05).fit(points, labels), SVC(gamma=0.05).fit(points, (labels + 1) % 3)
    module = SVMModule.from_sklearn(first)
    x = torch.tensor(overlapping(3, 200, seed=1)[0], dtype=torch.float32)
    assert np.array_equal(module.predict(x), first.predict(x.double().numpy()))
    other = SVMModule.from_sklearn(second).state_dict()
    assert other["support"].shape == module.support.shape
    module.load_state_dict(other)
    assert np.array_equal(module.predict(x), second.predict(x.double().numpy()))
    with torch.inference_mode():
        inside = SVMModule.from_sklearn(first)
        assert np.array_equal(inside.predict(x), first.predict(x.double().numpy()))
        assert np.array_equal(inside.predict(x[:1]), first.predict(x[:1].double().numpy()))


def test_batches_of_any_size_agree():
    module = SVMModule.from_sklearn(SVC(kernel="poly").fit(*overlapping(3)))
    x = torch.tensor(overlapping(3, 2500)[0], dtype=torch.float32)
    parts = torch.cat([module(x[:7]), module(x[7:1500]), module(x[1500:])])
    torch.testing.assert_close(module(x), parts, rtol=1e-6, atol=1e-9)
    assert module(x[:0]).shape == (0, 3) and module.predict(x[:0]).shape == (0,)


# ---- errors


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
    (altered(intercept_=FITTED.intercept_[:2]), ValueError, r"svc.intercept_: expected 3 numbers, got 2"),
    (altered(break_ties=True, decision_function_shape="ovo"), ValueError, r"svc: expected break_ties=False with"),
])  # fmt: skip
def test_what_is_no_such_machine(svc, error, message):
    with pytest.raises(error, match=message):
        SVMModule.from_sklearn(svc)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, "float32", None])
def test_wrong_dtypes(dtype):
    with pytest.raises(TypeError, match="dtype: expected torch.float32 or torch.float64, got"):
        SVMModule.from_sklearn(FITTED, dtype=dtype)


@pytest.mark.parametrize("kernel", ["rbf", "linear", "poly"])
@pytest.mark.parametrize("x, error, message", [
    (torch.zeros(3, 5), ValueError, r"x: expected images of 4 numbers, got shape \[3, 5\]"),
    (torch.zeros(0, 5), ValueError, r"x: expected images of 4 numbers, got shape \[0, 5\]"),
    (torch.zeros(4), ValueError, r"x: expected images of 4 numbers, got shape \[4\]"),
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
