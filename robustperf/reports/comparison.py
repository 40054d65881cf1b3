"""`compare`: several classifiers on one page, at the same points."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from robustperf.attacks.named import Attacks
from robustperf.classifier import Classifier
from robustperf.reports import values
from robustperf.reports.measure import Measured
from robustperf.reports.page import Page, render
from robustperf.reports.paired import Interval, fraction_difference, mean_difference, median_difference
from robustperf.reports.pictures import COLOURS, curves_svg
from robustperf.reports.plan import NORMS, Kernels, Plan, norm_name, plan
from robustperf.reports.report import call_text, check_model, identity, measured, recorded
from robustperf.result import Result
from robustperf.robustness import MarginCurve


@dataclass(frozen=True)
class Difference:
    """A quantity of one classifier less that of the first, at the same points.

    Attributes:
        quantity: what it is.
        name: of the classifier.
        value, lower, upper: the difference and its confidence interval.
        unit: "fraction", or "distance" for margins.

    >>> Difference("accuracy", "robust", -0.01, -0.03, 0.01, "fraction").value
    -0.01
    """

    quantity: str
    name: str
    value: float
    lower: float
    upper: float
    unit: str


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Page, Result):
    """What `compare` found about several classifiers at N points.

    Attributes:
        models: name -> what was measured: `evaluation`, `margins`, `kernels` and `corruptions`, as of a `Report`.
        plan: the data and the settings.
        facts: what -> value, such as the SHA-256 of the weights.
        command: what makes the page again.
        created: when, in local time.

    >>> data = torch.rand(6, 4), torch.zeros(6)
    >>> rp.compare({"plain": nn.Linear(4, 2), "other": nn.Linear(4, 2)}, data, norms=[2])
    Comparison(n=6, plain=..., other=...)
    """

    models: dict[str, Measured]
    plan: Plan
    facts: dict[str, str]
    command: str
    created: str

    @property
    def differences(self) -> list[Difference]:
        """Of every classifier but the first to the first: the accuracy and the accuracy under attack, the margins, ρ
        under each kernel, and the mean accuracy over the corruptions. `reports.paired` describes the intervals."""
        (_, first), *others = self.models.items()
        return [
            Difference(quantity, name, *interval, unit)
            for name, other in others
            for quantity, unit, interval in _differences(first, other, self.plan)
        ]

    def summary(self) -> dict[str, Any]:
        """name -> the values of one classifier, as `Report.summary` has them."""
        return {name: values.summary(found, self.plan) for name, found in self.models.items()}

    @property
    def html(self) -> str:
        """The page."""
        rows: dict[str, list[Difference]] = {}
        for each in self.differences:
            rows.setdefault(each.quantity, []).append(each)
        return render(
            "compare.html", title=f"{len(self.models)} models compared", comparison=self, plan=self.plan, rows=rows,
            letters=dict(zip(self.models, _letters(len(self.models)), strict=True)), summaries=self.summary(),
            sections=[_section(norm, self.models, self.plan) for norm in self.plan.norms], norm_name=norm_name,
            corruptions=_corruptions, colours=len(COLOURS), versions=values.versions(),
        )  # fmt: skip

    def _facts(self) -> dict[str, Any]:
        return {"n": len(self.plan.data), **{name: found.evaluation.top(1) for name, found in self.models.items()}}


def compare(
    models: Mapping[str, Classifier],
    data: Any,
    *,
    norms: Sequence[float | str] = NORMS,
    attacks: Attacks | None = None,
    kernels: Kernels | None = None,
    corruptions: bool | None = None,
    samples: int = 100,
    confidence: float = 0.95,
    seed: int = 0,
    batch_size: int = 256,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = False,
    facts: dict[str, str] | None = None,
    command: str | None = None,
) -> Comparison:
    """Measures several classifiers at the same points and under the same draws, as an object that saves one HTML page:
    their curves in one figure for each norm, and their differences to the first with paired confidence intervals.

    Args:
        models: name -> a classifier, at least two; the first is the one that the others are compared with.
        data: labelled images in [0, 1]: a data set, a pair (x, y) of tensors or arrays, or a DataLoader.
        norms: those that margins are found in, of 0, 1, 2 and inf (or their texts).
        attacks: a preset, names or attacks, which `margins` describes; None for "tibo,fast" (of a linear classifier the
            closed form).
        kernels: kernels, or name -> kernel, for ρ and the accuracy under one draw of each point; None for a rotation, a
            translation, brightness, contrast and noise, where they take the images.
        corruptions: find the accuracy under those of MNIST-C that take the images; None for images of one channel only.
        samples: draws of each point, for ρ.
        confidence: of every interval and band, strictly between 0 and 1.
        seed: of the attacks' random starts and of the draws, which are the same for all models.
        batch_size: points per batch.
        folder: where each finished part is saved as it is found; None for nowhere.
        resume: take the finished parts from `folder`.
        progress: show bars on standard error.
        facts: further lines of the page on how to reproduce it: what -> value.
        command: what makes the page again; None for this call.

    Raises TypeError or ValueError for a wrong argument, a model that does not take the data, or fewer than two models.

    >>> data = torch.rand(6, 4), torch.zeros(6)  # rows of features
    >>> found = compare({"plain": nn.Linear(4, 2), "other": nn.Linear(4, 2)}, data, norms=[2])
    >>> found.differences[0]
    Difference(quantity='accuracy', name='other', value=..., lower=..., upper=..., unit='fraction')
    >>> found.save("compare.html")
    """
    if not isinstance(models, Mapping):
        raise TypeError(f"models: expected a mapping from names to classifiers, got {type(models).__name__}")
    if len(models) < 2:
        raise ValueError(f"models: expected at least two, got {len(models)}")
    planned = plan(
        data, norms=norms, attacks=attacks, kernels=kernels, corruptions=corruptions, samples=samples, examples=0,
        confidence=confidence, seed=seed, batch_size=batch_size,
    )  # fmt: skip
    for model in models.values():  # all of them before any work
        check_model(model, planned.data)
    command = command or call_text("compare", "models", planned, kernels)
    created = time.strftime("%Y-%m-%d %H:%M")

    settings = {}
    if folder is not None:
        settings = {"models": {name: identity(model) for name, model in models.items()}, **planned.settings()}
    found = {}
    with recorded(folder, settings, resume=resume) as path:
        for place, ((name, model), letter) in enumerate(zip(models.items(), _letters(len(models)), strict=True)):
            own = None if path is None else path / f"model {place}"
            found[name] = measured(model, planned, own, resume=True, progress=progress, title=f"{letter}: ")
    return Comparison(found, planned, facts or {}, command, created)


def _letters(count: int) -> list[str]:
    """A, B, ..., Z, then numbers."""
    return [chr(ord("A") + place) if place < 26 else str(place + 1) for place in range(count)]


def _differences(first: Measured, other: Measured, plan: Plan) -> list[tuple[str, str, Interval]]:
    """(quantity, unit, other's less first's) of all that both have."""
    level = plan.confidence
    one, two = (each.evaluation.rank == 0 for each in (first, other))
    found = [("accuracy", "fraction", fraction_difference(one, two, level))]
    for norm in plan.norms:
        ours, theirs = (each.margins[norm] for each in (first, other))
        name = norm_name(norm)
        text, eps = _radius(first, norm)
        robust = (values.labelled(ours, one).distance > eps, values.labelled(theirs, two).distance > eps)
        found.append((f"accuracy under attack, {name} ε = {text}", "fraction", fraction_difference(*robust, level)))
        distances = ours.distance, theirs.distance
        found.append((f"margin in {name}, median of the differences", "distance", median_difference(*distances, level)))
        if math.isfinite(ours.diameter):
            clipped = (each.clamp(max=ours.diameter) for each in distances)
            found.append((f"margin in {name}, mean (R)", "distance", mean_difference(*clipped, level)))
    for name in plan.kernels:
        rho = [each.kernels[name].rho for each in (first, other)]
        known = ~(rho[0].rho.isnan() | rho[1].rho.isnan())
        interval = mean_difference(rho[0].rho[known], rho[1].rho[known], level)
        found.append((f"ρ under {name}", "fraction", interval))
    if plan.corruptions:
        correct = (_corruptions(each).mean(0) for each in (first, other))
        found.append(("accuracy under MNIST-C, mean", "fraction", mean_difference(*correct, level)))
    return found


def _corruptions(found: Measured) -> torch.Tensor:
    """[corruptions, N] float64, 1 where a point is correct under a corruption."""
    return torch.stack([each.correct for each in found.corruptions.values()]).double()


def _radius(first: Measured, norm: float) -> tuple[str, float]:
    """(text, ε), of the rows of the curve's table the one nearest the first classifier's median margin."""
    margins = first.margins[norm]
    median = margins.median if math.isfinite(margins.median) else margins.diameter
    rows = values.radii(norm, 2 * median or 1.0)
    return min(rows, key=lambda row: abs(row[1] - median))


def _section(norm: float, models: Mapping[str, Measured], plan: Plan) -> dict[str, Any]:
    """The part of the page about one norm."""
    curves = {name: MarginCurve.from_margins(found.margins[norm]) for name, found in models.items()}
    letters = _letters(len(models))
    areas = ", ".join(f"{letter}: R = {curve.area:.4g}" for letter, curve in zip(letters, curves.values(), strict=True))
    label = f"Margin curves in {norm_name(norm)}; {areas}; the values are in the table below"
    svg, right = curves_svg(curves, norm, confidence=plan.confidence, ids=f"m{norm:g}", label=label)
    columns = [
        values.curve_rows(found.margins[norm], found.evaluation.rank == 0, right, plan.confidence)
        for found in models.values()
    ]
    return {
        "norm": norm,
        "name": norm_name(norm),
        "svg": svg,
        "curves": curves,
        "rows": list(zip(*columns, strict=True)),
    }
