"""The decision function of support vector machines with a radial-basis-function kernel."""

from __future__ import annotations

import torch

from robustperf import check
from robustperf.ops import registry


def rbf_decision(
    x: torch.Tensor,
    support: torch.Tensor,
    dual: torch.Tensor,
    intercept: torch.Tensor,
    gamma: float,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """sum_s dual[p, s] exp(-gamma |x - s|²) + intercept[p] for every point and each of P one-vs-one
    classifiers: scikit-learn's `SVC(kernel="rbf")` as T section 4 uses it (`transfer.SVMModule` makes the operands of a
    fitted one).

    Memory beyond the result grows with B and with S, not with B S (the reference: with B S, in float64).

    Args:
        x: [B, D] float32 or float64. A row that is not finite, or too large to be squared, gives NaN.
        support: [S, D] of x's dtype, the support vectors.
        dual: [P, S] of x's dtype, 0 where a vector is not one of that classifier's.
        intercept: [P] of x's dtype.
        gamma: above 0.

    Returns [B, P] of x's dtype. Gradients in x, once.

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, device, gamma or backend, and for another argument
    than x that requires a gradient. NotImplementedError for a gradient of the gradient, and in forward mode
    (`torch.func.jvp`).

    >>> x, support = torch.zeros(1, 2), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    >>> rp.ops.rbf_decision(x, support, torch.tensor([[1.0, -1.0]]), torch.zeros(1), gamma=1.0)  # 1 - exp(-1)
    tensor([[0.6321]])
    """
    check.tensor("x", x, ("B", "D"))
    like_x = {"dtypes": (x.dtype,), "device": x.device}
    check.tensor("support", support, ("S", x.shape[1]), **like_x)
    check.tensor("dual", dual, ("P", support.shape[0]), **like_x)
    check.tensor("intercept", intercept, (dual.shape[0],), **like_x)
    check.number("gamma", gamma, above=0)
    if torch.is_grad_enabled():
        for name, value in (("support", support), ("dual", dual), ("intercept", intercept)):
            if value.requires_grad:
                raise ValueError(f"{name}: expected a tensor without requires_grad, for only x has a gradient")
    backend = registry.choose("rbf_decision", backend, x.device)
    return _rbf_decision(backend, x, support, dual, intercept, float(gamma))


def _fake(x, support, dual, intercept, gamma, backend):
    return x.new_empty((x.shape[0], dual.shape[0]))


def _setup(ctx, inputs, output):
    x, support, dual, _, ctx.gamma, ctx.backend = inputs
    ctx.save_for_backward(x, support, dual)


def _backward(ctx, grad):
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (grad, *ctx.saved_tensors)):
        raise NotImplementedError("rbf_decision: has no gradient of its gradient (create_graph=True)")
    return _rbf_decision_backward(ctx.backend, grad, *ctx.saved_tensors, ctx.gamma), None, None, None, None, None


def _backward_fake(grad, x, support, dual, gamma, backend):
    return x.new_empty(x.shape)


_rbf_decision_backward = registry.register(
    "rbf_decision_backward",
    "(Tensor grad, Tensor x, Tensor support, Tensor dual, float gamma, str backend) -> Tensor",
    _backward_fake,
)
_rbf_decision = registry.register(
    "rbf_decision",
    "(Tensor x, Tensor support, Tensor dual, Tensor intercept, float gamma, str backend) -> Tensor",
    _fake, _backward, _setup,
)  # fmt: skip
