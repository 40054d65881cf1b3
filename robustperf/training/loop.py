"""The training loop behind `fit`: epochs, checkpoints, validation and logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from robustperf.nets import weights_file
from robustperf.training.batches import BatchOrder
from robustperf.training.evaluate import evaluate
from robustperf.training.history import Fitted, History
from robustperf.training.learner_trainer import LearnerTrainer, OwnBatch
from robustperf.training.progress import TrainingBar
from robustperf.training.run_folder import RunFolder
from robustperf.training.training_data import TrainingData

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass
class TrainingLoop:
    """One call of `fit`, after its checks.

    Attributes:
        trainers: the learners, in the order of their updates.
        folder: where checkpoints go; None for none.
        checkpoint_steps: after how many steps a checkpoint is written, beside those after each epoch; None for none.
        log: whether the accelerator has trackers.
        progress: whether a bar is shown.
        after_step: called in the main process with the number of steps so far.
    """

    accelerator: Accelerator
    trainers: Sequence[LearnerTrainer]
    data: TrainingData
    folder: RunFolder | None
    checkpoint_steps: int | None
    log: bool
    progress: bool
    after_step: Callable[[int], None] | None = None
    order: BatchOrder = field(init=False)
    main: LearnerTrainer = field(init=False)
    history: History = field(init=False)

    def __post_init__(self) -> None:
        self.order = self.data.order
        self.main = next(trainer for trainer in self.trainers if trainer.learner.is_main)
        others = [trainer for trainer in self.trainers if trainer is not self.main]
        self._in_table = [self.main, *others]  # the order of the columns
        self.history = History(tuple(column for trainer in self._in_table for column in trainer.columns))

    def run(self) -> Fitted:
        """Trains from the first step, or from the checkpoint in the folder; leaves the models with the best weights."""
        best_weights: list[dict[str, torch.Tensor]] = []
        with ExitStack() as stack:
            if self.log:
                stack.callback(self.accelerator.end_training)
            for trainer in self.trainers:
                trainer.prepare(self.accelerator)
                stack.callback(trainer.release)
            if self.folder is not None and self.folder.checkpoint.exists():
                self.history = self.folder.load(self.trainers, self.accelerator.scaler, self.history.columns)
                if self.history.epochs:
                    best_weights = [self.folder.load_best(trainer) for trainer in self.trainers]
            if self.log:
                first = len(self.history.steps) + 1
                self.accelerator.init_trackers("", init_kwargs={"tensorboard": {"purge_step": first}})
            for epoch in range(len(self.history.epochs), self.order.epochs):
                if better := self._epoch(epoch):
                    best_weights = [_copy_of_weights(trainer) for trainer in self.trainers]
                self._save(better)
        for trainer, weights in zip(self.trainers, best_weights, strict=True):
            weights_file.load_weights(trainer.model, weights)
        return self.history.fitted()

    def _epoch(self, epoch: int) -> bool:
        """Trains for an epoch; returns whether it is the best so far."""
        steps = self.history.steps
        first = len(steps)  # after a resume possibly within the epoch
        # learners on the same batches share them: each batch is loaded once
        by_order = {trainer.batch_key: trainer for trainer in self.trainers}
        loaded = {
            key: trainer.batches(self.data.train, epoch, first, self.data.workers) for key, trainer in by_order.items()
        }
        for trainer in self.trainers:
            trainer.begin_epoch()
        began = time.perf_counter()
        with TrainingBar(self.progress, epoch, self.order, first, self.history.columns[2:]) as bar:
            for batches in zip(*loaded.values(), strict=True):
                values = self._step(dict(zip(loaded, batches, strict=True)))
                steps.append(values)
                bar.advance(values)
                if self.log:
                    self.accelerator.log(dict(zip(self.history.columns, values, strict=True)), step=len(steps))
                if self.after_step is not None and self.accelerator.is_main_process:
                    self.after_step(len(steps))  # before the checkpoint: a run that is killed in between repeats both
                if self.checkpoint_steps and len(steps) % self.checkpoint_steps == 0:
                    self._save()
            self._check_weights()
            seconds = time.perf_counter() - began
            row = self._row(epoch, seconds, images_per_second=(len(steps) - first) * self.order.batch_size / seconds)
            better = self.history.add_epoch(row)
            bar.summarise(row, better)
        return better

    def _step(self, batches: dict[tuple[int, int], tuple[OwnBatch, ...]]) -> list[float]:
        """Updates each learner, on the batches of its `batch_key`; returns the values of all columns."""
        values = {}
        for trainer in self.trainers:
            with self._naming_the_checkpoint():
                values[trainer.name] = trainer.step(len(self.history.steps), batches[trainer.batch_key])
        return [value for trainer in self._in_table for value in values[trainer.name]]

    def _row(self, epoch: int, seconds: float, images_per_second: float) -> dict[str, float]:
        """The epoch's row of the table."""
        row = {
            "epoch": epoch + 1,
            "step": len(self.history.steps),
            **self.history.means_since(epoch * self.order.steps_per_epoch),
            "lr": self.main.optimizer.param_groups[0]["lr"],
            "images_per_second": images_per_second,
            "seconds": seconds,
        }
        if self.data.validation is not None:
            device = self.accelerator.device
            evaluation = evaluate(self.main.model, self.data.validation, workers=self.data.workers, device=device)
            row |= {"validation_loss": evaluation.loss.mean().item(), "validation_accuracy": evaluation.top(1)}
        if self.log:
            logged = {f"epoch/{name}": value for name, value in row.items()}
            self.accelerator.log(logged, step=len(self.history.steps))
        return row

    def _save(self, better: bool = False) -> None:
        """Writes a checkpoint, and the weights of a better epoch before it."""
        if self.folder is None:
            return
        self._check_weights()
        if self.accelerator.is_main_process:
            for trainer in self.trainers if better else ():
                self.folder.save_best(trainer)
            self.folder.save(self.trainers, self.accelerator.scaler, self.history)

    def _check_weights(self) -> None:
        with self._naming_the_checkpoint():
            for trainer in self.trainers:
                trainer.check_weights(len(self.history.steps))

    @contextmanager
    def _naming_the_checkpoint(self) -> Iterator[None]:
        """Adds to a FloatingPointError what the run can resume from."""
        try:
            yield
        except FloatingPointError as error:
            saved = "" if self.folder is None else f"; {self.folder.describe_checkpoint()}"
            raise FloatingPointError(f"{error}{saved}") from None


def _copy_of_weights(trainer: LearnerTrainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in weights_file.weights_of(trainer.model).items()}
