"""Ensembles of attacks from their names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import wraps

from robustperf.attacks.attack import Attack
from robustperf.attacks.bg import BG
from robustperf.attacks.coordinates import CoordinateDescent
from robustperf.attacks.fgsm import FGSM
from robustperf.attacks.hopskipjump import HopSkipJump
from robustperf.attacks.pgd import PGD
from robustperf.attacks.surfree import SurFree
from robustperf.expression import build_list

Attacks = str | Attack | Sequence[str | Attack]
"""A text such as "fgsm,pgd(eps=2),bg", an attack, or a list of both."""


def attacks_of(attacks: Attacks, norm: float) -> list[Attack]:
    """The attacks that `attacks` names or holds; an attack with a norm takes `norm` unless its
    name gives another (PGD has no L1: it takes L2).

    Raises ValueError, which shows the position in a text, or for no attack; TypeError for another type.
    """
    found = []
    for item in attacks if isinstance(attacks, Iterable) and not isinstance(attacks, str) else [attacks]:
        if isinstance(item, Attack):
            found.append(item)
        elif isinstance(item, str):
            try:
                found += build_list(item, _makers(norm))
            except ValueError as error:
                raise ValueError(f"attacks: {error}") from error
        else:
            raise TypeError(f"attacks: expected instances of Attack or their names, got {item!r}")
    if not found:
        raise ValueError("attacks: expected at least one, got none")
    return found


def _makers(norm: float) -> dict[str, Callable[..., Attack]]:
    return {
        "fgsm": FGSM,
        "pgd": _of_norm(PGD, math.inf if norm == math.inf else 2),
        "bg": _of_norm(BG, norm),
        "hopskipjump": _of_norm(HopSkipJump, norm),
        "surfree": _of_norm(SurFree, norm),
        "coordinates": _of_norm(CoordinateDescent, norm),
    }


def _of_norm(kind: Callable[..., Attack], norm: float) -> Callable[..., Attack]:
    """`kind`, whose first argument is the norm, with another default for it."""

    @wraps(kind)
    def make(*arguments, **named):
        return kind(*arguments, **named) if arguments else kind(**{"norm": norm, **named})

    return make
