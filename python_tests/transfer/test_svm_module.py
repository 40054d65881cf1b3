"""An SVC as a module: its outputs as functions of the decision values, gradients, margins and state."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.svm import SVC

import robustperf as rp
from python_tests.support.svms import every_kernel, overlapping
from robustperf.attacks import BG, FGSM, PGD
from robustperf.transfer import SVMModule


def identity_svm(classes, break_ties=False):
    """A linear SVM whose decision values are its inputs."""
    pairs = classes * (classes - 1) // 2
    eye, nothing = torch.eye(pairs, dtype=torch.float64), torch.zeros(pairs, dtype=torch.float64)
    return SVMModule(
        np.arange(classes), "linear", eye, None, nothing, gamma=1.0, coef0=0.0, degree=3, break_ties=break_ties
    )


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
    module = identity_svm(classes)
    decisions = torch.randn(40, pairs, generator=g, dtype=torch.float64)
    outputs = module(decisions)
    expected = [plain_outputs(row, classes) for row in decisions.tolist()]
    torch.testing.assert_close(outputs, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("break_ties", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_the_outputs_are_continuous(classes, break_ties):
    g = torch.Generator().manual_seed(0)
    pairs = classes * (classes - 1) // 2
    begin, end = torch.randn(2, 30, pairs, generator=g, dtype=torch.float64)
    steps = torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None]
    for a, b in zip(begin, end, strict=True):
        outputs = identity_svm(classes, break_ties)(a + steps * (b - a))
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
    svm = identity_svm(4, break_ties)
    found = svm(decisions).argmax(1)
    assert (svm.predict(decisions) == found.numpy())[clear].all()
    assert torch.equal(found[clear], score.argmax(1)[clear]) and clear.sum() > 600


@every_kernel
def test_gradients(split_digits, settings):
    (x, y), (test, _) = split_digits
    module = SVMModule.from_sklearn(SVC(**settings).fit(x, y), dtype=torch.float64)
    images = torch.tensor(test[:3], dtype=torch.float64).view(3, 1, 8, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: module(x), images, fast_mode=True)
    (gradient,) = torch.autograd.grad(module(images).amax(1).sum(), images)
    assert (gradient.flatten(1).abs().amax(1) > 1e-3).all()


@every_kernel
def test_margins(split_digits, settings):
    (x, y), (test, _) = split_digits
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


def test_the_margin_of_a_linear_svm_of_two_classes_is_the_distance_to_the_plane():
    x, y = make_blobs(100, n_features=3, centers=[[0.3] * 3, [0.7] * 3], cluster_std=0.05, random_state=0)
    svc = SVC(kernel="linear", C=100).fit(x, y)
    images = torch.tensor(x[:20], dtype=torch.float64)
    margins = rp.margins(SVMModule.from_sklearn(svc, dtype=torch.float64), images, attacks=[BG(norm=2)])
    expected = np.abs(svc.decision_function(x[:20])) / np.linalg.norm(svc.coef_)
    np.testing.assert_allclose(margins.distance.numpy(), expected, rtol=1e-5)


def test_state_dict_devices_and_dtypes():
    module = SVMModule.from_sklearn(SVC().fit(*overlapping(3)))
    assert set(module.state_dict()) == {"support", "dual", "intercept"} and not list(module.parameters())
    x = torch.tensor(overlapping(3, 20)[0])
    with pytest.raises(TypeError, match="x: expected torch.float32, got torch.float64"):
        module(x)
    assert module.double()(x).dtype == torch.float64 and module.dtype == torch.float64
    expected = module(x)
    module.float()  # the parameters are not rounded
    assert module(x.float()).dtype == torch.float32
    assert {value.dtype for value in module.state_dict().values()} == {torch.float64}
    assert torch.equal(module.double()(x), expected)
    other = SVMModule.from_sklearn(SVC().fit(*overlapping(3)), dtype=torch.float64)
    other.load_state_dict({name: value + 0 for name, value in module.state_dict().items()})
    assert torch.equal(other(x), expected) and torch.equal(copy.deepcopy(module)(x), expected)
    assert module.to("meta").intercept.device.type == "meta"


def test_labels_follow_the_state():
    """The cache of `predict` is recomputed for another state, device or precision."""
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
