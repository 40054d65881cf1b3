"""`Kernel`: what a subclass must define, and what it inherits."""

import math

import numpy as np
import pytest
import torch

import robustperf as rp
from robustperf import random


class Fade(rp.Kernel):
    """x (1 - delta_1) + delta_2 delta_1, delta in [0, 0.5]^2: x fades to a grey."""

    def dim_for(self, shape):
        return 2

    def sample_for(self, shape, key, index, draws, *, backend=None):
        return 0.5 * random.uniform(key, index, draws, 2, backend=backend)

    def transform(self, x, delta, *, backend=None):
        weight, grey = (part[..., None, None] for part in delta[..., None].unbind(2))
        return x * (1 - weight) + weight * grey


class Bounded(Fade):
    def check_delta(self, delta, shape):
        if not ((delta >= 0) & (delta <= 0.5)).all():
            raise ValueError(f"delta: expected values in [0, 0.5] for {list(shape)}")

    def project(self, delta, shape=None):
        return delta.clamp(0, 0.5)


class PerPixel(Fade):
    """A component for each value of the image."""

    def dim_for(self, shape):
        if shape is None:
            raise ValueError("shape: expected (C, H, W), got None")
        return math.prod(shape)

    def sample_for(self, shape, key, index, draws, *, backend=None):
        return random.uniform(key, index, draws, self.dim_for(shape), backend=backend)

    def transform(self, x, delta, *, backend=None):
        return x * delta.unflatten(2, x.shape[1:])


X = torch.rand(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))
INDEX = torch.tensor([7, 0, 2**40, 3, 12])


def test_a_kernel_defines_three_methods():
    with pytest.raises(TypeError, match="abstract"):
        rp.Kernel()

    class Lacking(rp.Kernel):
        def dim_for(self, shape):
            return 1

    with pytest.raises(TypeError, match="sample_for"):
        Lacking()


def test_dim_and_shape_after():
    assert Fade().dim == Fade().dim_for((3, 4, 6)) == 2
    assert PerPixel().dim_for((3, 4, 6)) == 72
    with pytest.raises(ValueError, match="shape: expected"):
        _ = PerPixel().dim
    assert Fade().shape_after((3, 4, 6)) == (3, 4, 6)


def test_sample_takes_a_number_of_draws_or_draw_indices():
    full = Fade().sample(1, INDEX, 4)
    assert full.shape == (4, 5, 2) and full.dtype == torch.float32
    assert torch.equal(Fade().sample(1, INDEX, torch.tensor([3, 1])), full[[3, 1]])
    assert torch.equal(Fade().sample(1, INDEX, np.int64(4)), full)
    assert not torch.equal(Fade().sample(2, INDEX, 4), full)


@pytest.mark.parametrize("shape", [(3, 4, 6), [3, 4, 6], X.shape[1:]], ids=["tuple", "list", "torch.Size"])
def test_sample_with_a_shape(shape):
    assert PerPixel().sample(0, INDEX, 2, shape=shape).shape == (2, 5, 72)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"draws": 0}, ValueError, "draws: expected an integer above 0, got 0"),
        ({"draws": -3}, ValueError, "draws: expected an integer above 0, got -3"),
        ({"draws": 2.0}, ValueError, "draws: expected an integer above 0, got 2.0"),
        ({"draws": True}, ValueError, "draws: expected an integer above 0, got True"),
        ({"draws": torch.zeros(0, dtype=torch.int64)}, ValueError, "draws: expected at least one draw, got none"),
        ({"draws": torch.tensor(3)}, ValueError, r"draws?: expected shape \[K\], got \[\]"),
        ({"draws": torch.tensor([0.0])}, TypeError, "draws?: expected torch.int64, got torch.float32"),
        ({"draws": torch.tensor([0, -1])}, ValueError, r"draws?: expected numbers in 0..4294967295, got -1 to 0"),
        ({"draws": torch.tensor([2**32])}, ValueError, "draws?: expected numbers in 0..4294967295"),
        ({"index": [0, 1]}, TypeError, "index: expected a tensor, got list"),
        ({"index": torch.arange(5.0)}, TypeError, "index: expected torch.int64, got torch.float32"),
        ({"index": torch.arange(6).view(2, 3)}, ValueError, r"index: expected shape \[B\], got \[2, 3\]"),
        ({"index": -INDEX}, ValueError, "index: expected numbers in 0.."),
        ({"key": -1}, ValueError, r"key: expected an integer in 0..2\^64-1, got -1"),
        ({"key": 2**64}, ValueError, "key: expected an integer"),
        ({"key": 0.5}, ValueError, "key: expected an integer"),
    ],
)
def test_errors_of_sample_and_draw(change, error, message):
    arguments = {"key": 0, "index": INDEX, "draws": 2} | change
    with pytest.raises(error, match=message):
        Fade().sample(**arguments)
    if arguments["index"] is not change.get("index"):
        with pytest.raises(error, match=message):
            Fade().draw(X, **arguments)


