import torch

from robustperf.ops.native.rbf_decision import WAY, kernel_blocks, whole_products


def rbf_decision_backward(grad, x, support, dual, gamma):
    return gradient(grad, x, support, dual, gamma, WAY)


def gradient(grad, x, support, dual, gamma, way):
    toward = torch.zeros_like(x, memory_format=torch.contiguous_format)  # sum of weight (s - x)
    for supports, vectors, blocks in kernel_blocks(x, support, gamma, way):
        weighted, coefficients = way.times(vectors.t().contiguous(), x.shape[0]), dual[:, supports]
        for rows, points, operands in blocks:
            way.evaluate(*operands)
            with whole_products(x):
                weight = operands[0].mul_(grad[rows] @ coefficients)
            toward[rows] += weighted(weight)
            toward[rows].addcmul_(points, weight.sum(1, keepdim=True), value=-1)
    return toward.mul_(2 * gamma)
