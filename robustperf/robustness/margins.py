"""Margins of many points: the attacks, then the closest boundary, streamed over the points."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch

from robustperf import check, ops, random
from robustperf.attacks import Attack, Nearest, Problem
from robustperf.attacks.named import Attacks, attacks_of
from robustperf.check import Box
from robustperf.classifier import Classifier, Estimator, evaluating, logits_of
from robustperf.names import DEFAULT_ATTACKS
from robustperf.progress import progress_bar
from robustperf.result import Result
from robustperf.robustness.boundary import nearest_crossing
from robustperf.robustness.diagnostics import Diagnostics
from robustperf.robustness.points import Labels, Points
from robustperf.robustness.reevaluation import reevaluate
from robustperf.robustness.search import TOL, BoundarySearch


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
        norm: 1, 2 or inf.
        diameter: of the box of the points, in this norm: the d of T Ex. 3; inf where the box is infinite.
        diagnostics: what makes these margins doubtful; None where it is not known.
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
        return {"n": len(self), "norm": self.norm, "median": self.median, "not found": int((~self.found).sum())}

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


def margins(
    model: Classifier | Estimator,
    x: Any,
    *,
    attacks: Attacks = DEFAULT_ATTACKS,
    norm: float = 2,
    labels: Labels = None,
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
    after a line search towards each (T section 3.2; docs/tight_margins.md says how close to the truth).

    Args:
        model: a classifier on the points' device; run in eval mode and left unchanged. Or a fitted scikit-learn
            classifier that `transfer.module_from_sklearn` converts to a module.
        x: [N, ...] float32 or float64, within `bounds` (a pixel beyond them by rounding is clamped): a tensor on any
            device, or a NumPy array. Or a data set, a pair (x, y) or a DataLoader, as `training.evaluate` takes them:
            its samples are read in their order, a batch at a time, and their ids are their positions. Integers are an
            error; 8-bit images are x / 255.
        attacks: "fast" (at most 100 forward and 100 backward passes per point), "strong" (at most 300 of each) or
            "tibo" (the paper's three), which choose their attacks for the norm; or a list such as [FGSM(), PGD(norm=2),
            BG(norm=2)]; or names, "strong,pgd(eps=2),bg", of which each takes `norm` unless it names another (PGD has
            no L1: it takes L2). Later attacks can start from the nearest point of the earlier ones (`Problem.best`).
        norm: 1, 2 or inf, of the distance.
        labels: [N] int64; None takes the model's own predictions (T postulate P2: robustness is not accuracy), and
            "true" the labels of a data set. With true labels a misclassified point has margin 0.
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
    points = Points(model, x, labels, index)
    search = MarginSearch(model, attacks, norm, bounds, key, batch_size, keep_points, tol, probes)
    parts = []
    with progress_bar(progress, "margins", len(points)) as advance:
        for images, own, ids in points:
            for part in search.stream(images, labels=own, index=ids):
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
        object.__setattr__(self, "norm", check.norm(self.norm))
        object.__setattr__(self, "ensemble", tuple(attacks_of(self.attacks, self.norm)))
        check.integer("batch_size", self.batch_size, 1)

    def stream(
        self, x: torch.Tensor, *, labels: torch.Tensor | None = None, index: torch.Tensor | None = None
    ) -> Iterator[Margins]:
        """Yields the `Margins` of each batch of x [N, ...] when it is done (one empty result for no points), without
        the warning. `labels`, `index` and errors are those of `margins`."""
        check.tensor("x", x, ("N", ...))
        box = check.box(self.bounds, x.shape[1:], x.dtype, x.device)
        if labels is not None:
            check.tensor("labels", labels, (x.shape[0],), dtypes=(torch.int64,), device=x.device)
        if index is None:
            index = torch.arange(x.shape[0], device=x.device)
        check.tensor("index", index, (x.shape[0],), dtypes=(torch.int64,), device=x.device)
        x = check.images("x", x, box)
        x = x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x.detach()
        boundary = BoundarySearch(self.model, self.norm, self.tol, probes=self.probes, box=box)
        for start in range(0, max(x.shape[0], 1), self.batch_size):
            part = slice(start, start + self.batch_size)
            yield self._batch(boundary, x[part], None if labels is None else labels[part], index[part])

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
            best = None
            for place, attack in enumerate(self.ensemble):
                key = random.fold_in(self.key, place)
                problem = Problem(self.model, x, labels, bounds=search.box, key=key, index=index, best=best)
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


def diameter(shape: Sequence[int], norm: float, bounds: Box) -> float:
    """The largest distance in the box: T's d, √m for the L2 norm on [0, 1]^m; inf where the box is infinite."""
    if isinstance(bounds[0], torch.Tensor):
        widths = (bounds[1] - bounds[0]).double().expand(*shape).flatten()
        return torch.linalg.vector_norm(widths, norm).item() if widths.numel() else 0.0
    m = math.prod(shape)
    return (bounds[1] - bounds[0]) * (1.0 if norm == math.inf else m ** (1 / norm))
