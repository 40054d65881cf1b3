"""The folder of a training run: its lock, its recorded settings and its files."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from robustperf.data import Dataset
from robustperf.data.inputs import Arrays, LoaderData
from robustperf.files import atomic_write, lock_folder, record_settings, reporting_saved, user_path
from robustperf.nets import weights_file
from robustperf.training.checkpoint import load_state, save_state
from robustperf.training.history import History
from robustperf.training.learner import MODEL
from robustperf.training.learner_trainer import LearnerTrainer

if TYPE_CHECKING:
    from accelerate import Accelerator


class RunFolder:
    """The folder of a training run.

    Attributes:
        folder: its path.
        checkpoint: checkpoint.safetensors, which the run resumes from.
        weights: model.safetensors, the model's weights of the best epoch; `weights_of` names those of other learners.
        metrics: metrics.csv, a row for each epoch.
        steps: steps.csv, a row for each step.
        step: the step of the last checkpoint; 0 before the first.
    """

    folder: Path
    checkpoint: Path
    weights: Path
    metrics: Path
    steps: Path
    step: int

    def __init__(self, folder: str | Path) -> None:
        self.folder = user_path(folder)
        self.checkpoint = self.folder / "checkpoint.safetensors"
        self.weights = self.weights_of(MODEL)
        self.metrics, self.steps = self.folder / "metrics.csv", self.folder / "steps.csv"
        self.step = 0

    @classmethod
    @contextmanager
    def opened(
        cls, folder: str | Path, accelerator: Accelerator, settings: dict[str, Any], resume: bool
    ) -> Iterator[RunFolder]:
        """The folder, locked for this run, with the settings recorded; errors as in `fit`."""
        from accelerate.utils import gather_object

        with ExitStack() as stack:
            fault = None
            if accelerator.is_main_process:
                try:
                    stack.enter_context(lock_folder(folder))
                    record_settings(folder, settings, resume=resume)
                except (OSError, ValueError) as error:
                    fault = error
            fault = gather_object([fault])[0]  # the others wait until the folder is there, and fail as the main does
            if fault is not None:
                raise fault
            yield cls(folder)

    def weights_of(self, name: str) -> Path:
        """The file of a learner's weights of the best epoch."""
        return self.folder / f"{name}.safetensors"

    def load(self, trainers: Sequence[LearnerTrainer], scaler: Any, columns: tuple[str, ...]) -> History:
        """Loads the checkpoint into the learners and the gradient scaler (None without one); returns its history."""
        steps, facts = load_state(self.checkpoint, trainers)
        try:
            if scaler is not None:
                scaler.load_state_dict(facts["scaler"])
            epochs = facts["epochs"]
            best = next((row for row in epochs if row["epoch"] == facts["best"]), None)
            history = History(columns, steps.tolist(), epochs, best)
        except (LookupError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"checkpoint: {self.checkpoint} cannot be resumed from: {error!r}") from error
        self.step = len(history.steps)
        return history

    def load_best(self, trainer: LearnerTrainer) -> dict[str, torch.Tensor]:
        return weights_file.read(self.weights_of(trainer.name))[0]

    def save(self, trainers: Sequence[LearnerTrainer], scaler: Any, history: History) -> None:
        """Writes the checkpoint and both tables, each atomically."""
        facts = {
            "epochs": history.epochs,
            "best": None if history.best is None else history.best["epoch"],
            "scaler": None if scaler is None else scaler.state_dict(),
        }
        epochs, steps = history.epochs, history.steps
        with reporting_saved(self.describe_checkpoint):
            save_state(self.checkpoint, trainers, history.steps_tensor(), facts)
            self.step = len(steps)
            _write_csv(self.metrics, list(epochs[0]) if epochs else [], [list(row.values()) for row in epochs])
            _write_csv(self.steps, ["step", *history.columns], [[n, *row] for n, row in enumerate(steps, 1)])

    def save_best(self, trainer: LearnerTrainer) -> None:
        with reporting_saved(self.describe_checkpoint):
            weights_file.save(self.weights_of(trainer.name), trainer.model)

    def describe_checkpoint(self) -> str:
        """What an error says that the run can resume from."""
        return f"{self.checkpoint} is of step {self.step}" if self.step else "there is no checkpoint yet"


def _write_csv(path: Path, header: list[str], rows: list[list]) -> None:
    with atomic_write(path) as partial, open(partial, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def describe(value: Any) -> str:
    """Its repr on one line, without the memory address that the default repr shows."""
    return re.sub(r" at 0x[0-9a-f]+", "", " ".join(repr(value).split()))


def describe_model(model: nn.Module) -> str:
    """Class, size, and a digest of the names and shapes of all weights."""
    shapes = {name: list(value.shape) for name, value in weights_file.weights_of(model).items()}
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{type(weights_file.network_of(model)).__name__} of {count:,} parameters ({_digest(repr(shapes).encode())})"


def describe_data(data: Any) -> str:
    """Name, size, and for a `Dataset` its images' shape and a digest of the labels."""
    if isinstance(data, LoaderData):
        return describe_data(data.dataset)
    text = f"{getattr(data, 'name', type(data).__name__)}, {len(data)} samples"
    if isinstance(data, Dataset | Arrays):
        text += f" {list(data.x.shape[1:])} ({_digest(data.y.numpy().tobytes())})"
    return text


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]
