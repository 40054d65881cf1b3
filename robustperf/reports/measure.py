"""The measurements of a report, of one model: each is saved as soon as it is finished."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustperf.classifier import Classifier, device_of, evaluating, laid_out, logits_of
from robustperf.data import read_npz
from robustperf.data.batches import load_batches
from robustperf.files import atomic_write
from robustperf.kernel import Kernel
from robustperf.progress import progress_bar
from robustperf.reports.plan import Plan, norm_name
from robustperf.robustness import BasicRobustness, Margins, basic_robustness, margins
from robustperf.robustness.linear import affine_of
from robustperf.robustness.margin_run import MarginRun
from robustperf.robustness.margins import without_gradients
from robustperf.training.evaluate import Evaluation, evaluate

DRAWN = 4
"""The draws of each kernel that a page shows."""


@dataclass(frozen=True)
class UnderKernel:
    """A classifier under one kernel, at N points, on the CPU.

    Attributes:
        correct: [N] bool, whether one draw of each point gets the true label; without the points where Q(. | x) does
            not exist.
        rho: how often draws keep the model's own label; None for a corruption, of which only `correct` is found.
        shown: [K, C, H, W] float32, draws of the first point shown; None where images cannot be shown.

    >>> UnderKernel(torch.tensor([True, True, False, True])).correct.double().mean()
    tensor(0.7500, dtype=torch.float64)
    """

    correct: torch.Tensor
    rho: BasicRobustness | None = None
    shown: torch.Tensor | None = None


@dataclass(frozen=True)
class Examples:
    """E points and the nearest adversarial image of each in each norm, on the CPU.

    Attributes:
        index: [E] int64, sample ids.
        x: [E, ...], the points.
        y, label: [E] int64, their true labels and the model's.
        points: norm -> [E, ...] the nearest images found, NaN where there is none.
        distances: norm -> [E] float64, their distances.
        labels: norm -> [E] int64, the model's labels for them; -1 where there is none.

    >>> model, digits = rp.nets.build("small-cnn", size=8), rp.data.load("digits", "test")
    >>> few = digits.x[:8], digits.y[:8]
    >>> found = rp.report(model, few, norms=[2], attacks="fgsm", kernels=[rp.nuisance.Rotation(15)], samples=5)
    >>> found.examples is None or len(found.examples.index) <= 8
    True
    """

    index: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    label: torch.Tensor
    points: dict[float, torch.Tensor]
    distances: dict[float, torch.Tensor]
    labels: dict[float, torch.Tensor]


@dataclass(frozen=True)
class Measured:
    """What was found about one model; `Report` has the same attributes.

    >>> model, digits = rp.nets.build("small-cnn", size=8), rp.data.load("digits", "test")
    >>> few = digits.x[:8], digits.y[:8]
    >>> found = rp.compare({"plain": model, "same": model}, few, norms=[2], attacks="fgsm", kernels=[], samples=5)
    >>> found.models["plain"].margins[2].norm
    2.0
    """

    evaluation: Evaluation
    margins: dict[float, Margins]
    kernels: dict[str, UnderKernel]
    corruptions: dict[str, UnderKernel]
    examples: Examples | None
    seconds: dict[str, float] = field(default_factory=dict)


Saved = dict[str, np.ndarray]


class Measurement:
    """Measures `model` as `plan` says; in `folder`, if one is given, finished parts are saved and found again.

    The folder's settings are checked by the caller.
    """

    model: Classifier
    plan: Plan
    folder: Path | None
    settings: dict[str, Any]
    progress: bool
    title: str
    device: torch.device
    seconds: dict[str, float]

    def __init__(
        self, model: Classifier, plan: Plan, folder: Path | None, settings: dict[str, Any], progress: bool, title: str
    ) -> None:
        self.model, self.plan, self.folder, self.settings = model, plan, folder, settings
        self.progress, self.title = progress, title
        self.device = device_of(model)
        self.seconds = {}

    def run(self) -> Measured:
        with self._stage("accuracy", len(self.plan.data)) as advance:
            evaluation = evaluate(self.model, self.plan.data, batch_size=self.plan.batch_size)
            advance(len(self.plan.data))
        found = {norm: self._margins(norm) for norm in self.plan.norms}
        ids = self._chosen(found)
        examples = self._examples(ids) if len(ids) else None
        shown = int(ids[0]) if len(ids) else 0
        kernels, corruptions = {}, {}
        for place, (name, kernel) in enumerate(self.plan.kernels.items()):
            with self._stage(name, len(self.plan.data)) as advance:
                kernels[name] = self._under(f"kernel {place}", kernel, shown, advance, rho=True)
        if self.plan.corruptions:
            with self._stage("MNIST-C", len(self.plan.corruptions) * len(self.plan.data)) as advance:
                for name, kernel in self.plan.corruptions.items():
                    corruptions[name] = self._under(name, kernel, shown, advance, rho=False)
        return Measured(evaluation, found, kernels, corruptions, examples, self.seconds)

    @contextmanager
    def _stage(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar, and the seconds that the stage took."""
        began = time.perf_counter()
        with progress_bar(self.progress, f"{self.title}{what}", total) as advance:
            yield advance
        self.seconds[what] = time.perf_counter() - began

    def _saved(self, name: str, compute: Callable[[], Saved]) -> Saved:
        """The arrays in the folder's file of this name; computed and saved the first time."""
        if self.folder is None:
            return compute()
        path = self.folder / f"{name}.npz"
        if path.exists():
            return read_npz(path)
        arrays = compute()
        with atomic_write(path) as partial, open(partial, "wb") as file:
            np.savez(file, **arrays)
        return read_npz(path)

    def _batches(self, rows: list[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        return load_batches(self.plan.data, rows, self.device)

    def _search(self, x: torch.Tensor, index: torch.Tensor, norm: float, keep_points: bool = False) -> Margins:
        """`margins` of a batch; its warning is on the page, from the diagnostics. Where no attacks are given, a linear
        classifier has a closed form, and of a model without gradients labels are queried."""
        attacks = self.plan.ensemble(norm)
        if self.plan.attacks is None and (affine_of(self.model, x) is not None or without_gradients(self.model)):
            attacks = None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "margins: ", RuntimeWarning)
            return margins(
                self.model, x, attacks=attacks, norm=norm, key=self.plan.seed, batch_size=self.plan.batch_size,
                index=index, keep_points=keep_points,
            )  # fmt: skip

    def _margins(self, norm: float) -> Margins:
        batches = self.plan.batches()
        run = None
        if self.folder is not None:
            settings = {**self.settings, "norm": f"{norm:g}"}
            run = MarginRun(self.folder / f"margins {norm:g}", settings, resume=True)
        with self._stage(f"margins in {norm_name(norm)}", len(self.plan.data)) as advance:
            todo = [rows for rows in batches if run is None or not run.done(int(rows[0]))]
            advance(len(self.plan.data) - sum(map(len, todo)))
            parts = []
            for x, _, index in self._batches(todo):
                part = self._search(x, index, norm)
                if run is None:
                    parts.append(part)
                else:
                    run.keep(int(index[0]), part)
                advance(len(x))
            return Margins.concatenate(parts) if run is None else run.collect(int(rows[0]) for rows in batches)

    def _chosen(self, found: dict[float, Margins]) -> torch.Tensor:
        """The sample ids of the points shown: at equal steps of rank, by the margin in the first norm, from the least
        to the largest that was found."""
        distance = next(iter(found.values())).distance
        ids = (distance.isfinite() & (distance > 0)).nonzero()[:, 0]
        ids = ids[distance[ids].argsort(stable=True)]
        count = min(self.plan.examples, len(ids))
        if not count or not self._shows(self.plan.shape):
            return ids[:0]
        return ids[torch.linspace(0, len(ids) - 1, count, dtype=torch.float64).round().long()]

    @staticmethod
    def _shows(shape: tuple[int, ...]) -> bool:
        """Whether samples of this shape can be shown as images."""
        return len(shape) == 3 and shape[0] in (1, 3, 4)

    def _examples(self, ids: torch.Tensor) -> Examples:
        def compute() -> Saved:
            x, y, index = next(self._batches([ids]))
            with evaluating(self.model), torch.no_grad():
                arrays = {"x": x, "y": y, "index": index, "label": logits_of(self.model, x).argmax(1)}
                for norm in self.plan.norms:
                    found = self._search(x, index, norm, keep_points=True)
                    labels = logits_of(self.model, found.point.to(x)).argmax(1).cpu()
                    arrays[f"point {norm:g}"], arrays[f"distance {norm:g}"] = found.point, found.distance
                    arrays[f"label {norm:g}"] = labels.where(found.found, -1)
            return {name: value.cpu().numpy() for name, value in arrays.items()}

        with self._stage("nearest adversarial images", len(ids)) as advance:
            saved = {name: torch.from_numpy(value) for name, value in self._saved("examples", compute).items()}
            advance(len(ids))
        points, distances, labels = (
            {norm: saved[f"{what} {norm:g}"] for norm in self.plan.norms} for what in ("point", "distance", "label")
        )
        return Examples(saved["index"], saved["x"], saved["y"], saved["label"], points, distances, labels)

    def _under(
        self, file: str, kernel: Kernel, shown: int, advance: Callable[[int], None], *, rho: bool
    ) -> UnderKernel:
        """The model under one kernel, saved in `file`; draws of the point `shown` are kept."""
        plan = self.plan

        def compute() -> Saved:
            correct, values = [], []
            for x, y, index in self._batches(plan.batches()):
                defined = kernel.defined(x)
                if rho:
                    values.append(
                        basic_robustness(
                            self.model, x, kernel, samples=plan.samples, confidence=plan.confidence, key=plan.seed,
                            batch_size=plan.batch_size, index=index,
                        )
                    )  # fmt: skip
                if defined.any():
                    drawn = kernel.draw(x[defined], key=plan.seed, index=index[defined])[0]
                    with evaluating(self.model), torch.no_grad():
                        labels = logits_of(self.model, laid_out(self.model, drawn)).argmax(1)
                    correct.append((labels == y[defined]).cpu().numpy())
                advance(len(x))
            found = {"correct": np.concatenate([np.empty(0, bool), *correct])}
            for part in _TENSORS if rho else ():
                found[part] = torch.cat([getattr(value, part) for value in values]).numpy()
            x, _, index = next(self._batches([torch.tensor([shown])]))
            if self._shows(plan.shape) and kernel.defined(x).all():
                drawn = kernel.draw(x, key=plan.seed, index=index, draws=DRAWN if rho else 1)[:, 0]
                if self._shows(tuple(drawn.shape[1:])):
                    found["shown"] = drawn.float().cpu().numpy()
            return found

        saved = {part: torch.from_numpy(value) for part, value in self._saved(file, compute).items()}
        shown_images = saved.pop("shown", None)
        correct = saved.pop("correct")
        return UnderKernel(correct, BasicRobustness(**saved, confidence=plan.confidence) if rho else None, shown_images)


_TENSORS = tuple(each.name for each in fields(BasicRobustness) if each.name != "confidence")
