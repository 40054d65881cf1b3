"""The gradient of the worst of k draws, on every backend: softmax minus the smoothed target in the rows chosen, by hand
and by finite differences, under torch.compile; and where there is none."""

import math

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from robustperf.ops import best_of_k

OP = "best_of_k"
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 1e-2, torch.float16: 1e-3}

every_selection = pytest.mark.parametrize("selection", ["sample", "batch"])
every_smoothing = pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])


def sample(draws, batch, classes, dtype=torch.float64, device="cpu", seed=0):
    g = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(draws, batch, classes, generator=g, dtype=torch.float64)).to(dtype)
    return logits.to(device).requires_grad_(), torch.randint(classes, (batch,), generator=g).to(device)


def gradient_by_hand(logits, target, index, weights, label_smoothing=0.0, ignore_index=-100):
    """d (sum_b weights[b] loss[b]) / d logits, a row at a time in float64."""
    draws, batch, classes = logits.shape
    gradient = torch.zeros(draws, batch, classes, dtype=torch.float64)
    for b in range(batch):
        if target[b] == ignore_index:
            continue
        powers = logits[index[b], b].detach().double().cpu()
        powers = (powers - powers.max()).exp()
        wanted = torch.full((classes,), label_smoothing / classes, dtype=torch.float64)
        wanted[target[b]] += 1 - label_smoothing
        gradient[index[b], b] = weights[b].double().cpu() * (powers / powers.sum() - wanted)
    return gradient


