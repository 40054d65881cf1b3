"""One of the models that an objective trains, with its loss, optimizer and batches."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn, optim

from robustperf import check
from robustperf.training.optimizers import Optimizer, Rate, check_rate

MODEL = "model"
"""The name of the learner of the model that `fit` is given."""

_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_TAKEN = {"checkpoint", "further", "optimizer"}  # names of files, and of groups of tensors in the checkpoint
_ROW = ("epoch", "step", "lr", "images_per_second", "seconds", "validation_loss", "validation_accuracy")


@dataclass(frozen=True, eq=False)
class Learner:
    """A model that an objective trains, and how. `Objective.learners` returns one for each model.

    `fit` gives each learner an optimizer, a schedule, gradient clipping, mixed precision and a wrapper of its own
    (DistributedDataParallel among several processes), saves all of them in each checkpoint, and leaves each with the
    weights of the best epoch.

    Args:
        name: lower-case letters, digits and underscores. The weights of the best epoch go to NAME.safetensors, the
            loss to the column NAME_loss. The model that `fit` is given is called "model", and its columns have no
            prefix.
        model: trained in place. No two learners may have a parameter in common.
        loss: a function of (model, x, y, *, key, index), as an objective is, where `model` may be the wrapper of this
            learner's model. It returns the loss, a scalar with a gradient in this model's parameters; or a tuple of
            the loss and a scalar without a gradient for each of `figures`. Over the processes, `fit` takes the mean
            of each. The masks of `robustperf.nets.Dropout` depend on key and index only. Any other model in it must be
            the bare module (`robustperf.classifier.without_wrapper`), in eval mode
            (`robustperf.classifier.evaluating`) or with its parameters frozen (`robustperf.classifier.frozen`).
        figures: names of what the loss returns beside the loss; the columns are NAME_FIGURE.
        optimizer: "adadelta", "adam", "sgd", a torch optimizer of this model, or a function that makes one from
            parameters; None for what `fit` was given.
        lr: a constant, (first, last) with a line between them, or {epoch: rate from then on}; None for `fit`'s.
        clip: the largest L2 norm of the gradient; None for `fit`'s.
        frozen: modules of the model whose parameters are not trained.
        own_batches: whether its batches come from a shuffling of its own. Otherwise it takes each step on the batch
            of the model, which is loaded once.
        updates: how many updates it takes within each step of `fit`, each on another of its own batches: an epoch of
            `fit` is so many passes over the samples for it. The values in the tables are the means over a step's
            updates. Above 1 only with own_batches.
        salt: folded into the key of `fit`, for this learner's draws and its own batches; None derives one from the
            name. The model's draws are under the key itself.

    Raises TypeError or ValueError for a wrong argument.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> Learner("model", model, rp.training.ERM(), optimizer="adam", lr=1e-3).name
    'model'
    """

    name: str
    model: nn.Module
    loss: Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]
    figures: tuple[str, ...] = ()
    optimizer: Optimizer | None = None
    lr: Rate | None = None
    clip: float | None = None
    frozen: tuple[nn.Module, ...] = ()
    own_batches: bool = False
    updates: int = 1
    salt: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(f"name: expected lower-case letters, digits and underscores, got {self.name!r}")
        if self.name in _TAKEN or self.name.endswith("_optimizer"):
            raise ValueError(f"name: {self.name!r} is a name that checkpoints use; expected another")
        if not isinstance(self.model, nn.Module):
            raise TypeError(f"{self.name}: expected a torch.nn.Module, got {type(self.model).__name__}")
        if next(self.model.parameters(), None) is None:
            raise ValueError(f"{self.name}: expected parameters to train, got none")
        if not callable(self.loss):
            raise TypeError(f"loss of {self.name}: expected a function, got {type(self.loss).__name__}")
        if self.is_main and (self.own_batches or self.salt is not None):
            raise ValueError(
                f"{MODEL}: expected no own_batches and no salt, for its batches are those of `fit`, got one"
            )
        check.integer("updates", self.updates, 1)
        if self.updates > 1 and not self.own_batches:
            raise ValueError(f"updates: expected 1 without own_batches, got {self.updates}")
        if self.lr is not None:
            check_rate(self.lr)
        if self.clip is not None:
            check.number("clip", self.clip, above=0)

    @property
    def is_main(self) -> bool:
        """Whether this is the model that `fit` is given."""
        return self.name == MODEL

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the loss and the figures in the tables of a run."""
        prefix = "" if self.is_main else f"{self.name}_"
        return tuple(prefix + figure for figure in ("loss", *self.figures))

    @property
    def key_salt(self) -> int | None:
        """What is folded into the key of `fit`; None for the model."""
        if self.is_main or self.salt is not None:
            return self.salt
        return 2**32 + zlib.crc32(self.name.encode())  # beyond the numbers of steps and epochs, which are folded in too

    def with_defaults(self, optimizer: Optimizer, lr: Rate | None, clip: float | None) -> Learner:
        """This learner, with what `fit` was given where it has nothing of its own.

        Raises ValueError where that is a torch optimizer, which has the parameters of another model.
        """
        if self.optimizer is None and isinstance(optimizer, optim.Optimizer) and not self.is_main:
            raise ValueError(
                f"optimizer: expected one of the {self.name}'s own, in the objective, beside a torch optimizer of the "
                "model's, got None"
            )
        return replace(
            self,
            optimizer=optimizer if self.optimizer is None else self.optimizer,
            lr=lr if self.lr is None else self.lr,
            clip=clip if self.clip is None else self.clip,
        )


def check_learners(learners: Sequence[Learner], model: nn.Module) -> list[Learner]:
    """`learners` as a list.

    Raises TypeError for something else than learners; ValueError unless exactly one is called "model" and has `model`,
    names and columns differ, and no parameter belongs to two.
    """
    learners = list(learners)
    for learner in learners:
        if not isinstance(learner, Learner):
            raise TypeError(f"learners: expected Learner objects, got {type(learner).__name__}")
    names = [learner.name for learner in learners]
    if names.count(MODEL) != 1 or learners[names.index(MODEL)].model is not model:
        raise ValueError(f"learners: expected one called {MODEL!r}, of the model that is trained, got {names}")
    columns = [*_ROW, *names, *(column for learner in learners for column in learner.columns)]
    if twice := next((name for place, name in enumerate(columns) if name in columns[:place]), None):
        raise ValueError(f"learners: expected names and columns that differ, got {twice!r} twice")
    owners: dict[int, str] = {}
    for learner in learners:
        for name, parameter in learner.model.named_parameters():
            if (owner := owners.setdefault(id(parameter), learner.name)) != learner.name:
                raise ValueError(
                    f"learners: expected models without a parameter in common, got {name} of {learner.name} in "
                    f"{owner} too"
                )
    return learners
