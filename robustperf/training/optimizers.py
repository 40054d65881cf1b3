"""Optimizers by name, and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import optim

from robustperf import check
from robustperf.names import OPTIMIZERS, check_name

Rate = float | tuple[float, float] | Mapping[int, float]
"""A learning rate: a constant; (first, last) with a line between them; or {epoch: rate from then on}. It is that of the
optimizer's first parameter group; the other groups keep their ratio to it."""

Optimizer = str | optim.Optimizer | Callable[[Iterable[torch.nn.Parameter]], optim.Optimizer]


def build_optimizer(optimizer: Optimizer, parameters: Iterable[torch.nn.Parameter]) -> optim.Optimizer:
    """The optimizer of these parameters: by a name in `names.OPTIMIZERS`, from a function of them, or the given one.

    Raises TypeError or ValueError, naming `optimizer`, for anything else and for one of other parameters.
    """
    parameters = list(parameters)
    if isinstance(optimizer, optim.Optimizer):
        return _check_parameters(optimizer, parameters)
    if isinstance(optimizer, str):
        kind, rate = OPTIMIZERS[check_name("optimizer", optimizer, OPTIMIZERS)]
        return getattr(optim, kind)(parameters, lr=rate)
    created = optimizer(parameters) if callable(optimizer) else optimizer
    if not isinstance(created, optim.Optimizer):
        raise TypeError(f"optimizer: expected a name, an Optimizer or a function that makes one, got {optimizer!r}")
    return _check_parameters(created, parameters)


def _check_parameters(optimizer: optim.Optimizer, parameters: list[torch.nn.Parameter]) -> optim.Optimizer:
    """`optimizer` if it has at least one of the parameters; ValueError for one that would train none of them."""
    own = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if parameters and own.isdisjoint(map(id, parameters)):
        raise ValueError(
            "optimizer: expected one of the model's parameters, got one that has none of them: was it "
            "created for another model, or for a copy of this one?"
        )
    return optimizer


def check_rate(rate: Rate) -> None:
    """Raises TypeError or ValueError, naming `lr`, for what is no `Rate`."""
    if isinstance(rate, Mapping):
        for epoch in rate:
            check.integer("lr: epoch", epoch, 0)
        if 0 not in rate:
            raise ValueError(f"lr: expected epochs from 0 on, such as {{0: 1e-3, 5: 1e-4}}, got {dict(rate)}")
        values = rate.values()
    else:
        values = rate if isinstance(rate, tuple) else (rate,)
        if isinstance(rate, tuple) and len(rate) != 2:
            raise ValueError(f"lr: expected (first, last), got {rate}")
    for value in values:
        check.number("lr", value, above=0)


def rate_ratios(optimizer: optim.Optimizer) -> list[float]:
    """Each parameter group's learning rate divided by that of the first group, which a `Rate` sets."""
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    if len(set(rates)) == 1:
        return [1.0] * len(rates)
    if not rates[0] > 0:
        raise ValueError(f"optimizer: expected a rate above 0 in its first parameter group, which lr sets, got {rates}")
    return [rate / rates[0] for rate in rates]


def rate_at(rate: Rate, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The learning rate of step number `step`, counted from 0."""
    if isinstance(rate, Mapping):
        return rate[max(epoch for epoch in rate if epoch <= step // steps_per_epoch)]
    if isinstance(rate, tuple):
        first, last = rate
        return first + (last - first) * step / max(steps_per_epoch * epochs - 1, 1)
    return rate
