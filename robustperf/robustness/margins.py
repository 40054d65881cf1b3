"""Margins of many points: the attacks, then the closest boundary, streamed over the points."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from robustperf import check, ops, random
from robustperf.attacks import Attack, Nearest, Problem
from robustperf.attacks.named import Attacks, attacks_of
from robustperf.check import Box
from robustperf.classifier import Classifier, Estimator, evaluating, in_fixed_batches, logits_of, modules_of
from robustperf.label_only import LabelOnly, class_numbers
from robustperf.names import DEFAULT_ATTACKS
from robustperf.ops.draws import check_key
from robustperf.ops.line_search_step import check_search
from robustperf.progress import progress_bar
from robustperf.robustness.boundary import Boundary, nearest_crossing
from robustperf.robustness.diagnostics import Diagnostics
from robustperf.robustness.label_search import LEAST, QUERIES, LabelSearch
from robustperf.robustness.lattice import EVALUATIONS, Lattice, LatticeSearch, Search
from robustperf.robustness.linear import LinearSearch, affine_of
from robustperf.robustness.margin_result import Margins, attack_names, checked_points, diameter
from robustperf.robustness.points import Labels, Points
from robustperf.robustness.reevaluation import reevaluate
from robustperf.robustness.search import TOL, BoundarySearch
from robustperf.robustness.support import SupportSearch

NearestSearch = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]], Boundary]
"""(x [B, ...], candidates [A, B, ...], labels [B], the gaps at both) -> the nearest points towards the candidates."""


def margins(
    model: Classifier | Estimator | LabelOnly,
    x: Any,
    *,
    attacks: Attacks | None = None,
    norm: float = 2,
    labels: Labels | Sequence[Any] = None,
    bounds: Box = (0.0, 1.0),
    key: int = 0,
    batch_size: int = 256,
    keep_points: bool = False,
    index: torch.Tensor | None = None,
    tol: float = TOL,
    probes: int = 0,
    lattice: Lattice | None = None,
    queries: int | None = None,
    starts: Any = None,
    progress: bool = False,
) -> Margins:
    """The margin of each point, from above: the distance to the closest adversarial example of an ensemble of attacks
    after a line search towards each (T section 3.2; docs/tight_margins.md says how close to the truth). Of a linear
    classifier, without `attacks`, it is the margin itself, from a closed form (`Margins.exact`).

    Args:
        model: a classifier on the points' device; run in eval mode and left unchanged. Or any fitted scikit-learn
            classifier: a module that equals it if `transfer.module_from_sklearn` has one, otherwise its labels are
            queried (`Margins.access`). Or a `LabelOnly`.
        x: [N, ...] float32 or float64, within `bounds` (a pixel beyond them by rounding is clamped): a tensor on any
            device, or a NumPy array; with an estimator or a `LabelOnly` a pandas data frame too. Or, without an
            estimator, a data set, a pair (x, y) or a DataLoader, as `training.evaluate` takes them: its samples are
            read in their order, a batch at a time, and their ids are their positions. Integers are an error, except in
            the rows of an estimator; 8-bit images are x / 255.
        attacks: "fast" (at most 100 forward and 100 backward passes per point), "strong" (at most 300 of each) or
            "tibo" (the paper's three), which choose their attacks for the norm; or a list such as [FGSM(), PGD(norm=2),
            BG(norm=2)]; or names, "strong,pgd(eps=2),bg", of which each takes `norm` unless it names another (PGD has
            no L1: it takes L2). Later attacks can start from the nearest point of the earlier ones (`Problem.best`). By
            default the closed form of a linear classifier, attacks that query labels where the model gives no more,
            and else "fast".
        norm: 0, 1, 2 or inf, of the distance; 0 is the number of changed values, each channel of a pixel on its own. In
            it the changes of the attacks' points are undone in place of a line search, and "tibo" and most attacks are
            errors, since they change every value.
        labels: [N] int64; of an estimator or a `LabelOnly` its own labels, an array or a list too; "true" the labels of
            a data set; None takes the model's own predictions (T postulate P2: robustness is not accuracy). With true
            labels a misclassified point has margin 0.
        bounds: (lower, upper), the box that images live in: numbers, arrays [C] for each channel ([D] for each
            feature), or arrays that broadcast to x[0]; ±inf where there is no bound. Lines to points that have not
            crossed are extended to its edge.
        key: 64 bits, of the attacks' random starts.
        batch_size: points per batch. It sets the memory beyond the results. The results depend on it only through the
            model's own rounding, which may differ between batches (some 1e-5 of a distance in float32).
        keep_points: return the nearest points too.
        index: [N] int64, the points' sample ids in their data set, which the draws depend on; 0..N-1 by default.
        tol: the widest bracket that ends a line search, as a fraction of the line, in (0, 1); without effect for the
            norm 0.
        probes: equally spaced points of each line to evaluate first, for lines that cross more than one boundary;
            without effect for the norm 0.
        lattice: the step of a lattice, such as 1 / 255 for images that are saved with 8 bits, or an array that
            broadcasts to x[0]; points are lower + n `lattice` (n `lattice` without a lower bound). Every found point is
            rounded to one that the model still labels differently, and `distance` is that one's. None for any point.
        queries: for a `LabelOnly` or an estimator of which only labels are queried: the most queries of each point, all
            included; 1000 by default, or what the `attacks` given have together.
        starts: for the same: [M, ...] further points in the box, such as training data. The search of a point starts at
            the nearest of them with another label; otherwise at such a point of the first 1,024 of x (of a data set: of
            the samples that are read together), or at a draw from the box. Their labels are queried once for all
            points, and in no point's count.
        progress: show a bar on standard error.

    A point where the model has no label (NaN logits), or an attack no gradient, does not affect other points. What
    makes the margins doubtful is in `diagnostics` and in one RuntimeWarning for the call. For this every fourth point
    (those whose index is a multiple of 4) and its adversarial example are evaluated once more.

    Raises TypeError or ValueError for a wrong argument, pixels that are not finite or out of bounds.

    >>> model = lambda images: torch.stack([images[:, 0], 0.5 * torch.ones(len(images))], 1)  # the boundary is at 0.5
    >>> margins(model, torch.tensor([[0.9, 0.3], [0.2, 0.7]]))
    Margins(n=2, norm=2, median=0.3, not found=0)
    """
    check_search(tol, "chandrupatla", probes)
    classes = access = search = None
    if isinstance(model, LabelOnly) or _is_estimator(model):
        model, x, starts, classes, access = _prepared(model, x, starts)
        if labels is not None and not isinstance(labels, str):
            labels = class_numbers("labels", labels, classes).to(x.device if isinstance(x, torch.Tensor) else "cpu")
    elif queries is not None or starts is not None:
        raise ValueError(
            "queries, starts: expected None for a model that gives logits, whose attacks have budgets of their own, "
            "such as attacks='surfree(queries=500)'"
        )
    points = Points(model, x, labels, index)
    parts = []
    with progress_bar(progress, "margins", len(points)) as advance:
        for images, own, ids in points:
            if search is None:
                search = _search(
                    model, images, attacks=attacks, norm=norm, bounds=bounds, key=key, batch_size=batch_size,
                    keep_points=keep_points, tol=tol, probes=probes, lattice=lattice, queries=queries, starts=starts,
                )  # fmt: skip
            if isinstance(labels, str) and classes is not None:
                own = class_numbers("labels", own, classes).to(images.device)
            for part in search.stream(images, labels=own, index=ids):
                parts.append(part if access is None else replace(part, access=access))
                advance(len(part))
    found = Margins.concatenate(parts)
    if found.diagnostics.messages:
        warnings.warn("margins: " + "; ".join(found.diagnostics.messages), RuntimeWarning, stacklevel=2)
    return found


def _is_estimator(model: Any) -> bool:
    """Whether `model` looks like one of scikit-learn's."""
    return not callable(model) and (hasattr(model, "get_params") or hasattr(model, "classes_"))


