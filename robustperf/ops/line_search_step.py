"""One step of the search for the nearest boundary, for all points at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch

from robustperf.ops import registry
from robustperf.ops.logit_gap import rounding_allowance

METHODS = ("chandrupatla", "bisection")


@dataclass
class Search:
    """One point's search, a row of the state tensor; the fields and their order are those of csrc/core/bracket.hpp."""

    gap_x: float
    a: float
    gap_a: float
    b: float
    gap_b: float
    c: float
    gap_c: float
    step: float
    end: float
    looks: float
    probe: float
    position: float
    candidate: float
    stage: float
    radius: float
    best_step: float
    best_candidate: float
    evaluations: float


FIELD = {field.name: place for place, field in enumerate(fields(Search))}
"""The column of each field in the state tensor."""

WAITING, PROBE, END, INSIDE, DONE = range(5)
"""The values of `stage`."""


def new_state(gap_x: torch.Tensor) -> torch.Tensor:
    """[B, fields] float64: searches that have looked at nothing, given the gap at x, [B] float64."""
    state = gap_x.new_zeros((gap_x.shape[0], len(FIELD)))
    state[:, FIELD["gap_x"]] = gap_x
    for name, value in (("gap_b", math.nan), ("gap_c", math.nan), ("position", -1.0), ("radius", math.inf),
                        ("best_step", math.inf), ("best_candidate", -1.0)):
        state[:, FIELD[name]] = value
    return state


def line_search_step(
    logits: torch.Tensor | None, rows: torch.Tensor, label: torch.Tensor, x: torch.Tensor, candidates: torch.Tensor,
    length: torch.Tensor, gap_end: torch.Tensor, order: torch.Tensor, state: torch.Tensor, next: torch.Tensor,
    closest: torch.Tensor, *, tol: float, method: str = "chandrupatla", probes: int = 0, allowance: float | None = None,
    backend: str | None = None,
) -> None:
    """Takes the logits seen at each active point's place, moves its search on and writes where to look next: gap,
    bracket update and next point in one pass (T section 3.2). `robustness.closest_boundary` drives it.

    Works in place on `state`, `next` and `closest`. A search that has ended (stage DONE) leaves its row of `next` as it
    was. All tensors contiguous and on one device.

    Args:
        logits: [M, C] float32 or float64, the model's answers at `next`; None at the start, when nothing was seen yet.
        rows: [M] int64, which of the B points each row belongs to, without repetition.
        label: [B] int64, the labels to get away from.
        x: [B, D] float32 or float64, the points.
        candidates: [A, B, D] of x's dtype, the far ends x' of the lines.
        length: [B, A] float64, ‖x' - x‖; inf where there is nothing to search.
        gap_end: [B, A] float64, `logit_gap` at x', NaN where unknown.
        order: [B, A] int64, the candidates in the order to be searched.
        state: [B, fields] float64, from `new_state`.
        next: [M, D] of x's dtype, the places x + step (x' - x) to look at next.
        closest: [B, D] of x's dtype, the nearest point seen by the model under another label.
        tol: the widest bracket, as a share of the segment, that ends a search.
        method: "chandrupatla" or "bisection".
        probes: equally spaced places to look at first on each line.
        allowance: for rounding, as in `logit_gap`; None takes that of the logits' dtype.

    Raises ValueError for a wrong argument (the reference, an inner loop's definition, does not look at its tensors).
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if not 0 < tol < 1:
        raise ValueError(f"tol: expected a number in (0, 1), got {tol!r}")
    if probes < 0:
        raise ValueError(f"probes: expected an integer >= 0, got {probes!r}")
    if allowance is None:
        allowance = 0.0 if logits is None else rounding_allowance(logits.dtype)
    _step(logits, rows, label, x, candidates, length, gap_end, order, state, next, closest, allowance, tol,
          method == "bisection", probes, patience(tol), registry.choose("line_search_step", backend, x.device))


def patience(tol: float) -> int:
    """Looks in one bracket after which it is halved, whatever the method: it bounds the whole by three bisections."""
    return 2 * math.ceil(-math.log2(tol))


def _fake(*args):
    return None


_step = registry.register(
    "line_search_step",
    "(Tensor? logits, Tensor rows, Tensor label, Tensor x, Tensor candidates, Tensor length, Tensor gap_end, "
    "Tensor order, Tensor(a!) state, Tensor(b!) next, Tensor(c!) closest, float allowance, float tol, bool bisection, "
    "int probes, int patience, str backend) -> ()",
    _fake,
)
