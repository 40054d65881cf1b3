"""Results do not depend on the number of threads; operations run in forked children and in many threads at once."""

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from robustperf import nuisance, ops
from robustperf.ops.search_state import FIELD, new_search

pytest.importorskip("robustperf._native", exc_type=ImportError)


@pytest.fixture(autouse=True)
def two_threads(one_thread):
    """Even on one core; `one_thread` restores the setting."""
    torch.set_num_threads(2)


def project(norm, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, w = torch.rand(101, 3001, generator=g), torch.randn(101, 3001, generator=g)
    c = torch.linspace(-1, 900, 101)
    return lambda: ops.halfspace_box_projection(x, w, c, norm=norm, backend="native")


def into_ball(norm):
    g = torch.Generator().manual_seed(0)
    x, delta = torch.rand(101, 3001, generator=g), torch.randn(101, 3001, generator=g)
    radius = torch.linspace(-0.1, {1: 900, 2: 40, math.inf: 1}[norm], 101)
    return lambda: (ops.ball_box_projection(x, delta, radius, norm=norm, backend="native"),)


def draw(normal):
    index, draws = torch.arange(97), torch.arange(5)
    return lambda: (ops.draws(3, index, draws, 1001, normal=normal, backend="native"),)


def search():
    g = torch.Generator().manual_seed(0)
    points, dim = 101, 2003
    x, ends = torch.rand(points, dim, generator=g), torch.rand(2, points, dim, generator=g)
    length = torch.tensor([[1.5, 1.0]], dtype=torch.float64).repeat(points, 1)
    gap_end = torch.full((points, 2), math.nan, dtype=torch.float64)
    rows, label = torch.randperm(points, generator=g), torch.zeros(points, dtype=torch.int64)
    logits = torch.randn(points, 3, generator=g)
    start = new_search(torch.ones(points, dtype=torch.float64), length, gap_end)

    def steps():
        lines, state = (t.clone() for t in start)
        places, closest = torch.zeros_like(x), torch.zeros_like(x)
        for seen in (None, logits, -logits, logits):
            ops.line_search_step(seen, rows, label, x, ends, lines, state, places, closest, tol=0.25, backend="native")
        assert state[:, FIELD["evaluations"]].sum() > 200
        return lines, state, places, closest

    return steps


def gap():
    g = torch.Generator().manual_seed(0)
    logits, label = torch.randn(3000, 50, generator=g), torch.randint(50, (3000,), generator=g)
    return lambda: (ops.logit_gap(logits, label, backend="native"),)


def worst(selection, dtype):
    g = torch.Generator().manual_seed(0)
    jobs = []
    for shape in ((10, 2100, 10), (4, 77, 1003)):
        logits, target = torch.randn(*shape, generator=g).to(dtype), torch.randint(shape[2], shape[1:2], generator=g)
        jobs.append((logits, target))
    return lambda: [
        part for logits, target in jobs for part in ops.best_of_k(logits, target, selection=selection, backend="native")
    ]


def vary(op, kernel, images=29):
    """An op of a nuisance, on enough images for three threads or, with few images, enough draws."""
    g = torch.Generator().manual_seed(0)
    x, index, draws = torch.rand(images, 3, 33, 31, generator=g), torch.arange(images), torch.arange(2 + 60 // images)
    program = nuisance.Compose(kernel).parts[0].program
    shape = tuple(x.shape[1:])
    delta = ops.nuisance_sample(3, index, draws, program, shape, backend="native")
    grad, layout = torch.randn(len(draws), *x.shape, generator=g), program.layout(shape)
    return {
        "forward": lambda: (ops.nuisance(x, delta, program, backend="native"),),
        "drawn": lambda: (ops.nuisance_draw(x, 3, index, draws, program, backend="native"),),
        "sample": lambda: (ops.nuisance_sample(3, index, draws, program, shape, backend="native"),),
        "backward": lambda: torch.ops.robustperf.nuisance_backward(grad, x, delta, *layout[:2], "native"),
    }[op]


MANY_STEPS = [nuisance.Rotation(), nuisance.Contrast(), nuisance.L2Ball(1.0), nuisance.Blur(1.0), nuisance.Hue(),
        nuisance.Fog()]  # fmt: skip

JOBS = {"projection 1": project(1), "projection 2": project(2), "projection inf": project(math.inf),
        "ball 1": into_ball(1), "ball 2": into_ball(2), "ball inf": into_ball(math.inf),
        "uniform": draw(False), "normal": draw(True), "line search": search(), "gap": gap(),
        "worst of each": worst("sample", torch.float32), "worst of all": worst("batch", torch.bfloat16),
        "nuisance of one step": vary("forward", [nuisance.Saturation()]), "nuisance": vary("forward", MANY_STEPS),
        "nuisance of few images": vary("forward", MANY_STEPS, images=2), "nuisance drawn": vary("drawn", MANY_STEPS),
        "nuisance drawn of few images": vary("drawn", MANY_STEPS, images=2),
        "nuisance backward": vary("backward", MANY_STEPS),
        "nuisance sample": vary("sample", [nuisance.L2Ball(1.0), nuisance.Fog(), nuisance.Rotation()])}  # fmt: skip


def equal(one, other):
    return all(torch.equal(a.nan_to_num(-9.0), b.nan_to_num(-9.0)) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", JOBS)
def test_any_number_of_threads_gives_the_same_bits(name):
    found = {}
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        found[count] = JOBS[name]()
        assert torch.get_num_threads() == count
    assert all(equal(found[1], other) for other in found.values())


def test_many_python_threads_at_once():
    want = {name: job() for name, job in JOBS.items()}
    with ThreadPoolExecutor(6) as pool:
        jobs = [(name, pool.submit(job)) for _ in range(3) for name, job in JOBS.items()]
        for name, job in jobs:
            assert equal(job.result(timeout=60), want[name]), name


FORK = """
import math, os, sys, time
import numpy as np
import torch
from robustperf import nuisance, ops

torch.set_num_threads(2)
g = torch.Generator().manual_seed(0)
x, w = torch.rand(101, 3001, generator=g), torch.randn(101, 3001, generator=g)
c = torch.linspace(-1, 900, 101, dtype=torch.float64)
index, draws = torch.arange(97), torch.arange(5)

images, grad = torch.rand(20, 3, 32, 32, generator=g), torch.randn(4, 20, 3, 32, 32, generator=g)
program = nuisance.Compose([nuisance.Rotation(), nuisance.Contrast(), nuisance.GaussianNoise()]).parts[0].program
layout = program.layout((3, 32, 32))

def work():
    given = index[:20], draws[:4], program
    delta = ops.nuisance_sample(1, *given, (3, 32, 32), backend="native")
    varied = [delta, ops.nuisance(images, delta, program, backend="native"),
              ops.nuisance_draw(images, 1, *given, backend="native"),
              *torch.ops.robustperf.nuisance_backward(grad, images, delta, *layout[:2], "native")]
    steps = [ops.halfspace_box_projection(x, w, c, norm=norm, backend="native")[0] for norm in (1, 2, math.inf)]
    steps += [ops.ball_box_projection(x, w, c.abs(), norm=norm, backend="native") for norm in (1, 2, math.inf)]
    return [*varied, *steps, ops.draws(3, index, draws, 1001, normal=True, backend="native")]

want = [t.numpy() for t in work()]  # on two threads
children = []
for generation in range(2):
    child = os.fork()
    if child == 0:
        same = all(np.array_equal(t.numpy(), before) for t, before in zip(work(), want))
        if generation == 1 and same:  # a child of the child
            grandchild = os.fork()
            if grandchild == 0:
                os._exit(0 if all(np.array_equal(t.numpy(), b) for t, b in zip(work(), want)) else 2)
            same = os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) == 0
        os._exit(0 if same else 1)
    children.append(child)
    assert all(np.array_equal(t.numpy(), before) for t, before in zip(work(), want))  # the parent still works
for child in children:
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"the child ended with {status}"
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_children_run_what_their_parent_ran():
    # a process group of its own: a child that hangs is ended with its parent
    run = subprocess.Popen(
        [sys.executable, "-c", FORK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = run.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, 9)
        pytest.fail(f"a forked child hangs: {run.communicate()}")
    assert run.returncode == 0 and out == "done\n", err
