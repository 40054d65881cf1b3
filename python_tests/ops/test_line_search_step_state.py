"""The state of a search: stages, brackets and places; rows that a step leaves unchanged; wrong arguments."""

import math

import pytest
import torch

from python_tests.support.line_search import (
    COARSE,
    FINE,
    SINGLE,
    Problem,
    Run,
    arguments,
    bits,
    check,
    doubles,
    inf,
    nan,
    zoo,
)
from robustperf.ops import line_search_step
from robustperf.ops.search_state import CLOSED, FIELD, OPEN, UNSEEN, Line, Search, new_search
from robustperf.ops.search_state import LINE_FIELD as LINE

OP = "line_search_step"


def test_stages_follow_each_other(backend, device):
    problem = Problem(1, 2, lambda p, a, s: 0.6 - s)
    problem.length[0] = doubles(1.0, 1.5)
    lines, state = new_search(problem.gap_x, problem.length, problem.gap_end)
    assert (lines[..., LINE["stage"]] == UNSEEN).all() and (state[:, FIELD["line"]] == -1).all()
    run = Run(problem, backend, device, probes=3)
    check(run)
    stages = [tuple(map(int, lines[0, :, LINE["stage"]].tolist())) for lines in run.lines]
    # three probes of the first line, two of the second, up to the crossing found
    assert stages[:3] == [(UNSEEN, UNSEEN)] * 3 and stages[3] == (OPEN, UNSEEN) and stages[-1] == (CLOSED, CLOSED)
    for before, after in zip(stages, stages[1:], strict=False):
        assert all(one <= other for one, other in zip(before, after, strict=True)), "a stage came back"
    assert [lines[0, 0, LINE["probe"]].item() for lines in run.lines[:4]] == [0, 1, 2, 2]


@pytest.mark.parametrize("known", [True, False])
def test_a_bracket_starts_from_the_end_of_the_smaller_gap(backend, device, known):
    """Chandrupatla's choice at the second evaluation depends on which of the two is the latest place."""
    for at_x, at_end, a, b in ((0.25, -9.0, 0.0, 1.0), (9.0, -0.25, 1.0, 0.0), (1.0, -1.0, 0.0, 1.0)):
        root = at_x / (at_x - at_end)
        problem = Problem(
            1,
            1,
            lambda p, a, s, size=at_x / root, root=root: size * (root - s),
            gap_x=lambda p, at_x=at_x: at_x,
            known=known,
        )
        lines = Run(problem, backend, device).lines
        line = Line(*lines[0 if known else 1][0, 0].tolist())
        assert (line.a, line.b, line.stage, line.iterations) == (a, b, OPEN, 0)
        gaps = {0.0: at_x, 1.0: at_end}
        assert (line.gap_a, line.gap_b) == (pytest.approx(gaps[a]), pytest.approx(gaps[b]))
        assert math.isnan(line.c) and math.isnan(line.gap_c)


def test_a_new_search_knows_lengths_and_ends_alone():
    problem = Problem(3, 2, lambda p, a, s: 0.6 - s, known="half", gap_x=lambda p: p + 1.0)
    lines, state = new_search(problem.gap_x, problem.length, problem.gap_end)
    assert lines.shape == (3, 2, len(LINE)) and state.shape == (3, len(FIELD))
    assert lines.dtype == state.dtype == torch.float64 and lines.is_contiguous() and state.is_contiguous()
    assert torch.equal(lines[..., LINE["length"]], problem.length)
    assert torch.equal(bits(lines[..., LINE["gap_end"]]), bits(problem.gap_end))
    for row in lines.flatten(0, 1).tolist():
        line = Line(*row)
        assert (line.iterations, line.probe, line.stage) == (0, 0, UNSEEN)
        assert all(map(math.isnan, (line.a, line.gap_a, line.b, line.gap_b, line.c, line.gap_c)))
    for p, row in enumerate(state.tolist()):
        search = Search(*row)
        assert (search.gap_x, search.line, search.best_line, search.evaluations) == (p + 1.0, -1, -1, 0)
        assert search.radius == search.best_step == inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_places_lie_between_x_and_its_candidate(backend, device, dtype):
    dim = 400
    problem = Problem(20, 2, zoo(20, 2, SINGLE, seed=8), dim=dim, dtype=dtype)
    problem.candidates[0] = problem.x + 1e-7 * (problem.candidates[0] - problem.x)  # little between the two
    problem.candidates[:, :, ::7] = problem.x[:, ::7]
    problem.x[:, 3] = 0.0
    run = Run(problem, backend, device)
    check(run)
    for p, places in enumerate(run.places):
        for (a, step, _), place in zip(run.visits[p], places, strict=True):
            x, x_adv = problem.x[p], problem.candidates[a, p]
            assert (place >= torch.minimum(x, x_adv)).all() and (place <= torch.maximum(x, x_adv)).all()
            if step == 1.0:
                assert torch.equal(place, x_adv)
            exact = x.double() + step * (x_adv.double() - x.double())
            assert (place.double() - exact).abs().max() <= 2 * torch.finfo(dtype).eps


