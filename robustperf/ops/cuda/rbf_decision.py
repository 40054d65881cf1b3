from robustperf import _native_cuda
from robustperf.ops import rbf_blocks
from robustperf.ops.cuda.launch import launch


def evaluate(products, squares_of_x, squares_of_s, gamma):
    launch(_native_cuda.rbf_values, products.device, products, squares_of_x, squares_of_s, gamma)


PRIMITIVES = rbf_blocks.Primitives(4096, 4096, rbf_blocks.multiplier, evaluate, rbf_blocks.accumulate)


def rbf_decision(x, support, dual, intercept, gamma):
    return rbf_blocks.rbf_decision(x, support, dual, intercept, gamma, PRIMITIVES)
