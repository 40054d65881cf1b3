"""One step of the search for the nearest boundary, for all points at once."""

from __future__ import annotations

import math

import torch

from robustperf import check
from robustperf.names import check_name
from robustperf.ops import registry
from robustperf.ops.logit_gap import rounding_tolerance_of
from robustperf.ops.search_state import FIELD, LINE_FIELD

METHODS = ("chandrupatla", "bisection")


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
    rounding_tolerance: float | None = None,
    backend: str | None = None,
) -> None:
    """Takes the logits at each active point's place, advances its search and writes the point to evaluate next: gap,
    bracket update and next point in one pass (T section 3.2). `robustness.closest_boundary` drives it.

    Updates `lines`, `state`, `next` and `closest` in place. A search that has ended (its `line` is -1) leaves its row
    of `next` unchanged. All tensors but the logits are contiguous; all are on one device.

    Args:
        logits: [M, C] float32, float64, bfloat16 or float16, the model's output at `next`; None starts the searches of
            `rows`.
        rows: [M] int64, which of the B points each row belongs to, without repetition.
        label: [B] int64 in 0..C-1, the labels to leave.
        x: [B, D] float32 or float64, the points.
        candidates: [A, B, D] of x's dtype, the ends x' of the lines.
        lines, state: [B, A, 11] and [B, 7] float64, from `search_state.new_search`.
        next: [M, D] of x's dtype, the points x + step (x' - x) to evaluate next.
        closest: [B, D] of x's dtype, the nearest evaluated point with another label.
        tol: the widest bracket that ends a search, as a fraction of the line; in (0, 1).
        method: "chandrupatla" or "bisection".
        probes: equally spaced places to evaluate first on each line.
        rounding_tolerance: of the gap, relative to the row's largest |logit|; None takes `logit_gap`'s.

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, device, setting or backend, and, on the native
    backend, for a row or a label out of range.

    >>> from robustperf.ops.search_state import FIELD, new_search
    >>> model = lambda points: torch.cat([0.25 - points, points - 0.25], 1)  # the label changes at 0.25
    >>> x, label, candidates = torch.zeros(1, 1), torch.tensor([0]), torch.ones(1, 1, 1)
    >>> gap = lambda points: rp.ops.logit_gap(model(points), label)
    >>> lines, state = new_search(gap(x), torch.ones(1, 1, dtype=torch.float64), gap(candidates[0])[None])
    >>> rows, next, closest = torch.tensor([0]), x.clone(), x.clone()
    >>> rp.ops.line_search_step(None, rows, label, x, candidates, lines, state, next, closest, tol=2**-20)
    >>> while (state[rows, FIELD["line"]] >= 0).any():
    ...     rp.ops.line_search_step(model(next), rows, label, x, candidates, lines, state, next, closest, tol=2**-20)
    >>> closest
    tensor([[0.2500]])
    """
    check_search(tol, method, probes)
    tensors = logits, rows, label, x, candidates, lines, state, next, closest
    try:
        if rounding_tolerance is None:
            rounding_tolerance = 0.0 if logits is None else rounding_tolerance_of(logits)
        _line_search_step(
            registry.choose("line_search_step", backend, x.device),
            *tensors,
            rounding_tolerance,
            tol,
            method == "bisection",
            probes,
            max_iterations(tol),
        )
    except AttributeError:  # of something that is no tensor
        _check(*tensors)
        raise


def check_search(tol: float, method: str, probes: int) -> None:
    """ValueError that names the setting of a search which is wrong."""
    check.number("tol", tol, above=0, below=1)
    check_name("method", method, METHODS)
    check.integer("probes", probes, 0)


def max_iterations(tol: float) -> int:
    """The iteration cap: after so many evaluations in one bracket it is halved, whatever the method. So a search takes
    at most as many as three bisections."""
    return 2 * math.ceil(-math.log2(tol))


def _check(logits, rows, label, x, candidates, lines, state, next, closest, *settings):
    """A wrong shape would read or write other memory."""

    check.tensor("x", x)

    def contiguous(name, value, shape, *dtypes):
        if not check.tensor(name, value, shape, dtypes=dtypes, device=x.device).is_contiguous():
            raise ValueError(f"{name}: expected a contiguous tensor, got one with strides {value.stride()}")

    contiguous("x", x, ("B", "D"), *check.REAL)
    contiguous("candidates", candidates, ("A", *x.shape), x.dtype)
    contiguous("rows", rows, ("M",), torch.int64)
    (points, dim), (active,), double = x.shape, rows.shape, torch.float64
    if logits is not None:
        check.tensor("logits", logits, (active, "C"), dtypes=check.REAL + check.HALF, device=x.device)
    contiguous("label", label, (points,), torch.int64)
    contiguous("lines", lines, (points, candidates.shape[0], len(LINE_FIELD)), double)
    contiguous("state", state, (points, len(FIELD)), double)
    contiguous("next", next, (active, dim), x.dtype)
    contiguous("closest", closest, (points, dim), x.dtype)


def _fake(*args):
    return None


_line_search_step = registry.register(
    "line_search_step",
    "(Tensor? logits, Tensor rows, Tensor label, Tensor x, Tensor candidates, Tensor(a!) lines, "
    "Tensor(b!) state, Tensor(c!) next, Tensor(d!) closest, float rounding_tolerance, float tol, bool bisection, "
    "int probes, int max_iterations, str backend) -> ()",
    _fake,
    check=_check,
)
