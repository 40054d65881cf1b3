"""A model that `fit` trains, with all that belongs to its steps: the classifier, and another one beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn, optim

from robustperf import random
from robustperf.training.batches import Batch, Order, load_batches
from robustperf.training.optimizers import Rate, rate_at

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass
class Learner:
    """A model, its optimizer, and the order of its own that it sees the samples in.

    Attributes:
        name: what its files and its columns in the tables are named by.
        loss: of (model, x, y, key=, index=), where model may be in a wrapper: the loss and a figure to log beside it.
        columns: the names of these two.
    """

    name: str
    model: nn.Module
    optimizer: optim.Optimizer
    lr: Rate | None
    order: Order
    loss: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    columns: tuple[str, str]

    def prepare(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        self._attributes = set(vars(self.model))
        self.wrapped, self.optimizer = accelerator.prepare(self.model, self.optimizer)

    def release(self) -> None:
        """Takes off what `prepare` put on."""
        self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
        for name in set(vars(self.model)) - self._attributes:  # a `forward` of its own, from mixed precision
            delattr(self.model, name)

    def batches(self, data: Any, epoch: int, first: int, workers: int) -> Iterator[tuple[torch.Tensor, Batch]]:
        """For each step of the epoch from number `first` on: the samples of all processes, the batch of this one."""
        place, processes = self.accelerator.process_index, self.accelerator.num_processes
        plan = self.order.batches(epoch)[first - epoch * self.order.steps_an_epoch :]
        parts = [samples.tensor_split(processes)[place] for samples in plan]
        loaded = load_batches(data, parts, self.accelerator.device, workers=workers,
                              seed=random.fold_in(self.order.key, epoch))
        return zip(plan, loaded, strict=True)

    def step(self, number: int, samples: torch.Tensor, batch: Batch, clip: float | None) -> list[float]:
        """One update; the loss and the figure, over all processes. Raises FloatingPointError before a bad one."""
        x, y, index = batch
        key = random.fold_in(self.order.key, number)
        # torch's own generators too, for layers that know no keys: another state for each step and process
        seed = random.fold_in(key, self.accelerator.process_index)
        torch.default_generator.manual_seed(seed)
        if x.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        if self.lr is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = rate_at(self.lr, number, self.order.steps_an_epoch, self.order.epochs)
        loss, figure = self.loss(self.wrapped, x, y, key=key, index=index)
        values = torch.stack([loss.detach().double(), figure.double()])
        values = (self.accelerator.reduce(values, "mean") if self.accelerator.num_processes > 1 else values).tolist()
        if not math.isfinite(values[0]):
            raise FloatingPointError(self._not_finite(values[0], number, samples))
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        if clip is not None:
            self.accelerator.clip_grad_norm_(self.wrapped.parameters(), clip)
        self.optimizer.step()
        self.optimizer.zero_grad()  # accelerate unscales the gradients of all models when it clips those of one
        return values

    def _not_finite(self, loss: float, number: int, samples: torch.Tensor) -> str:
        epoch, place = divmod(number, self.order.steps_an_epoch)
        return (f"{self.columns[0]}: expected a finite number, got {loss} at step {number + 1} (epoch {epoch + 1}, "
                f"batch {place + 1}, samples {', '.join(map(str, samples[:5].tolist()))}, ...)")
