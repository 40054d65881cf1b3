"""The figures of a training run: a row for each step and for each epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from robustperf.result import Result


@dataclass(frozen=True, eq=False, repr=False)
class Fitted(Result):
    """What `fit` returns: the figures of the run. The weights are in the models.

    Attributes:
        steps: [S, C] float64, a row for each step: the loss, the accuracy on what the model was trained on, and the
            columns of the objective's other learners (of `CoTrain` the generator's loss and its mean distance
            ||g(x) - x||_2); each over the whole batch of all processes.
        epochs: a row for each epoch: epoch (from 1), step, the mean of each column, lr, images_per_second, seconds
            and, where there is a validation set, validation_loss and validation_accuracy.
        best: the epoch whose weights the models have now, counted from 1: the first of the highest validation
            accuracy; without a validation set the last one.
        columns: the names of the columns of `steps`.

    >>> model, digits = rp.nets.build("small-cnn", size=8, width=2), rp.data.load("digits", "test")
    >>> fitted = rp.training.fit(model, rp.training.ERM(), digits, epochs=2, batch_size=256, progress=False)
    >>> fitted.steps.shape, fitted.best, [row["epoch"] for row in fitted.epochs]
    (torch.Size([4, 2]), 1, [1, 2])
    """

    steps: torch.Tensor
    epochs: list[dict[str, float]]
    best: int
    columns: tuple[str, ...] = ("loss", "accuracy")

    def _facts(self) -> dict[str, Any]:
        names = ("loss", "accuracy", "validation_loss", "validation_accuracy")
        best = self.epochs[self.best - 1]
        return {
            "epochs": len(self.epochs),
            "steps": len(self.steps),
            "best": self.best,
            **{name.replace("_", " "): best[name] for name in names if not math.isnan(best.get(name, math.nan))},
        }


@dataclass
class History:
    """The rows so far.

    Attributes:
        columns: the names of the values of a step.
        steps: a row of these values for each step.
        epochs: a row for each finished epoch, as in `Fitted`.
        best: the row of the best epoch; None before the first.
    """

    columns: tuple[str, ...]
    steps: list[list[float]] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] | None = None

    def add_epoch(self, row: dict[str, float]) -> bool:
        """Adds the row of an epoch; returns whether it is the best so far."""
        self.epochs.append(row)
        measure = "validation_accuracy" if "validation_accuracy" in row else "epoch"
        better = self.best is None or row[measure] > self.best[measure]
        if better:
            self.best = row
        return better

    def steps_tensor(self) -> torch.Tensor:
        """[S, C] float64."""
        return torch.tensor(self.steps, dtype=torch.float64).reshape(-1, len(self.columns))

    def means_since(self, step: int) -> dict[str, float]:
        """The mean of each column over the steps from number `step` on, counted from 0."""
        means = torch.tensor(self.steps[step:], dtype=torch.float64).mean(0).tolist()
        return dict(zip(self.columns, means, strict=True))

    def fitted(self) -> Fitted:
        """The finished run."""
        assert self.best is not None
        return Fitted(self.steps_tensor(), self.epochs, int(self.best["epoch"]), self.columns)
