"""The folder of a training run: who writes there, what run it holds, and its files."""

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
from robustperf.files import alone_in, note_settings, telling, user_path, written_whole
from robustperf.nets import weights_file
from robustperf.training.batches import Arrays, Loaded
from robustperf.training.checkpoint import load_state, save_state
from robustperf.training.learner import Learner

if TYPE_CHECKING:
    from accelerate import Accelerator

Steps = list[list[float]]
Epochs = list[dict[str, float]]


class TrainingFolder:
    """checkpoint.safetensors to go on from, model.safetensors of the best weights (a file for each learner, by its
    name), metrics.csv and steps.csv."""

    folder: Path
    state: Path
    best: Path
    metrics: Path
    losses: Path
    resumes: bool
    step: int

    def __init__(self, folder: str | Path) -> None:
        folder = user_path(folder)
        self.folder, self.state, self.best = folder, folder / "checkpoint.safetensors", folder / "model.safetensors"
        self.metrics, self.losses = folder / "metrics.csv", folder / "steps.csv"
        self.resumes = self.state.exists()
        self.step = 0  # of the last checkpoint

    @classmethod
    @contextmanager
    def opened(
        cls, folder: str | Path, accelerator: Accelerator, settings: dict[str, Any], resume: bool
    ) -> Iterator[TrainingFolder]:
        """The folder, for this run alone; errors as in `fit`."""
        from accelerate.utils import gather_object

        with ExitStack() as stack:
            fault = None
            if accelerator.is_main_process:
                try:
                    stack.enter_context(alone_in(folder))
                    note_settings(folder, settings, resume=resume)
                except (OSError, ValueError) as error:
                    fault = error
            fault = gather_object([fault])[0]  # the others wait until the folder is there, and fail with the first
            if fault is not None:
                raise fault
            yield cls(folder)

    def load(self, learners: Sequence[Learner], scaler: Any) -> tuple[Steps, Epochs, dict[str, Any] | None]:
        """Puts the checkpoint back; returns what happened until then: steps, epochs and the best of these."""
        tensors, facts = load_state(self.state, learners)
        try:
            if scaler is not None:
                scaler.load_state_dict(facts["scaler"])
            steps, epochs = tensors["steps"].tolist(), facts["epochs"]
            best = next((row for row in epochs if row["epoch"] == facts["best"]), None)
        except (LookupError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"checkpoint: {self.state} cannot be gone on with: {error!r}") from error
        self.step = len(steps)
        return steps, epochs, best

    def load_best(self, learner: Learner) -> dict[str, torch.Tensor]:
        return weights_file.read(self.best_of(learner))[0]

    def save(
        self, learners: Sequence[Learner], scaler: Any, steps: Steps, epochs: Epochs, best: dict[str, Any] | None
    ) -> None:
        facts = {
            "epochs": epochs,
            "best": None if best is None else best["epoch"],
            "scaler": None if scaler is None else scaler.state_dict(),
        }
        columns = [column for learner in learners for column in learner.columns]
        further = {"steps": torch.tensor(steps, dtype=torch.float64).reshape(-1, len(columns))}
        with telling(self.kept):
            save_state(self.state, learners, further, facts)
            self.step = len(steps)
            _write_csv(self.metrics, list(epochs[0]) if epochs else [], [list(row.values()) for row in epochs])
            _write_csv(self.losses, ["step", *columns], [[n, *row] for n, row in enumerate(steps, 1)])

    def save_best(self, learner: Learner) -> None:
        with telling(self.kept):
            weights_file.save(self.best_of(learner), learner.model)

    def best_of(self, learner: Learner) -> Path:
        return self.folder / f"{learner.name}.safetensors"

    def kept(self) -> str:
        return f"{self.state} is of step {self.step}" if self.step else "there is no checkpoint yet"


def _write_csv(path: Path, header: list[str], rows: list[list]) -> None:
    with written_whole(path) as partial, open(partial, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def describe(thing: Any) -> str:
    """What it prints, without the address in memory that a class without a text of its own shows."""
    return re.sub(r" at 0x[0-9a-f]+", "", " ".join(repr(thing).split()))


def describe_model(model: nn.Module) -> str:
    """Class, size, and a digest of the names and shapes of all weights."""
    shapes = {name: list(value.shape) for name, value in weights_file.weights_of(model).items()}
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{type(weights_file.network_of(model)).__name__} of {count:,} parameters ({_digest(repr(shapes).encode())})"


def describe_data(data: Any) -> str:
    """Name, size, and for a `Dataset` its images' shape and a digest of the labels."""
    if isinstance(data, Loaded):
        return describe_data(data.dataset)
    text = f"{getattr(data, 'name', type(data).__name__)}, {len(data)} samples"
    if isinstance(data, Dataset | Arrays):
        text += f" {list(data.x.shape[1:])} ({_digest(data.y.numpy().tobytes())})"
    return text


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]
