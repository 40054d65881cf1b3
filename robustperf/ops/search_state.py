"""The state of the searches that `line_search_step` advances. The fields, their order and the stages are those of
csrc/core."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch


@dataclass
class Line:
    """What is known of the line from x to one candidate x'. A place is a number in [0, 1]: x + place (x' - x)."""

    length: float  # ‖x' - x‖ in the norm of interest; inf where there is nothing to search
    gap_end: float  # the gap at x', NaN where unknown
    a: float  # the bracket's latest place; of an unseen line the farthest place known not to have crossed
    gap_a: float
    b: float  # the bracket's opposite end: one of a and b has crossed, the other has not
    gap_b: float
    c: float  # the place before, for inverse quadratic interpolation
    gap_c: float
    iterations: float  # evaluations inside the bracket
    probe: float  # how many of the equally spaced places have been evaluated
    stage: float  # UNSEEN, OPEN or CLOSED


@dataclass
class Search:
    """The search of one point, over all its lines."""

    gap_x: float  # the gap at x
    step: float  # the place to evaluate next
    line: float  # on which line; -1 when the search has ended
    radius: float  # the distance of the nearest crossing found; inf when there is none
    best_step: float  # its place
    best_line: float  # its line, or -1
    evaluations: float  # how many images the model has evaluated


FIELD = {field.name: column for column, field in enumerate(fields(Search))}
"""The column of each field of Search in the state tensor."""

LINE_FIELD = {field.name: column for column, field in enumerate(fields(Line))}
"""The column of each field of Line in the tensor of lines."""

UNSEEN, OPEN, CLOSED = range(3)
"""The values of a line's `stage`: no crossing known, a crossing bracketed, done."""


def new_search(gap_x: torch.Tensor, length: torch.Tensor, gap_end: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Searches before their first evaluation, for `line_search_step`.

    Args:
        gap_x: [B] float64, `logit_gap` at x.
        length: [B, A] float64, ‖x' - x‖ > 0 in the norm of interest; inf where there is nothing to search.
        gap_end: [B, A] float64, `logit_gap` at x'; NaN where unknown.

    Returns (lines [B, A, 11], state [B, 7]), float64: the fields of `Line` and of `Search`.
    """
    lines = torch.full((*length.shape, len(LINE_FIELD)), math.nan, dtype=torch.float64, device=length.device)
    lines[..., 0], lines[..., 1], lines[..., 8:] = length, gap_end, 0.0
    initial = [math.nan, math.nan, -1.0, math.inf, math.inf, -1.0, 0.0]
    state = torch.tensor(initial, dtype=torch.float64, device=length.device).repeat(length.shape[0], 1)
    state[:, 0] = gap_x
    return lines, state
