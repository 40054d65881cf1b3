"""The native module writes only to its results, and follows no index that points elsewhere."""

import math
import os
import subprocess
import sys

import pytest
import torch

from python_tests.support.bindings import EACH, SHAPE, native, search_arguments, steps


def test_nothing_is_written_outside_of_the_result():
    for dim in (1, 3, 4, 15, 16, 17, 63, 65):
        frame = torch.full((3, 2, dim + 8), 7.0)
        out = frame.flatten()[: 2 * 3 * dim].view(3, 2, dim)
        native.draws(torch.arange(2), torch.arange(3), out, 5, True, 1)
        assert (frame.flatten()[2 * 3 * dim :] == 7).all() and not (out == 7).any()
        for dtype in (torch.float32, torch.float64):
            memory = torch.full((3 * dim + 40,), 7.0, dtype=dtype)
            delta, feasible = memory[: 3 * dim].view(3, dim), torch.zeros(3, dtype=torch.bool)
            x, w, c = torch.full((3, dim), 0.5).to(dtype), torch.ones(3, dim).to(dtype), torch.full((3,), 0.1 * dim)
            for norm in (1, 2, 3):
                native.halfspace_box_projection(x, w, c.double(), delta, feasible, norm, 0.0, 1.0, 1)
                assert (memory[3 * dim :] == 7).all() and feasible.all() and (delta <= 0.5).all()
            box = torch.zeros(dim, dtype=dtype), torch.ones(dim, dtype=dtype)
            for norm in (1, 2, 3):
                memory.fill_(7.0)
                native.ball_box_projection(x, w, c.double(), *box, delta, norm, 1)
                assert (memory[3 * dim :] == 7).all() and (delta <= 0.5).all()
            memory.fill_(7.0)
            squares = torch.ones(3, dtype=dtype), torch.ones(dim, dtype=dtype)
            native.rbf_values(memory[: 3 * dim].view(3, dim), *squares, 0.5, 1)
            assert (memory[3 * dim :] == 7).all() and (memory[: 3 * dim] <= 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_best_of_k_stays_within_its_tensors(dtype):
    for batch, classes in ((1, 1), (3, 2), (5, 4), (17, 7), (3, 39), (3, 40), (3, 41), (2, 65), (3, 1003)):
        wanted = torch.float64 if dtype == torch.float64 else torch.float32
        frame, places = torch.full((batch + 40,), 7.0, dtype=wanted), torch.full((batch + 40,), 7)
        # a read before or after the logits would show as NaN
        around = torch.full((2 * batch * classes + 128,), math.nan, dtype=dtype)
        logits = around[64 : 64 + 2 * batch * classes].view(2, batch, classes)
        logits.zero_()
        for whole_batch in (False, True):
            for smoothing in (0.0, 0.1):
                native.best_of_k(
                    logits,
                    torch.zeros(batch, dtype=torch.int64),
                    frame[:batch],
                    places[:batch],
                    0,
                    True,
                    whole_batch,
                    smoothing,
                    -100,
                    None,
                    None,
                    1,
                )
                torch.testing.assert_close(frame[:batch], torch.full((batch,), math.log(classes), dtype=wanted))
                assert (places[:batch] == 0).all() and (frame[batch:] == 7).all() and (places[batch:] == 7).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_programs_write_nothing_outside_of_their_results(dtype):
    frame = 64
    for given in [[one] for one in EACH] + [EACH]:
        codes, parameters = steps(*given)
        dim = sum(codes[2::4])
        x, index, draw = torch.rand(2, *SHAPE, dtype=dtype), torch.arange(2), torch.arange(3)

        def framed(*shape, dtype=dtype):
            memory = torch.full((math.prod(shape) + 2 * frame,), 7.0, dtype=dtype)
            return memory, memory[frame:-frame].view(shape)

        memory, out = framed(3, 2, *SHAPE)
        delta_memory, delta = framed(3, 2, dim, dtype=torch.float32)
        native.nuisance_sample(index, draw, delta, codes, parameters, 1, 1)
        assert 0 == native.nuisance(x, delta.to(dtype), out, None, codes, parameters, 1)
        drawn_memory, drawn = framed(3, 2, *SHAPE)
        assert 0 == native.nuisance_draw(drawn, x, index, draw, codes, parameters, 1, 1)
        assert torch.equal(drawn, out) and not (out == 7).any() and not (delta == 7).any()
        grad_memory, grad_x = framed(2, *SHAPE)
        grad_delta_memory, grad_delta = framed(3, 2, dim)
        grad_x.zero_(), grad_delta.zero_()
        native.nuisance_backward(
            torch.ones_like(out), x, delta.to(dtype), grad_x, grad_delta, None, codes, parameters, 1
        )
        for each in (memory, delta_memory, drawn_memory, grad_memory, grad_delta_memory):
            assert each[:frame].eq(7).all() and each[-frame:].eq(7).all(), given


OUTSIDE = [("rows", 4), ("rows", -1), ("rows", 10**9), ("label", 2), ("label", -1), ("label", 10**9)]
FOLLOW = """
import os, sys, torch
from robustperf import ops

given = torch.load(sys.argv[1], weights_only=True)
for name, number in OUTSIDE:
    child = os.fork()
    if child == 0:
        args = {k: v.clone() for k, v in given.items()}
        logits = args.pop("logits")
        args[name][3 if name == "label" else 0] = number  # row 3 is evaluated first
        try:
            for seen in (None, logits):
                ops.line_search_step(seen, **args, tol=0.01, backend="native")
        except ValueError as error:
            os._exit(0 if str(error).startswith(f"{name}: ") else 1)
        os._exit(2)
    print(name, number, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """How a process of its own ended for each case: 0 refused by name, 2 not refused, negative killed by a signal."""
    given = tmp_path_factory.mktemp("outside") / "given.pt"
    args = {k: v for k, v in search_arguments().items() if isinstance(v, torch.Tensor)}
    args["rows"] = torch.tensor([0, 3, 1])
    torch.save(args, given)
    run = subprocess.run(
        [sys.executable, "-c", FOLLOW.replace("OUTSIDE", repr(OUTSIDE)), given],
        capture_output=True,
        text=True,
        timeout=90,
    )
    return {tuple(line.split()[:2]): int(line.split()[2]) for line in run.stdout.splitlines()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("name, number", OUTSIDE)
def test_parameters_that_point_outside_are_refused_before_they_are_followed(followed, name, number):
    assert followed[name, str(number)] == 0
