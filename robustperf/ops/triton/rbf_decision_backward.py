from robustperf.ops.native.rbf_decision_backward import gradient
from robustperf.ops.triton.rbf_decision import WAY


def rbf_decision_backward(grad, x, support, dual, gamma):
    return gradient(grad, x, support, dual, gamma, WAY)
