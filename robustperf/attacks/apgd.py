from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from robustperf import check, random
from robustperf.attacks.attack import Attack
from robustperf.attacks.losses import check_loss, length, per_sample
from robustperf.attacks.problem import Nearest, Problem
from robustperf.attacks.steps import draw_in_ball, dual, first_gradient, unit

_EPS = {2.0: 3.0, math.inf: 0.3}


@dataclass(frozen=True)
class APGD(Attack):
    """Auto-PGD: projected gradient ascent with momentum in a ball around x, whose step halves where it makes no
    progress. The ball's radius may be searched, which makes it a minimal-norm attack.

    Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
    ICML 2020, algorithm 1. It starts at a random point of the ball with the step η = 2 eps. A step goes to
    z = P(x_k + η s), s the gradient's sign in L∞ and its direction in L2, and then to P(x_k + α (z - x_k) +
    (1 - α)(x_k - x_{k-1})) with α = 0.75. At checkpoints, the first after 22 % of the steps, η is halved and the search
    returns to its best point where fewer than `rho` of the steps since the last checkpoint raised the loss, or where
    neither η nor the best loss has changed since. A point that has crossed is finished.

    With `targets` the loss is that of each of the other classes with the highest logits in turn, as in the targeted
    APGD of the publication, whose AutoAttack takes 9.

    With `search` the radius is bisected: up to the nearest crossing so far after a crossing, down from the radius that
    held none otherwise. It starts at `eps`; where that is None, at twice the linear estimate of the margin,
    gap / ‖∇gap‖_q, and doubles until a crossing is found. This is how fixed-radius attacks are compared with
    minimal-norm ones (Cinà et al., "AttackBench", 2024).

    Args:
        norm: 2 or inf.
        eps: the ball's radius in the units of x. None takes 0.3 (inf) or 3 (2) times the box's mean width, in which a
            value without bounds counts as 1; with `search`, see above.
        steps: of each run, which costs a forward and a backward pass a step and one forward pass more.
        loss: "gap", the negative logit gap, whose gradient does not vanish where the model is confident; "dlr", the
            difference of logits ratio; or "cross_entropy".
        targets: how many classes to target; 0 for none.
        search: how many radii; 0 for the one of eps.
        restarts: how many runs for each radius and target.
        rho: the fraction of steps that must raise the loss, in (0, 1).

    >>> model = lambda images: torch.stack([images.sum(1), torch.ones(len(images))], 1)  # label 0 above a sum of 1
    >>> found = APGD(norm=2, steps=20)(model, torch.tensor([[0.6, 0.7], [0.9, 0.9]]), torch.tensor([0, 0]))
    >>> found
    Adversarial(n=2, crossed=2)
    >>> found.point.sum(1) < 1
    tensor([True, True])
    """

    norm: float = math.inf
    eps: float | None = None
    steps: int = 100
    loss: str = "gap"
    targets: int = 0
    search: int = 0
    restarts: int = 1
    rho: float = 0.75

    def __post_init__(self) -> None:
        norm = check.norm(self.norm)
        if norm not in _EPS:
            raise ValueError(f"norm: expected 2 or inf, got {self.norm!r}")
        object.__setattr__(self, "norm", norm)
        if self.eps is not None:
            check.number("eps", self.eps, above=0)
        check.integer("steps", self.steps, 1)
        check.integer("restarts", self.restarts, 1)
        check.integer("targets", self.targets, 0)
        check.integer("search", self.search, 0)
        check.number("rho", self.rho, above=0, below=1)
        check_loss(self.loss)
        if self.targets and self.loss == "cross_entropy":
            raise ValueError("loss: expected gap or dlr with targets, got 'cross_entropy'")

    def run(self, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
        nearest = Nearest(problem, self.norm)
        rows, gradient, gap = first_gradient(problem, nearest)
        targets = self.targets_of(problem, rows)
        radius = torch.zeros_like(nearest.gap).index_copy(0, rows, self.first_radius(problem, gradient, gap))
        least = torch.zeros_like(radius)  # the largest radius without a crossing
        for trial in range(max(self.search, 1)):
            key, active = random.fold_in(problem.key, trial), rows
            for place, target in enumerate(targets):
                for restart in range(self.restarts):
                    run_key = random.fold_in(key, place * self.restarts + restart)
                    active = self.ascend(problem, nearest, active, radius, target, run_key)
            least[active] = radius[active]
            found = nearest.distance.double()
            radius = torch.where(nearest.gap < 0, (least + found) / 2, 2 * radius)
            rows = rows[(radius[rows] - least[rows]) > 1e-4 * radius[rows]] if self.search else rows
        return nearest.point, nearest.gap

    def targets_of(self, problem: Problem, rows: torch.Tensor) -> list[torch.Tensor | None]:
        """The targeted classes of all points, [B] int64 each, from the highest logit on; [None] for none."""
        if not self.targets or not len(rows):
            return [None]
        logits = problem.logits(problem.x[rows], rows)
        others = logits.scatter(1, problem.labels[rows, None], -math.inf)
        best = others.topk(min(self.targets, logits.shape[1] - 1), dim=1).indices
        return [torch.zeros_like(problem.labels).index_copy(0, rows, target) for target in best.T]

    def first_radius(self, problem: Problem, gradient: torch.Tensor, gap: torch.Tensor) -> torch.Tensor:
        """[M] float64."""
        width = check.width(problem.bounds, problem.x)
        fixed = torch.full_like(gap, _EPS[self.norm] * width if self.eps is None else self.eps)
        if self.eps is not None or not self.search:
            return fixed
        estimate = 2 * gap / length(gradient, dual(self.norm)).double()
        return torch.where(estimate.isfinite() & (estimate > 0), estimate, fixed).minimum(fixed * 10)

    def ascend(
        self,
        problem: Problem,
        nearest: Nearest,
        rows: torch.Tensor,
        radii: torch.Tensor,
        targets: torch.Tensor | None,
        key: int,
    ) -> torch.Tensor:
        """One run for `rows`, in balls of radii[rows]; returns the rows that have not crossed."""
        if not len(rows):
            return rows
        state = _Run.start(self, problem, rows, radii, key)
        halvings = _checkpoints(self.steps)
        for step in range(self.steps + 1):
            point, last = state.point, step == self.steps
            if last:
                gap = problem.gap(point, state.rows)
                gradient, loss = torch.zeros_like(point), torch.full_like(gap, -math.inf)
            else:
                target = None if targets is None else targets[state.rows]
                gradient, gap, loss = problem.gradient_to(point, state.rows, target, self.loss)
            state.note(gradient, loss, gap)
            crossed = gap < 0
            nearest.offer(point[crossed], gap[crossed], state.rows[crossed])
            if crossed.any():
                state = state.keep(~crossed)
            if last or not len(state.rows):
                break
            if step in halvings:
                state.halve(self.rho * (step - halvings[step]))
            state.move(self, problem, momentum=0.75 if step else 1.0)
        nearest.offer(state.best, state.best_gap, state.rows)  # of points without a crossing the first is kept
        return state.rows

    def project(self, problem: Problem, x: torch.Tensor, point: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
        """Into the ball, then into the box, which keeps it in the ball: x is in the box."""
        delta, r = point - x, per_sample(radius, x)
        if self.norm == math.inf:
            delta = torch.minimum(torch.maximum(delta, -r), r)
        else:
            delta = delta * (r / per_sample(length(delta, 2).clamp_min(1e-38), x)).clamp_max(1.0)
        return problem.clamp(x + delta)


@dataclass
class _Run:
    """The state of one run at M points: images [M, ...], and [M] of each point."""

    rows: torch.Tensor
    x: torch.Tensor
    radius: torch.Tensor
    point: torch.Tensor
    previous: torch.Tensor
    gradient: torch.Tensor
    step: torch.Tensor
    loss: torch.Tensor
    best: torch.Tensor  # the point of the highest loss, with its gradient, gap and loss
    best_gradient: torch.Tensor
    best_gap: torch.Tensor
    best_loss: torch.Tensor
    best_before: torch.Tensor  # best_loss at the last checkpoint
    raised: torch.Tensor  # how many steps have raised the loss since
    halved: torch.Tensor  # whether the step was halved there

    @staticmethod
    def start(attack: APGD, problem: Problem, rows: torch.Tensor, radii: torch.Tensor, key: int) -> _Run:
        x, radius = problem.x[rows], radii[rows]
        draw = draw_in_ball(x, 1.0, key, problem.index[rows], attack.norm)
        point = attack.project(problem, x, x + per_sample(radius, x) * draw, radius)
        worst = torch.full_like(radius, -math.inf)
        return _Run(
            rows=rows, x=x, radius=radius, point=point, previous=point, gradient=point, step=2 * radius, loss=worst,
            best=point, best_gradient=point, best_gap=worst, best_loss=worst, best_before=worst,
            raised=torch.zeros_like(radius), halved=torch.zeros_like(rows, dtype=torch.bool),
        )  # fmt: skip

    def keep(self, going: torch.Tensor) -> _Run:
        return _Run(**{name: value[going] for name, value in vars(self).items()})

    def note(self, gradient: torch.Tensor, loss: torch.Tensor, gap: torch.Tensor) -> None:
        """The gradient, the loss and the gap at the current point."""
        first = self.best_loss.isneginf()
        self.raised = self.raised + ((loss > self.loss) & ~first)
        better = (loss > self.best_loss) | first
        self.best_gap = torch.where(better, gap, self.best_gap)
        self.best_loss = torch.where(better, loss, self.best_loss)
        better = per_sample(better, self.x).bool()
        self.best = torch.where(better, self.point, self.best)
        self.best_gradient = torch.where(better, gradient, self.best_gradient)
        self.gradient, self.loss = gradient, loss

    def halve(self, enough: float) -> None:
        """Halves the step and returns to the best point, by the publication's two conditions."""
        stalled = ~self.halved & (self.best_loss == self.best_before)
        self.halved = (self.raised < enough) | stalled
        back = per_sample(self.halved, self.x).bool()
        self.step = torch.where(self.halved, self.step / 2, self.step)
        self.loss = torch.where(self.halved, self.best_loss, self.loss)
        self.point = torch.where(back, self.best, self.point)
        self.gradient = torch.where(back, self.best_gradient, self.gradient)
        self.previous = torch.where(back, self.best, self.previous)
        self.best_before, self.raised = self.best_loss, torch.zeros_like(self.raised)

    def move(self, attack: APGD, problem: Problem, momentum: float) -> None:
        direction = self.gradient.sign() if attack.norm == math.inf else unit(self.gradient)
        ahead = attack.project(problem, self.x, self.point + per_sample(self.step, self.x) * direction, self.radius)
        mixed = self.point + momentum * (ahead - self.point) + (1 - momentum) * (self.point - self.previous)
        self.previous, self.point = self.point, attack.project(problem, self.x, mixed, self.radius)


def _checkpoints(steps: int) -> dict[int, int]:
    """The steps after which progress is judged, each with the one before it: the publication's w_j = ceil(p_j N)."""
    found, before, fraction, gap = {}, 0, 0.22, 0.22
    while fraction <= 1:
        now = math.ceil(fraction * steps)
        if now > before:
            found[now] = before
        before, gap = now, max(gap - 0.03, 0.06)
        fraction += gap
    return found
