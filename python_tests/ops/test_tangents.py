"""Forward mode: what has no derivative there says so, by either interface of torch, and gives no number."""

import pytest
import torch
from sklearn.svm import SVC
from torch.autograd import forward_ad

from robustperf import nuisance, ops
from robustperf.transfer import SVMModule

D = 4
X = torch.rand(3, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
OTHER = torch.rand(3, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
IMAGES = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(2))
DELTA = torch.full((1, 2, 1), 0.1)
LABELS, INDEX = torch.tensor([0, 1, 2]), torch.arange(2)
BRIGHTNESS = nuisance.Brightness(0.3)


def decision(x, backend=None):
    return ops.rbf_decision(x, OTHER, OTHER[:1, :3], OTHER[0, :1], 0.5, backend=backend)


CALLS = {
    "rbf_decision": (decision, X),
    "rbf_decision, reference": (lambda x: decision(x, "reference"), X),
    "nuisance": (lambda x: ops.nuisance(x, DELTA, BRIGHTNESS.program), IMAGES),
    "nuisance, delta": (lambda delta: ops.nuisance(IMAGES, delta, BRIGHTNESS.program), DELTA),
    "halfspace_box_projection": (lambda x: ops.halfspace_box_projection(x, OTHER, OTHER[:, 0])[0], X),
    "logit_gap": (lambda x: ops.logit_gap(x, LABELS), X),
    "nuisance_draw": (lambda x: ops.nuisance_draw(x, 7, INDEX, torch.arange(3), BRIGHTNESS.program), IMAGES),
    "draws of a kernel": (lambda x: BRIGHTNESS.draw(x, key=7, index=INDEX, draws=3), IMAGES),
    "SVM": (SVMModule.from_sklearn(SVC().fit(OTHER.numpy(), LABELS.numpy())), X.float()),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_tangent_is_an_error_and_is_never_dropped(name):
    function, x = CALLS[name]
    along = torch.rand(x.shape, dtype=x.dtype)
    with pytest.raises(
        NotImplementedError, match="has no derivative in forward mode .*, got an argument with a tangent"
    ):
        torch.func.jvp(function, (x,), (along,))
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="has no derivative in forward mode"):
        function(forward_ad.make_dual(x, along))


def test_jacfwd_uses_forward_mode():
    with pytest.raises(NotImplementedError, match="rbf_decision: has no derivative in forward mode"):
        torch.func.jacfwd(lambda x: decision(x).sum())(X)


def test_a_tangent_of_the_gradients_gradient():
    def product(v):
        x = X.clone().requires_grad_()
        return torch.autograd.grad(decision(x), x, v)[0]

    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="rbf_decision_backward: has no derivative"):
        product(forward_ad.make_dual(torch.ones(3, 1, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64)))


def test_tensors_without_a_tangent_are_no_error_in_forward_mode():
    with forward_ad.dual_level():
        assert torch.equal(decision(X), decision(X, None))
        x = X.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(decision(x).sum(), x)
    step = 1e-6 * torch.eye(D, dtype=torch.float64)[0]
    slope = (decision(X + step) - decision(X - step))[:, 0] / 2e-6
    torch.testing.assert_close(gradient[:, 0], slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["brightness", "fog"])
def test_a_corruption_in_plain_pytorch_has_its_derivative(name):
    corruption, x = nuisance.mnist_c(name), torch.rand(2, 1, 28, 28, dtype=torch.float64) / 4

    def draw(x):
        return corruption.draw(x, key=7, index=INDEX, draws=1)

    along = torch.rand(x.shape, dtype=x.dtype)
    slope = (draw(x + 1e-6 * along) - draw(x - 1e-6 * along)) / 2e-6
    torch.testing.assert_close(torch.func.jvp(draw, (x,), (along,))[1], slope, rtol=1e-6, atol=1e-8)
