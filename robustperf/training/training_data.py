"""What a run trains and validates on, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from robustperf import check
from robustperf.data.inputs import LoaderData, as_data, rows_of
from robustperf.training.batches import BatchOrder, held_out


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The data of one call of `fit`.

    Attributes:
        train: what `as_data` returns.
        validation: the same, or None.
        fraction: of `train` that is held out as `validation`; None where that is a data set of its own, or none.
        order: the model's batches.
        workers: processes that load samples of a torch data set.
    """

    train: Any
    validation: Any
    fraction: float | None
    order: BatchOrder
    workers: int

    @classmethod
    def from_arguments(
        cls, train: Any, validation: Any, *, batch_size: int | None, epochs: int, key: int, workers: int
    ) -> TrainingData:
        """From the arguments of `fit`, whose errors it raises."""
        train = as_data("train", train, shuffled=True)
        batch_size = _batch_size(batch_size, train)
        samples = torch.arange(len(train))
        fraction = validation if check.is_number(validation) else None
        if fraction is not None:
            samples, held = held_out(len(train), fraction, key=key)
            validation = rows_of(train, held)
        elif validation is not None:
            validation = as_data("validation", validation)
        check.integer("workers", workers, 0)
        return cls(train, validation, fraction, BatchOrder(samples, batch_size, key, epochs), workers)


def _batch_size(batch_size: int | None, train: Any) -> int:
    own = train.batch_size if isinstance(train, LoaderData) else None
    if batch_size is None:
        return 64 if own is None else own
    if own not in (None, batch_size):
        raise ValueError(f"batch_size: expected {own}, the DataLoader's, or None, got {batch_size!r}")
    return batch_size
