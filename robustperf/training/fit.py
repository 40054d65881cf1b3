"""The one loop: any objective, one process or many, from the first step or from where a killed run stopped."""

from __future__ import annotations

import inspect
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from robustperf import check, random
from robustperf.names import PRECISIONS, check_name
from robustperf.nets import weights_file
from robustperf.result import Result
from robustperf.training.accelerator import accelerator_for, check_accelerator
from robustperf.training.batches import Loaded, Order, as_data, held_out, rows_of
from robustperf.training.cotrain import CoTrain
from robustperf.training.evaluate import check_takes, evaluate
from robustperf.training.learner import Learner
from robustperf.training.objective import Objective
from robustperf.training.optimizers import Optimizer, Rate, build_optimizer, check_rate
from robustperf.training.progress import TrainingBar
from robustperf.training.run_folder import TrainingFolder, describe, describe_data, describe_model

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, eq=False, repr=False)
class Fitted(Result):
    """What `fit` leaves beside the weights.

    Attributes:
        steps: [S, 2] float64, each step's loss and the accuracy on what it was trained on, over the whole batch; of
            `CoTrain` [S, 4], with the generator's loss and its mean distance ||g(x) - x||_2.
        epochs: a row for each: epoch (from 1), step, loss, accuracy, lr, images_per_second, seconds and, where there
            is a validation set, validation_loss and validation_accuracy; of `CoTrain`, generator_loss and
            generator_distance.
        best: the epoch whose weights the model has now, the first of the highest validation accuracy; the last one
            without a validation set.
    """

    steps: torch.Tensor
    epochs: list[dict[str, float]]
    best: int

    def _facts(self) -> dict[str, Any]:
        names = ("loss", "accuracy", "validation_loss", "validation_accuracy")
        best = self.epochs[self.best - 1]
        return {
            "epochs": len(self.epochs),
            "steps": len(self.steps),
            "best": self.best,
            **{name.replace("_", " "): best[name] for name in names if not math.isnan(best.get(name, math.nan))},
        }


