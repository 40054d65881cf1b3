"""The values of a page: what its tables hold, computed from the measurements."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch

from robustperf.machine import processor
from robustperf.reports.measure import Measured, UnderKernel
from robustperf.reports.pictures import ticks
from robustperf.reports.plan import Plan
from robustperf.robustness import Diagnostics, MarginCurve, Margins, clopper_pearson
from robustperf.robustness.confidence import hoeffding

Interval = tuple[float, float, float]
"""(a value, the ends of its confidence interval)."""


def fraction(hits: torch.Tensor, confidence: float) -> Interval:
    """The fraction of true values [N] bool, with its Clopper-Pearson interval; NaN of none."""
    count = torch.tensor(len(hits))
    lower, upper = clopper_pearson(hits.sum(), count, confidence)
    return hits.double().mean().item(), lower.item(), upper.item()


def labelled(margins: Margins, correct: torch.Tensor) -> Margins:
    """The margins with true labels, from those with the model's own: 0 at misclassified points, the others as they
    are."""
    return replace(
        margins, distance=margins.distance.where(correct, 0), attack=margins.attack.where(correct, -1),
        found=margins.found | ~correct, point=None, labelled=True,
    )  # fmt: skip


def radii(norm: float, right: float) -> list[tuple[str, float]]:
    """(text, ε) of the rows of a curve's table: round numbers, in L∞ steps of 8-bit images too."""
    found = {value: f"{value:g}" for value in ticks(right)}
    if norm == math.inf:
        found |= {step / 255: f"{step}/255" for step in (1, 2, 4, 8, 16) if step / 255 <= right}
    return [(found[value], value) for value in sorted(found)]


def curve_rows(margins: Margins, correct: torch.Tensor, right: float, confidence: float) -> list[dict[str, Any]]:
    """For each ε of `radii`: the curve with its band, and the robust accuracy with its interval."""
    curve, true = MarginCurve.from_margins(margins), labelled(margins, correct)
    band = curve.band(confidence)
    rows = []
    for text, eps in radii(margins.norm, right):
        robust = true.robust_accuracy(eps, confidence=confidence)
        rows.append({
            "text": text,
            "eps": eps,
            "curve": (curve.at(eps), band.lower(eps), band.upper(eps)),
            "robust_accuracy": (robust.value, robust.lower, robust.upper),
        })  # fmt: skip
    return rows


def under(found: UnderKernel, confidence: float) -> dict[str, Any]:
    """The accuracy under a kernel; ρ, its mean over the points with Hoeffding's interval, and the fraction of the
    points all of whose draws kept the label."""
    values: dict[str, Any] = {"accuracy": fraction(found.correct, confidence)}
    if found.rho is not None:
        rho = found.rho.rho[~found.rho.rho.isnan()]
        values["rho"] = (rho.mean().item(), *(hoeffding(rho, confidence) if len(rho) else (math.nan, math.nan)))
        values["certain"] = (rho == 1).double().mean().item()
        values["undefined"] = len(found.rho.rho) - len(rho)
    return values


def class_rows(measured: Measured, names: list[str] | None, confidence: float) -> list[dict[str, Any]]:
    """Name, number of points and accuracy of each class."""
    label, correct = measured.evaluation.label, measured.evaluation.rank == 0
    return [
        {
            "name": str(number) if names is None else names[number],
            "points": int((label == number).sum()),
            "accuracy": fraction(correct[label == number], confidence),
        }
        for number in label.unique().tolist()
    ]


def summary(measured: Measured, plan: Plan) -> dict[str, Any]:
    """The values as one dict; keys of norms are "2", "inf"."""
    correct = measured.evaluation.rank == 0
    return {
        "points": len(correct),
        "accuracy": fraction(correct, plan.confidence),
        "top5": measured.evaluation.top(5),
        "loss": measured.evaluation.loss.mean().item(),
        "margins": {
            f"{norm:g}": {
                **margins.summary(),
                "exact": int(margins.exact.sum()),
                "diagnostics": asdict(margins.diagnostics) if margins.diagnostics else None,
                "messages": messages(margins),
            }
            for norm, margins in measured.margins.items()
        },
        "kernels": {name: under(found, plan.confidence) for name, found in measured.kernels.items()},
        "corruptions": {name: under(found, plan.confidence) for name, found in measured.corruptions.items()},
        "left_out": dict(plan.left_out),
        "confidence": plan.confidence,
        "seconds": dict(measured.seconds),
    }


def messages(margins: Margins) -> list[str]:
    """What makes the margins doubtful; without the published attacks that others undercut, for these are not used."""
    queried = ["labels only were queried, since the model has no gradients"] * (margins.access == "labels")
    return queried + (replace(margins.diagnostics, undercut=0).messages if margins.diagnostics else [])


def diagnostics_rows(margins: Mapping[float, Margins]) -> list[tuple[str, list[str]]]:
    """(what is counted, "a of b" for each norm)."""
    known = [found.diagnostics or Diagnostics() for found in margins.values()]
    counts = {
        "no adversarial example found": [(each.missing, each.points) for each in known],
        "outputs look like probabilities": [(each.probabilities, each.points) for each in known],
        "another label when evaluated again": [(each.changed, each.repeated) for each in known],
        "published attacks undercut by more than 10 %": [(each.undercut, each.compared) for each in known],
    }
    for attack in dict.fromkeys(name for each in known for name in each.flat):
        counts[f"no gradient for {attack}"] = [(each.flat.get(attack, 0), each.points) for each in known]
    return [(text, [f"{count} of {of}" for count, of in each]) for text, each in counts.items()]


def versions() -> dict[str, str]:
    """What the results were computed with."""
    from importlib.metadata import version

    found = {package: version(package) for package in ("robustperf", "torch", "numpy")}
    found["Python"] = platform.python_version()
    found["machine"] = f"{platform.system()} {platform.machine()}, {processor()}, {torch.get_num_threads()} threads"
    return found
