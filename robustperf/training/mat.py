from __future__ import annotations

from dataclasses import dataclass

import torch

from robustperf import check
from robustperf.classifier import Classifier, evaluating, laid_out, logits_of, without_wrapper
from robustperf.kernel import Kernel, check_kernel
from robustperf.training.objective import Objective, cross_entropies, loss_of_drawn

STARTS = ("centre", "identity")


@dataclass(frozen=True)
class MAT(Objective):
    """Model-based adversarial training, MAT-k (R section 5.2, Algorithm 3): training on the images that k steps of
    projected gradient ascent in delta reach.

    mean_j [l(G(x^(j), delta_adv^(j)), y^(j)) + weight l(x^(j), y^(j))]. The ascent starts at the centre of Delta, which
    is R's delta = 0, and takes the raw gradient of the summed loss, as printed. R has Delta = [-1, 1]^q throughout;
    here each component of delta is measured in units of `kernel.radius_for`, so that a step means the same in degrees
    and in turns. The model is in eval mode during the ascent: no batch-norm statistic and no `.grad` changes.

    Where the loss is flat in delta, as that of a saturated model may be, delta does not move. A kernel without a
    gradient in delta is an error; in a composition, components without one stay at the start while others have one.

    Args:
        kernel: G, which must be differentiable in delta (`kernel.differentiable_in_delta`).
        k: steps of ascent; R uses 10.
        step: alpha, in units of each component's radius.
        weight: lambda, of the clean images' loss.
        start: "centre", the middle of each component's range (`kernel.centre_for`); or "identity", the point of Delta
            nearest to the delta that changes nothing (`kernel.identity_for`).

    Raises TypeError or ValueError for a wrong argument, and ValueError for a kernel without a gradient in delta: at
    once where it declares that, otherwise when called.

    >>> model, data = rp.nets.build("small-cnn", size=8), rp.data.load("digits", "test")
    >>> x, y, index = data.x[:8], data.y[:8], torch.arange(8)
    >>> objective = MAT(rp.nuisance.Rotation(30), k=3, start="identity")
    >>> objective(model, x, y, key=rp.random.key(0), index=index).backward()
    """

    kernel: Kernel
    k: int = 10
    step: float = 0.1
    weight: float = 1.0
    start: str = "centre"

    def __post_init__(self) -> None:
        check_kernel(self.kernel)
        if not self.kernel.differentiable_in_delta:
            raise _no_gradient(self.kernel)
        check.integer("k", self.k, 1)
        check.number("step", self.step, above=0)
        check.number("weight", self.weight, least=0)
        if self.start not in STARTS:
            raise ValueError(f"start: expected one of {', '.join(STARTS)}, got {self.start!r}")

    def loss(
        self, model: Classifier, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> torch.Tensor:
        drawn = self.kernel(x, self.ascend(without_wrapper(model), x, y))
        return loss_of_drawn(model, drawn[None], x, y, self.weight)

    def ascend(self, model: Classifier, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """delta_adv [B, q] for images x [B, C, H, W] and labels y [B] int64, with the model in eval mode."""
        check.tensor("x", x, ("B", "C", "H", "W"))
        shape = tuple(x.shape[1:])
        start = self.kernel.centre_for(shape) if self.start == "centre" else self.kernel.identity_for(shape)
        delta = self.kernel.project(start.to(x).repeat(len(x), 1), shape)
        # ascending alpha in units of the radius is ascending alpha radius^2 in delta
        step = self.step * self.kernel.radius_for(shape).to(x) ** 2
        with evaluating(model), torch.enable_grad():
            for _ in range(self.k):
                delta.requires_grad_()
                drawn = self.kernel(x, delta)
                loss = cross_entropies(logits_of(model, laid_out(model, drawn)), y).sum()
                gradient = torch.autograd.grad(loss, delta, allow_unused=True)[0] if drawn.requires_grad else None
                # on a GPU `any` would synchronise with the host
                flat = gradient is None or (x.device.type == "cpu" and not gradient.any())
                if flat:
                    if gradient is None or self._in_steps(x, delta.detach()):
                        raise _no_gradient(self.kernel)
                    return delta.detach()  # the other steps would not move it either
                # a NaN loss gives no direction
                ascent = torch.where(gradient.isfinite(), step * gradient, 0)
                delta = self.kernel.project(delta.detach() + ascent, shape)
        return delta

    def _in_steps(self, x: torch.Tensor, delta: torch.Tensor) -> bool:
        """Whether these images change with delta [B, q] and yet have no derivative in it, neither at `delta` nor at a
        draw."""
        index = torch.arange(len(x), device=x.device)
        other = self.kernel.sample(0, index, 1, shape=tuple(x.shape[1:]))[0].to(x)
        images = []
        for point in (delta, other):
            drawn = self.kernel(x.detach(), point.requires_grad_())
            weights = torch.linspace(1, 2, drawn.numel(), dtype=drawn.dtype, device=drawn.device).view_as(drawn)
            (gradient,) = torch.autograd.grad((drawn * weights).sum(), point, allow_unused=True)
            if gradient is not None and gradient.any():
                return False
            images.append(drawn.detach())
        return not torch.equal(*images)


def _no_gradient(kernel: Kernel) -> ValueError:
    return ValueError(f"kernel: expected one with a gradient in delta, got {kernel!r}; MRT and MDA need none")
