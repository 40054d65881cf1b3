import torch

from robustperf.ops.native.rbf_decision import WAY, centre_of, kernel_blocks, whole_products


def rbf_decision_backward(grad, x, support, dual, gamma):
    return gradient(grad, x, support, dual, gamma, WAY)


def gradient(grad, x, support, dual, gamma, way):
    centre = centre_of(support)
    x = x - centre
    toward = torch.zeros_like(x, memory_format=torch.contiguous_format)  # sum of weight (s - x)
    for supports, part, blocks in kernel_blocks(x, support, centre, gamma, way):
        weighted, coefficients = way.times(part.t().contiguous()), dual[:, supports]
        for rows, kernel in blocks:
            with whole_products(x):
                weight = kernel.mul_(grad[rows] @ coefficients)
            toward[rows] += weighted(weight)
            toward[rows].addcmul_(x[rows], weight.sum(1, keepdim=True), value=-1)
    return toward.mul_(2 * gamma)
