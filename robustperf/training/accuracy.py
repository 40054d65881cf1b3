"""The training accuracy, from the logits that the training pass itself computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class AccuracyMeter:
    """A loss that also returns the model's accuracy on what it was trained on.

    Within `recording(model)`, a call returns (loss, accuracy, further figures ...): the accuracy is the fraction of
    the rows of the training pass that have the highest logit at their label, a float64 scalar. It is NaN where the
    model returned no multiple of the batch, or nothing was recorded.
    """

    def __init__(self, loss: Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]) -> None:
        self.loss = loss
        self._predicted: list[torch.Tensor] = []

    def __call__(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        self._predicted.clear()
        returned = self.loss(model, x, y, key=key, index=index)
        loss, *figures = returned if isinstance(returned, tuple) else (returned,)
        return (loss, self._accuracy(y), *figures)

    @contextmanager
    def recording(self, model: nn.Module) -> Iterator[None]:
        """Inside, the labels that `model` predicts in its training passes are recorded."""

        def record(module: nn.Module, inputs: Any, logits: torch.Tensor) -> None:
            # the passes that select a draw or ascend a loss are made in eval mode
            if any(each.training for each in module.modules()):
                self._predicted.append(logits.detach().argmax(1))

        hook = model.register_forward_hook(record)
        try:
            yield
        finally:
            hook.remove()

    def _accuracy(self, y: torch.Tensor) -> torch.Tensor:
        predicted = torch.cat(self._predicted) if self._predicted else y[:0]
        if not len(predicted) or len(predicted) % len(y):
            return torch.full((), math.nan, dtype=torch.float64, device=y.device)
        return (predicted.view(-1, len(y)) == y).double().mean()
