"""The result of a margin search: the distance of each point, and how it was found."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from robustperf import check
from robustperf.attacks import Attack
from robustperf.check import Box
from robustperf.result import Result
from robustperf.robustness.confidence import check_confidence, clopper_pearson
from robustperf.robustness.diagnostics import Diagnostics


@dataclass(frozen=True, eq=False, repr=False)
class Margins(Result):
    """The margins of N points, on the CPU.

    Attributes:
        distance: [N] float64, the distance to the nearest point found with another label, an upper bound of the
            margin; inf where `found` is False, 0 where a label was given that is not the model's, NaN where the model
            gives x no label (NaN logits).
        attack: [N] int64, the position in `attacks` whose line it is on; -1 where distance is 0, inf or NaN.
        evaluations: [N] int64, images that the model evaluated in the line search and for the diagnostics, without
            those of the attacks.
        found: [N] bool, whether any adversarial example was found.
        point: [N, ...] those nearest points, NaN where not found; None without `keep_points`.
        attack_evaluations: [A, N] int64, forward passes of each attack for each point.
        attacks: the attacks' names, in their order; numbered where several have the same.
        norm: 0 (the number of changed values), 1, 2 or inf.
        diameter: of the box of the points, in this norm: the d of T Ex. 3; inf where the box is infinite. In L0 the
            number of values of a point.
        diagnostics: what makes these margins doubtful; None where it is not known.
        exact: [N] bool, where `distance` is the margin itself, from a closed form, and not an upper bound; all False by
            default. Where it is inf, no point in the box has another label.
        labelled: whether labels were given, as `robust_accuracy` needs.
        access: how the classifier was evaluated. "model": as it was given; "module": by a module that equals the
            scikit-learn estimator (`transfer.module_from_sklearn`); "labels": by queries of its labels only.
        curve: [N, Q] float64, the distance after the first `queries[q]` queries of each point, inf before one crossed,
            and before any rounding to a lattice; None unless found from labels only.
        queries: Q numbers of queries, ascending; the last is the budget.

    >>> model = lambda images: torch.stack([images[:, 0], 0.5 * torch.ones(len(images))], 1)  # the boundary is at 0.5
    >>> found = rp.margins(model, torch.tensor([[0.9, 0.3], [0.2, 0.7]]), keep_points=True)
    >>> round(found.median, 3), found.fractions
    (0.3, {'ShrinkingBall': 1.0})
    >>> found.point
    tensor([[0.5000, 0.3000],
            [0.5000, 0.7000]])
    """

    distance: torch.Tensor
    attack: torch.Tensor
    evaluations: torch.Tensor
    found: torch.Tensor
    point: torch.Tensor | None
    attack_evaluations: torch.Tensor
    attacks: tuple[str, ...]
    norm: float
    diameter: float
    diagnostics: Diagnostics | None = None
    exact: torch.Tensor | None = None
    labelled: bool = False
    access: str = "model"
    curve: torch.Tensor | None = None
    queries: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.exact is None:
            object.__setattr__(self, "exact", torch.zeros(len(self.distance), dtype=torch.bool))

    @property
    def fractions(self) -> dict[str, float]:
        """The fraction of the found closest points that lie on each attack's line (T Table 3); NaN if there is none."""
        counts = torch.bincount(self.attack[self.attack >= 0], minlength=len(self.attacks)).double()
        return dict(zip(self.attacks, (counts / counts.sum()).tolist(), strict=True))

    @property
    def median(self) -> float:
        """The median distance of the points with a label, the lower of the two middle ones, as in
        `MarginCurve.median`; NaN of no points."""
        return self.distance.nanmedian().item()

    def __len__(self) -> int:
        """N."""
        return len(self.distance)

    def summary(self) -> dict[str, float]:
        """The result as scalars: points, norm, median, area (R, the mean of min(distance, diameter)), diameter,
        not_found (a number of points), undefined (the points without a label, which median and area leave out),
        evaluations and attack_evaluations (the mean per point in the line search and in the attacks), and each attack's
        entry of `fractions` as "closest_by NAME"."""
        return {
            "points": len(self),
            "norm": self.norm,
            "median": self.median,
            "area": self.distance.clamp(max=self.diameter).nanmean().item(),
            "diameter": self.diameter,
            "not_found": int(self.distance.isinf().sum()),
            "undefined": int(self.distance.isnan().sum()),
            "evaluations": self.evaluations.double().mean().item(),
            "attack_evaluations": self.attack_evaluations.double().sum(0).mean().item(),
            **{f"closest_by {name}": fraction for name, fraction in self.fractions.items()},
        }

    def robust_accuracy(self, eps: float, *, confidence: float = 0.95) -> RobustAccuracy:
        """The fraction of the points that the model classifies correctly and for which no adversarial example was found
        at distance <= eps: an upper bound of the robust accuracy, and the accuracy itself for eps = 0.

        Args:
            eps: the radius >= 0, in the units and the norm of the margins.
            confidence: of the interval, strictly between 0 and 1.

        A point to which the model gives no label counts as wrong. Raises ValueError for a wrong argument, no points, or
        margins that were found without labels.

            margins(model, x, labels=y, norm=math.inf).robust_accuracy(8 / 255)
        """
        eps = float(check.number("eps", eps, least=0))
        if not self.labelled:
            raise ValueError(
                "labels: expected margins found with the true labels, margins(model, x, labels=y), got some found "
                "without"
            )
        if not len(self):
            raise ValueError("robust_accuracy: expected at least one point, got none")
        robust, count = self.distance > eps, torch.tensor(len(self))
        lower, upper = clopper_pearson(robust.sum(), count, confidence)
        value = robust.double().mean().item()
        return RobustAccuracy(value, lower.item(), upper.item(), eps, check_confidence(confidence), len(self))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes everything to an npz file, atomically, as `robustperf margins` does: arrays without pickles.

        Raises FileNotFoundError where the folder of `path` does not exist, OSError where it cannot be written.
        """
        from robustperf.robustness.margin_run import save_margins

        save_margins(path, self)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Margins:
        """What `save`, or `robustperf margins`, wrote. Raises FileNotFoundError; ValueError for another file."""
        from robustperf.robustness.margin_run import load_margins

        return load_margins(path)

    def _facts(self) -> dict[str, Any]:
        facts = {"n": len(self), "norm": self.norm, "median": self.median, "not found": int((~self.found).sum())}
        if self.access != "model":
            facts["access"] = self.access
        if self.exact.any():
            facts["exact"] = int(self.exact.sum())
        return facts

    @staticmethod
    def concatenate(parts: Sequence[Margins]) -> Margins:
        """One result of several, in their order."""
        values = {}
        for name in (each.name for each in fields(Margins)):
            items = [getattr(part, name) for part in parts]
            if isinstance(items[0], torch.Tensor):
                items[0] = torch.cat(items, dim=1 if name == "attack_evaluations" else 0)
            elif name == "diagnostics":
                items[0] = None if None in items else Diagnostics.merge(items)
            values[name] = items[0]
        return Margins(**values)


@dataclass(frozen=True, eq=False, repr=False)
class RobustAccuracy(Result):
    """An accuracy under attack, from `Margins.robust_accuracy`.

    Attributes:
        value: the fraction of the points that are classified correctly and stay so within `eps`, as far as was found.
        lower, upper: the Clopper-Pearson interval of this fraction in the population, for points drawn independently.
            It does not cover how far the attacks overestimate margins.
        eps: the radius.
        confidence: of the interval.
        count: N, the number of points.

    >>> model = lambda images: torch.stack([images[:, 0], 0.5 * torch.ones(len(images))], 1)  # the boundary is at 0.5
    >>> found = rp.margins(model, torch.tensor([[0.9, 0.3], [0.6, 0.7]]), labels=torch.tensor([0, 0]))
    >>> found.robust_accuracy(0.2).value
    0.5
    """

    value: float
    lower: float
    upper: float
    eps: float
    confidence: float
    count: int

    def _facts(self) -> dict[str, Any]:
        return {"": self.value, "lower": self.lower, "upper": self.upper, "eps": self.eps, "n": self.count}


def attack_names(attacks: Sequence[Attack]) -> tuple[str, ...]:
    """The attacks' names, numbered where several have the same."""
    names = [attack.name for attack in attacks]
    return tuple(
        name if names.count(name) == 1 else f"{name} {names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    )


def diameter(shape: Sequence[int], norm: float, bounds: Box) -> float:
    """The largest distance in the box: T's d, √m for the L2 norm on [0, 1]^m; inf where the box is infinite. In L0 it
    is m in every box: each channel of a pixel counts on its own, as it does in the distances."""
    if norm == 0:
        return float(math.prod(shape))
    if isinstance(bounds[0], torch.Tensor):
        widths = (bounds[1] - bounds[0]).double().expand(*shape).flatten()
        return torch.linalg.vector_norm(widths, norm).item() if widths.numel() else 0.0
    m = math.prod(shape)
    return (bounds[1] - bounds[0]) * (1.0 if norm == math.inf else m ** (1 / norm))


def checked_points(
    x: torch.Tensor, labels: torch.Tensor | None, index: torch.Tensor | None, bounds: Box
) -> tuple[torch.Tensor, torch.Tensor, Box]:
    """(x within the box, the sample ids [N], the box as `check.box` returns it), the checked arguments of `margins`."""
    check.tensor("x", x, ("N", ...))
    box = check.box(bounds, x.shape[1:], x.dtype, x.device)
    if labels is not None:
        check.tensor("labels", labels, (x.shape[0],), dtypes=(torch.int64,), device=x.device)
    if index is None:
        index = torch.arange(x.shape[0], device=x.device)
    check.tensor("index", index, (x.shape[0],), dtypes=(torch.int64,), device=x.device)
    x = check.images("x", x, box)
    return x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x.detach(), index, box