def test_places_of_all_backends_agree_just_below_one(backend, device):
    """The second line is longer than the first by less than float32 can tell: what is of interest of it rounds to 1."""
    problem = Problem(1, 2, lambda p, a, s: 1.0 if a == 1 or s < 1 else -1.0, dim=500, dtype=torch.float32, known=True)
    problem.length[0], problem.gap_end[0, 1] = doubles(1.0, 1.0 + 2.0**-30), nan
    run, want = (Run(problem, name, place, tol=2.0**-31) for name, place in ((backend, device), ("reference", "cpu")))
    check(run)
    assert run.visits[0][0][0] == 1 and 1 - 2.0**-29 < run.visits[0][0][1] < 1
    assert all(torch.equal(place, other) for place, other in zip(run.places[0], want.places[0], strict=True))


def test_far_ends_beyond_half_of_the_number_range(backend, device):
    problem = Problem(1, 1, lambda p, a, s: 0.5 - s, dtype=torch.float32)
    top = torch.finfo(torch.float32).max
    problem.x[:], problem.candidates[:] = -top, top  # their difference overflows
    run = Run(problem, backend, device, tol=COARSE)
    assert all(place.isfinite().all() for place in run.places[0]) and run.closest.isfinite().all()


def test_rows_that_are_done_or_not_active_are_left_alone(backend, device):
    args = {k: v.to(device) if v is not None else v for k, v in arguments(points=5, active=2, logits=False).items()}
    args["rows"] = torch.tensor([4, 1], device=device)
    before = {name: args[name].clone() for name in ("lines", "state")}
    line_search_step(**args, tol=FINE, backend=backend)
    for name, was in before.items():
        assert all(torch.equal(bits(args[name][p].cpu()), bits(was[p].cpu())) for p in (0, 2, 3)), name
    assert (args["closest"] == -7).all()
    for m, p in ((0, 4), (1, 1)):
        first = int(args["lines"][p, :, LINE["length"]].argmin())
        assert args["state"][p, FIELD["line"]] == first and args["state"][p, FIELD["step"]] == 1
        assert torch.equal(args["next"][m], args["candidates"][first, p])
        assert (args["lines"][p, :, LINE["stage"]] == UNSEEN).all()
    args["state"][1, FIELD["line"]] = -1.0  # done
    args["logits"] = torch.tensor([[0.0, 1.0]], device=device).repeat(2, 1)
    args["next"][1] = -5.0
    before = {name: args[name].clone() for name in ("lines", "state")}
    line_search_step(**args, tol=FINE, backend=backend)
    for name, was in before.items():
        assert torch.equal(bits(args[name][:4].cpu()), bits(was[:4].cpu())), name
        assert not torch.equal(bits(args[name][4].cpu()), bits(was[4].cpu())), name
    assert (args["next"][1] == -5).all() and (args["closest"] == -7).all()


