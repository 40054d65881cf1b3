from robustperf.ops import rbf_blocks
from robustperf.ops.native.rbf_decision import PRIMITIVES


def rbf_decision_backward(grad, x, support, dual, gamma):
    return rbf_blocks.rbf_decision_backward(grad, x, support, dual, gamma, PRIMITIVES)
