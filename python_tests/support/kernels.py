"""Kernels as a user writes them, and what several tests check of kernels."""

import torch

import robustperf as rp
from robustperf import random


class Fade(rp.Kernel):
    """x (1 - delta_1) + delta_2 delta_1."""

    def dim_for(self, shape):
        return 2

    def sample_for(self, shape, key, index, draws, *, backend=None):
        return random.uniform(key, index, draws, 2, backend=backend)

    def transform(self, x, delta, *, backend=None):
        weight, grey = (part[..., None, None] for part in delta[..., None].unbind(2))
        return x * (1 - weight) + weight * grey

    def check_delta(self, delta, shape):
        if not ((delta >= 0) & (delta <= 1)).all():
            raise ValueError("delta: fade expected values in [0, 1]")

    def project(self, delta, shape=None):
        return delta.clamp(0, 1)

    def __repr__(self):
        return "fade"


class Tint(Fade):
    """Grey images become RGB."""

    def dim_for(self, shape):
        return 3

    def shape_after(self, shape):
        if shape[0] != 1:
            raise ValueError(f"x: tint expected grey images, got {list(shape)}")
        return (3, *shape[1:])

    def sample_for(self, shape, key, index, draws, *, backend=None):
        return random.uniform(key, index, draws, 3, backend=backend)

    def transform(self, x, delta, *, backend=None):
        return x * delta[..., None, None]

    def __repr__(self):
        return "tint"


def gradient_of_draw(kernel, x, delta, index):
    """(the gradient in x of a weighted sum of two draws under key 1, the weights); it must equal the gradient of the
    call with delta."""
    x = x.clone().requires_grad_()
    drawn, called = kernel.draw(x, key=1, index=index, draws=2), kernel(x, delta)
    assert torch.equal(drawn, called)
    weights = torch.linspace(-1, 1, drawn.numel()).view(drawn.shape)
    (through_draw,), (through_call,) = (torch.autograd.grad((out * weights).sum(), x) for out in (drawn, called))
    assert torch.equal(through_draw, through_call)
    return through_draw, weights
