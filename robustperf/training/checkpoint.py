"""The state of a training run on disk: one safetensors file, written whole, from which it goes on to the same bits."""

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
from robustperf.training.learner import Learner


def save_state(
    path: str | os.PathLike[str], learners: Sequence[Learner], tensors: dict[str, torch.Tensor], facts: dict[str, Any]
) -> None:
    """Writes weights and the optimizers' state, further tensors, and facts that JSON can hold."""
    kept, header = {}, {"facts": json.dumps(facts)}
    for learner in learners:
        of_model, of_optimizer = _groups(learner)
        for name, value in weights_file.weights_of(learner.model).items():
            kept[f"{of_model}.{name}"] = value
        numbers = {}
        for place, state in learner.optimizer.state_dict()["state"].items():
            for name, value in state.items():
                if isinstance(value, torch.Tensor):
                    kept[f"{of_optimizer}.{place}.{name}"] = value
                else:
                    numbers[f"{place}.{name}"] = value
        header[of_optimizer] = json.dumps(numbers)
    weights_file.write(path, kept | {f"further.{name}": value for name, value in tensors.items()}, header)


def load_state(
    path: str | os.PathLike[str], learners: Sequence[Learner]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Puts weights and the optimizers' state back; returns the further tensors and the facts.

    Raises ValueError for a file that is damaged or of other models or optimizers.
    """
    groups = {"further": {}} | {group: {} for learner in learners for group in _groups(learner)}
    try:
        with safe_open(check_regular(path), "pt") as file:
            header = file.metadata() or {}
            for name in file.keys():
                group, _, rest = name.partition(".")
                groups[group][rest] = file.get_tensor(name)
        facts = json.loads(header["facts"])
        for learner in learners:
            of_model, of_optimizer = _groups(learner)
            weights_file.load_weights(learner.model, groups[of_model])
            state = {}
            for name, value in (groups[of_optimizer] | json.loads(header[of_optimizer])).items():
                place, _, rest = name.partition(".")
                state.setdefault(int(place), {})[rest] = value
            settings = learner.optimizer.state_dict()["param_groups"]
            learner.optimizer.load_state_dict({"state": state, "param_groups": settings})
    except (SafetensorError, OSError, LookupError, AttributeError, *weights_file.FAULTS) as error:
        raise ValueError(f"checkpoint: {path} cannot be gone on with: {check.line_of(error)}") from error
    return groups["further"], facts


def _groups(learner: Learner) -> tuple[str, str]:
    """What its weights' names and its optimizer's begin with."""
    return (learner.name, "optimizer" if learner.name == "model" else f"{learner.name}_optimizer")
