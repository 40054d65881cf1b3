import triton
import triton.language as tl

from robustperf.ops import rbf_blocks
from robustperf.ops.triton.launch import launch

BLOCK = 1024


def evaluate(products, squares_of_x, squares_of_s, gamma):
    rows, supports = products.shape
    launch(rbf_decision_kernel, rows, products, products, squares_of_x, squares_of_s, gamma, supports, BLOCK=BLOCK)


PRIMITIVES = rbf_blocks.Primitives(4096, 4096, rbf_blocks.multiplier, evaluate, rbf_blocks.accumulate)


def rbf_decision(x, support, dual, intercept, gamma):
    return rbf_blocks.rbf_decision(x, support, dual, intercept, gamma, PRIMITIVES)


@triton.jit
def rbf_decision_kernel(
    products,      # [rows, supports] float32 or float64, <x, s>; overwritten by exp(-gamma |x - s|^2)
    squares_of_x,  # [rows]
    squares_of_s,  # [supports]
    gamma: tl.float64, supports, BLOCK: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = products.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    products += row * supports
    square_of_x, rate = tl.load(squares_of_x + row), tl.full((), -gamma, T)
    for first in range(0, supports, BLOCK):
        i = first + tl.arange(0, BLOCK)
        product = tl.load(products + i, mask=i < supports, other=0.0)
        square = (square_of_x + tl.load(squares_of_s + i, mask=i < supports, other=0.0)) - (product + product)
        # rounding may take it below zero; NaN stays NaN
        tl.store(products + i, tl.exp(tl.where(square < 0.0, 0.0, square) * rate), mask=i < supports)
