import torch
from torch.nn.functional import linear

from robustperf import _native
from robustperf.ops import rbf_blocks

FEW = 64  # rows for which rearranging the support vectors takes longer than it saves
DIFFERENCES = 16  # rows of which differences to the support vectors are computed faster than products


def evaluate(products, squares_of_x, squares_of_s, gamma):
    _native.rbf_values(products, squares_of_x, squares_of_s, gamma, torch.get_num_threads())


def accumulate(decision, dual, blocks, evaluate):
    """As `rbf_blocks.accumulate`, in one pass, and only for the one-vs-one classifiers that have some of the support
    vectors: with many classes these are few."""
    coefficients, classifiers = in_use(dual, 0)
    for rows, _, operands in blocks:
        sums = coefficients.new_zeros(len(operands[0]), len(classifiers))
        _native.rbf_sums(*operands, coefficients, sums, torch.get_num_threads())
        not_finite = 0 * operands[1][:, None]  # NaN where x is, for every classifier
        decision[rows].index_add_(1, classifiers, sums).add_(not_finite)


def multiplier(matrix, count):
    """As `rbf_blocks.multiplier`; many rows by oneDNN, which takes AVX-512 on any processor that has it, where MKL,
    which torch calls for plain tensors, does not on AMD's."""
    if count <= FEW or matrix.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return rbf_blocks.multiplier(matrix, count)
    used, columns = in_use(matrix, 1)
    if not used.numel():
        return rbf_blocks.multiplier(matrix, count)
    packed = used.to_mkldnn()
    return lambda rows: linear(rows.index_select(1, columns).to_mkldnn(), packed).to_dense()


def in_use(matrix, dim):
    """(The rows or columns that are not 0 throughout, their indices)."""
    indices = matrix.any(1 - dim).nonzero()[:, 0]
    return matrix.index_select(dim, indices), indices


PRIMITIVES = rbf_blocks.Primitives(512, 512, multiplier, evaluate, accumulate)  # 1 MiB of float32


def rbf_decision(x, support, dual, intercept, gamma):
    if x.shape[0] <= DIFFERENCES:
        return by_differences(x.contiguous(), support.contiguous(), dual.double().contiguous(), intercept, gamma)
    return rbf_blocks.rbf_decision(x, support, dual, intercept, gamma, PRIMITIVES)


def by_differences(x, support, dual, intercept, gamma):
    """`rbf_blocks.rbf_decision` of few rows, in one pass over the support vectors."""
    threads, supports = torch.get_num_threads(), support.shape[0]
    products = x.new_empty(x.shape[0], supports)
    _native.rbf_distances(x, support, products, threads)
    squares_of_x = 0 * rbf_blocks.squared_norms(x)  # NaN where x is not finite
    decision = intercept.double().repeat(x.shape[0], 1)
    _native.rbf_sums(products, squares_of_x, x.new_zeros(supports), gamma, dual, decision, threads)
    return decision.to(x.dtype)
