"""Which samples make which batch, and getting them: the same for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from robustperf import check, random
from robustperf.data import Dataset

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Images [B, C, H, W], labels [B] and the samples' numbers [B], on one device."""

_HELD_OUT = 0x68656C64  # folded into the key, where epochs have their own numbers


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
    check.positive("batch_size", batch_size, integer=True)
    if len(samples) < batch_size:
        raise ValueError(f"train: expected at least one batch of {batch_size} samples, got {len(samples)}")
    generator = torch.Generator().manual_seed(random.fold_in(key, epoch))
    order = samples[torch.randperm(len(samples), generator=generator)]
    return list(order[: len(samples) // batch_size * batch_size].split(batch_size))


class Order:
    """The batches of all epochs. Raises ValueError as `batches`."""

    def __init__(self, samples: torch.Tensor, batch_size: int, key: int, epochs: int):
        self.samples, self.batch_size, self.key, self.epochs = samples, batch_size, key, epochs
        self.steps_an_epoch = len(self.batches(0))

    def batches(self, epoch: int) -> list[torch.Tensor]:
        return batches(self.samples, self.batch_size, key=self.key, epoch=epoch)


def held_out(samples: int, share: float, *, key: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(numbers to train on, numbers held out), each in ascending order; a share is held out, at least one sample.

    Raises ValueError for a share that is not between 0 and 1, or of too few samples.
    """
    if not 0 < share < 1:
        raise ValueError(f"validation: expected a share between 0 and 1, got {share!r}")
    out = max(1, round(samples * share))
    if out >= samples:
        raise ValueError(f"train: expected more samples than the {out} held out, got {samples}")
    generator = torch.Generator().manual_seed(random.fold_in(key, _HELD_OUT))
    order = torch.randperm(samples, generator=generator)
    return order[out:].sort().values, order[:out].sort().values


def rows_of(dataset: Any, numbers: torch.Tensor) -> Any:
    """The samples of these numbers."""
    return dataset.rows(numbers) if isinstance(dataset, Dataset) else Subset(dataset, numbers.tolist())


def load_batches(dataset: Any, numbers: Sequence[torch.Tensor], device: torch.device, *, workers: int = 0,
                 seed: int = 0) -> Iterator[Batch]:
    """Each of the batches that `numbers` lists, from a `Dataset`, or from a torch data set of (image, label) pairs
    through a DataLoader with `workers` processes whose random numbers begin at `seed`."""
    if isinstance(dataset, Dataset):
        for rows in numbers:
            yield dataset.x[rows].to(device), dataset.y[rows].to(device), rows.to(device)
        return
    loader = DataLoader(dataset, batch_sampler=[rows.tolist() for rows in numbers], num_workers=workers,
                        pin_memory=device.type == "cuda", generator=torch.Generator().manual_seed(seed % 2**63))
    for rows, (x, y) in zip(numbers, loader, strict=True):
        yield (x.to(device, non_blocking=True), torch.as_tensor(y, dtype=torch.int64).to(device, non_blocking=True),
               rows.to(device))