def fit(
    model: nn.Module,
    objective: Callable[..., torch.Tensor],
    train: Any,
    *,
    validation: Any = 0.1,
    epochs: int = 10,
    batch_size: int | None = None,
    optimizer: Optimizer = "adadelta",
    lr: Rate | None = None,
    clip: float | None = None,
    mixed_precision: str = "no",
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    checkpoint_steps: int | None = None,
    workers: int = 0,
    log_with: str | list[str] | None = None,
    cpu: bool = False,
    progress: bool = True,
    accelerator: Accelerator | None = None,
) -> Fitted:
    """Trains a classifier, in place.

    Started by `torchrun` or `accelerate launch` it runs on many devices with nothing changed: each process takes its
    part of every batch. The order of the samples and all draws depend on `seed`, the step and the samples' numbers
    only, so that many processes find the losses of one, to rounding (batch normalisation apart: its statistics are
    synchronised on GPUs, on CPUs each process has its own). A loop of one's own finds the same weights:

        key = rp.random.key(seed)
        steps = itertools.chain.from_iterable(batches(len(train), batch_size, key=key, epoch=e) for e in range(epochs))
        for step, rows in enumerate(steps):
            optimizer.zero_grad()
            objective(model, train.x[rows], train.y[rows], key=rp.random.fold_in(key, step), index=rows).backward()
            optimizer.step()

    Args:
        model: the classifier; accelerate moves it to its device, and at the end it has the best weights. It is trained
            in train mode; modules in eval mode beside others that are not, such as frozen batch norms, stay so.
        objective: such as `MRT(kernel)`, or any function of (model, x, y, key=, index=) that gives the loss. `CoTrain`
            trains its generator too, in place, with an optimizer and wrapper of its own; at the end it has the weights
            of the best epoch, as the classifier.
        train: a `Dataset`; a torch data set of (image, label) pairs; (x, y), images [N, ...] float and labels [N] as
            tensors or arrays (float64 arrays become float32); or a DataLoader with shuffle=True, of which the data set
            is taken, its batch_size, workers and collate_fn. Each epoch leaves out, at random, what
            fills no batch. What a sample draws of the global random numbers of torch, NumPy and Python depends on
            `seed`, the step and its number only; generators of a data set's own are its own matter.
        validation: another one to choose the best epoch on; or the share of `train` that is held out for it (T A.1:
            0.1); None takes the last epoch.
        epochs: how many.
        batch_size: of all processes together, who share it equally; None takes a DataLoader's own, or 64.
        optimizer: "adadelta" (R A.2), "adam", "sgd"; a torch optimizer; or a function that makes one of parameters.
        lr: a constant, (first, last) with a line between them (R A.2: (0.05, 0.001)), or {epoch: rate from then on}
            (T A.1: {0: 1e-3, 5: 1e-4}); None leaves the optimizer's own: 1, 1e-3 and 0.05 by name. It is the rate of
            the optimizer's first parameter group; the others keep their ratio to it.
        clip: the largest norm of the gradient, which is scaled down to it.
        mixed_precision: "no", "bf16" or "fp16".
        seed: of the order, the draws and torch's own generators, whose states are put back at the end.
        out: a folder, which all processes see, for checkpoint.safetensors (to go on from), model.safetensors (the best
            weights; generator.safetensors beside it, of `CoTrain`), metrics.csv and steps.csv.
        resume: go on with the run in `out`, where there is one, to the same weights, bit for bit.
        checkpoint_steps: write the checkpoint after so many steps, and not only after each epoch.
        workers: processes that load samples, for a torch data set.
        log_with: trackers of accelerate, such as "tensorboard" (in `out`).
        cpu: use no GPU.
        progress: show a bar on standard error.
        accelerator: one of your own, which then has the precision and trackers. Each batch is a step: one that
            accumulates gradients is refused.

    Raises:
        TypeError, ValueError: a wrong argument; fewer samples than a batch; labels beyond the logits; an earlier run
            in `out` that is not to be resumed, or of other settings (named), or in use by another process.
        FloatingPointError: a loss or a gradient that is no finite number, with its step and batch, before the step
            is taken; weights that are none, before they are saved.
        OSError: a file that could not be written; the checkpoint before it is whole.
    """
    epochs, validation, batch_size, lr, clip, seed, checkpoint_steps, workers = check.plain(
        (epochs, validation, batch_size, lr, clip, seed, checkpoint_steps, workers)
    )
    check.integer("epochs", epochs, 1)
    if clip is not None:
        check.number("clip", clip, above=0)
    if checkpoint_steps is not None:
        check.integer("checkpoint_steps", checkpoint_steps, 1)
    if lr is not None:
        check_rate(lr)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    _check_objective(objective)
    check_name("mixed_precision", mixed_precision, PRECISIONS)
    if out is None and (resume or checkpoint_steps is not None or log_with == "tensorboard"):
        raise ValueError("out: expected a folder for checkpoints and logs, got None")
    classifies = getattr(objective, "classifies", True)
    if not classifies and validation is not None:
        raise ValueError(f"validation: expected None for {objective}, which has no accuracy, got {validation}")
    train = as_data("train", train, shuffled=True)
    batch_size = _batch_size(batch_size, train)
    key, samples = random.key(seed), torch.arange(len(train))
    share = validation if check.is_number(validation) else None
    if share is not None:
        samples, held = held_out(len(train), share, key=key)
        validation = rows_of(train, held)
    elif validation is not None:
        validation = as_data("validation", validation)
    order = Order(samples, batch_size, key, epochs)

    with ExitStack() as stack:
        if accelerator is None:
            accelerator = stack.enter_context(accelerator_for(mixed_precision, log_with, out, cpu))
        check_accelerator(accelerator)
        processes, device = accelerator.num_processes, accelerator.device
        if batch_size % processes:
            raise ValueError(f"batch_size: expected a multiple of the {processes} processes, got {batch_size}")
        for name, data in (("train", train), ("validation", validation)):
            if data is not None and classifies:
                check_takes(model, name, data)
        classify = _Classify(objective)
        learners = [
            Learner(
                "model",
                model,
                build_optimizer(optimizer, model.parameters()),
                lr,
                order,
                classify,
                ("loss", "accuracy"),
            )
        ]
        if isinstance(objective, CoTrain):
            learners.append(objective.learner(model, optimizer, lr, order))
        folder = None
        if out is not None:
            settings = {
                "model": describe_model(model), "objective": describe(objective), "train": describe_data(train),
                "validation": share if share is not None or validation is None else describe_data(validation),
                "batch_size": batch_size, "optimizer": describe(learners[0].optimizer), "lr": describe(lr),
                "clip": clip, "mixed_precision": accelerator.mixed_precision, "seed": seed,
                **({"epochs": epochs} if any(isinstance(each.lr, tuple) for each in learners) else {}),
            }  # fmt: skip
            for other in learners[1:]:
                settings |= {
                    other.name: describe_model(other.model),
                    f"{other.name}_lr": describe(other.lr),
                    f"{other.name}_optimizer": describe(other.optimizer),
                }
            folder = stack.enter_context(TrainingFolder.opened(out, accelerator, settings, resume))
        stack.enter_context(warnings.catch_warnings())
        # weights of convolutions get channels-last gradients from channels-last images
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        if classifies:
            stack.enter_context(classify.watching(model))
        run = _Run(
            accelerator,
            learners,
            train,
            validation,
            order,
            clip,
            folder,
            checkpoint_steps,
            workers,
            log_with is not None,
            progress and accelerator.is_main_process,
        )
        return run()


