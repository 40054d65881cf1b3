"""How often a classifier is right, on one process or on many."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from robustperf import check
from robustperf.classifier import (
    Classifier,
    check_no_nan,
    device_of,
    evaluating,
    laid_out,
    logits_of,
    without_wrapper,
)
from robustperf.data import Dataset, ImageFolder
from robustperf.result import Result
from robustperf.training.batches import Arrays, Loaded, as_data, load_batches


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Result):
    """A classifier on a data set of N samples, on the CPU.

    Attributes:
        rank: [N] int64, how many labels the model prefers to the true one: 0 where it is right. Of equal logits the
            lower label comes first, as in `argmax`.
        loss: [N] float64, the cross-entropies.
        label: [N] int64, the true labels.
    """

    rank: torch.Tensor
    loss: torch.Tensor
    label: torch.Tensor

    def top(self, k: int) -> float:
        """The top-k accuracy: how often the true label is among the first k (R section 6); NaN of no samples."""
        return (self.rank < k).double().mean().item()

    def _facts(self) -> dict[str, Any]:
        return {"n": len(self.rank), "top-1": self.top(1), "top-5": self.top(5), "loss": self.loss.mean().item()}


def evaluate(
    model: Classifier, dataset: Any, *, batch_size: int = 256, workers: int = 0, device: torch.device | None = None
) -> Evaluation:
    """The model's accuracies on a data set.

    Under `torchrun` each process takes every so-manieth batch and all have the whole result: each sample is seen once,
    in the batch that one process would see it in, so that the result is the same to the last bit.

    Args:
        model: a classifier; run in eval mode, left as it was.
        dataset: a `robustperf.data.Dataset`, any torch data set of (image, label) pairs, (x, y), or a DataLoader,
            of which the data set is taken, and how it reads it. The torch, NumPy and Python random numbers that a
            sample draws depend on its number only.
        batch_size: samples in one forward pass.
        workers: processes that load samples, for a torch data set.
        device: where to run; by default where the model's first parameter is.

    Raises TypeError or ValueError for a wrong argument, labels beyond the logits, or logits with a NaN.
    """
    batch_size = check.integer("batch_size", batch_size, 1)
    dataset = as_data("dataset", dataset)
    if device is None:
        device = device_of(model)
    numbers = torch.arange(len(dataset)).split(batch_size) if len(dataset) else ()
    place, places = _process()
    inner = without_wrapper(model)
    counts, losses = [torch.empty(3, 0, dtype=torch.int64)], [torch.empty(0, dtype=torch.float64)]
    with evaluating(inner), torch.no_grad():
        for x, y, index in load_batches(dataset, numbers[place::places], device, workers=workers):
            logits = logits_of(inner, laid_out(inner, x)).float()
            check_no_nan(logits, index)
            check.labels("y", y, logits.shape[1])
            counts.append(torch.stack([index, _rank(logits, y), y]).cpu())
            losses.append(functional.cross_entropy(logits, y, reduction="none").double().cpu())
    counts, losses = torch.cat(counts, 1), torch.cat(losses)
    if places > 1:
        from accelerate.utils import gather_object

        parts = gather_object([(counts, losses)])
        counts, losses = (torch.cat(part, -1) for part in zip(*parts, strict=True))
    order = counts[0].argsort()
    if not torch.equal(counts[0][order], torch.arange(len(dataset))):
        raise RuntimeError(
            f"evaluate: expected each of {len(dataset)} samples once from {places} processes, got {len(counts[0])}"
        )
    return Evaluation(counts[1][order], losses[order], counts[2][order])


def check_takes(model: Classifier, name: str, data: Any) -> None:
    """Before any work: whether the model takes the images of `data`, an argument called `name`, and has a logit for
    each label; ValueError where it does not, or where there are no samples."""
    if not len(data):
        raise ValueError(f"{name}: expected samples, got none")
    first = replace(data, workers=0) if isinstance(data, Loaded) else data
    x, _, _ = next(load_batches(first, [torch.zeros(1, dtype=torch.int64)], device_of(model)))
    try:
        with evaluating(model), torch.no_grad():
            classes = logits_of(model, x).shape[1]
    except RuntimeError as error:
        raise ValueError(
            f"{name}: expected images that the model takes, got shape {list(x.shape[1:])}: {str(error).splitlines()[0]}"
        ) from error
    if isinstance(data, Dataset | ImageFolder | Arrays):
        check.labels(name, data.y, classes, synchronise=True)


def _rank(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """How many labels come before the true one."""
    own = logits.gather(1, y[:, None])
    before = torch.arange(logits.shape[1], device=y.device) < y[:, None]
    return ((logits > own) | ((logits == own) & before)).sum(1)


def _process() -> tuple[int, int]:
    """This process's number, and how many there are."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()
