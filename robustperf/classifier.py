"""A classifier under test: a module that maps images [B, ...] to logits [B, C], looked at and left as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from robustperf import check

Classifier = Callable[[torch.Tensor], torch.Tensor]
"""A `torch.nn.Module`, or any callable from images [B, ...] to logits [B, C]."""


@contextmanager
def evaluating(model: Classifier) -> Iterator[None]:
    """Eval mode for the time of the block; every submodule's mode is as before afterwards, also after an error."""
    if not callable(model):
        raise TypeError(f"model: expected a module or a callable, got {type(model).__name__}")
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def logits_of(model: Classifier, x: torch.Tensor) -> torch.Tensor:
    """The model's logits, [B, C] with C >= 2. Raises ValueError or TypeError, naming the model, for anything else."""
    logits = model(x)
    name = "model(x)"
    check.tensor(name, logits, (x.shape[0], "C"), dtypes=check.REAL + check.HALF, device=x.device)
    if logits.shape[1] < 2:
        raise ValueError(f"{name}: expected logits of at least two classes, got shape {list(logits.shape)}")
    return logits


def check_no_nan(logits: torch.Tensor, index: torch.Tensor | None = None) -> None:
    """ValueError naming the first points whose logits hold a NaN; `index` [B] are their numbers, 0..B-1 by default."""
    wrong = logits.isnan().any(1).nonzero()[:, 0]
    if wrong.numel():
        first = (wrong if index is None else index[wrong])[:5].tolist()
        raise ValueError(f"model(x): expected numbers, got NaN logits for {wrong.numel()} of {logits.shape[0]} points, "
                         f"the first at {first}")
