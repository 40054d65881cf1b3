"""The steps of one learner: its batches, its schedule, and updates that are refused where they are not finite."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from robustperf import random
from robustperf.data.batches import Batch, load_batches
from robustperf.nets.dropout import drawing
from robustperf.training.batches import BatchOrder
from robustperf.training.learner import Learner
from robustperf.training.optimizers import build_optimizer, rate_at, rate_ratios

if TYPE_CHECKING:
    from accelerate import Accelerator

OwnBatch = tuple[torch.Tensor, Batch]
"""(the sample ids [batch_size] of all processes, this process's batch)"""

_LEAST_SCALE = 2.0**-16  # of the losses under fp16: below it, gradients that are not finite are no overflow


class LearnerTrainer:
    """A learner with its optimizer and the order of its batches; from `prepare` to `release` on the accelerator.

    Args:
        learner: with the defaults of `fit` filled in.
        order: the model's; a learner with batches of its own has another shuffling of the same samples.

    Attributes:
        model: the learner's model, without a wrapper.
        optimizer: what updates its parameters.
        order: its batches.
        batch_key: the same for learners that take the same batches.
    """

    learner: Learner
    model: nn.Module
    name: str
    columns: tuple[str, ...]
    optimizer: Any  # the accelerator's wrapper after `prepare`
    order: BatchOrder
    batch_key: tuple[int, int]
    wrapped: nn.Module
    accelerator: Accelerator

    def __init__(self, learner: Learner, order: BatchOrder) -> None:
        self.learner, self.model = learner, learner.model
        self.name, self.columns = learner.name, learner.columns
        self.optimizer = build_optimizer(learner.optimizer, learner.model.parameters())
        salt = learner.key_salt
        self._key = order.key if salt is None else random.fold_in(order.key, salt)
        self.order = replace(order, key=self._key) if learner.own_batches else order
        self.batch_key = self.order.key, learner.updates

    def prepare(self, accelerator: Accelerator) -> None:
        """Moves the model to its device, and wraps it, for mixed precision too."""
        self.accelerator = accelerator
        self._ratios = None if self.learner.lr is None else rate_ratios(self.optimizer)
        self._modes = _set_train_mode(self.model)
        self._never_finite = set(self._not_finite_weights())  # such as a mask of -inf
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        self._attributes = set(vars(self.model))
        parameters = {parameter for module in self.learner.frozen for parameter in module.parameters()}
        self._frozen = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in self._frozen:  # before the wrapper, which waits for the gradients of all others
            parameter.requires_grad_(False)
        self.wrapped, self.optimizer = accelerator.prepare(self.model, self.optimizer)
        self._zero_grad = self.optimizer.optimizer.zero_grad  # accelerate's own inspects signatures at each call
        self._parameters = list(self.wrapped.parameters())
        self._one_dtype = len({(parameter.device, parameter.dtype) for parameter in self._parameters}) == 1

    def release(self) -> None:
        """Removes what `prepare` added to the model."""
        self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        for name in set(vars(self.model)) - self._attributes:  # a `forward` of its own, from mixed precision
            delattr(self.model, name)

    def begin_epoch(self) -> None:
        """Sets the modules' modes: those that `fit` was given in eval mode stay in it."""
        self.wrapped.training = True
        for name, module in self.model.named_modules():
            module.training = self._modes.get(name, True)

    def batches(self, data: Any, epoch: int, first: int, workers: int) -> Iterator[tuple[OwnBatch, ...]]:
        """The batches of each step of the epoch, one for each update, from step number `first` on."""
        place, processes = self.accelerator.process_index, self.accelerator.num_processes
        updates = self.learner.updates
        passes = range(epoch * updates, (epoch + 1) * updates)
        plan = [samples for number in passes for samples in self.order.batches(number)]
        plan = plan[(first - epoch * self.order.steps_per_epoch) * updates :]
        parts = [samples.tensor_split(processes)[place] for samples in plan]
        keys = (random.fold_in(self.order.key, number) for number in itertools.count(first * updates))
        loaded = load_batches(data, parts, self.accelerator.device, workers=workers, keys=keys)
        each = zip(plan, loaded, strict=True)
        return zip(*[each] * updates, strict=True)

    def step(self, number: int, batches: Sequence[OwnBatch]) -> list[float]:
        """Makes the updates of step `number`, counted from 0; returns a value for each of `columns`, the mean over the
        updates and over all processes.

        Raises FloatingPointError, before the update, where the loss or the gradient is not finite.
        """
        updates = self.learner.updates
        values = [self._update(number, number * updates + i, *batch) for i, batch in enumerate(batches)]
        return values[0] if updates == 1 else [sum(column) / updates for column in zip(*values, strict=True)]

    def _update(self, step: int, number: int, samples: torch.Tensor, batch: Batch) -> list[float]:
        """Makes update `number`, within step `step`; errors and values as of `step`."""
        x, y, index = batch
        key = random.fold_in(self._key, number)
        # torch's own generators too, for layers that know no keys: another state for each step and process
        seed = random.fold_in(key, self.accelerator.process_index)
        torch.default_generator.manual_seed(seed)
        if x.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        if self._ratios is not None:
            rate = rate_at(self.learner.lr, step, self.order.steps_per_epoch, self.order.epochs)
            for group, ratio in zip(self.optimizer.param_groups, self._ratios, strict=True):
                group["lr"] = rate * ratio
        # an objective, as the model's loss, makes this context itself
        masks = nullcontext() if self.learner.is_main else drawing(random.fold_in(key, random.Salt.DROPOUT), index)
        with masks:
            returned = self.learner.loss(self.wrapped, x, y, key=key, index=index)
        loss, *figures = self._checked(returned)
        self._zero_grad()
        self.accelerator.backward(loss)
        clip = self.learner.clip
        norm = self._gradient_norm() if clip is None else self.accelerator.clip_grad_norm_(self._parameters, clip)
        values = torch.stack([value.detach().double() for value in (loss, *figures, norm)])
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values, "mean")
        *values, norm = values.tolist()  # the one host-device synchronisation of a step
        fault = self._fault(values[0], norm)
        if fault is None:
            self.optimizer.step()
        self._zero_grad()  # accelerate unscales the gradients of all models when it clips those of one
        if fault is not None:
            epoch, place = divmod(step, self.order.steps_per_epoch)
            raise FloatingPointError(
                f"{fault} at step {step + 1} (epoch {epoch + 1}, batch {place + 1}, samples "
                f"{', '.join(map(str, samples[:5].tolist()))}, ...)"
            )
        return values

    def _checked(self, returned: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """(loss, figures ...), scalars, as many as there are columns."""
        values = returned if isinstance(returned, tuple) else (returned,)
        if len(values) != len(self.columns):
            raise ValueError(
                f"loss of {self.name}: expected {len(self.columns)} scalars ({', '.join(self.columns)}), got "
                f"{len(values)}"
            )
        for column, value in zip(self.columns, values, strict=True):
            if not isinstance(value, torch.Tensor):
                raise TypeError(f"{column}: expected a scalar tensor, got {type(value).__name__}")
            if value.dim():
                raise ValueError(f"{column}: expected a scalar tensor, got shape {list(value.shape)}")
        return values

    def _gradient_norm(self) -> torch.Tensor:
        """A norm that is NaN or inf where a part of the gradient is, or where its square overflows."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        if any(gradient.is_sparse for gradient in gradients):
            gradients = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
        if gradients and self._one_dtype:
            return torch.stack(torch._foreach_norm(gradients)).sum()
        return nn.utils.get_total_norm(gradients)  # three times as slow

    def _fault(self, loss: float, norm: float) -> str | None:
        """Why the update must not be made; None where it may."""
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
        scaler = self.accelerator.scaler  # of fp16: it skips such an update, and scales the next loss by less
        if not wrong or (scaler is not None and scaler.get_scale() >= _LEAST_SCALE):
            return None
        return f"gradient of {self.columns[0]}: expected finite numbers, got others in {wrong[0]}"

    def check_weights(self, step: int) -> None:
        """Raises FloatingPointError where weights are no longer finite."""
        if wrong := self._not_finite_weights() - self._never_finite:
            raise FloatingPointError(
                f"{self.name}: expected finite weights, got others in {min(wrong)} after step {step}"
            )

    def _not_finite_weights(self) -> set[str]:
        """The names of parameters and buffers that are not finite."""
        return {
            name
            for name, value in self.model.state_dict().items()
            if value.is_floating_point() and not value.isfinite().all()
        }


def _set_train_mode(model: nn.Module) -> dict[str, bool]:
    """Sets train mode, except for modules in eval mode beside others that are not; returns the modes by
    name."""
    frozen = [module for module in model.modules() if not module.training]
    everything = len(frozen) == len(list(model.modules()))
    model.train()
    for module in () if everything else frozen:
        module.training = False
    return {name: module.training for name, module in model.named_modules()}
