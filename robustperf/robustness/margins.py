"""Margins of many points: the attacks, then the closest boundary, streamed over the points."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from robustperf import check, ops, random
from robustperf.attacks import Attack, Problem
from robustperf.attacks.named import Attacks, attacks_of
from robustperf.check import Box
from robustperf.classifier import Classifier, Estimator, evaluating, logits_of
from robustperf.names import PUBLISHED
from robustperf.progress import progress_bar
from robustperf.robustness.boundary import nearest_crossing
from robustperf.robustness.diagnostics import Diagnostics
from robustperf.robustness.margin_result import Margins, checked_points, diameter
from robustperf.robustness.reevaluation import reevaluate
from robustperf.robustness.search import TOL, BoundarySearch


def margins(
    model: Classifier | Estimator,
    x: torch.Tensor | np.ndarray,
    *,
    attacks: Attacks = PUBLISHED,
    norm: float = 2,
    labels: torch.Tensor | None = None,
    bounds: Box = (0.0, 1.0),
    key: int = 0,
    batch_size: int = 256,
    keep_points: bool = False,
    index: torch.Tensor | None = None,
    tol: float = TOL,
    probes: int = 0,
    progress: bool = False,
) -> Margins:
    """The margin of each point, from above: the distance to the closest adversarial example of an ensemble of attacks
    after a line search towards each (T section 3.2).

    Args:
        model: a classifier on the points' device; run in eval mode and left unchanged. Or a fitted scikit-learn
            classifier that `transfer.module_from_sklearn` converts to a module.
        x: [N, ...] float32 or float64, within `bounds` (a pixel beyond them by rounding is clamped), on any device.
            With an estimator, a NumPy array too.
        attacks: a list such as [FGSM(), PGD(norm=2), BG(norm=2)]; or their names, "fgsm,pgd(eps=2),bg", of which each
            takes `norm` unless it names another (PGD has no L1: it takes L2). By default the paper's ensemble.
        norm: 1, 2 or inf, of the distance.
        labels: [N] int64; None takes the model's own predictions (T postulate P2: robustness is not accuracy). With
            true labels a misclassified point has margin 0.
        bounds: (lower, upper), the box that images live in: numbers, arrays [C] for each channel ([D] for each
            feature), or arrays that broadcast to x[0]; ±inf where there is no bound. Lines to points that have not
            crossed are extended to its edge.
        key: 64 bits, of the attacks' random starts.
        batch_size: points per batch. It sets the memory beyond the results. The results depend on it only through the
            model's own rounding, which may differ between batches (some 1e-5 of a distance in float32).
        keep_points: return the nearest points too.
        index: [N] int64, the points' sample ids in their data set, which the draws depend on; 0..N-1 by default.
        tol, probes: of the search, as in `line_search`.
        progress: show a bar on standard error.

    A point where the model has no label (NaN logits), or an attack no gradient, does not affect other points. What
    makes the margins doubtful is in `diagnostics` and in one RuntimeWarning for the call. For this every fourth point
    (those whose index is a multiple of 4) and its adversarial example are evaluated once more.

    Raises TypeError or ValueError for a wrong argument, pixels that are not finite or out of bounds.

    >>> model = lambda images: torch.stack([images[:, 0], 0.5 * torch.ones(len(images))], 1)  # the boundary is at 0.5
    >>> margins(model, torch.tensor([[0.9, 0.3], [0.2, 0.7]]))
    Margins(n=2, norm=2, median=0.3, not found=0)
    """
    model, x = _as_module(model, x)
    check.tensor("x", x, ("N", ...))
    search = MarginSearch(model, attacks, norm, bounds, key, batch_size, keep_points, tol, probes)
    parts = []
    with progress_bar(progress, "margins", len(x)) as advance:
        for part in search.stream(x, labels=labels, index=index):
            parts.append(part)
            advance(len(part))
    found = Margins.concatenate(parts)
    if found.diagnostics.messages:
        warnings.warn("margins: " + "; ".join(found.diagnostics.messages), RuntimeWarning, stacklevel=2)
    return found


def _as_module(model: Any, x: Any) -> tuple[Classifier, torch.Tensor]:
    """The module of a scikit-learn estimator, and its points as a tensor; anything else unchanged."""
    if callable(model) or not hasattr(model, "get_params"):
        return model, x
    from robustperf.transfer import image_rows, module_from_sklearn  # a higher layer, needed for estimators only

    x = image_rows.as_tensor(x)
    module = module_from_sklearn(model, dtype=check.tensor("x", x, ("N", ...)).dtype)
    return module.to(x.device), x


@dataclass(frozen=True)
class MarginSearch:
    """The settings of `margins`, where they are described; `stream` yields the margins batch by batch."""

    model: Classifier
    attacks: Attacks = PUBLISHED
    norm: float = 2
    bounds: Box = (0.0, 1.0)
    key: int = 0
    batch_size: int = 256
    keep_points: bool = False
    tol: float = TOL
    probes: int = 0
    ensemble: tuple[Attack, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", check.norm(self.norm))
        object.__setattr__(self, "ensemble", tuple(attacks_of(self.attacks, self.norm)))
        check.integer("batch_size", self.batch_size, 1)

    def stream(
        self, x: torch.Tensor, *, labels: torch.Tensor | None = None, index: torch.Tensor | None = None
    ) -> Iterator[Margins]:
        """Yields the `Margins` of each batch of x [N, ...] when it is done (one empty result for no points), without
        the warning. `labels`, `index` and errors are those of `margins`."""
        x, index, box = checked_points(x, labels, index, self.bounds)
        boundary = BoundarySearch(self.model, self.norm, self.tol, probes=self.probes, box=box)
        for start in range(0, max(x.shape[0], 1), self.batch_size):
            part = slice(start, start + self.batch_size)
            found = self._batch(boundary, x[part], None if labels is None else labels[part], index[part])
            yield replace(found, labelled=labels is not None)

    def _batch(
        self, search: BoundarySearch, x: torch.Tensor, labels: torch.Tensor | None, index: torch.Tensor
    ) -> Margins:
        names = _names(self.ensemble)
        counts = Diagnostics(points=len(x), flat=dict.fromkeys(names, 0))
        found = []
        if x.shape[0]:
            with evaluating(self.model), torch.no_grad():
                logits = logits_of(self.model, x)
            predicted = logits.argmax(1)
            labels = predicted if labels is None else labels
            check.labels("labels", labels, logits.shape[1], synchronise=True)
            gap = ops.logit_gap(logits, labels)
            undefined = gap.isnan()
            if undefined.any():
                known = (~undefined).nonzero()[:, 0]
                part = self._batch(search, x[known], labels[known], index[known])
                return _scattered(part, known, x if self.keep_points else None, len(x))
            gap = gap.where(predicted == labels, -math.inf)  # misclassified, by however little
            for place, attack in enumerate(self.ensemble):
                key = random.fold_in(self.key, place)
                found.append(attack.solve(Problem(self.model, x, labels, bounds=search.box, key=key, index=index)))
            flat = {name: int(a.flat.sum()) for name, a in zip(names, found, strict=True)}
            counts = replace(counts, flat=flat, probabilities=int(_probabilities(logits).sum()))
        else:
            labels, gap = index, index.double()
        candidates = torch.stack([a.point for a in found]) if found else x.new_empty(len(names), *x.shape)
        gap_end = torch.stack([a.gap for a in found]) if found else gap.new_empty(len(names), 0)
        evaluations = torch.stack([a.evaluations for a in found]) if found else index.new_empty(len(names), 0)
        boundary = nearest_crossing(search, x, candidates, labels, (gap, gap_end))
        counts = replace(counts, missing=int(boundary.distance.isinf().sum()))
        published = {place: a for place, a in enumerate(found) if self.ensemble[place].published}
        with evaluating(self.model), torch.no_grad():
            counts, further = reevaluate(self.model, x, labels, index, boundary, published, self.norm, counts)
        return Margins(
            distance=boundary.distance.cpu(),
            attack=boundary.candidate.cpu(),
            evaluations=(boundary.evaluations + further).cpu(),
            found=boundary.distance.isfinite().cpu(),
            point=boundary.point.cpu() if self.keep_points else None,
            attack_evaluations=evaluations.cpu(),
            attacks=names,
            norm=self.norm,
            diameter=diameter(x.shape[1:], self.norm, search.box),
            diagnostics=counts,
        )


def _probabilities(logits: torch.Tensor) -> torch.Tensor:
    """[B] bool, where outputs are in [0, 1] and add up to 1."""
    return (logits >= 0).all(1) & (logits <= 1).all(1) & ((logits.double().sum(1) - 1).abs() < 1e-3)


def _scattered(part: Margins, known: torch.Tensor, x: torch.Tensor | None, count: int) -> Margins:
    """`part`, the margins of the points `known`, scattered among `count` points, the others undefined; x where points
    are kept."""
    known = known.cpu()

    def scatter(values: torch.Tensor, fill) -> torch.Tensor:
        return values.new_full((*values.shape[:-1], count), fill).index_copy_(-1, known, values)

    point = part.point
    if x is not None:
        point = torch.full_like(x, math.nan, device="cpu").index_copy_(0, known, part.point)
    return replace(
        part, distance=scatter(part.distance, math.nan), attack=scatter(part.attack, -1),
        evaluations=scatter(part.evaluations, 0), found=scatter(part.found, False), point=point,
        exact=scatter(part.exact, False),
        attack_evaluations=scatter(part.attack_evaluations, 0),
        diagnostics=replace(part.diagnostics, points=count, undefined=count - len(known)),
    )  # fmt: skip


def _names(attacks: Sequence[Attack]) -> tuple[str, ...]:
    """The attacks' names, numbered where several have the same."""
    names = [attack.name for attack in attacks]
    return tuple(
        name if names.count(name) == 1 else f"{name} {names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    )
