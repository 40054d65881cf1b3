"""One step of the search for the nearest boundary, for all points at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch

from robustperf import check
from robustperf.names import check_name
from robustperf.ops import registry
from robustperf.ops.logit_gap import rounding_allowance

METHODS = ("chandrupatla", "bisection")


@dataclass
class Line:
    """What is known of the line to one candidate; the fields and their order are those of
    csrc/core/line_search_step.hpp."""

    length: float
    gap_end: float
    a: float
    gap_a: float
    b: float
    gap_b: float
    c: float
    gap_c: float
    iterations: float
    probe: float
    stage: float


@dataclass
class Search:
    """One point's search; the fields and their order are those of csrc/core/line_search_step.hpp."""

    gap_x: float
    step: float
    line: float
    radius: float
    best_step: float
    best_line: float
    evaluations: float


FIELD = {field.name: place for place, field in enumerate(fields(Search))}
"""The column of each field of Search in the state tensor."""

UNSEEN, OPEN, CLOSED = range(3)
"""The values of a line's `stage`."""


def new_search(gap_x: torch.Tensor, length: torch.Tensor, gap_end: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Searches that have looked at nothing: (lines [B, A, fields], state [B, fields]), float64.

    Args:
        gap_x: [B] float64, `logit_gap` at x.
        length: [B, A] float64, ‖x' - x‖ in the norm of interest; inf where there is nothing to search.
        gap_end: [B, A] float64, `logit_gap` at x', NaN where unknown.
    """
    lines = torch.full((*length.shape, len(fields(Line))), math.nan, dtype=torch.float64, device=length.device)
    lines[..., 0], lines[..., 1], lines[..., 8:] = length, gap_end, 0.0
    nothing_yet = [math.nan, math.nan, -1.0, math.inf, math.inf, -1.0, 0.0]
    state = torch.tensor(nothing_yet, dtype=torch.float64, device=length.device).repeat(length.shape[0], 1)
    state[:, 0] = gap_x
    return lines, state


def line_search_step(
    logits: torch.Tensor | None,
    rows: torch.Tensor,
    label: torch.Tensor,
    x: torch.Tensor,
    candidates: torch.Tensor,
    lines: torch.Tensor,
    state: torch.Tensor,
    next: torch.Tensor,
    closest: torch.Tensor,
    *,
    tol: float,
    method: str = "chandrupatla",
    probes: int = 0,
    allowance: float | None = None,
    backend: str | None = None,
) -> None:
    """Takes the logits seen at each active point's place, moves its search on and writes where to look next: gap,
    bracket update and next point in one pass (T section 3.2). `robustness.closest_boundary` drives it.

    Works in place on `lines`, `state`, `next` and `closest`. A search with nothing left to look at (its `line` is -1)
    leaves its row of `next` as it was. All tensors contiguous and on one device.

    Args:
        logits: [M, C] float32 or float64, the model's answers at `next`; None starts the searches of `rows`.
        rows: [M] int64, which of the B points each row belongs to, without repetition.
        label: [B] int64, the labels to get away from.
        x: [B, D] float32 or float64, the points.
        candidates: [A, B, D] of x's dtype, the far ends x' of the lines.
        lines, state: from `new_search`.
        next: [M, D] of x's dtype, the places x + step (x' - x) to look at next.
        closest: [B, D] of x's dtype, the nearest point seen by the model under another label.
        tol: the widest bracket, as a share of the segment, that ends a search.
        method: "chandrupatla" or "bisection".
        probes: equally spaced places to look at first on each line.
        allowance: for rounding, as in `logit_gap`; None takes theirs.

    Raises ValueError for a wrong argument (the reference, an inner loop's definition, does not look at its tensors).
    """
    check_search(tol, method, probes)
    if allowance is None:
        allowance = 0.0 if logits is None else rounding_allowance(logits)
    backend = registry.choose("line_search_step", backend, x.device)
    arguments = (
        logits,
        rows,
        label,
        x,
        candidates,
        lines,
        state,
        next,
        closest,
        allowance,
        tol,
        method == "bisection",
        probes,
        patience(tol),
    )
    if torch.compiler.is_compiling():
        _step(*arguments, backend)
    else:  # an inner loop: straight to the implementation
        with torch.no_grad():
            registry.implementation("line_search_step", backend)(*arguments)


def check_search(tol: float, method: str, probes: int) -> None:
    """ValueError that names the setting of a search which is wrong."""
    check.number("tol", tol, above=0, below=1)
    check_name("method", method, METHODS)
    check.integer("probes", probes, 0)


def patience(tol: float) -> int:
    """Looks in one bracket after which it is halved, whatever the method: it bounds the whole by three bisections."""
    return 2 * math.ceil(-math.log2(tol))


def _fake(*args):
    return None


_step = registry.register(
    "line_search_step",
    "(Tensor? logits, Tensor rows, Tensor label, Tensor x, Tensor candidates, Tensor(a!) lines, "
    "Tensor(b!) state, Tensor(c!) next, Tensor(d!) closest, float allowance, float tol, bool bisection, "
    "int probes, int patience, str backend) -> ()",
    _fake,
)
