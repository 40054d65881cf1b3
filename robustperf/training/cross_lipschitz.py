from __future__ import annotations

from dataclasses import dataclass

import torch

from robustperf import check
from robustperf.classifier import Classifier, laid_out, logits_of
from robustperf.training.objective import Objective, cross_entropies

_IMAGES_AT_ONCE = 64  # on a CPU: the activations of more images do not fit its cache


@dataclass(frozen=True)
class CrossLipschitz(Objective):
    """The cross-Lipschitz regulariser of Hein and Andriushchenko (2017, section 4; T [11], HEIN in T section 3.3).

    mean_j [l(x^(j), y^(j)) + weight / K^2 sum_{l,m} ||grad f_l(x^(j)) - grad f_m(x^(j))||_2^2] for the K logits f.

    The double sum equals 2 K times the squared norm of the part of the Jacobian that is orthogonal to (1, ..., 1). That
    part has K - 1 directions, whose gradients come from one forward pass and a batched backward pass; on a CPU a few
    directions at a time, which is faster there. Batch normalisation in train mode couples the samples of a batch; the
    gradient is then that of the logit's sum over the batch.

    Args:
        weight: lambda, of the regulariser.

    Raises ValueError for a weight that is not above 0; when called, for logits without a gradient in x.

    >>> model, data = rp.nets.build("small-cnn", size=8), rp.data.load("digits", "test")
    >>> x, y, index = data.x[:8], data.y[:8], torch.arange(8)
    >>> CrossLipschitz(weight=0.1)(model, x, y, key=rp.random.key(0), index=index).backward()
    """

    weight: float

    def __post_init__(self) -> None:
        check.number("weight", self.weight, above=0)

    def loss(
        self, model: Classifier, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> torch.Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = logits_of(model, laid_out(model, x))
            return cross_entropies(logits, y).mean() + self.weight * cross_lipschitz(logits, x)


def cross_lipschitz(logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The regulariser of logits [B, K], computed from x [B, ...]: a scalar with a gradient in the parameters."""
    from scipy.linalg import helmert

    if not logits.requires_grad:
        raise ValueError("model: expected logits with a gradient in x, got a model that detaches them")
    batch, classes = logits.shape
    directions = torch.tensor(helmert(classes), dtype=logits.dtype, device=logits.device)  # [K - 1, K], orthonormal
    directions = directions[:, None].expand(-1, batch, -1)
    chunk = max(1, _IMAGES_AT_ONCE // batch) if x.device.type == "cpu" else len(directions)
    squares = [_gradients(logits, x, part).square().sum() for part in directions.split(chunk)]
    return 2 / (classes * batch) * torch.stack(squares).sum()


def _gradients(logits, x, directions):
    """The gradients of sum(logits * direction) in x, [n, B, ...], for each of the directions [n, B, K]."""
    if len(directions) > 1:
        try:
            return torch.autograd.grad(logits, x, directions, is_grads_batched=True, create_graph=True)[0]
        except torch.OutOfMemoryError:  # which is a RuntimeError
            raise
        except RuntimeError:  # the model has an operation that vmap does not support
            pass
    return torch.stack([torch.autograd.grad(logits, x, each, create_graph=True)[0] for each in directions])
