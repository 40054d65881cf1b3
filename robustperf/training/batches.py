"""Which samples make which batch, and getting them: the same for any number of processes."""

from __future__ import annotations

import itertools
import random as python_random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Subset
from torch.utils.data import Dataset as TorchDataset

from robustperf import check, random
from robustperf.data import Dataset
from robustperf.ops.philox import MASK, philox

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Images [B, C, H, W], labels [B] and the samples' numbers [B], on one device."""


@dataclass(frozen=True, eq=False)
class Arrays:
    """Images x [N, ...] float32 or float64, and labels y [N] int64, in memory."""

    x: torch.Tensor
    y: torch.Tensor
    name = "(x, y)"

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        return self.x[number], int(self.y[number])

    def rows(self, index: torch.Tensor) -> Arrays:
        return Arrays(self.x[index], self.y[index])


@dataclass(frozen=True, eq=False)
class Loaded:
    """What is taken of a torch DataLoader: its data set and how that is read, not the order, which is `batches`'."""

    dataset: Any
    batch_size: int
    workers: int
    collate_fn: Callable[[list], Any]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> Any:
        return self.dataset[number]


def as_data(name: str, data: Any, *, shuffled: bool = False) -> Any:
    """Data as `fit` and `evaluate` take it: a `Dataset`, a torch data set of (image, label) pairs, a pair (x, y) of
    tensors or arrays, as `Arrays`, or a DataLoader, as `Loaded`. `shuffled`: it will be read in random order.

    Raises TypeError or ValueError, naming `name`, for anything else, and for what a DataLoader has of its own that
    would have no effect.
    """
    if isinstance(data, DataLoader):
        return _loaded(name, data, shuffled)
    if isinstance(data, tuple):
        return _arrays(name, data)
    if not (isinstance(data, Dataset) or hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise TypeError(
            f"{name}: expected a Dataset, a torch data set with a length, (x, y) or a DataLoader, got "
            f"{type(data).__name__}"
        )
    return data


def _arrays(name: str, pair: tuple) -> Arrays:
    if len(pair) != 2:
        raise ValueError(f"{name}: expected a pair (x, y), got {len(pair)} values")
    x, y = pair
    if not isinstance(x, torch.Tensor):
        x = np.asarray(x)
        x = torch.from_numpy(np.ascontiguousarray(x, np.float32 if x.dtype == np.float64 else x.dtype))
    check.images(f"{name}: x", x)
    y = labels(f"{name}: y", y)
    if len(x) != len(y):
        raise ValueError(f"{name}: expected an image for each label, got {len(x)} images and {len(y)} labels")
    return Arrays(x.detach().cpu(), y.cpu())


def _loaded(name: str, loader: DataLoader, shuffled: bool) -> Any:
    dataset = as_data(f"{name}: the DataLoader's data set", loader.dataset)
    if type(loader.batch_sampler) is not BatchSampler:
        raise ValueError(
            f"{name}: expected a DataLoader with a batch_size, got one with "
            f"batch_sampler={loader.batch_sampler!r}; give its data set and batch_size themselves"
        )
    if loader.worker_init_fn is not None:
        raise ValueError(
            f"{name}: expected a DataLoader without a worker_init_fn, for each sample is seeded by "
            "itself, got one; give its data set itself"
        )
    if shuffled:
        sampler = loader.sampler
        if not (type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(dataset)):
            raise ValueError(
                f"{name}: expected a DataLoader with shuffle=True, for each epoch is read in a random "
                f"order, got one with a {type(sampler).__name__}; give its data set itself"
            )
        if loader.generator is not None:
            raise ValueError(f"{name}: expected a DataLoader without a generator, for `seed` gives the order, got one")
    return Loaded(dataset, loader.batch_size, loader.num_workers, loader.collate_fn)


def labels(name: str, y: Any) -> torch.Tensor:
    """Labels [N] int64 of any numbers that are whole; TypeError or ValueError for others."""
    try:
        y = torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected whole numbers, got {type(y).__name__}: {error}") from None
    if y.dim() != 1:
        raise ValueError(f"{name}: expected a label for each image, shape [N], got {list(y.shape)}")
    if y.is_complex():
        raise TypeError(f"{name}: expected whole numbers, got {y.dtype}")
    if y.is_floating_point() and (wrong := y != y.trunc()).any():  # a NaN too
        raise ValueError(f"{name}: expected whole numbers, got {y[wrong][0].item():g}")
    return y.to(torch.int64)


def batches(samples: int | torch.Tensor, batch_size: int, *, key: int, epoch: int) -> list[torch.Tensor]:
    """The batches of one epoch of `fit`: the samples in random order, without the last few that fill no batch.

    Args:
        samples: their number, or their numbers [N] int64.
        batch_size: of all processes together.
        key, epoch: another order for each.

    Returns tensors [batch_size] int64 of sample numbers.

    Raises ValueError for fewer samples than one batch takes.
    """
    samples = samples if isinstance(samples, torch.Tensor) else torch.arange(samples)
    check.integer("batch_size", batch_size, 1)
    if len(samples) < batch_size:
        raise ValueError(f"train: expected at least one batch of {batch_size} samples, got {len(samples)}")
    generator = torch.Generator().manual_seed(random.fold_in(key, epoch))
    order = samples[torch.randperm(len(samples), generator=generator)]
    return list(order[: len(samples) // batch_size * batch_size].split(batch_size))


class Order:
    """The batches of all epochs. Raises ValueError as `batches`."""

    samples: torch.Tensor
    batch_size: int
    key: int
    epochs: int
    steps_an_epoch: int

    def __init__(self, samples: torch.Tensor, batch_size: int, key: int, epochs: int) -> None:
        self.samples, self.batch_size, self.key, self.epochs = samples, batch_size, key, epochs
        self.steps_an_epoch = len(self.batches(0))

    def batches(self, epoch: int) -> list[torch.Tensor]:
        return batches(self.samples, self.batch_size, key=self.key, epoch=epoch)


def held_out(samples: int, share: float, *, key: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(numbers to train on, numbers held out), each in ascending order; a share is held out, at least one sample.

    Raises ValueError for a share that is not between 0 and 1, or of too few samples.
    """
    check.number("validation", share, above=0, below=1)
    out = max(1, round(samples * share))
    if out >= samples:
        raise ValueError(f"train: expected more samples than the {out} held out, got {samples}")
    generator = torch.Generator().manual_seed(random.fold_in(key, random.Salt.HELD_OUT))
    order = torch.randperm(samples, generator=generator)
    return order[out:].sort().values, order[:out].sort().values


def rows_of(dataset: Any, numbers: torch.Tensor) -> Any:
    """The samples of these numbers."""
    if isinstance(dataset, Dataset | Arrays):
        return dataset.rows(numbers)
    if isinstance(dataset, Loaded):
        return replace(dataset, dataset=rows_of(dataset.dataset, numbers))
    return Subset(dataset, numbers.tolist())


def load_batches(
    dataset: Any,
    numbers: Sequence[torch.Tensor],
    device: torch.device,
    *,
    workers: int = 0,
    keys: Iterable[int] | None = None,
) -> Iterator[Batch]:
    """Each of the batches that `numbers` lists, of what `as_data` gives; `keys` has one for each of them, 0 by default.

    A torch data set is read by a DataLoader with `workers` processes. The global random numbers of torch, NumPy and
    Python that a sample draws depend on the batch's key and the sample's number only, whatever process reads it, and
    are afterwards as they were before.
    """
    keys = itertools.repeat(0) if keys is None else keys
    if isinstance(dataset, Dataset | Arrays):
        for rows in numbers:
            yield dataset.x[rows].to(device), dataset.y[rows].to(device), rows.to(device)
        return
    options = {}
    if isinstance(dataset, Loaded):
        workers = workers or dataset.workers
        options = {"collate_fn": dataset.collate_fn}
        dataset = dataset.dataset
    loader = DataLoader(
        _Seeded(dataset),
        batch_sampler=map(_with_seeds, numbers, keys),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(0),
        **options,
    )
    for rows, batch in zip(numbers, loader, strict=True):
        if not (isinstance(batch, Sequence) and len(batch) == 2 and isinstance(batch[0], torch.Tensor)):
            raise TypeError(f"train: expected pairs (image, label), got a batch of {type(batch).__name__}")
        x, y = batch
        yield x.to(device, non_blocking=True), labels("y", y).to(device, non_blocking=True), rows.to(device)


def _with_seeds(rows: torch.Tensor, key: int) -> list[tuple[int, int]]:
    """(number, seed) of each sample of a batch."""
    key = random.fold_in(key, random.Salt.SAMPLES)
    low, high, _, _ = philox([rows & MASK, rows >> 32 & MASK, 0, 1], (key & MASK, key >> 32 & MASK))
    return list(zip(rows.tolist(), (low | (high & MASK >> 1) << 32).tolist(), strict=True))


class _Seeded(TorchDataset):
    """The samples of a data set, each under random numbers of its own."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __getitems__(self, batch: list[tuple[int, int]]) -> list[Any]:
        samples = []
        with _global_generators():
            for number, seed in batch:
                torch.default_generator.manual_seed(seed)
                np.random.seed(seed % 2**32)
                python_random.seed(seed)
                samples.append(self.dataset[number])
        return samples


@contextmanager
def _global_generators() -> Iterator[None]:
    """The generators of torch, NumPy and Python are afterwards as they were before."""
    states = torch.get_rng_state(), np.random.get_state(), python_random.getstate()
    try:
        yield
    finally:
        for restore, state in zip(
            (torch.set_rng_state, np.random.set_state, python_random.setstate), states, strict=True
        ):
            restore(state)
