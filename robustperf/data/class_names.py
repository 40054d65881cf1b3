"""Classes by label or by name: what a data set in memory and a folder of images share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from robustperf.names import did_you_mean

_SHOWN = 10  # names in an error


def class_labels(classes: Any, class_names: Sequence[str]) -> list[int]:
    """The labels of `classes`, each a label in 0..C-1 or one of the C `class_names`.

    Raises:
        TypeError: not a list, or an entry that is neither an integer nor text.
        ValueError: no class, an unknown one, or one that occurs twice.
    """
    if isinstance(classes, str) or not isinstance(classes, Sequence | torch.Tensor):
        raise TypeError(f"classes: expected a list of labels or class names, got {type(classes).__name__}")
    if not len(classes):
        raise ValueError("classes: expected at least one class, got none")
    found: list[int] = []
    for each in classes.tolist() if isinstance(classes, torch.Tensor) else classes:
        if isinstance(each, str):
            if each not in class_names:
                raise ValueError(
                    f"classes: expected names out of {shown(class_names)}, got {each!r}"
                    f"{did_you_mean(each, class_names)}"
                )
            label = list(class_names).index(each)
        else:
            label = _label(each, len(class_names))
        if label in found:
            raise ValueError(f"classes: expected each class once, got {each!r} twice")
        found.append(label)
    return found


def relabelled(y: torch.Tensor, labels: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows int64 [M] of the points of these classes in their order, their new labels int64 [M]): the class
    `labels[i]` becomes i.

    Raises ValueError where no point is of these classes.
    """
    matches = y[:, None] == torch.tensor(labels, device=y.device)
    rows, new = matches.nonzero(as_tuple=True)
    if not len(rows):
        raise ValueError(f"classes: expected images of the classes {labels}, got none")
    return rows, new


def ranges(labels: Sequence[int]) -> str:
    """Labels as text, in their order: [0, 1, 2, 7, 5] is "0-2,7,5"."""
    runs: list[list[int]] = []
    for label in labels:
        if runs and label == runs[-1][-1] + 1:
            runs[-1].append(label)
        else:
            runs.append([label])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def shown(class_names: Sequence[str]) -> str:
    """The first of these names, for an error."""
    return ", ".join(class_names[:_SHOWN]) + (f", ... ({len(class_names):,})" if len(class_names) > _SHOWN else "")


def _label(value: Any, classes: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"classes: expected labels or class names, got {type(value).__name__}")
    if not 0 <= (label := value.__index__()) < classes:
        raise ValueError(f"classes: expected labels in 0..{classes - 1}, got {label}")
    return label