def _prepared(model: Any, x: Any, starts: Any) -> tuple[Classifier, Any, Any, int | Sequence[Any], str | None]:
    """A `LabelOnly` as it is, of an estimator its module or a `LabelOnly`; x and the starts, arrays and data frames as
    tensors; the classes; and `Margins.access` where it differs from what the search sets."""
    from robustperf.transfer import classifier_from_sklearn, image_rows  # a higher layer

    given, x, starts = x, image_rows.as_tensor(x), image_rows.as_tensor(starts, "starts")
    if isinstance(model, LabelOnly):
        return (model if x is given else replace(model, arrays=True)), x, starts, model.classes, None
    fitted, columns = getattr(model, "feature_names_in_", None), getattr(given, "columns", None)
    if fitted is not None and columns is not None and list(columns) != list(fitted):
        raise ValueError(f"x: expected the columns {list(fitted)} in this order, got {list(columns)}")
    model = classifier_from_sklearn(model, dtype=check.tensor("x", x, ("N", ...)).dtype)
    if isinstance(model, LabelOnly):
        return model, x, starts, model.classes, None
    return model.to(x.device), x, starts, model.classes_, "module"


def _search(
    model: Classifier,
    x: torch.Tensor,
    *,
    attacks: Attacks | None,
    keep_points: bool,
    tol: float,
    probes: int,
    lattice: Lattice | None,
    queries: int | None,
    starts: Any,
    **settings: Any,
) -> Search:
    """The search that `margins` uses for points like x; `settings` are those that all have."""
    settings["keep_points"] = keep_points or lattice is not None
    if attacks is None and (reason := without_gradients(model)):
        message = f"margins: labels only were queried, since the model has no gradients: {reason}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
        with torch.no_grad():
            classes = logits_of(model, x[:1]).shape[1]
        model = LabelOnly(partial(_labels, model), classes)
    linear = affine_of(model, x) if attacks is None and not isinstance(model, LabelOnly) else None
    if isinstance(model, LabelOnly):
        if lattice is not None and (queries is not None or attacks is None):
            rounding = EVALUATIONS + 1
            queries = check.integer("queries", QUERIES if queries is None else queries, LEAST + rounding) - rounding
        search = LabelSearch(model, attacks, tol=tol, queries=queries, starts=starts, **settings)
    elif linear is not None:
        search = LinearSearch(model, linear, **settings)
    else:
        attacks = DEFAULT_ATTACKS if attacks is None else attacks
        search = MarginSearch(model, attacks, tol=tol, probes=probes, **settings)
    return search if lattice is None else LatticeSearch(search, lattice, settings["bounds"], keep_points)


