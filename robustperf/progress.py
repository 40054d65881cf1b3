"""A progress bar on standard error, for long computations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn


def columns(unit: str = "") -> tuple[ProgressColumn, ...]:
    """The columns of a bar: what runs, the bar, how much of how many `unit`, the time so far and the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    counted = [MofNCompleteColumn(), *([TextColumn(unit)] if unit else [])]
    return (TextColumn("{task.description}"), BarColumn(), *counted, TimeElapsedColumn(), TimeRemainingColumn())


@contextmanager
def progress_bar(shown: bool, task: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar within the context.

    Args:
        shown: false for none.
        task: what runs, in a word or two.
        total: the amount of work.

    Yields a function to call with the amount that was done since the last call.

    >>> with progress_bar(True, "margins", 100) as advance:  # doctest: +SKIP
    ...     advance(25)
    """
    if not shown:
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(*columns(), console=Console(stderr=True)) as bar:
        task_id = bar.add_task(task, total=total)
        yield lambda done: bar.advance(task_id, done)
