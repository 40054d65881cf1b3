from __future__ import annotations

from dataclasses import dataclass

import torch

from robustperf import check
from robustperf.classifier import Classifier, evaluating, laid_out, logits_of, without_wrapper
from robustperf.kernel import Kernel, check_kernel
from robustperf.training.objective import Objective, check_weight, cross_entropies, loss_of_drawn


@dataclass(frozen=True)
class MAT(Objective):
    """Model-based adversarial training, MAT-k (R section 5.2, Algorithm 3): k steps of projected gradient ascent in
    delta, and the images there are trained on.

    mean_j [l(G(x^(j), delta_adv^(j)), y^(j)) + weight l(x^(j), y^(j))]. The ascent starts at the point of Delta
    nearest to 0 and takes the raw gradient of the summed loss, as printed. R has Delta = [-1, 1]^q throughout: a
    component of delta is counted in units of `kernel.radius_for`, so that the step means the same in degrees and in
    turns. The model is in eval mode meanwhile: no batch-norm statistic, no parameter's `.grad` changes.

    Args:
        kernel: G, which must be differentiable in delta.
        k: steps of ascent; R uses 10.
        step: alpha.
        weight: lambda, of the clean images' loss.

    Raises ValueError, when called, for a kernel without a gradient in delta.
    """

    kernel: Kernel
    k: int = 10
    step: float = 0.1
    weight: float = 1.0

    def __post_init__(self):
        check_kernel(self.kernel)
        check.positive("k", self.k, integer=True)
        check.positive("step", self.step)
        check_weight(self.weight)

    def loss(self, model, x, y, *, key, index):
        drawn = self.kernel(x, self.ascend(without_wrapper(model), x, y))
        return loss_of_drawn(model, drawn[None], x, y, self.weight)

    def ascend(self, model: Classifier, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """delta_adv [B, q]."""
        check.tensor("x", x, ("B", "C", "H", "W"))
        shape = tuple(x.shape[1:])
        delta = self.kernel.project(x.new_zeros(len(x), self.kernel.dim_for(shape)), shape)
        # ascending alpha in units of the radius is ascending alpha radius^2 in delta
        step = self.step * self.kernel.radius_for(shape).to(x) ** 2
        with evaluating(model), torch.enable_grad():
            for _ in range(self.k):
                delta.requires_grad_()
                drawn = self.kernel(x, delta)
                loss = cross_entropies(logits_of(model, laid_out(model, drawn)), y).sum()
                gradient = torch.autograd.grad(loss, delta, allow_unused=True)[0] if drawn.requires_grad else None
                if gradient is None:
                    raise ValueError(f"kernel: expected one with a gradient in delta, got {self.kernel!r}; MRT and MDA "
                                     "do without")
                # where the loss is no number there is no way up
                ascent = torch.where(gradient.isfinite(), step * gradient, 0)
                delta = self.kernel.project(delta.detach() + ascent, shape)
        return delta
