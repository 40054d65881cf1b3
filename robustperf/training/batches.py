"""The batches of each epoch and how they are loaded: the same for any number of processes."""

from __future__ import annotations

import itertools
import random as python_random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from robustperf import check, random
from robustperf.data import Dataset
from robustperf.ops.philox import MASK, philox
from robustperf.training.inputs import Arrays, LoaderData, labels

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Images [B, C, H, W], labels [B] int64 and sample ids [B] int64, on one device."""


def batches(samples: int | torch.Tensor, batch_size: int, *, key: int, epoch: int) -> list[torch.Tensor]:
    """The batches of one epoch of `fit`: the samples in random order, without the last ones that fill no batch.

    Args:
        samples: how many there are, or their ids [N] int64.
        batch_size: samples in a batch, of all processes together.
        key: 64 bits, as of `robustperf.random.key(seed)`.
        epoch: from 0; each epoch has another order.

    Returns a list of tensors [batch_size] int64 of sample ids.

    Raises ValueError for fewer samples than one batch.

    >>> [len(rows) for rows in batches(100, 32, key=7, epoch=0)]
    [32, 32, 32]
    """
    samples = samples if isinstance(samples, torch.Tensor) else torch.arange(samples)
    check.integer("batch_size", batch_size, 1)
    if len(samples) < batch_size:
        raise ValueError(f"train: expected at least one batch of {batch_size} samples, got {len(samples)}")
    generator = torch.Generator().manual_seed(random.fold_in(key, epoch))
    order = samples[torch.randperm(len(samples), generator=generator)]
    return list(order[: len(samples) // batch_size * batch_size].split(batch_size))


@dataclass(frozen=True, eq=False)
class BatchOrder:
    """The batches of all epochs of a run.

    Args:
        samples: the ids [N] int64 of what is trained on.
        batch_size: of all processes together.
        key: 64 bits, for the shuffling.
        epochs: how many.

    Raises ValueError as `batches`.
    """

    samples: torch.Tensor
    batch_size: int
    key: int
    epochs: int
    steps_per_epoch: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps_per_epoch", len(self.batches(0)))

    def batches(self, epoch: int) -> list[torch.Tensor]:
        return batches(self.samples, self.batch_size, key=self.key, epoch=epoch)


def held_out(samples: int, fraction: float, *, key: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A random split: (the ids to train on, the ids held out), int64, each in ascending order. At least one sample is
    held out.

    Raises ValueError unless the fraction is between 0 and 1 and leaves a sample to train on.
    """
    check.number("validation", fraction, above=0, below=1)
    out = max(1, round(samples * fraction))
    if out >= samples:
        raise ValueError(f"train: expected more samples than the {out} held out, got {samples}")
    generator = torch.Generator().manual_seed(random.fold_in(key, random.Salt.HELD_OUT))
    order = torch.randperm(samples, generator=generator)
    return order[out:].sort().values, order[:out].sort().values


def load_batches(
    dataset: Any,
    rows: Sequence[torch.Tensor],
    device: torch.device,
    *,
    workers: int = 0,
    keys: Iterable[int] | None = None,
) -> Iterator[Batch]:
    """Loads batches of what `as_data` returns.

    A torch data set is read by a DataLoader. The global random numbers of torch, NumPy and Python that a sample draws
    depend on the batch's key and the sample's id only, whichever process reads it; the generators' states are
    afterwards as they were before.

    Args:
        dataset: a `Dataset`, `Arrays`, `LoaderData` or a torch data set.
        rows: the sample ids [B] int64 of each batch.
        device: where the batches go.
        workers: processes of the DataLoader.
        keys: a key for each batch, 0 by default.

    Raises TypeError where a torch data set returns no (image, label) pairs, ValueError for labels that are not whole.
    """
    keys = itertools.repeat(0) if keys is None else keys
    if isinstance(dataset, Dataset | Arrays):
        for index in rows:
            yield dataset.x[index].to(device), dataset.y[index].to(device), index.to(device)
        return
    options = {}
    if isinstance(dataset, LoaderData):
        workers = workers or dataset.workers
        options = {"collate_fn": dataset.collate_fn}
        dataset = dataset.dataset
    loader = DataLoader(
        _SeededSamples(dataset),
        batch_sampler=map(_with_seeds, rows, keys),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(0),
        **options,
    )
    for index, batch in zip(rows, loader, strict=True):
        if not (isinstance(batch, Sequence) and len(batch) == 2 and isinstance(batch[0], torch.Tensor)):
            raise TypeError(f"train: expected pairs (image, label), got a batch of {type(batch).__name__}")
        x, y = batch
        yield x.to(device, non_blocking=True), labels("y", y).to(device, non_blocking=True), index.to(device)


def _with_seeds(rows: torch.Tensor, key: int) -> list[tuple[int, int]]:
    """(id, seed) of each sample of a batch."""
    key = random.fold_in(key, random.Salt.SAMPLES)
    low, high, _, _ = philox([rows & MASK, rows >> 32 & MASK, 0, 1], (key & MASK, key >> 32 & MASK))
    return list(zip(rows.tolist(), (low | (high & MASK >> 1) << 32).tolist(), strict=True))


class _SeededSamples(TorchDataset):
    """The samples of a data set, each read with the global generators seeded for it."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __getitems__(self, batch: list[tuple[int, int]]) -> list[Any]:
        samples = []
        with _global_generators():
            for sample, seed in batch:
                torch.default_generator.manual_seed(seed)
                np.random.seed(seed % 2**32)
                python_random.seed(seed)
                samples.append(self.dataset[sample])
        return samples


@contextmanager
def _global_generators() -> Iterator[None]:
    """Restores the states of the generators of torch, NumPy and Python afterwards."""
    states = torch.get_rng_state(), np.random.get_state(), python_random.getstate()
    try:
        yield
    finally:
        for restore, state in zip(
            (torch.set_rng_state, np.random.set_state, python_random.setstate), states, strict=True
        ):
            restore(state)
