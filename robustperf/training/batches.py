"""The batches of each epoch and how they are loaded: the same for any number of processes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from robustperf import check, random


def batches(samples: int | torch.Tensor, batch_size: int, *, key: int, epoch: int) -> list[torch.Tensor]:
    """The batches of one epoch of `fit`: the samples in random order, without the last ones that fill no batch.

    Args:
        samples: how many there are, or their ids [N] int64.
        batch_size: samples in a batch, of all processes together.
        key: 64 bits (`robustperf.random.key(seed)`).
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
