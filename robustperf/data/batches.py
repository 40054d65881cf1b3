"""Batches of any data that `as_data` takes: each sample is the same, whichever process reads it."""

from __future__ import annotations

import itertools
import random as python_random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from robustperf import random
from robustperf.data.dataset import Dataset
from robustperf.data.inputs import Arrays, LoaderData, labels
from robustperf.ops.philox import MASK, philox

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Images [B, C, H, W], labels [B] int64 and sample ids [B] int64, on one device."""


def load_batches(
    dataset: Any,
    rows: Sequence[torch.Tensor],
    device: torch.device,
    *,
    workers: int = 0,
    keys: Iterable[int] | None = None,
    labelled: bool = True,
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
        labelled: False if the labels are not needed: a torch data set may then return images alone, or any tuple that
            begins with one, and its labels are not read; they are -1.

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
        if not labelled:
            x, y = batch[0] if isinstance(batch, Sequence) and batch else batch, torch.full_like(index, -1)
        elif isinstance(batch, Sequence) and len(batch) == 2:
            x, y = batch[0], labels("y", batch[1])
        else:
            x = y = batch
        if not isinstance(x, torch.Tensor) or x is y:
            raise TypeError(f"data: expected pairs (image, label), got a batch of {type(batch).__name__}")
        yield x.to(device, non_blocking=True), y.to(device, non_blocking=True), index.to(device)


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