@dataclass
class _Run:
    """One call of `fit`, behind its checks, and the state that a checkpoint has of it."""

    accelerator: Accelerator
    learners: list[Learner]  # the classifier first
    train: Any
    validation: Any
    order: Order
    clip: float | None
    folder: TrainingFolder | None
    checkpoint_steps: int | None
    workers: int
    log: bool
    progress: bool
    steps: list[list[float]] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] | None = None

    def __call__(self) -> Fitted:
        self.columns = [column for learner in self.learners for column in learner.columns]
        for learner in self.learners:
            learner.prepare(self.accelerator)
        weights = None
        try:
            if self.folder is not None and self.folder.resumes:
                self.steps, self.epochs, self.best = self.folder.load(self.learners, self.accelerator.scaler)
                weights = [self.folder.load_best(learner) for learner in self.learners] if self.epochs else None
            if self.log:
                self.accelerator.init_trackers("", init_kwargs={"tensorboard": {"purge_step": len(self.steps) + 1}})
            for epoch in range(len(self.epochs), self.order.epochs):
                if better := self._epoch(epoch):
                    weights = [
                        {name: value.detach().clone() for name, value in weights_file.weights_of(learner.model).items()}
                        for learner in self.learners
                    ]
                self._save(better)
        finally:
            for learner in self.learners:
                learner.release()
            if self.log:
                self.accelerator.end_training()
        for learner, best in zip(self.learners, weights, strict=True):
            weights_file.load_weights(learner.model, best)
        return Fitted(torch.tensor(self.steps, dtype=torch.float64), self.epochs, self.best["epoch"])

    def _epoch(self, epoch: int) -> bool:
        """Whether this is the best epoch so far."""
        first = len(self.steps)  # in the midst of the epoch after a resume
        loaded = [learner.batches(self.train, epoch, first, self.workers) for learner in self.learners]
        for learner in self.learners:
            learner.begin_epoch()
        began = time.perf_counter()
        with TrainingBar(self.progress, epoch, self.order, first, self.columns[2:]) as bar:
            for batches in zip(*loaded, strict=True):
                values = []
                for learner, (samples, batch) in zip(self.learners, batches, strict=True):
                    with self._naming_what_is_kept():
                        values += learner.step(len(self.steps), samples, batch, self.clip)
                self.steps.append(values)
                bar.advance(values)
                if self.log:
                    self.accelerator.log(dict(zip(self.columns, values, strict=True)), step=len(self.steps))
                if self.checkpoint_steps and len(self.steps) % self.checkpoint_steps == 0:
                    self._save()
            self._check_weights()
            seconds = time.perf_counter() - began
            images = (len(self.steps) - first) * self.order.batch_size
            row = self._row(epoch, seconds, images / seconds)
            self.epochs.append(row)
            name = "epoch" if self.validation is None else "validation_accuracy"
            if better := self.best is None or row[name] > self.best[name]:
                self.best = row
            bar.summarise(row, better)
        return better

    def _check_weights(self) -> None:
        with self._naming_what_is_kept():
            for learner in self.learners:
                learner.check_weights(len(self.steps))

    @contextmanager
    def _naming_what_is_kept(self) -> Iterator[None]:
        try:
            yield
        except FloatingPointError as error:
            kept = "" if self.folder is None else f"; {self.folder.kept()}"
            raise FloatingPointError(f"{error}{kept}") from None

    def _row(self, epoch: int, seconds: float, images_per_second: float) -> dict[str, float]:
        """The epoch in figures."""
        steps = torch.tensor(self.steps[epoch * self.order.steps_an_epoch :], dtype=torch.float64)
        classifier = self.learners[0]
        row = {
            "epoch": epoch + 1,
            "step": len(self.steps),
            **dict(zip(self.columns, steps.mean(0).tolist(), strict=True)),
            "lr": classifier.optimizer.param_groups[0]["lr"],
            "images_per_second": images_per_second,
            "seconds": seconds,
        }
        if self.validation is not None:
            found = evaluate(classifier.model, self.validation, workers=self.workers, device=self.accelerator.device)
            row |= {"validation_loss": found.loss.mean().item(), "validation_accuracy": found.top(1)}
        if self.log:
            self.accelerator.log({f"epoch/{name}": value for name, value in row.items()}, step=len(self.steps))
        return row

    def _save(self, better: bool = False) -> None:
        if self.folder is not None:
            self._check_weights()
        if self.folder is not None and self.accelerator.is_main_process:
            if better:
                for learner in self.learners:
                    self.folder.save_best(learner)
            self.folder.save(self.learners, self.accelerator.scaler, self.steps, self.epochs, self.best)


