"""The protocol of all attacks.

An attack is a frozen dataclass of its settings with one method, `run`, that takes a `Problem` and returns a point near
each x and the logit gap there. The base checks arguments and results; the `Problem` evaluates the model, counts the
passes and notes zero gradients. This one is complete:

    @dataclass(frozen=True)
    class SignAscent(Attack):
        step: float = 0.02
        steps: int = 20

        def run(self, problem):
            point, gap, active = problem.x.clone(), problem.unknown(), problem.rows
            for _ in range(self.steps):
                gradient, gap[active] = problem.gradient(point[active], active)
                unchanged = ~(gap[active] < 0)
                active, gradient = active[unchanged], gradient[unchanged]
                point[active] = problem.clamp(point[active] + self.step * gradient.sign())
            gap[active] = problem.gap(point[active], active)
            return point, gap

    robustperf.margins(model, x, attacks=["fgsm", SignAscent()])

Where an iterate is not always better than the last, offer each to a `Nearest(problem, norm)` and return its `point` and
`gap`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from robustperf import check, random
from robustperf.attacks.losses import per_sample
from robustperf.attacks.problem import Problem
from robustperf.check import Box
from robustperf.classifier import Classifier, evaluating, in_fixed_batches
from robustperf.ops.draws import check_key
from robustperf.result import Result


@dataclass(frozen=True, eq=False, repr=False)
class Adversarial(Result):
    """What an attack found.

    Attributes:
        point: [B, ...] x', in the bounds; crossing or not.
        gap: [B] float64, `ops.logit_gap` at x': negative where the label has changed, NaN where it is not known.
        evaluations: [B] int64, forward passes for each point.
        backward: [B] int64, backward passes for each point; the gradients of C logits count C.
        flat: [B] bool, where a gradient that the attack computed was zero or not finite while the label had not yet
            changed, or where x' was not finite.

    >>> model = lambda images: torch.stack([images.sum(1), torch.ones(len(images))], 1)  # label 0 above a sum of 1
    >>> found = rp.attacks.FGSM(eps=0.5)(model, torch.tensor([[0.6, 0.7], [0.9, 0.9]]), torch.tensor([0, 0]))
    >>> found.gap < 0, found.evaluations, found.backward
    (tensor([True, True]), tensor([2, 2]), tensor([1, 1]))
    """

    point: torch.Tensor
    gap: torch.Tensor
    evaluations: torch.Tensor
    backward: torch.Tensor
    flat: torch.Tensor

    def _facts(self) -> dict[str, Any]:
        return {"n": len(self.gap), "crossed": int((self.gap < 0).sum())}


class Attack(check.Settings):
    """An attack is called with a model and points, and returns `Adversarial`. A subclass writes `run`.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Darken(Attack):
    ...     amount: float = 0.5
    ...     def run(self, problem):
    ...         point = problem.clamp(problem.x - self.amount)
    ...         return point, problem.gap(point)
    >>> model = lambda images: torch.stack([images.sum(1), torch.ones(len(images))], 1)  # label 0 above a sum of 1
    >>> Darken()(model, torch.tensor([[0.6, 0.7], [0.9, 0.9]]), torch.tensor([0, 0]))
    Adversarial(n=2, crossed=2)
    """

    @property
    def name(self) -> str:
        """As in `Margins.attacks`."""
        return type(self).__name__

    @property
    def published(self) -> bool:
        """Whether this is one of T section 3.2's three attacks with the settings that it was published with."""
        return False

    def run(self, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
        """(x' [B, ...] within the bounds, `ops.logit_gap` there [B] float64, NaN where not known)."""
        raise NotImplementedError

    def __call__(
        self,
        model: Classifier,
        x: torch.Tensor,
        labels: torch.Tensor,
        *,
        key: int = 0,
        index: torch.Tensor | None = None,
        bounds: Box = (0.0, 1.0),
    ) -> Adversarial:
        """Searches for x' near each point that the model labels differently from `labels`.

        Args:
            model: a classifier; run in eval mode and left unchanged.
            x: [B, ...] float32 or float64, within `bounds`; a pixel beyond them by rounding is clamped.
            labels: [B] int64, the labels that x' must not have.
            key, index: of the random start: its 64-bit key and [B] int64, the points' sample ids (0..B-1 by default).
            bounds: (lower, upper), the box that x' must stay in: numbers, arrays [C] for each channel ([D] for each
                feature), or arrays that broadcast to x[0]; ±inf where there is no bound.

        Where `run` returns a point that is not finite, x takes its place, with a gap of NaN, and `flat` is set.

        Raises TypeError or ValueError for a wrong argument, or for what `run` of a subclass returned: tensors of
        another shape or dtype, or points outside the bounds; RuntimeError inside `torch.inference_mode()` and for a
        model whose logits have no gradient in x, where the attack needs one.

        >>> from robustperf.attacks import FGSM
        >>> model = lambda images: torch.stack([images.sum(1), torch.ones(len(images))], 1)  # label 0 above a sum of 1
        >>> FGSM(eps=0.2)(model, torch.tensor([[0.6, 0.7], [0.9, 0.9]]), torch.tensor([0, 0]))
        Adversarial(n=2, crossed=1)
        """
        check.tensor("x", x, ("B", ...))
        check_key(key)
        bounds = check.box(bounds, x.shape[1:], x.dtype, x.device)
        x = check.images("x", x, bounds)
        check.tensor("labels", labels, (x.shape[0],), dtypes=(torch.int64,), device=x.device)
        if index is None:
            index = torch.arange(x.shape[0], device=x.device)
        check.tensor("index", index, (x.shape[0],), dtypes=(torch.int64,), device=x.device)
        return self.solve(Problem(in_fixed_batches(model), x, labels, bounds=bounds, key=random.key(key), index=index))

    def solve(self, problem: Problem) -> Adversarial:
        """`run` in eval mode, and its checked result. The arguments of `problem` have been checked."""
        if torch.is_inference_mode_enabled():
            raise RuntimeError("attacks need gradients, which torch.inference_mode() forbids; torch.no_grad() is fine")
        with evaluating(problem.model):
            found = self.run(problem)
        if not (isinstance(found, tuple) and len(found) == 2):
            raise TypeError(f"{self.name}: expected run to return (point, gap), got {type(found).__name__}")
        (point, gap), x = found, problem.x
        check.tensor(f"{self.name}: point", point, tuple(x.shape), dtypes=(x.dtype,), device=x.device)
        check.tensor(f"{self.name}: gap", gap, (len(x),), dtypes=(torch.float64,), device=x.device)
        wrong = ~point.flatten(1).isfinite().all(1)
        point = torch.where(per_sample(wrong, x).bool(), x, point)
        problem.mark_flat(wrong)
        return Adversarial(
            check.images(f"{self.name}: point", point, problem.bounds),
            gap.masked_fill(wrong, torch.nan),
            problem.evaluations,
            problem.backward,
            problem.flat,
        )
