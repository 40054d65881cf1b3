from robustperf.ops.cuda.rbf_decision import WAY
from robustperf.ops.native.rbf_decision_backward import gradient


def rbf_decision_backward(grad, x, support, dual, gamma):
    return gradient(grad, x, support, dual, gamma, WAY)