class _Classify:
    """The objective, and how often the model was right on what it was trained on."""

    def __init__(self, objective: Callable[..., torch.Tensor]):
        self.objective, self.predicted = objective, []

    def __call__(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.predicted.clear()
        loss = self.objective(model, x, y, key=key, index=index)
        return loss, _accuracy(self.predicted, y)

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        def look(module, inputs, logits):
            # the passes that choose or ascend are made in eval mode
            if any(each.training for each in module.modules()):
                self.predicted.append(logits.detach().argmax(1))

        hook = model.register_forward_hook(look)
        try:
            yield
        finally:
            hook.remove()


def _accuracy(predicted: list[torch.Tensor], y: torch.Tensor) -> torch.Tensor:
    """How often the model was right on what it was trained on; NaN where that cannot be told."""
    found = torch.cat(predicted) if predicted else y[:0]
    if not len(found) or len(found) % len(y):
        return torch.full((), math.nan, dtype=torch.float64, device=y.device)
    return (found.view(-1, len(y)) == y).double().mean()


def _check_objective(objective: Any) -> None:
    """TypeError that says what an objective is."""
    what = "an Objective, such as ERM(), or a function of (model, x, y, key=, index=) that gives the loss"
    instead = "ERM() is the cross-entropy of the model's logits"
    if isinstance(objective, type):
        if issubclass(objective, Objective):
            instead = f"make one: {objective.__name__}(...)"
        raise TypeError(f"objective: expected {what}, got the class {objective.__name__} itself; {instead}")
    if not callable(objective):
        raise TypeError(f"objective: expected {what}, got {type(objective).__name__}")
    try:
        called = objective.forward if isinstance(objective, nn.Module) else objective
        inspect.signature(called).bind(None, None, None, key=0, index=None)
    except ValueError:  # a function that does not tell
        pass
    except TypeError as error:
        raise TypeError(
            f"objective: expected {what}, got {getattr(objective, '__name__', type(objective).__name__)} "
            f"({error}); {instead}"
        ) from None


def _batch_size(batch_size: int | None, train: Any) -> int:
    own = train.batch_size if isinstance(train, Loaded) else None
    if batch_size is None:
        return 64 if own is None else own
    if own not in (None, batch_size):
        raise ValueError(f"batch_size: expected {own}, the DataLoader's, or None, got {batch_size!r}")
    return batch_size
