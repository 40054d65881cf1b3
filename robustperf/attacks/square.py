from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from robustperf import check, random
from robustperf.attacks.attack import Attack
from robustperf.attacks.problem import Problem

_HALVINGS = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)  # of the area, at these of 10,000 steps


@dataclass(frozen=True)
class Square(Attack):
    """Random search over square patches of ±eps on the surface of an L∞ ball: no gradients, so that it finds what an
    attack does not find whose gradients are masked.

    Andriushchenko et al., "Square attack: a query-efficient black-box adversarial attack via random search", ECCV 2020,
    algorithms 1 and 2. It starts with vertical stripes of ±eps. Each step draws a square and a sign for each channel,
    and keeps the change where it lowers the logit gap. The fraction p of an image that a square covers is halved at the
    published steps (10, 50, 200, 1,000, 2,000, 4,000, 6,000 and 8,000 of 10,000). A point that has crossed is finished.

    An image [D], of features, has runs of neighbouring features for squares. Draws depend on the key, the sample id and
    the step alone.

    Args:
        steps: the most forward passes, the first of them for the stripes.
        eps: the ball's radius in the units of x. None takes 0.3 times the box's mean width, in which a value without
            bounds counts as 1.
        area: the first p, in (0, 1]; 0.8 is the publication's for MNIST and CIFAR, which takes 0.05 for ImageNet.

    >>> model = lambda images: torch.stack([images.sum(1), torch.ones(len(images))], 1)  # label 0 above a sum of 1
    >>> found = Square(steps=50, eps=0.5)(model, torch.tensor([[0.6, 0.7], [0.9, 0.9]]), torch.tensor([0, 0]))
    >>> found
    Adversarial(n=2, crossed=2)
    >>> found.point.sum(1) < 1
    tensor([True, True])
    """

    steps: int = 5000
    eps: float | None = None
    area: float = 0.8

    def __post_init__(self) -> None:
        check.integer("steps", self.steps, 1)
        if self.eps is not None:
            check.number("eps", self.eps, above=0)
        check.number("area", self.area, above=0, most=1)

    def run(self, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
        eps = 0.3 * check.width(problem.bounds, problem.x) if self.eps is None else self.eps
        x = _as_planes(problem.x)
        channels, height, width = x.shape[1:]
        point, gap, rows = problem.x.clone(), problem.unknown(), problem.rows
        sign = torch.zeros_like(x)
        for step in range(self.steps):
            if not len(rows):
                break
            key, index = random.fold_in(problem.key, step), problem.index[rows]
            if step == 0:
                stripes = random.uniform(key, index, 1, channels * width)[0].view(-1, channels, 1, width)
                tried = _signs(stripes, x).expand_as(x)
            else:
                tall, wide = self._side(step, height, width)
                draw = random.uniform(key, index, 1, 2 + channels)[0]
                top, left = (draw[:, :1] * (height - tall + 1)).floor(), (draw[:, 1:2] * (width - wide + 1)).floor()
                inside = _within(top, tall, height)[:, None, :, None] & _within(left, wide, width)[:, None, None]
                tried = torch.where(inside, _signs(draw[:, 2:, None, None], x), sign[rows])
            moved = problem.clamp(problem.x[rows] + eps * tried.reshape(len(rows), *point.shape[1:]))
            there = problem.gap(moved, rows)
            better = (there < gap[rows]) | gap[rows].isnan()
            kept = rows[better]
            sign[kept], point[kept], gap[kept] = tried[better], moved[better], there[better]
            rows = rows[~(gap[rows] < 0)]
        return point, gap

    def _side(self, step: int, height: int, width: int) -> tuple[int, int]:
        """The height and the width of the square of this step, at least 1 and at most the image's."""
        area = self.area / 2 ** sum(step / self.steps * 10_000 > at for at in _HALVINGS)
        if height == 1:
            return 1, min(max(round(area * width), 1), width)
        side = max(round(math.sqrt(area * height * width)), 1)
        return min(side, height), min(side, width)


def _as_planes(x: torch.Tensor) -> torch.Tensor:
    """x [B, ...] as [B, channels, height, width]; features [B, D] as one row."""
    x = x[:, None] if x.dim() < 4 else x
    return x[:, :, None] if x.dim() < 4 else x.flatten(1, -3)


def _within(first: torch.Tensor, count: int, size: int) -> torch.Tensor:
    """[M, size] bool: the `count` places from `first` [M, 1] on."""
    place = torch.arange(size, device=first.device) - first
    return (place >= 0) & (place < count)


def _signs(uniforms: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """-1 or 1, each for half of the uniforms."""
    return torch.where(uniforms < 0.5, -1.0, 1.0).to(like.dtype)
