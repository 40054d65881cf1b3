from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.nn.functional import linear

from robustperf import _native

FEW = 64  # rows for which it does not pay to rearrange the supports


class Way(NamedTuple):
    """How a backend works: so many rows and supports at a time; what makes the function that multiplies so many rows
    by a matrix, transposed; what turns a block's products into the kernel's values, in place; and what adds those,
    times coefficients, to decisions."""

    rows: int
    supports: int
    times: Callable
    evaluate: Callable
    add: Callable


class Block(NamedTuple):
    """Some rows of x and some supports, less the supports' centre: so no distance changes, and squares are small beside
    distances."""

    rows: slice
    points: torch.Tensor
    operands: tuple  # <x, s>, |x|^2, |s|^2 and gamma, of which exp(-gamma |x - s|^2) is made


def rbf_decision(x, support, dual, intercept, gamma):
    return decided(x, support, dual, intercept, gamma, WAY)


def decided(x, support, dual, intercept, gamma, way):
    # In float64: the terms of a machine are many times larger than what they add up to, and P is small beside D.
    dual, decision = dual.double(), intercept.double().repeat(x.shape[0], 1)
    for supports, _, blocks in kernel_blocks(x, support, gamma, way):
        way.add(decision, dual[:, supports], blocks, way.evaluate)
    return decision.to(x.dtype)


def kernel_blocks(x, support, gamma, way):
    """For some supports at a time: their slice, they less their centre, and a block of them with each part of x."""
    for i in range(0, support.shape[0], way.supports):
        supports = slice(i, i + way.supports)
        centre = support[supports].mean(0)
        part = support[supports] - centre
        yield supports, part, _blocks(x, centre, way.times(part, x.shape[0]), _squares(part), gamma, way)


def _blocks(x, centre, products, squares, gamma, way):
    for i in range(0, x.shape[0], way.rows):
        rows = slice(i, i + way.rows)
        points = x[rows] - centre
        yield Block(rows, points, (products(points), _squares(points), squares, gamma))


def evaluate(products, squares_of_x, squares_of_s, gamma):
    _native.rbf_values(products, squares_of_x, squares_of_s, gamma, torch.get_num_threads())


def add(decision, dual, blocks, evaluate):
    """As `plain_add`, in one pass, and only for the machines that have some of the supports: of many classes few."""
    coefficients, machines = in_use(dual, 0)
    for rows, _, operands in blocks:
        sums = coefficients.new_zeros(len(operands[0]), len(machines))
        _native.rbf_sums(*operands, coefficients, sums, torch.get_num_threads())
        not_finite = 0 * operands[1][:, None]  # NaN where x is, for every machine
        decision[rows].index_add_(1, machines, sums).add_(not_finite)


def plain_add(decision, dual, blocks, evaluate):
    for rows, _, operands in blocks:
        evaluate(*operands)
        decision[rows].addmm_(operands[0].double(), dual.t())


def times(matrix, count):
    """The function that multiplies `count` rows, some at a time, by `matrix`, transposed. Many by oneDNN, which takes
    AVX-512 on any processor that has it, where MKL, which torch asks for plain tensors, does not on AMD's."""
    if count <= FEW or matrix.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return plain_times(matrix, count)
    used, columns = in_use(matrix, 1)
    if not used.numel():
        return plain_times(matrix, count)
    packed = used.to_mkldnn()
    return lambda rows: linear(rows.index_select(1, columns).to_mkldnn(), packed).to_dense()


def in_use(matrix, dim):
    """(The rows or columns that are not 0 throughout, their numbers)."""
    numbers = matrix.any(1 - dim).nonzero()[:, 0]
    return matrix.index_select(dim, numbers), numbers


def plain_times(matrix, count):
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
    squares = torch.linalg.vector_norm(points, dim=1).square()
    return squares.where(squares.isfinite(), torch.nan)


WAY = Way(512, 512, times, evaluate, add)  # 1 MiB of float32
