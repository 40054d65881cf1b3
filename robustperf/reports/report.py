"""`report`: everything that the library can say about one classifier, on one page."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robustperf.attacks.named import Attacks
from robustperf.classifier import Classifier
from robustperf.files import lock_folder, record_settings, user_path
from robustperf.label_only import LabelOnly
from robustperf.reports import values
from robustperf.reports.measure import Examples, Measured, Measurement, UnderKernel
from robustperf.reports.page import Page, render
from robustperf.reports.pictures import curves_svg, png_uri
from robustperf.reports.plan import NORMS, Kernels, Plan, norm_name, plan
from robustperf.result import Result
from robustperf.robustness import MarginCurve, Margins
from robustperf.training.evaluate import Evaluation, check_takes


@dataclass(frozen=True, eq=False, repr=False)
class Report(Page, Result):
    """What `report` found about a classifier at N points.

    Attributes:
        name: of the model.
        evaluation: the accuracy and the loss.
        margins: norm -> the margins, with the model's own labels.
        kernels: name -> the accuracy and ρ under each kernel.
        corruptions: name -> the accuracy under each corruption of MNIST-C.
        examples: the points shown with their nearest adversarial images; None where there are none.
        seconds: what -> how long it took, in this call.
        plan: the data and the settings.
        facts: what -> value, such as the SHA-256 of the weights, shown where the page says how to reproduce it.
        command: what makes the page again.
        created: when, in local time.

    >>> rp.report(nn.Linear(4, 2), (torch.rand(6, 4), torch.zeros(6)), name="linear", norms=[2])
    Report(linear, n=6, accuracy=..., median 2=...)
    """

    name: str
    evaluation: Evaluation
    margins: dict[float, Margins]
    kernels: dict[str, UnderKernel]
    corruptions: dict[str, UnderKernel]
    examples: Examples | None
    seconds: dict[str, float]
    plan: Plan
    facts: dict[str, str]
    command: str
    created: str

    def summary(self) -> dict[str, Any]:
        """The values of the page's tables, by name; intervals are (value, lower end, upper end)."""
        return values.summary(self._measured, self.plan)

    @property
    def html(self) -> str:
        """The page."""
        plan, correct = self.plan, self.evaluation.rank == 0
        return render("report.html", title=f"Robustness of {self.name}", report=self, plan=plan, summary=self.summary(),
                      norm_name=norm_name, classes=values.class_rows(self._measured, plan.class_names, plan.confidence),
                      sections=[_section(norm, found, correct, plan) for norm, found in self.margins.items()],
                      cards=_cards(self.examples, plan), png_uri=png_uri,
                      attacks=list(dict.fromkeys(name for found in self.margins.values() for name in found.attacks)),
                      diagnostics=values.diagnostics_rows(self.margins), versions=values.versions())  # fmt: skip

    @property
    def _measured(self) -> Measured:
        return Measured(self.evaluation, self.margins, self.kernels, self.corruptions, self.examples, self.seconds)

    def _facts(self) -> dict[str, Any]:
        medians = {f"median {norm:g}": found.median for norm, found in self.margins.items()}
        return {"": self.name, "n": len(self.evaluation.rank), "accuracy": self.evaluation.top(1), **medians}


def report(
    model: Classifier,
    data: Any,
    *,
    name: str | None = None,
    norms: Sequence[float | str] = NORMS,
    attacks: Attacks | None = None,
    kernels: Kernels | None = None,
    corruptions: bool | None = None,
    samples: int = 100,
    examples: int = 6,
    confidence: float = 0.95,
    seed: int = 0,
    batch_size: int = 256,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = False,
    facts: dict[str, str] | None = None,
    command: str | None = None,
) -> Report:
    """The accuracy of a classifier, its margins in several norms, its nearest adversarial images and how it fares under
    random changes, as an object that saves one HTML page.

    Args:
        model: a `torch.nn.Module`, or a callable, from images [B, ...] in [0, 1] to logits [B, C]; run in eval mode and
            left unchanged.
        data: labelled images in [0, 1]: a data set, a pair (x, y) of tensors or arrays, or a DataLoader.
        name: of the model, in the page's title; None for its class.
        norms: those that margins are found in, of 0, 1, 2 and inf (or their texts).
        attacks: a preset, names or attacks, which `margins` describes; None for "tibo,fast", those of T section 3.2 and
            today's (of a linear classifier the closed form).
        kernels: kernels, or name -> kernel, for ρ (T Definition 1) and the accuracy under one draw of each point; None
            for a rotation, a translation, brightness, contrast and noise, where they take the images.
        corruptions: find the accuracy under those of MNIST-C that take the images; None for images of one channel only.
        samples: draws of each point, for ρ.
        examples: the number of points shown with their nearest adversarial images.
        confidence: of every interval and band, strictly between 0 and 1.
        seed: of the attacks' random starts and of the draws.
        batch_size: points per batch.
        folder: where each finished part is saved as it is found; None for nowhere.
        resume: take the finished parts from `folder`.
        progress: show bars on standard error.
        facts: further lines of the page on how to reproduce it: what -> value.
        command: what makes the page again; None for this call.

    Raises TypeError or ValueError for a wrong argument, a model that does not take the data, or NaN logits; ValueError
    if the folder holds an earlier run and `resume` is false, or one with other settings.

    >>> model, data = nn.Linear(4, 2), (torch.rand(6, 4), torch.zeros(6))  # rows of features: no pictures
    >>> found = report(model, data, name="linear", norms=[2])
    >>> found.margins[2].median, found.summary()["accuracy"]
    (..., (...))
    >>> found.save("report.html")
    """
    planned = plan(
        data, norms=norms, attacks=attacks, kernels=kernels, corruptions=corruptions, samples=samples,
        examples=examples, confidence=confidence, seed=seed, batch_size=batch_size,
    )  # fmt: skip
    name = type(model).__name__ if name is None else name
    check_model(model, planned.data)
    found = measured(model, planned, folder, resume=resume, progress=progress)
    command = command or call_text("report", "model", planned, kernels)
    created = time.strftime("%Y-%m-%d %H:%M")
    return Report(name, **vars(found), plan=planned, facts=facts or {}, command=command, created=created)


