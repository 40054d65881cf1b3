"""The decision function of RBF support vector machines and its gradient, block by block: the algorithm of every backend
but the reference. A backend supplies the primitives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear


class Primitives(NamedTuple):
    """What a backend supplies."""

    rows: int  # of x in a block
    supports: int  # support vectors in a block
    multiplier: Callable[[Tensor, int], Callable[[Tensor], Tensor]]  # (matrix, count): multiplies count rows by matrixᵀ
    evaluate: Callable[..., None]  # turns a block's products into the kernel's values, in place
    accumulate: Callable[..., None]  # adds the kernel's values, times coefficients, to decisions


class Block(NamedTuple):
    """Some rows of x and some support vectors, less these vectors' centre: that changes no distance, and makes squares
    small beside distances."""

    rows: slice
    points: Tensor
    operands: tuple[Tensor, Tensor, Tensor, float]  # <x, s>, |x|², |s|² and gamma, which exp(-gamma |x - s|²) takes


def rbf_decision(
    x: Tensor, support: Tensor, dual: Tensor, intercept: Tensor, gamma: float, primitives: Primitives
) -> Tensor:
    # In float64: the terms of a decision are many times larger than their sum, and P is small beside D.
    dual, decision = dual.double(), intercept.double().repeat(x.shape[0], 1)
    for supports, _, blocks in kernel_blocks(x, support, gamma, primitives):
        primitives.accumulate(decision, dual[:, supports], blocks, primitives.evaluate)
    return decision.to(x.dtype)


def rbf_decision_backward(
    grad: Tensor, x: Tensor, support: Tensor, dual: Tensor, gamma: float, primitives: Primitives
) -> Tensor:
    toward = torch.zeros_like(x, memory_format=torch.contiguous_format)  # sum of weight (s - x)
    for supports, vectors, blocks in kernel_blocks(x, support, gamma, primitives):
        weighted = primitives.multiplier(vectors.t().contiguous(), x.shape[0])
        coefficients = dual[:, supports]
        for rows, points, operands in blocks:
            primitives.evaluate(*operands)
            with full_precision_products(x):
                weight = operands[0].mul_(grad[rows] @ coefficients)
            toward[rows] += weighted(weight)
            toward[rows].addcmul_(points, weight.sum(1, keepdim=True), value=-1)
    return toward.mul_(2 * gamma)


def kernel_blocks(
    x: Tensor, support: Tensor, gamma: float, primitives: Primitives
) -> Iterator[tuple[slice, Tensor, Iterator[Block]]]:
    """For each group of support vectors: its slice, the vectors less their centre, and a block with each part of x."""
    for i in range(0, support.shape[0], primitives.supports):
        supports = slice(i, i + primitives.supports)
        centre = support[supports].mean(0)
        vectors = support[supports] - centre
        products = primitives.multiplier(vectors, x.shape[0])
        yield supports, vectors, _blocks(x, centre, products, squared_norms(vectors), gamma, primitives)


def _blocks(x, centre, products, squares, gamma, primitives):
    for i in range(0, x.shape[0], primitives.rows):
        rows = slice(i, i + primitives.rows)
        points = x[rows] - centre
        yield Block(rows, points, (products(points), squared_norms(points), squares, gamma))


def squared_norms(points: torch.Tensor) -> torch.Tensor:
    """|x|² of each row; NaN where it is not finite, for infinities could cancel."""
    squares = torch.linalg.vector_norm(points, dim=1).square()
    return squares.where(squares.isfinite(), torch.nan)


def accumulate(decision: Tensor, dual: Tensor, blocks: Iterator[Block], evaluate: Callable[..., None]) -> None:
    """A primitive in PyTorch."""
    for rows, _, operands in blocks:
        evaluate(*operands)
        decision[rows].addmm_(operands[0].double(), dual.t())


def multiplier(matrix: Tensor, count: int) -> Callable[[Tensor], Tensor]:
    """A primitive in PyTorch."""

    def product(rows):
        with full_precision_products(rows):
            return linear(rows, matrix)

    return product


@contextmanager
def full_precision_products(rows: Tensor) -> Iterator[None]:
    """No TensorFloat-32 on a GPU: after the difference of large squares its ten bits are too few."""
    settings = torch.backends.cuda.matmul
    if not rows.is_cuda:
        yield
        return
    try:
        before = "allow_tf32", settings.allow_tf32
    except RuntimeError:  # torch refuses to answer where precisions were set through its newer settings
        before = "fp32_precision", settings.fp32_precision
    if before[1] in (False, "ieee"):
        yield
        return
    settings.allow_tf32 = False
    try:
        yield
    finally:
        setattr(settings, *before)
