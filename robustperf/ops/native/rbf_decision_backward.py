import torch

from robustperf.ops.native.rbf_decision import centre_of, kernel_blocks, times


def rbf_decision_backward(grad, x, support, dual, gamma):
    centre = centre_of(support)
    x = x - centre
    toward = torch.zeros(x.shape, dtype=x.dtype)  # sum of weight (s - x)
    for supports, part, blocks in kernel_blocks(x, support, centre, gamma):
        weighted, coefficients = times(part.t().contiguous()), dual[:, supports]
        for rows, kernel in blocks:
            weight = kernel.mul_(grad[rows] @ coefficients)
            toward[rows] += weighted(weight)
            toward[rows].addcmul_(x[rows], weight.sum(1, keepdim=True), value=-1)
    return toward.mul_(2 * gamma)