def without_gradients(model: Classifier) -> str | None:
    """Why a module within the model has no gradients, such as an `adapters.OnnxModel` of unknown operators."""
    return next((reason for each in modules_of(model) if (reason := getattr(each, "no_gradient", None))), None)


def _labels(model: Classifier, x: torch.Tensor) -> torch.Tensor:
    with evaluating(model):
        return logits_of(model, x).argmax(1)


@dataclass(frozen=True)
class MarginSearch:
    """The settings of `margins`, where they are described; `stream` yields the margins batch by batch."""

    model: Classifier
    attacks: Attacks = DEFAULT_ATTACKS
    norm: float = 2
    bounds: Box = (0.0, 1.0)
    key: int = 0
    batch_size: int = 256
    keep_points: bool = False
    tol: float = TOL
    probes: int = 0
    ensemble: tuple[Attack, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", in_fixed_batches(self.model))
        object.__setattr__(self, "norm", check.norm(self.norm, zero=True))
        object.__setattr__(self, "ensemble", tuple(attacks_of(self.attacks, self.norm)))
        check_key(self.key)
        check.integer("batch_size", self.batch_size, 1)

    def stream(
        self, x: torch.Tensor, *, labels: torch.Tensor | None = None, index: torch.Tensor | None = None
    ) -> Iterator[Margins]:
        """Yields the `Margins` of each batch of x [N, ...] when it is done (one empty result for no points), without
        the warning. `labels`, `index` and errors are those of `margins`."""
        x, index, box = checked_points(x, labels, index, self.bounds)
        nearest: NearestSearch = partial(
            nearest_crossing, BoundarySearch(self.model, self.norm, self.tol, probes=self.probes, box=box)
        )
        if self.norm == 0:
            nearest = SupportSearch(self.model, box).nearest
        for start in range(0, max(x.shape[0], 1), self.batch_size):
            part = slice(start, start + self.batch_size)
            found = self._batch(nearest, box, x[part], None if labels is None else labels[part], index[part])
            yield replace(found, labelled=labels is not None)

    def _batch(
        self, nearest: NearestSearch, box: Box, x: torch.Tensor, labels: torch.Tensor | None, index: torch.Tensor
    ) -> Margins:
        names = attack_names(self.ensemble)
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
                part = self._batch(nearest, box, x[known], labels[known], index[known])
                return _scattered(part, known, x if self.keep_points else None, len(x))
            gap = gap.where(predicted == labels, -math.inf)  # misclassified, by however little
            best = None
            for place, attack in enumerate(self.ensemble):
                key = random.fold_in(self.key, place)
                problem = Problem(self.model, x, labels, bounds=box, key=key, index=index, best=best)
                found.append(attack.solve(problem))
                best = best or Nearest(problem, self.norm)
                best.offer(found[-1].point, found[-1].gap)
            flat = {name: int(a.flat.sum()) for name, a in zip(names, found, strict=True)}
            counts = replace(counts, flat=flat, probabilities=int(_probabilities(logits).sum()))
        else:
            labels, gap = index, index.double()
        candidates = torch.stack([a.point for a in found]) if found else x.new_empty(len(names), *x.shape)
        gap_end = torch.stack([a.gap for a in found]) if found else gap.new_empty(len(names), 0)
        evaluations = torch.stack([a.evaluations for a in found]) if found else index.new_empty(len(names), 0)
        boundary = nearest(x, candidates, labels, (gap, gap_end))
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
            diameter=diameter(x.shape[1:], self.norm, box),
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
