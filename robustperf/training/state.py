"""The state of a training run on disk: one safetensors file, written whole, from which it goes on to the same bits."""

from __future__ import annotations

import json
import os
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import nn, optim

from robustperf.files import written_whole


def save_state(path: str | os.PathLike, model: nn.Module, optimizer: optim.Optimizer, tensors: dict[str, torch.Tensor],
               facts: dict[str, Any]) -> None:
    """Writes the weights, the optimizer's state, further tensors, and facts that JSON can hold."""
    kept, numbers = {}, {}
    for name, value in model.state_dict().items():
        kept[f"model.{name}"] = value
    for place, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                kept[f"optimizer.{place}.{name}"] = value
            else:
                numbers[f"{place}.{name}"] = value
    kept |= {f"further.{name}": value for name, value in tensors.items()}
    # copies: the format has no room for two tensors in one memory, as tied weights are
    kept = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in kept.items()}
    content = to_bytes(kept, metadata={"facts": json.dumps(facts), "optimizer": json.dumps(numbers)})
    with written_whole(path) as partial:
        partial.write_bytes(content)


def load_state(path: str | os.PathLike, model: nn.Module, optimizer: optim.Optimizer
               ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Puts the weights and the optimizer's state back; returns the further tensors and the facts.

    Raises ValueError for a file that is damaged or of another model or optimizer.
    """
    groups = {"model": {}, "optimizer": {}, "further": {}}
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            for name in file.keys():
                group, _, rest = name.partition(".")
                groups[group][rest] = file.get_tensor(name)
        facts, numbers = json.loads(header["facts"]), json.loads(header["optimizer"])
        model.load_state_dict(groups["model"])
        state = {}
        for name, value in (groups["optimizer"] | numbers).items():
            place, _, rest = name.partition(".")
            state.setdefault(int(place), {})[rest] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"checkpoint: {path} cannot be gone on with: {error}") from error
    return groups["further"], facts
