"""`fit`: trains with any objective, on one process or many, from the first step or from a checkpoint."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from robustperf import check, random
from robustperf.names import PRECISIONS, check_name
from robustperf.training.accelerator import accelerator_for, check_accelerator
from robustperf.training.accuracy import AccuracyMeter
from robustperf.training.evaluate import check_takes
from robustperf.training.history import Fitted
from robustperf.training.learner import MODEL, Learner, check_learners
from robustperf.training.learner_trainer import LearnerTrainer
from robustperf.training.loop import TrainingLoop
from robustperf.training.objective import Objective
from robustperf.training.optimizers import Optimizer, Rate, check_rate
from robustperf.training.run_folder import RunFolder, describe, describe_data, describe_model
from robustperf.training.training_data import TrainingData

if TYPE_CHECKING:
    from accelerate import Accelerator


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
    after_step: Callable[[int], None] | None = None,
) -> Fitted:
    """Trains a model in place.

    Under `torchrun` or `accelerate launch` it runs on many devices unchanged: each process takes its part of every
    batch. The order of the samples and all draws depend on `seed`, the step and the sample ids only, and so many
    processes compute the losses of one, to rounding. The exception is batch normalisation: its statistics are
    synchronised on GPUs, but on CPUs each process has its own. A plain loop finds the same weights:

        key = rp.random.key(seed)
        steps = itertools.chain.from_iterable(batches(len(train), batch_size, key=key, epoch=e) for e in range(epochs))
        for step, rows in enumerate(steps):
            optimizer.zero_grad()
            objective(model, train.x[rows], train.y[rows], key=rp.random.fold_in(key, step), index=rows).backward()
            optimizer.step()

    Args:
        model: maps images [B, C, H, W] to logits [B, classes]. It is moved to the accelerator's device, trained in
            train mode, and ends with the weights of the best epoch. Modules in eval mode beside others that are not,
            such as frozen batch norms, stay in eval mode.
        objective: such as `MRT(kernel)`, or any function of (model, x, y, key=, index=) that returns the loss. It may
            bring further models to train (`Objective.learners`): `CoTrain` brings its generator.
        train: a `Dataset`; a torch data set of (image, label) pairs; (x, y), images [N, ...] float and labels [N] as
            tensors or arrays (float64 arrays become float32); or a DataLoader with shuffle=True, of which the data
            set, batch_size, workers and collate_fn are used. Each epoch omits the samples that fill no batch, chosen
            at random. What a sample draws from the global generators of torch, NumPy and Python depends on `seed`, the
            step and its id only; a data set's own generators are not controlled.
        validation: data to choose the best epoch on, of the same kinds; or the fraction of `train` that is held out for
            it (T A.1: 0.1). None keeps the last epoch.
        epochs: passes over the training set.
        batch_size: samples in a step, of all processes together, which divide it equally; None is the DataLoader's own,
            or 64.
        optimizer: "adadelta" (R A.2), "adam", "sgd"; a torch optimizer; or a function that makes one from parameters.
        lr: a constant, (first, last) with a line between them (R A.2: (0.05, 0.001)), or {epoch: rate from then on}
            (T A.1: {0: 1e-3, 5: 1e-4}); None keeps the optimizer's own: 1, 1e-3 and 0.05 by name. It is the rate of the
            first parameter group; the other groups keep their ratio to it.
        clip: the largest L2 norm of the gradient; a longer gradient is scaled down to it.
        mixed_precision: "no", "bf16" or "fp16".
        seed: determines the order, the draws and the states of torch's own generators, which are restored at the end.
        out: a folder that all processes see, for checkpoint.safetensors (to resume from), model.safetensors (the
            weights of the best epoch, and NAME.safetensors for each further learner), metrics.csv and steps.csv.
        resume: resume the run in `out`, if there is one, to the same weights, bit for bit on the same hardware.
        checkpoint_steps: write a checkpoint every n steps too, beside the one after each epoch.
        workers: processes that load samples of a torch data set.
        log_with: trackers of accelerate, such as "tensorboard" (in `out`).
        cpu: use no GPU.
        progress: show a bar on standard error.
        accelerator: an Accelerator to use, with its precision and trackers. Each batch is one step: an accelerator
            that accumulates gradients is refused.
        after_step: called in the main process after each step and before its checkpoint, with the number of steps so
            far, for snapshots of the models and figures of your own. It must leave the models unchanged. A resumed run
            repeats the calls since its checkpoint.

    Returns the figures of the run; the weights are in the models.

    Raises:
        TypeError, ValueError: a wrong argument; fewer samples than a batch; labels that the model has no logit for; a
            run in `out` that is not to be resumed, has other settings (the error names them) or is in use by another
            process.
        FloatingPointError: a loss or a gradient that is not finite, with its step and batch, before the update; weights
            that are not finite, before they are saved.
        OSError: a file that could not be written; the checkpoint before it is intact.

    >>> digits, model = rp.data.load("digits", "train"), rp.nets.build("small-cnn", size=8)
    >>> fitted = fit(model, rp.training.ERM(), digits, epochs=1, optimizer="adam", lr=5e-3, out="runs", resume=True)
    >>> fitted.best
    1
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
    if after_step is not None and not callable(after_step):
        raise TypeError(f"after_step: expected a function of the number of steps, got {type(after_step).__name__}")
    check_name("mixed_precision", mixed_precision, PRECISIONS)
    if out is None and (resume or checkpoint_steps is not None or log_with == "tensorboard"):
        raise ValueError("out: expected a folder for checkpoints and logs, got None")
    classifies = getattr(objective, "classifies", True)
    if not classifies and validation is not None:
        raise ValueError(f"validation: expected None for {objective}, which has no accuracy, got {validation}")
    key = random.key(seed)
    data = TrainingData.from_arguments(
        train, validation, batch_size=batch_size, epochs=epochs, key=key, workers=workers
    )

    with ExitStack() as stack:
        if accelerator is None:
            accelerator = stack.enter_context(accelerator_for(mixed_precision, log_with, out, cpu))
        check_accelerator(accelerator)
        processes, device = accelerator.num_processes, accelerator.device
        if data.order.batch_size % processes:
            raise ValueError(
                f"batch_size: expected a multiple of the {processes} processes, got {data.order.batch_size}"
            )
        for name, samples in (("train", data.train), ("validation", data.validation)):
            if samples is not None and classifies:
                check_takes(model, name, samples)
        trainers = []
        for learner in _learners(objective, model):
            learner = learner.with_defaults(optimizer, lr, clip)
            if learner.is_main:
                meter = AccuracyMeter(learner.loss)
                learner = replace(learner, loss=meter, figures=("accuracy", *learner.figures))
            trainers.append(LearnerTrainer(learner, data.order))
        folder = None
        if out is not None:
            settings = _settings(objective, data, trainers) | {
                "mixed_precision": accelerator.mixed_precision,
                "seed": seed,
            }
            folder = stack.enter_context(RunFolder.opened(out, accelerator, settings, resume))
        stack.enter_context(warnings.catch_warnings())
        # weights of convolutions get channels-last gradients from channels-last images
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        if classifies:
            stack.enter_context(meter.recording(model))
        show = progress and accelerator.is_main_process
        log = log_with is not None
        return TrainingLoop(accelerator, trainers, data, folder, checkpoint_steps, log, show, after_step).run()