@every_selection
@every_smoothing
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("draws, batch, classes", [(1, 1, 2), (4, 33, 10), (3, 9, 41), (10, 5, 300), (2, 6, 1)])
def test_the_rows_chosen_have_the_gradient_of_cross_entropy(
    backend, device, selection, label_smoothing, dtype, draws, batch, classes
):
    logits, target = sample(draws, batch, classes, dtype, device)
    settings = {"selection": selection, "label_smoothing": label_smoothing, "backend": backend}
    loss, index = best_of_k(logits, target, **settings)
    without = best_of_k(logits.detach(), target, **settings)
    assert loss.requires_grad and not index.requires_grad and not without[0].requires_grad
    assert torch.equal(index, without[1]) and loss.dtype == without[0].dtype
    torch.testing.assert_close(loss, without[0], rtol=2e-6, atol=2e-6)
    weights = torch.linspace(-1, 2, batch, dtype=loss.dtype, device=device)
    (gradient,) = torch.autograd.grad(loss, logits, weights)
    assert gradient.dtype == dtype
    expected = gradient_by_hand(logits, target, index, weights, label_smoothing)
    torch.testing.assert_close(gradient.double().cpu(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    chosen = torch.zeros(draws, batch, dtype=torch.bool)
    chosen[index.cpu(), torch.arange(batch)] = True
    assert not gradient.cpu()[~chosen].any()


@every_selection
def test_ignored_rows_have_none(backend, device, selection):
    logits, target = sample(4, 9, 5, device=device)
    target[[2, 5]] = -1
    logits.data[0, 5] = math.nan
    loss, index = best_of_k(logits, target, selection=selection, ignore_index=-1, backend=backend)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss[[2, 5]].tolist() == [0, 0] and not gradient[:, [2, 5]].any()
    expected = gradient_by_hand(logits, target, index, torch.ones(9), ignore_index=-1)
    torch.testing.assert_close(gradient.cpu(), expected, rtol=1e-14, atol=1e-14)
    everything = best_of_k(logits, torch.full_like(target, -100), selection=selection, backend=backend)[0]
    assert not torch.autograd.grad(everything.sum(), logits)[0].any()


@every_selection
@every_smoothing
def test_against_finite_differences(backend, device, selection, label_smoothing):
    logits, target = sample(3, 5, 4, device=device)

    def loss(z):
        return best_of_k(z, target, selection=selection, label_smoothing=label_smoothing, backend=backend)[0]

    torch.autograd.gradcheck(loss, (logits,))


def test_first_and_other_layouts(backend, device):
    logits, target = sample(4, 8, 6, device=device)
    (expected,) = torch.autograd.grad(best_of_k(logits, target, backend=backend)[0].sum(), logits)
    loss, index = best_of_k(logits, target, first=7, backend=backend)
    assert torch.equal(torch.autograd.grad(loss.sum(), logits)[0], expected) and index.min() >= 7
    turned = logits.detach().mT.contiguous().mT.requires_grad_()
    assert torch.equal(torch.autograd.grad(best_of_k(turned, target, backend=backend)[0].sum(), turned)[0], expected)
    empty = logits[:, :0]
    assert torch.autograd.grad(best_of_k(empty, target[:0], backend=backend)[0].sum(), logits)[0].count_nonzero() == 0


def test_a_loss_that_is_no_number_has_no_gradient_that_is_one(backend, device):
    logits, target = sample(3, 4, 5, device=device)
    logits.data[1, 0, 2] = math.nan  # another draw is chosen
    logits.data[:, 1, 2] = math.nan
    loss, index = best_of_k(logits, target, backend=backend)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.isnan().tolist() == [False, True, False, False] and index[0] != 1
    assert gradient[index[1], 1].isnan().all() and gradient[:, [0, 2, 3]].isfinite().all()
    whole, index = best_of_k(logits, target, selection="batch", backend=backend)  # each draw's sum is NaN
    (gradient,) = torch.autograd.grad(whole.sum(), logits)
    assert whole.isnan().all() and index.tolist() == [0] * 4 and gradient[0].isnan().all() and not gradient[1:].any()


@every_selection
def test_a_network_is_trained_on_the_draws_chosen(backend, device, selection):
    """R Algorithm 2, line 12, with lambda = 0."""
    torch.manual_seed(0)
    net, x = nn.Linear(6, 4).double().to(device), torch.rand(5, 7, 6, dtype=torch.float64, device=device)
    target = torch.arange(7, device=device) % 4
    loss, index = best_of_k(net(x.flatten(0, 1)).unflatten(0, (5, 7)), target, selection=selection, backend=backend)
    loss.mean().backward()
    by_hand = nn.functional.cross_entropy(net(x[index, torch.arange(7)]), target)
    for parameter, expected in zip(net.parameters(), torch.autograd.grad(by_hand, list(net.parameters())), strict=True):
        torch.testing.assert_close(parameter.grad, expected)


@pytest.mark.parametrize("how", ["no_grad", "inference_mode", "detached"])
def test_no_gradient_where_none_is_asked_for(backend, device, how):
    logits, target = sample(3, 5, 4, device=device)
    context = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}.get(how, torch.enable_grad)
    with context():
        loss, index = best_of_k(logits.detach() if how == "detached" else logits, target, backend=backend)
        assert not loss.requires_grad and not index.requires_grad


def test_chunks_choose_without_gradients(backend, device):
    logits, target = sample(4, 5, 3, device=device)
    running = best_of_k(logits[:2].detach(), target, backend=backend)
    before = running[0].clone()
    with pytest.raises(ValueError, match="logits: expected a tensor that requires no gradient beside running"):
        best_of_k(logits[2:], target, running=running, first=2, backend=backend)
    with pytest.raises(ValueError, match="running loss: expected a tensor that requires no gradient beside running"):
        best_of_k(
            logits[2:].detach(),
            target,
            running=best_of_k(logits[:2], target, backend=backend),
            first=2,
            backend=backend,
        )
    assert torch.equal(running[0], before)
    with torch.no_grad():
        loss, index = best_of_k(logits[2:], target, running=running, first=2, backend=backend)
        whole = best_of_k(logits, target, backend=backend)
    assert torch.equal(loss, whole[0]) and torch.equal(index, whole[1])


@every_selection
def test_compiled_functions_have_the_gradient_of_eager_ones(backend, device, selection):
    torch.compiler.reset()

    def best(logits, target):
        return best_of_k(logits * 2, target, selection=selection, label_smoothing=0.1, backend=backend)

    compiled = torch.compile(best, fullgraph=True, backend="aot_eager")
    logits, target = sample(5, 6, 4, device=device)
    for function in (best, compiled):
        loss, index = function(logits, target)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        expected = 2 * gradient_by_hand(2 * logits, target, index, torch.ones(6), 0.1)
        torch.testing.assert_close(gradient.cpu(), expected, rtol=1e-13, atol=1e-13)


def test_torch_func():
    """The functional gradient is that of `backward`, and the derivative along a direction follows from it."""
    generator = torch.Generator().manual_seed(0)
    logits, along = torch.randn(2, 5, 7, 4, dtype=torch.float64, generator=generator)
    target = torch.randint(0, 4, (7,), generator=generator)

    def loss(z):
        return best_of_k(z, target, label_smoothing=0.1)[0].mean()

    (expected,) = torch.autograd.grad(loss(logits.requires_grad_()), logits)
    logits = logits.detach()
    torch.testing.assert_close(torch.func.grad(loss)(logits), expected)
    torch.testing.assert_close(torch.func.jvp(loss, (logits,), (along,))[1], (expected * along).sum())
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(loss(forward_ad.make_dual(logits, along))).tangent
    torch.testing.assert_close(tangent, (expected * along).sum())