@pytest.mark.parametrize("points, lines", [(0, 2), (3, 0)])
def test_nothing_to_search(backend, device, points, lines):
    args = {k: v.to(device) if v is not None else v for k, v in arguments(points, lines, logits=False).items()}
    line_search_step(**args, tol=FINE, backend=backend)
    for seen in (None, torch.zeros(points, 2, device=device)):
        args["logits"] = seen
        line_search_step(**args, tol=FINE, backend=backend)
        assert (args["state"][:, FIELD["line"]] == -1).all() and (args["state"][:, FIELD["best_line"]] == -1).all()
        assert (args["next"] == -5).all() and (args["closest"] == -7).all()


@pytest.mark.parametrize("dtype, crossed", [
    (torch.float64, True), (torch.float32, False), (torch.bfloat16, False), (torch.float16, False)
], ids=str)  # fmt: skip
def test_the_rounding_tolerance_is_that_of_the_logits_dtype(backend, device, dtype, crossed):
    for tolerance, expected in ((None, crossed), (0.0, True), (1.0, False)):
        args = {k: v.to(device) if v is not None else v for k, v in arguments(logits=False).items()}
        line_search_step(**args, tol=FINE, backend=backend)
        # the second class leads by one unit of the dtype, or by 1e-12
        lead = 1e-12 if dtype == torch.float64 else torch.finfo(dtype).eps
        args["logits"] = torch.tensor([[1.0, 1.0 + lead]] * 3, dtype=dtype, device=device)
        assert (args["logits"][:, 1] > args["logits"][:, 0]).all()
        line_search_step(**args, tol=FINE, rounding_tolerance=tolerance, backend=backend)
        first = args["lines"][:, :, LINE["length"]].argmin(1)
        stages = args["lines"][torch.arange(3, device=device), first, LINE["stage"]]
        assert (stages == (OPEN if expected else CLOSED)).all()


# ---- wrong arguments


def test_an_unknown_method_or_backend_is_named():
    with pytest.raises(ValueError, match="method: expected one of chandrupatla, bisection, got 'newton'"):
        line_search_step(**arguments(), tol=FINE, method="newton")
    with pytest.raises(ValueError, match="backend: expected one of .* got 'fast'"):
        line_search_step(**arguments(), tol=FINE, backend="fast")


@pytest.mark.parametrize("name, change", [
    ("logits", lambda t: t[:2].clone()), ("rows", lambda t: t.int()), ("label", lambda t: t[:2].clone()),
    ("label", lambda t: t.int()), ("x", lambda t: t.long()), ("candidates", lambda t: t.float()),
    ("candidates", lambda t: t[:, :2].clone()), ("lines", lambda t: t.float()), ("lines", lambda t: t[:, :1].clone()),
    ("lines", lambda t: t[:2].clone()), ("lines", lambda t: t[..., :-1].clone()),
    ("lines", lambda t: t.transpose(0, 1).contiguous()),
    ("lines", lambda t: t.transpose(0, 1).contiguous().transpose(0, 1)), ("state", lambda t: t[:, :-1].clone()),
    ("state", lambda t: t.float()), ("next", lambda t: t[:2].clone()), ("next", lambda t: t.float()),
    ("closest", lambda t: t[:, :2].clone()), ("closest", lambda t: t.t().contiguous().t()),
    *((name, lambda t: t.tolist()) for name in ("logits", "rows", "label", "x", "lines", "next")),
    ("candidates", lambda t: None), ("state", lambda t: t.numpy()),
])  # fmt: skip
def test_a_wrong_tensor_is_named(backend, device, name, change):
    args = {k: v.to(device) for k, v in arguments().items()}
    args[name] = change(args[name])
    with pytest.raises((TypeError, ValueError), match=f"^{name}: "):
        line_search_step(**args, tol=FINE, backend=backend)


@pytest.mark.parametrize("name, value", [("tol", 0.0), ("tol", -1.0), ("tol", nan), ("probes", -1)])
def test_a_wrong_number_is_named(backend, device, name, value):
    args = {k: v.to(device) for k, v in arguments().items()}
    with pytest.raises(ValueError, match=f"^{name}: "):
        line_search_step(**args, **({"tol": FINE} | {name: value}), backend=backend)