def test_one_delta_an_image_or_several():
    delta = Fade().sample(0, INDEX, 3)
    several = Fade()(X, delta)
    assert several.shape == (3, 5, 3, 4, 6)
    for k in range(3):
        assert torch.equal(Fade()(X, delta[k]), several[k])
    assert Fade()(X, delta[0]).shape == X.shape


@pytest.mark.parametrize("x_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("delta_dtype", [torch.float32, torch.float64])
def test_the_result_has_the_dtype_of_x(x_dtype, delta_dtype):
    delta = Fade().sample(0, INDEX, 3)
    assert Fade()(X.to(x_dtype), delta.to(delta_dtype)).dtype == x_dtype
    assert Fade().draw(X.to(x_dtype), key=0, index=INDEX).dtype == x_dtype


@pytest.mark.parametrize(
    "x, delta, error, message",
    [
        (X, torch.zeros(5, 3), ValueError, r"delta: expected shape \[5, 2\], got \[5, 3\]"),
        (X, torch.zeros(4, 2), ValueError, r"delta: expected shape \[5, 2\], got \[4, 2\]"),
        (X, torch.zeros(7, 4, 2), ValueError, r"delta: expected shape \[K, 5, 2\], got \[7, 4, 2\]"),
        (X, torch.zeros(2), ValueError, r"delta: expected shape \[5, 2\], got \[2\]"),
        (X, torch.zeros(1, 1, 5, 2), ValueError, r"delta: expected shape \[5, 2\], got \[1, 1, 5, 2\]"),
        (X, [[0.0, 0.0]] * 5, TypeError, "delta: expected a tensor, got list"),
        (X, torch.zeros(5, 2, dtype=torch.int64), TypeError, "delta: expected torch.float32 or torch.float64"),
        (X, torch.zeros(5, 2, dtype=torch.float16), TypeError, "delta: expected torch.float32 or torch.float64"),
        (X[0], torch.zeros(5, 2), ValueError, r"x: expected shape \[B, C, H, W\], got \[3, 4, 6\]"),
        (X.numpy(), torch.zeros(5, 2), TypeError, "x: expected a tensor, got ndarray"),
        ((255 * X).byte(), torch.zeros(5, 2), TypeError, "x: expected torch.float32 or torch.float64, got torch.uint8"),
    ],
)
def test_errors_of_a_call(x, delta, error, message):
    with pytest.raises(error, match=message):
        Fade()(x, delta)


def test_errors_of_draw():
    with pytest.raises(ValueError, match=r"index: expected shape \[5\], got \[4\]"):
        Fade().draw(X, key=0, index=INDEX[:4])
    with pytest.raises(ValueError, match=r"x: expected shape \[B, C, H, W\]"):
        Fade().draw(X[0], key=0, index=INDEX)
    with pytest.raises(TypeError, match="x: expected torch.float32"):
        Fade().draw(X.half(), key=0, index=INDEX)


@pytest.mark.parametrize("kernel", [Fade(), PerPixel()], ids=["fade", "per pixel"])
def test_a_draw_is_the_call_with_the_sample(kernel):
    delta = kernel.sample(9, INDEX, 4, shape=X.shape[1:])
    assert torch.equal(kernel.draw(X, key=9, index=INDEX, draws=4), kernel(X, delta))
    picked = torch.tensor([2, 0])
    assert torch.equal(kernel.draw(X, key=9, index=INDEX, draws=picked), kernel(X, delta[picked]))
    assert kernel.draw(X, key=9, index=INDEX).shape == (1, *X.shape)  # one draw by default


def test_a_draw_may_be_written_into_a_tensor():
    out = torch.empty(2, *X.shape)
    assert Fade().draw(X, key=9, index=INDEX, draws=2, out=out) is out
    assert torch.equal(out, Fade().draw(X, key=9, index=INDEX, draws=2))
    Fade().draw(X.clone().requires_grad_(), key=9, index=INDEX, draws=2, out=out)
    assert not out.requires_grad
    with pytest.raises(ValueError, match=r"out: expected shape \[3, 5, 3, 4, 6\], got \[2, 5, 3, 4, 6\]"):
        Fade().draw(X, key=9, index=INDEX, draws=3, out=out)
    with pytest.raises(TypeError, match="out: expected torch.float32, got torch.float64"):
        Fade().draw(X, key=9, index=INDEX, draws=2, out=out.double())


@pytest.mark.parametrize("kernel", [Fade(), PerPixel()], ids=["fade", "per pixel"])
def test_a_draw_depends_on_key_id_and_draw_index_only(kernel):
    full = kernel.draw(X, key=9, index=INDEX, draws=4)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.equal(kernel.draw(X[order], key=9, index=INDEX[order], draws=4), full[:, order])
    for b in range(5):
        for k in range(4):
            one = kernel.draw(X[b : b + 1], key=9, index=INDEX[b : b + 1], draws=torch.tensor([k]))
            assert torch.equal(one[0, 0], full[k, b])


def test_delta_is_unbounded_by_default():
    far = torch.full((5, 2), 9.0)
    Fade()(X, far)
    assert torch.equal(Fade().project(far), far)
    with pytest.raises(ValueError, match="delta: .* got nan in component 1"):
        Fade()(X, torch.tensor([[0.5, math.nan]]).repeat(5, 1))


def test_a_kernel_with_bounded_delta():
    with pytest.raises(ValueError, match=r"delta: expected values in \[0, 0.5\] for \[3, 4, 6\]"):
        Bounded()(X, torch.full((5, 2), 0.6))
    with pytest.raises(ValueError, match="delta: expected values"):
        Bounded()(X, torch.full((5, 2), math.nan))
    Bounded()(X, Bounded().project(torch.full((5, 2), 0.6)))


def test_gradients_in_x_and_delta():
    x, delta = X.double().requires_grad_(), Fade().sample(0, INDEX, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(Fade(), (x, delta))
    (drawn,) = torch.autograd.grad(Fade().draw(x, key=0, index=INDEX, draws=2).square().sum(), x)
    (called,) = torch.autograd.grad(Fade()(x, delta.detach()).square().sum(), x)
    assert torch.equal(drawn, called)


def test_bounded_delta_may_require_gradients():
    delta = Fade().sample(0, INDEX, 2).requires_grad_()
    Bounded()(X, delta).sum().backward()
    assert delta.grad.shape == delta.shape


def test_an_empty_batch():
    assert Fade().draw(X[:0], key=0, index=INDEX[:0], draws=3).shape == (3, 0, 3, 4, 6)
    assert Fade()(X[:0], torch.zeros(0, 2)).shape == (0, 3, 4, 6)
