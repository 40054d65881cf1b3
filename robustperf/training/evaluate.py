"""Accuracy and loss of a classifier on a data set, on one process or many."""

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
from robustperf.data.batches import load_batches
from robustperf.data.inputs import Arrays, LoaderData, as_data
from robustperf.result import Result


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Result):
    """What `evaluate` returns for N samples; tensors on the CPU, in the order of the data set.

    Attributes:
        rank: [N] int64, the number of labels with a higher logit than the true one: 0 where the model is right. Of
            equal logits the lower label comes first, as in `argmax`.
        loss: [N] float64, the cross-entropies in nats.
        label: [N] int64, the true labels.

    >>> model = lambda images: torch.stack([images.sum(1), 1 - images.sum(1)], 1)
    >>> found = rp.training.evaluate(model, (torch.tensor([[0.9], [0.2]]), torch.tensor([0, 0])))
    >>> found.top(1), found.rank
    (0.5, tensor([0, 1]))
    """

    rank: torch.Tensor
    loss: torch.Tensor
    label: torch.Tensor

    def top(self, k: int) -> float:
        """The top-k accuracy in [0, 1]: the fraction of samples whose true label is among the first k (R section 6).
        NaN without samples."""
        return (self.rank < k).double().mean().item()

    def _facts(self) -> dict[str, Any]:
        return {"n": len(self.rank), "top-1": self.top(1), "top-5": self.top(5), "loss": self.loss.mean().item()}


def evaluate(
    model: Classifier, dataset: Any, *, batch_size: int = 256, workers: int = 0, device: torch.device | None = None
) -> Evaluation:
    """The accuracy and the loss of a classifier on each sample of a data set.

    Under `torchrun` each process evaluates every n-th batch, and all of them return the whole result. The batches are
    those of a single process, and so the result is the same to the last bit.

    Args:
        model: a classifier. It runs in eval mode; its mode is restored.
        dataset: a `robustperf.data.Dataset`; any torch data set of (image, label) pairs; (x, y), images [N, ...] and
            labels [N]; or a DataLoader, of which the data set, its workers and its collate_fn are used. The global
            random numbers of torch, NumPy and Python that a sample draws depend on its id only.
        batch_size: samples in one forward pass.
        workers: processes that load samples of a torch data set.
        device: where to run; None for the device of the model's first parameter.

    Raises TypeError or ValueError for a wrong argument, labels that the model has no logit for, or NaN logits.

    >>> model = lambda images: torch.stack([images.sum(1), 1 - images.sum(1)], 1)
    >>> evaluation = evaluate(model, (torch.tensor([[0.9], [0.2]]), torch.tensor([0, 0])))
    >>> evaluation.top(1), evaluation.loss
    (0.5, tensor([0.3711, 1.0375], dtype=torch.float64))
    """
    batch_size, workers = check.integer("batch_size", batch_size, 1), check.integer("workers", workers, 0)
    dataset = as_data("dataset", dataset)
    if device is None:
        device = device_of(model)
    rows = torch.arange(len(dataset)).split(batch_size) if len(dataset) else ()
    place, places = _process()
    inner = without_wrapper(model)
    counts, losses = [torch.empty(3, 0, dtype=torch.int64)], [torch.empty(0, dtype=torch.float64)]
    with evaluating(inner), torch.no_grad():
        for x, y, index in load_batches(dataset, rows[place::places], device, workers=workers):
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
    """Checks, before any work, that the model takes the images of `data` and has a logit for each label.

    Raises ValueError, naming the argument `name`, where it does not, or where there are no samples.
    """
    if not len(data):
        raise ValueError(f"{name}: expected samples, got none")
    first = replace(data, workers=0) if isinstance(data, LoaderData) else data
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
    """[B] the number of labels ahead of the true one."""
    own = logits.gather(1, y[:, None])
    before = torch.arange(logits.shape[1], device=y.device) < y[:, None]
    return ((logits > own) | ((logits == own) & before)).sum(1)


def _process() -> tuple[int, int]:
    """(the rank of this process, the number of processes)."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()