def measured(
    model: Classifier,
    plan: Plan,
    folder: str | os.PathLike[str] | None,
    *,
    resume: bool,
    progress: bool,
    title: str = "",
) -> Measured:
    """Measures one model, in a folder of its own if one is given. The caller has checked the model."""
    settings = {} if folder is None else {"model": identity(model), **plan.settings()}
    with recorded(folder, settings, resume=resume) as place:
        return Measurement(model, plan, place, settings, progress, title).run()


@contextmanager
def recorded(folder: str | os.PathLike[str] | None, settings: dict[str, Any], *, resume: bool) -> Iterator[Path | None]:
    """A context that has locked the folder, in which the settings are recorded: its path, or None for none. Errors as
    of `record_settings`."""
    if folder is None:
        yield None
        return
    path = user_path(folder)
    with lock_folder(path):
        record_settings(path, settings, resume=resume)
        yield path


def check_model(model: Classifier, data: Any) -> None:
    """TypeError or ValueError unless the model gives logits for the data, with one for each label."""
    if not callable(model) or isinstance(model, LabelOnly):
        raise TypeError(
            f"model: expected a module or a callable that returns logits, got {type(model).__name__}; "
            "robustperf.margins takes estimators and LabelOnly too, and transfer.module_from_sklearn makes modules"
        )
    check_takes(model, "data", data)


def identity(model: Classifier) -> str:
    """SHA-256 of a module's weights; the class of another callable."""
    from robustperf.nets import weights_file

    if not isinstance(model, torch.nn.Module):
        return type(model).__name__
    return weights_file.digest_of(weights_file.weights_of(model))


def call_text(function: str, models: str, plan: Plan, kernels: Kernels | None) -> str:
    """A call of the library with these settings."""
    norms = ", ".join("math.inf" if norm == math.inf else f"{norm:g}" for norm in plan.norms)
    chosen = kernels if kernels is None or isinstance(kernels, Mapping) else list(kernels)
    examples = f"examples={plan.examples}, " if function == "report" else ""
    return (
        f"rp.{function}({models}, data, norms=({norms},), attacks={plan.attacks!r}, kernels={chosen!r}, "
        f"corruptions={bool(plan.corruptions)}, samples={plan.samples}, {examples}"
        f"confidence={plan.confidence}, seed={plan.seed}, batch_size={plan.batch_size})"
    )


def _section(norm: float, margins: Margins, correct: torch.Tensor, plan: Plan) -> dict[str, Any]:
    """The part of the page about one norm."""
    curve = MarginCurve.from_margins(margins)
    label = (
        f"Margin curve in {norm_name(norm)}: R = {curve.area:.4g}, median {curve.median:.4g}; the values are in the "
        "table below"
    )
    svg, right = curves_svg({"": curve}, norm, confidence=plan.confidence, ids=f"m{norm:g}", label=label)
    return {
        "norm": norm, "name": norm_name(norm), "svg": svg, "margins": margins, "curve": curve,
        "band": curve.band(plan.confidence).area, "rows": values.curve_rows(margins, correct, right, plan.confidence),
        "messages": values.messages(margins),
    }  # fmt: skip


def _cards(examples: Examples | None, plan: Plan) -> list[dict[str, Any]]:
    """The points shown: each with the image, and the nearest adversarial image and their difference in each norm."""
    if examples is None:
        return []

    def class_name(label: int) -> str:
        return str(label) if plan.class_names is None else plan.class_names[label]

    cards = []
    for place, index in enumerate(examples.index.tolist()):
        nearest = []
        for norm in plan.norms:
            point, distance = examples.points[norm][place], examples.distances[norm][place].item()
            if examples.labels[norm][place] < 0:
                nearest.append({"norm": norm_name(norm), "label": None})
                continue
            change = point - examples.x[place]
            largest = change.abs().max().item()
            nearest.append({
                "norm": norm_name(norm), "label": class_name(int(examples.labels[norm][place])), "distance": distance,
                "image": png_uri(point), "change": png_uri(0.5 + change / (2 * largest or 1)), "largest": largest,
                "pixels": int((change != 0).any(0).sum()),
            })  # fmt: skip
        cards.append({
            "index": index, "image": png_uri(examples.x[place]), "label": class_name(int(examples.label[place])),
            "truth": class_name(int(examples.y[place])), "nearest": nearest,
        })  # fmt: skip
    return cards
