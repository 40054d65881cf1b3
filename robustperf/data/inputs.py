"""What `fit`, `evaluate` and `margins` take as data: their checks, and the samples of some ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Subset

from robustperf import check
from robustperf.data.dataset import Dataset


@dataclass(frozen=True, eq=False)
class Arrays:
    """Images x [N, ...] float32 or float64, and labels y [N] int64, in memory."""

    x: torch.Tensor
    y: torch.Tensor
    name = "(x, y)"

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, sample: int) -> tuple[torch.Tensor, int]:
        return self.x[sample], int(self.y[sample])

    def rows(self, index: torch.Tensor) -> Arrays:
        return Arrays(self.x[index], self.y[index])


@dataclass(frozen=True, eq=False)
class LoaderData:
    """The parts of a torch DataLoader that are used: its data set and how it reads it. The order is that of
    `batches`."""

    dataset: Any
    batch_size: int
    workers: int
    collate_fn: Callable[[list], Any]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, sample: int) -> Any:
        return self.dataset[sample]


def as_data(name: str, data: Any, *, shuffled: bool = False) -> Any:
    """Checked data of one of four kinds.

    Args:
        name: the argument that errors name.
        data: a `Dataset`; a torch data set of (image, label) pairs; a pair (x, y) of images [N, ...] and labels [N] as
            tensors or arrays; or a DataLoader.
        shuffled: whether it is read in random order.

    Returns the data set itself; of a pair `Arrays`, of a DataLoader `LoaderData`.

    Raises TypeError or ValueError for anything else, and for a DataLoader with settings that would have no effect.
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
            f"batch_sampler={loader.batch_sampler!r}; pass its data set and batch_size instead"
        )
    if loader.worker_init_fn is not None:
        raise ValueError(
            f"{name}: expected a DataLoader without a worker_init_fn, because each sample is "
            "seeded on its own, got one; pass its data set instead"
        )
    if shuffled:
        sampler = loader.sampler
        if not (type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(dataset)):
            raise ValueError(
                f"{name}: expected a DataLoader with shuffle=True, because each epoch is read in a "
                f"random order, got one with a {type(sampler).__name__}; pass its data set instead"
            )
        if loader.generator is not None:
            raise ValueError(
                f"{name}: expected a DataLoader without a generator, because `seed` determines the order, got one"
            )
    return LoaderData(dataset, loader.batch_size, loader.num_workers, loader.collate_fn)


def labels(name: str, y: Any) -> torch.Tensor:
    """Labels [N] int64 from whole numbers of any dtype; TypeError or ValueError for anything else."""
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


def rows_of(dataset: Any, samples: torch.Tensor) -> Any:
    """The samples of these ids [n] int64, as data of the same kind."""
    if isinstance(dataset, Dataset | Arrays):
        return dataset.rows(samples)
    if isinstance(dataset, LoaderData):
        return replace(dataset, dataset=rows_of(dataset.dataset, samples))
    return Subset(dataset, samples.tolist())
