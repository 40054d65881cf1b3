"""Ensembles of attacks from their names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import partial, wraps
from typing import Any, NoReturn

from robustperf.attacks.apgd import APGD
from robustperf.attacks.attack import Attack
from robustperf.attacks.bg import BG
from robustperf.attacks.coordinates import CoordinateDescent
from robustperf.attacks.ddn import DDN
from robustperf.attacks.fab import FAB
from robustperf.attacks.fgsm import FGSM
from robustperf.attacks.fmn import FMN
from robustperf.attacks.hopskipjump import HopSkipJump
from robustperf.attacks.pdpgd import PDPGD
from robustperf.attacks.pgd import PGD
from robustperf.attacks.shrinking_ball import ShrinkingBall
from robustperf.attacks.shrinking_support import ShrinkingSupport
from robustperf.attacks.sigma_zero import SigmaZero
from robustperf.attacks.square import Square
from robustperf.attacks.superdeepfool import SuperDeepFool
from robustperf.attacks.surfree import SurFree
from robustperf.expression import build_list

Attacks = str | Attack | Sequence[str | Attack]
"""A preset, "tibo", "fast" or "strong"; a text such as "strong,pgd(eps=2),bg", an attack, or a list of both."""


def attacks_of(attacks: Attacks, norm: float) -> list[Attack]:
    """The attacks that `attacks` names or holds; a preset or an attack with a norm takes `norm` unless the attack's
    name gives another (PGD and APGD have no L1: they take L2). For the norm 0 only `SigmaZero`, `ShrinkingSupport`,
    "fast" and "strong", which consist of the latter, and attacks of one's own can be used.

    Raises ValueError, which shows the position in a text, or for no attack or one without L0; TypeError for another
    type.
    """
    found: list[Attack] = []
    for item in attacks if isinstance(attacks, Iterable) and not isinstance(attacks, str) else [attacks]:
        if isinstance(item, Attack):
            if norm == 0 and type(item) in _WITHOUT_L0.values():
                _no_l0(item.name)
            found.append(item)
        elif isinstance(item, str):
            try:
                for named in build_list(item, _makers(norm)):
                    found += named if isinstance(named, list) else [named]
            except ValueError as error:
                raise ValueError(f"attacks: {error}") from error
        else:
            raise TypeError(f"attacks: expected instances of Attack or their names, got {item!r}")
    if not found:
        raise ValueError("attacks: expected at least one, got none")
    return found


def tibo(norm: float) -> list[Attack]:
    """The three attacks of T section 3.2: FGSM; PGD in L∞ whatever the norm, the one that Madry et al. published; BG.
    Each with the loss that does not vanish where the model is confident."""
    return [FGSM(), PGD(math.inf), BG(norm)]


def fast(norm: float) -> list[Attack]:
    """At most 100 forward and 100 backward passes per point."""
    if norm == 0:
        return [ShrinkingSupport(**_FAST_L0)]
    return [ShrinkingBall(norm, **_FAST[norm])]


def strong(norm: float) -> list[Attack]:
    """At most 300 forward and 300 backward passes per point."""
    if norm == 0:
        return [ShrinkingSupport(**_STRONG_L0)]
    return [ShrinkingBall(norm, **_STRONG[norm])]


# What was measured to be the best use of the passes, see benchmarks/speed/tightness.py. The parts of a budget: 6 passes
# for the start; 1 or 2 forward passes at the end of each run; for the targets 1 forward pass, and a backward pass a
# class; for each refinement a pass, and 1 forward pass after the last.
_FAST: dict[float, dict[str, int]] = {
    2.0: {"steps": 15, "targets": 2, "final_steps": 34},
    math.inf: {"steps": 15, "targets": 2, "final_steps": 34},
    1.0: {"steps": 42, "targets": 1, "finalists": 0},
}
_SIX_RUNS = {"steps": 24, "targets": 3, "restarts": 2, "finalists": 3, "final_steps": 44, "classes": 9}
_STRONG: dict[float, dict[str, int]] = {
    2.0: _SIX_RUNS,
    math.inf: _SIX_RUNS,
    1.0: {"steps": 40, "targets": 1, "restarts": 4, "finalists": 1, "final_steps": 34, "classes": 9},
}
_FAST_L0 = {"steps": 30, "targets": 2}
_STRONG_L0 = {"steps": 40, "targets": 6}
_L0: dict[str, type[Attack]] = {"sigma_zero": SigmaZero, "shrinking_support": ShrinkingSupport}
_WITHOUT_L0: dict[str, type[Attack]] = {
    "fgsm": FGSM,
    "pgd": PGD,
    "bg": BG,
    "ddn": DDN,
    "fmn": FMN,
    "fab": FAB,
    "apgd": APGD,
    "pdpgd": PDPGD,
    "superdeepfool": SuperDeepFool,
    "square": Square,
    "shrinking_ball": ShrinkingBall,
    "hopskipjump": HopSkipJump,
    "surfree": SurFree,
    "coordinates": CoordinateDescent,
}


def _no_l0(name: str, *arguments: Any, **named: Any) -> NoReturn:
    """ValueError for an attack that changes every value, so that its points say little about L0."""
    known = ", ".join(("fast", "strong", *_L0))
    raise ValueError(f"attacks: expected ones of the norm 0 ({known}), got {name}, which changes every value")


def _makers(norm: float) -> dict[str, Callable[..., Attack | list[Attack]]]:
    if norm == 0:
        presets = {preset.__name__: partial(preset, norm) for preset in (fast, strong)}
        return _L0 | presets | {name: partial(_no_l0, name) for name in ("tibo", *_WITHOUT_L0)}
    presets = {preset.__name__: partial(preset, norm) for preset in (tibo, fast, strong)}
    return {name: _of_norm(kind, norm) for name, kind in _WITHOUT_L0.items()} | _L0 | presets


def _of_norm(kind: type[Attack], norm: float) -> Callable[..., Attack]:
    """`kind` with another default for the norm, where it has one, which is its first argument."""
    if "norm" not in (field.name for field in fields(kind)):
        return kind
    if kind in (PGD, APGD) and norm != math.inf:  # these have no L1
        norm = 2

    @wraps(kind)
    def make(*arguments, **named):
        return kind(*arguments, **named) if arguments else kind(**{"norm": norm, **named})

    return make
