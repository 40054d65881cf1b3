"""The progress of a training run on standard error: a bar within an epoch, a line for each finished epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from robustperf.training.batches import BatchOrder

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_SMOOTHING = 0.05  # the weight of the newest step in the figures beside the bar


class TrainingBar:
    """A context in which one epoch runs.

    Args:
        shown: false shows nothing; where standard error is no terminal, only the lines of the epochs are shown.
        epoch: its number, from 0.
        order: the batches of the run.
        first: the step, from 0, that the run starts or resumes at.
        further: the names of the columns after the loss and the accuracy.
    """

    epochs: int
    batch_size: int
    first: int
    at: int
    further: Sequence[str]
    values: list[float] | None
    shown: bool
    console: Console
    bar: Progress
    task: TaskID
    began: float

    def __init__(self, shown: bool, epoch: int, order: BatchOrder, first: int, further: Sequence[str] = ()) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.epochs, self.batch_size, self.first, self.at = order.epochs, order.batch_size, first, first
        self.further, self.values = further, None
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )  # fmt: skip
        self.shown, self.console = shown, Console(stderr=True)
        self.bar = Progress(
            *columns,
            console=self.console,
            disable=not (shown and self.console.is_terminal),
            transient=True,
            refresh_per_second=4,
        )
        done = first - epoch * order.steps_per_epoch
        self.task = self.bar.add_task(
            f"epoch {epoch + 1}/{order.epochs}", total=order.steps_per_epoch, completed=done, figures=""
        )

    def __enter__(self) -> TrainingBar:
        self.began = time.perf_counter()
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def advance(self, values: list[float]) -> None:
        """Shows that a step is done, with the values of its columns."""
        self.at += 1
        before = self.values or values
        self.values = [old + _SMOOTHING * (new - old) for old, new in zip(before, values, strict=True)]
        speed = (self.at - self.first) * self.batch_size / (time.perf_counter() - self.began)
        loss, accuracy, *further = self.values
        self.bar.update(
            self.task,
            advance=1,
            figures=f"loss {loss:.4f}{_accuracy(accuracy, 1)}{self._text(further)}  {speed:,.0f} images/s",
        )

    def summarise(self, row: dict[str, float], best: bool) -> None:
        """Prints the line of a finished epoch."""
        text = (
            f"epoch {row['epoch']}/{self.epochs}  loss {row['loss']:.4f}{_accuracy(row['accuracy'], 2)}"
            f"{self._text([row[name] for name in self.further])}  {row['images_per_second']:,.0f} images/s"
        )
        if "validation_accuracy" in row:
            text += f"  validation {row['validation_accuracy']:.2%}" + "  the best so far" * best
        if self.shown:
            self.console.print(text, highlight=False, soft_wrap=True)

    def _text(self, values: list[float]) -> str:
        named = zip(self.further, values, strict=True)
        return "".join(f"  {name.replace('_', ' ')} {value:.4f}" for name, value in named)


def _accuracy(value: float, digits: int) -> str:
    """An empty text where the objective does not classify."""
    return "" if math.isnan(value) else f"  accuracy {value:.{digits}%}"
