"""A model that `fit` trains, with all that belongs to its steps: the classifier, and another one beside it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn, optim

from robustperf import random
from robustperf.training.batches import Batch, Order, load_batches
from robustperf.training.optimizers import Rate, rate_at, rate_ratios

if TYPE_CHECKING:
    from accelerate import Accelerator

_LEAST_SCALE = 2.0**-16  # of fp16's losses: gradients that are not finite even so are no overflow


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
    wrapped: Any = field(init=False)

    def prepare(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._ratios = None if self.lr is None else rate_ratios(self.optimizer)
        self._modes = _train(self.model)
        self._never_finite = set(self._not_finite_weights())  # such as a mask of -inf
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        self._attributes = set(vars(self.model))
        self.wrapped, self.optimizer = accelerator.prepare(self.model, self.optimizer)
        self._zero_grad = self.optimizer.optimizer.zero_grad  # accelerate's own inspects signatures at each call
        self._parameters = list(self.wrapped.parameters())
        self._alike = len({(parameter.device, parameter.dtype) for parameter in self._parameters}) == 1

    def release(self) -> None:
        """Takes off what `prepare` put on."""
        self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
        for name in set(vars(self.model)) - self._attributes:  # a `forward` of its own, from mixed precision
            delattr(self.model, name)

    def begin_epoch(self) -> None:
        """The modules' modes: those that `fit` was given in eval mode stay there."""
        self.wrapped.training = True
        for name, module in self.model.named_modules():
            module.training = self._modes.get(name, True)

    def batches(self, data: Any, epoch: int, first: int, workers: int) -> Iterator[tuple[torch.Tensor, Batch]]:
        """For each step of the epoch from number `first` on: the samples of all processes, the batch of this one."""
        place, processes = self.accelerator.process_index, self.accelerator.num_processes
        plan = self.order.batches(epoch)[first - epoch * self.order.steps_an_epoch :]
        parts = [samples.tensor_split(processes)[place] for samples in plan]
        keys = (random.fold_in(self.order.key, number) for number in itertools.count(first))
        loaded = load_batches(data, parts, self.accelerator.device, workers=workers, keys=keys)
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
            rate = rate_at(self.lr, number, self.order.steps_an_epoch, self.order.epochs)
            for group, ratio in zip(self.optimizer.param_groups, self._ratios, strict=True):
                group["lr"] = rate * ratio
        loss, figure = self.loss(self.wrapped, x, y, key=key, index=index)
        self._zero_grad()
        self.accelerator.backward(loss)
        norm = self._gradient_norm() if clip is None else self.accelerator.clip_grad_norm_(self._parameters, clip)
        values = torch.stack([loss.detach().double(), figure.double(), norm.double()])
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values, "mean")
        *values, norm = values.tolist()  # the one wait for the device
        fault = self._fault(values[0], norm)
        if fault is None:
            self.optimizer.step()
        self._zero_grad()  # accelerate unscales the gradients of all models when it clips those of one
        if fault is not None:
            epoch, place = divmod(number, self.order.steps_an_epoch)
            raise FloatingPointError(
                f"{fault} at step {number + 1} (epoch {epoch + 1}, batch {place + 1}, samples "
                f"{', '.join(map(str, samples[:5].tolist()))}, ...)"
            )
        return values

    def _gradient_norm(self) -> torch.Tensor:
        """NaN or inf where a part of the gradient is, or where its square overflows."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        if any(gradient.is_sparse for gradient in gradients):
            gradients = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
        if gradients and self._alike:
            return torch.stack(torch._foreach_norm(gradients)).sum()
        return nn.utils.get_total_norm(gradients)  # three times as slow

    def _fault(self, loss: float, norm: float) -> str | None:
        """Why the step must not be taken; None where it may."""
        if not math.isfinite(loss):
            before = self._not_finite_weights() - self._never_finite
            after = f", where {min(before)} is not finite since the step before," if before else ""
            return f"{self.columns[0]}: expected a finite number, got {loss}{after}"
        if math.isfinite(norm):
            return None
        wrong = [
            name
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None and not parameter.grad.isfinite().all()
        ]
        scaler = self.accelerator.scaler  # of fp16: it leaves such a step out, and scales the next loss by less
        if not wrong or (scaler is not None and scaler.get_scale() >= _LEAST_SCALE):
            return None
        return f"gradient of {self.columns[0]}: expected finite numbers, got others in {wrong[0]}"

    def check_weights(self, step: int) -> None:
        """FloatingPointError where weights are no longer finite."""
        if wrong := self._not_finite_weights() - self._never_finite:
            raise FloatingPointError(
                f"{self.name}: expected finite weights, got others in {min(wrong)} after step {step}"
            )

    def _not_finite_weights(self) -> set[str]:
        """Of parameters and buffers."""
        return {
            name
            for name, value in self.model.state_dict().items()
            if value.is_floating_point() and not value.isfinite().all()
        }


def _train(model: nn.Module) -> dict[str, bool]:
    """Puts a model into train mode, but for the modules in eval mode beside others that are not; the modes by name."""
    frozen = [module for module in model.modules() if not module.training]
    everything = len(frozen) == len(list(model.modules()))
    model.train()
    for module in () if everything else frozen:
        module.training = False
    return {name: module.training for name, module in model.named_modules()}
