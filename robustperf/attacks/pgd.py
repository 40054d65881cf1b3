from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from robustperf import check
from robustperf.attacks.attack import Attack
from robustperf.attacks.losses import check_loss, per_sample
from robustperf.attacks.problem import Problem
from robustperf.attacks.steps import draw_in_ball, unit

_EPS = {2.0: 3.0, math.inf: 0.3}


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient ascent on a loss in a ball around x, from a random start.

    Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018, where the loss is the
    cross-entropy (`loss="cross_entropy"`): for MNIST in L∞ eps 0.3, 40 steps of 0.01, which are the defaults; in L2 the
    step is theirs, 2.5 eps / steps, and the default eps, 3, is chosen wide enough that undefended MNIST networks fail
    on nearly every point. The random start is uniform in the ball, from the counter-based draws: the same for a point
    whatever the batch.

    Args:
        norm: 2 or inf.
        eps: the ball's radius in the units of x. None takes 0.3 (inf) or 3 (2) times the box's mean width, in which a
            value without bounds counts as 1.
        step: of each ascent, in the units of x; None takes eps / 30 (inf) or 2.5 eps / steps (2).
        steps: how many.
        random_start: start at a draw from the ball, otherwise at x.
        early_stop: stop at a point once its label has changed, which saves evaluations.
        loss: "gap", the negative logit gap, whose gradient does not vanish where the model is confident; "dlr", the
            difference of logits ratio; or "cross_entropy".

    >>> model = lambda images: torch.stack([images.sum(1), torch.ones(len(images))], 1)  # label 0 above a sum of 1
    >>> found = PGD(norm=2, eps=1.0, steps=10)(model, torch.tensor([[0.6, 0.7], [0.9, 0.9]]), torch.tensor([0, 0]))
    >>> found
    Adversarial(n=2, crossed=2)
    >>> found.point.sum(1) < 1
    tensor([True, True])
    """

    norm: float = math.inf
    eps: float | None = None
    step: float | None = None
    steps: int = 40
    random_start: bool = True
    early_stop: bool = False
    loss: str = "gap"

    def __post_init__(self) -> None:
        norm = check.norm(self.norm)
        if norm not in _EPS:
            raise ValueError(f"norm: expected 2 or inf, got {self.norm!r}")
        check.integer("steps", self.steps, 1)
        for name in ("eps", "step"):
            if getattr(self, name) is not None:
                check.number(name, getattr(self, name), above=0)
        check_loss(self.loss)
        object.__setattr__(self, "norm", norm)

    @property
    def published(self) -> bool:
        default = self.eps in (None, _EPS[self.norm]) and self.step is None and self.steps == 40
        return default and self.random_start and not self.early_stop

    def sizes(self, width: float) -> tuple[float, float]:
        """(eps, step) in a box of this mean width."""
        eps = _EPS[self.norm] * width if self.eps is None else self.eps
        step = eps / 30 if self.norm == math.inf else 2.5 * eps / self.steps
        return eps, step if self.step is None else self.step

    def run(self, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
        x, point, bounds = problem.x, problem.x, problem.bounds
        eps, step = self.sizes(check.width(bounds, x))
        if self.random_start:
            point = self.project(x + draw_in_ball(x, eps, problem.key, problem.index, self.norm), x, eps, bounds)
        found, gap, active = point.clone(), problem.unknown(), problem.rows
        for _ in range(self.steps):
            gradient, gap[active] = problem.gradient(point, active, self.loss)
            found[active] = point
            if self.early_stop:
                unchanged = ~(gap[active] < 0)
                if not unchanged.all():
                    active, point, gradient = active[unchanged], point[unchanged], gradient[unchanged]
                if not active.numel():
                    break
            point = self.project(point + step * self.direction(gradient), x[active], eps, bounds)
        else:
            gap[active] = problem.gap(point, active)
            found[active] = point
        return found, gap

    def direction(self, gradient: torch.Tensor) -> torch.Tensor:
        """The unit step of steepest ascent in the norm."""
        if self.norm == math.inf:
            return gradient.sign()
        return unit(gradient)

    def project(self, point: torch.Tensor, x: torch.Tensor, eps: float, bounds: check.Box) -> torch.Tensor:
        """Into the ball of radius eps, then into the box (which keeps it in the ball: x is in the box)."""
        delta = point - x
        if self.norm == math.inf:
            delta = delta.clamp(-eps, eps)
        else:
            length = delta.flatten(1).norm(dim=1)
            delta = delta * per_sample((eps / length.clamp_min(1e-38)).clamp_max(1.0), x)
        return (x + delta).clamp(*bounds)
