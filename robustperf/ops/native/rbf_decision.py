from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.nn.functional import linear

from robustperf import _native


class Way(NamedTuple):
    """How a backend works: how many values of the kernel it holds at a time, the function that multiplies rows by a
    matrix, transposed, and what makes the kernel's values of products, in place."""

    rows: int
    supports: int
    times: Callable
    evaluate: Callable


def rbf_decision(x, support, dual, intercept, gamma):
    return decided(x, support, dual, intercept, gamma, WAY)


def decided(x, support, dual, intercept, gamma, way):
    # In float64: the terms of a machine are many times larger than what they add up to, and P is small beside D.
    dual, decision = dual.double(), intercept.double()[:, None].repeat(1, x.shape[0])
    centre = centre_of(support)
    for supports, _, blocks in kernel_blocks(x - centre, support, centre, gamma, way):
        for rows, kernel in blocks:
            decision[:, rows].addmm_(dual[:, supports], kernel.double().t())
    return decision.t().to(x.dtype).contiguous()


def centre_of(support):
    """What to take from x and from the supports: no distance changes, and the squares are small beside it."""
    return support.mean(0) if support.shape[0] else 0.0


def kernel_blocks(x, support, centre, gamma, way):
    """For some supports at a time (their slice, those less the centre, (rows, exp(-gamma |x - s|^2)) of some rows of x
    at a time); x is given less the centre."""
    squares_of_x = torch.cat([_squares(part) for part in x.split(way.rows)])
    for j in range(0, support.shape[0], way.supports):
        supports = slice(j, j + way.supports)
        part = support[supports] - centre
        yield supports, part, _blocks(x, squares_of_x, way.times(part), _squares(part), gamma, way)


def _blocks(x, squares_of_x, products, squares_of_s, gamma, way):
    for i in range(0, x.shape[0], way.rows):
        rows = slice(i, i + way.rows)
        kernel = products(x[rows])
        way.evaluate(kernel, squares_of_x[rows], squares_of_s, gamma)
        yield rows, kernel


def evaluate(products, squares_of_x, squares_of_s, gamma):
    _native.rbf_kernel(products, squares_of_x, squares_of_s, gamma, torch.get_num_threads())


def times(matrix):
    """The function that multiplies rows by `matrix`, transposed. By oneDNN, which takes AVX-512 on any processor that
    has it, where MKL, which torch asks for plain tensors, does not on AMD's."""
    if matrix.dtype == torch.float32 and matrix.numel() and torch.backends.mkldnn.is_available():
        packed = matrix.to_mkldnn()
        return lambda rows: linear(rows.to_mkldnn(), packed).to_dense()
    return plain_times(matrix)


def plain_times(matrix):
    def product(rows):
        with whole_products(rows):
            return linear(rows, matrix)

    return product


@contextmanager
def whole_products(rows) -> Iterator[None]:
    """No TensorFloat-32 on a GPU: ten bits are too few for what is left of distances."""
    settings = torch.backends.cuda.matmul
    if not rows.is_cuda:
        yield
        return
    try:
        before = "allow_tf32", settings.allow_tf32
    except RuntimeError:  # torch refuses to say where precisions were set in its newer way
        before = "fp32_precision", settings.fp32_precision
    if before[1] in (False, "ieee"):
        yield
        return
    settings.allow_tf32 = False
    try:
        yield
    finally:
        setattr(settings, *before)


def _squares(points):
    """|x|^2 of each row; NaN where it is not finite, for infinities could cancel."""
    squares = points.square().sum(1)
    return squares.where(squares.isfinite(), torch.nan)


WAY = Way(512, 1024, times, evaluate)  # 2 MiB of float32