def _learners(objective: Callable[..., Any], model: nn.Module) -> list[Learner]:
    """The learners of an objective; of a plain function the model alone."""
    own = objective.learners(model) if isinstance(objective, Objective) else [Learner(MODEL, model, objective)]
    return check_learners(own, model)


def _settings(objective: Callable[..., Any], data: TrainingData, trainers: Sequence[LearnerTrainer]) -> dict[str, Any]:
    """What a resumed run must have in common with the checkpoint's."""
    own = data.validation is not None and data.fraction is None
    settings: dict[str, Any] = {
        "objective": describe(objective),
        "train": describe_data(data.train),
        "validation": describe_data(data.validation) if own else data.fraction,
        "batch_size": data.order.batch_size,
    }
    for trainer in trainers:
        prefix = "" if trainer.learner.is_main else f"{trainer.name}_"
        settings |= {
            trainer.name: describe_model(trainer.model),
            f"{prefix}optimizer": describe(trainer.optimizer),
            f"{prefix}lr": describe(trainer.learner.lr),
            f"{prefix}clip": trainer.learner.clip,
        }
    if any(isinstance(trainer.learner.lr, tuple) for trainer in trainers):
        settings["epochs"] = data.order.epochs  # the end of a line of rates
    return settings


def _check_objective(objective: Any) -> None:
    """Raises TypeError for what is no objective, and says what one is."""
    what = "an Objective, such as ERM(), or a function of (model, x, y, key=, index=) that returns the loss"
    instead = "ERM() is the cross-entropy of the model's logits"
    if isinstance(objective, type):
        if issubclass(objective, Objective):
            instead = f"create one: {objective.__name__}(...)"
        raise TypeError(f"objective: expected {what}, got the class {objective.__name__} itself; {instead}")
    if not callable(objective):
        raise TypeError(f"objective: expected {what}, got {type(objective).__name__}")
    try:
        called = objective.forward if isinstance(objective, nn.Module) else objective
        inspect.signature(called).bind(None, None, None, key=0, index=None)
    except ValueError:  # a function without a signature
        pass
    except TypeError as error:
        raise TypeError(
            f"objective: expected {what}, got {getattr(objective, '__name__', type(objective).__name__)} "
            f"({error}); {instead}"
        ) from None
