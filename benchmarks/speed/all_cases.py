"""All cases of `robustperf bench`, by group."""

from __future__ import annotations

from collections.abc import Iterable

from robustperf.names import check_name

from ..common.cases import Case
from . import (
    autoencoder,
    ball_box_projection,
    basic_robustness,
    best_of_k,
    halfspace_box_projection,
    hein,
    learned,
    line_search,
    margins,
    mnist_c,
    nuisance,
    other_operations,
    startup,
    svm,
    training,
)

SCALE = "scale"
"""The name of the scale curves, beside those of the groups."""

_MODULES = (
    halfspace_box_projection, ball_box_projection, best_of_k, other_operations, nuisance, mnist_c, line_search, margins,
    basic_robustness, training, hein, learned, svm, autoencoder, startup,
)  # fmt: skip


def group_of(case: str) -> str:
    """What stands before the first comma of a case's name."""
    return case.partition(",")[0]


def groups(quick: bool) -> dict[str, list[Case]]:
    """The cases of each group, operations first."""
    found: dict[str, list[Case]] = {}
    for module in _MODULES:
        for case in module.cases(quick):
            found.setdefault(group_of(case.name), []).append(case)
    return found


def chosen(names: Iterable[str], quick: bool) -> tuple[list[Case], bool]:
    """(the cases of the groups `names`, whether the scale curves are among them); without names all cases, and the
    curves unless `quick`. Raises ValueError for an unknown name."""
    names, known = list(names), groups(quick)
    for name in names:
        check_name("names", name, [*known, SCALE])
    cases = [case for name, each in known.items() if not names or name in names for case in each]
    return cases, SCALE in names or not (names or quick)
