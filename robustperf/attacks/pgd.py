from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from robustperf import check, random
from robustperf.attacks.attack import Adversarial, Attack, gap_at, loss_gradient, per_sample

_EPS = {2.0: 3.0, math.inf: 0.3}


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient ascent on the cross-entropy in a ball around x, from a random start.

    Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018: for MNIST in L∞ eps 0.3,
    40 steps of 0.01, which are the defaults; in L2 the step is theirs, 2.5 eps / steps, and the default eps, 3, is
    chosen wide enough that undefended MNIST networks fail on nearly every point. The random start is uniform in the
    ball, from the counter-based draws: the same for a point whatever the batch.

    Args:
        norm: 2 or inf.
        eps: the ball's radius in the units of x; None takes the norm's default.
        step: of each ascent; None takes eps / 30 (inf) or 2.5 eps / steps (2).
        steps: how many.
        random_start: start at a draw from the ball, otherwise at x.
        early_stop: leave a point as soon as its label has changed. With random_start=False this finds closer points
            than the published attack, for a quarter of the evaluations on an MNIST CNN; from a random start it does
            not: the start itself is often another label's, in no good direction.
    """

    norm: float = math.inf
    eps: float | None = None
    step: float | None = None
    steps: int = 40
    random_start: bool = True
    early_stop: bool = False

    def __post_init__(self):
        norm = check.norm(self.norm)
        if norm not in _EPS:
            raise ValueError(f"norm: expected 2 or inf, got {self.norm!r}")
        check.positive("steps", self.steps, integer=True)
        eps = check.positive("eps", _EPS[norm] if self.eps is None else self.eps)
        step = (eps / 30 if norm == math.inf else 2.5 * eps / self.steps) if self.step is None else self.step
        check.positive("step", step)
        for name, value in (("norm", norm), ("eps", eps), ("step", step)):
            object.__setattr__(self, name, value)

    def run(self, model, x, labels, *, key, index, bounds) -> Adversarial:
        point = x
        if self.random_start:
            point = self.project(x + self.draw(x, key, index), x, bounds)
        found = point.clone()
        gap = torch.full((x.shape[0],), math.nan, dtype=torch.float64, device=x.device)
        evaluations = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        active = torch.arange(x.shape[0], device=x.device)
        for _ in range(self.steps):
            gradient, gap[active] = loss_gradient(model, point, labels[active])
            evaluations[active] += 1
            found[active] = point
            if self.early_stop:
                going = ~(gap[active] < 0)
                if not going.all():
                    active, point, gradient = active[going], point[going], gradient[going]
                if not active.numel():
                    break
            point = self.project(point + self.step * self.direction(gradient), x[active], bounds)
        else:
            gap[active] = gap_at(model, point, labels[active])
            evaluations[active] += 1
            found[active] = point
        return Adversarial(found, gap, evaluations)

    def direction(self, gradient: torch.Tensor) -> torch.Tensor:
        """The unit step of steepest ascent in the norm."""
        if self.norm == math.inf:
            return gradient.sign()
        # scaled first, so that the square of a tiny gradient does not vanish
        scaled = gradient / per_sample(gradient.flatten(1).abs().amax(1).clamp_min(1e-38), gradient)
        length = scaled.flatten(1).norm(dim=1)
        return scaled / per_sample(length.clamp_min(1e-38), gradient)

    def project(self, point: torch.Tensor, x: torch.Tensor, bounds: tuple[float, float]) -> torch.Tensor:
        """Into the ball, then into the box (which keeps it in the ball: x is in the box)."""
        delta = point - x
        if self.norm == math.inf:
            delta = delta.clamp(-self.eps, self.eps)
        else:
            length = delta.flatten(1).norm(dim=1)
            delta = delta * per_sample((self.eps / length.clamp_min(1e-38)).clamp_max(1.0), x)
        return (x + delta).clamp(*bounds)

    def draw(self, x: torch.Tensor, key: int, index: torch.Tensor) -> torch.Tensor:
        """A uniform draw from the ball for each point."""
        dim = x[0].numel() if len(x) else 0
        if self.norm == math.inf:
            delta = (2 * random.uniform(key, index, 1, dim)[0] - 1) * self.eps
        else:
            delta = random.normal(key, index, 1, dim)[0]
            radius = random.uniform(random.fold_in(key, 0), index, 1, 1)[0] ** (1 / max(dim, 1))
            delta = delta * (self.eps * radius / delta.norm(dim=1, keepdim=True))
        return delta.to(x.dtype).reshape(x.shape)
