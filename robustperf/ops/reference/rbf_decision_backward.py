from robustperf.ops.reference.rbf_decision import kernel


def rbf_decision_backward(grad, x, support, dual, gamma):
    weight = (grad.double() @ dual.double()) * kernel(x, support, gamma)  # [B, S]
    toward = weight @ support.double() - weight.sum(1, keepdim=True) * x.double()  # sum of weight (s - x)
    return (2 * gamma * toward).to(x.dtype)
