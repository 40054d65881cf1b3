"""The state of a training run in one safetensors file, from which the run resumes to the same bits."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from robustperf import check
from robustperf.files import check_regular
from robustperf.nets import weights_file
from robustperf.training.learner_trainer import LearnerTrainer

_STEPS = "further.steps"


def save_state(
    path: str | os.PathLike[str], trainers: Sequence[LearnerTrainer], steps: torch.Tensor, facts: dict[str, Any]
) -> None:
    """Writes the state atomically: every learner's weights and optimizer state, the rows of the steps, and facts.

    Args:
        path: the file, replaced in one step.
        trainers: the learners.
        steps: [S, C] float64, a row for each step.
        facts: what JSON can hold.

    Raises OSError where the file cannot be written; what was there is then unchanged.
    """
    tensors, header = {}, {"facts": json.dumps(facts)}
    for trainer in trainers:
        of_model, of_optimizer = _groups(trainer)
        for name, value in weights_file.weights_of(trainer.model).items():
            tensors[f"{of_model}.{name}"] = value
        scalars = {}
        for place, state in trainer.optimizer.state_dict()["state"].items():
            for name, value in state.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{of_optimizer}.{place}.{name}"] = value
                else:
                    scalars[f"{place}.{name}"] = value
        header[of_optimizer] = json.dumps(scalars)
    weights_file.write(path, {**tensors, _STEPS: steps}, header)


def load_state(path: str | os.PathLike[str], trainers: Sequence[LearnerTrainer]) -> tuple[torch.Tensor, dict[str, Any]]:
    """Loads the learners' weights and optimizer states; returns (steps, facts) as `save_state` got them.

    Raises ValueError for a file that is damaged, or of other models or optimizers.
    """
    groups: dict[str, dict[str, torch.Tensor]] = {"further": {}}
    groups |= {group: {} for trainer in trainers for group in _groups(trainer)}
    try:
        with safe_open(check_regular(path), "pt") as file:
            header = file.metadata() or {}
            for name in file.keys():
                group, _, rest = name.partition(".")
                groups[group][rest] = file.get_tensor(name)
        facts = json.loads(header["facts"])
        for trainer in trainers:
            of_model, of_optimizer = _groups(trainer)
            weights_file.load_weights(trainer.model, groups[of_model])
            state: dict[int, dict[str, Any]] = {}
            for name, value in (groups[of_optimizer] | json.loads(header[of_optimizer])).items():
                place, _, rest = name.partition(".")
                state.setdefault(int(place), {})[rest] = value
            settings = trainer.optimizer.state_dict()["param_groups"]
            trainer.optimizer.load_state_dict({"state": state, "param_groups": settings})
        steps = groups["further"]["steps"]
    except (SafetensorError, OSError, LookupError, AttributeError, *weights_file.FAULTS) as error:
        raise _cannot_resume(path, error) from error
    return steps, facts


def steps_saved(path: str | os.PathLike[str]) -> int:
    """How many steps the run of the checkpoint at `path` had made. Raises ValueError for a damaged file."""
    try:
        with safe_open(check_regular(path), "pt") as file:
            return file.get_slice(_STEPS).get_shape()[0]
    except (SafetensorError, OSError, *weights_file.FAULTS) as error:
        raise _cannot_resume(path, error) from error


def _cannot_resume(path: str | os.PathLike[str], error: Exception) -> ValueError:
    return ValueError(f"checkpoint: {path} cannot be resumed from: {check.line_of(error)}")


def _groups(trainer: LearnerTrainer) -> tuple[str, str]:
    """The first parts of the names of its weights and of its optimizer's state."""
    return trainer.name, "optimizer" if trainer.learner.is_main else f"{trainer.name}_optimizer"
