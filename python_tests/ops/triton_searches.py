"""A few searches in Triton, whose lines and states equal the reference's bit for bit. Run by test_triton.py, under the
interpreter."""

import pytest
import torch

from python_tests.support.line_search import COARSE, SINGLE, WILD, Problem, Run, bits, check, inf, zoo


@pytest.mark.parametrize("dtype, known, method, probes", [
    (torch.float32, False, "chandrupatla", 3), (torch.float64, "half", "chandrupatla", 0),
    (torch.float64, True, "bisection", 0),
])  # fmt: skip
def test_lines_and_states_are_the_reference_s(dtype, known, method, probes):
    points, lines = 6, 3
    problem = Problem(
        points,
        lines,
        zoo(points, lines, SINGLE + WILD, seed=probes),
        dtype=dtype,
        known=known,
        gap_x=lambda p: (1.0, 1e-280, 1e9, inf)[p % 4],
    )
    problem.length[::5, 1] = inf
    mine, truth = (
        Run(problem, backend, "cpu", tol=COARSE, method=method, probes=probes) for backend in ("triton", "reference")
    )
    check(mine)
    for got, want in ((mine.states, truth.states), (mine.lines, truth.lines)):
        assert len(got) == len(want) and all(torch.equal(bits(a), bits(b)) for a, b in zip(got, want, strict=True))
    assert torch.equal(bits(mine.closest.double()), bits(truth.closest.double()))
