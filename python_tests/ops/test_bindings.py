"""The native module's own checks: whatever it is handed, a readable error that names the argument, and no crash."""

import math
import os
import subprocess
import sys

import pytest
import torch

from robustperf.ops.line_search_step import FIELD, new_search

native = pytest.importorskip("robustperf._native", exc_type=ImportError)


def gap_arguments(dtype=torch.float32):
    return {"logits": torch.zeros(4, 3, dtype=dtype), "label": torch.zeros(4, dtype=torch.int64),
            "gap": torch.zeros(4, dtype=torch.float64), "allowance": 0.0}  # fmt: skip


def projection_arguments(dtype=torch.float32):
    return {"x": torch.zeros(4, 3, dtype=dtype), "w": torch.ones(4, 3, dtype=dtype),
            "c": torch.ones(4, dtype=torch.float64), "delta": torch.zeros(4, 3, dtype=dtype),
            "feasible": torch.zeros(4, dtype=torch.bool), "norm": 2, "lower": 0.0, "upper": 1.0, "threads": 2}


def draws_arguments(dtype=torch.float32):
    return {"index": torch.arange(4), "draw": torch.arange(3), "out": torch.zeros(3, 4, 5), "key": 1, "normal": True,
            "threads": 2}


def search_arguments(dtype=torch.float32):
    points, ensemble, dim, active = 4, 2, 5, 3
    lines, state = new_search(torch.ones(points).double(), torch.ones(points, ensemble, dtype=torch.float64),
                              torch.full((points, ensemble), math.nan, dtype=torch.float64))
    state[:, FIELD["line"]], state[:, FIELD["step"]] = 0.0, 1.0  # under way: the logits given are taken
    return {"logits": torch.zeros(active, 2, dtype=dtype), "rows": torch.tensor([3, 0, 1]),
            "label": torch.zeros(points, dtype=torch.int64), "x": torch.zeros(points, dim, dtype=dtype),
            "candidates": torch.ones(ensemble, points, dim, dtype=dtype), "lines": lines, "state": state,
            "next": torch.zeros(active, dim, dtype=dtype), "closest": torch.zeros(points, dim, dtype=dtype),
            "allowance": 0.0, "tol": 0.01, "bisection": False, "probes": 0, "patience": 20.0, "threads": 2}


FUNCTIONS = {"logit_gap": gap_arguments, "halfspace_box_projection": projection_arguments, "draws": draws_arguments,
             "line_search_step": search_arguments}  # fmt: skip
TENSORS = [(function, name) for function, arguments in FUNCTIONS.items() for name, value in arguments().items()
           if isinstance(value, torch.Tensor)]  # fmt: skip

every_tensor = pytest.mark.parametrize("function, name", TENSORS)


def call(function, dtype=torch.float32, **changes):
    getattr(native, function)(*(FUNCTIONS[function](dtype) | changes).values())


def refused(function, name, value, dtype=torch.float32):
    with pytest.raises(ValueError) as error:
        call(function, dtype, **{name: value})
    assert str(error.value).startswith(f"{name}: "), error.value
    return str(error.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_arguments_below_are_right(function, dtype):
    call(function, dtype)


@every_tensor
@pytest.mark.parametrize("wrong", [torch.float16, torch.int32, torch.complex64, torch.uint8, torch.bfloat16], ids=str)
def test_wrong_dtypes(function, name, wrong):
    value = FUNCTIONS[function]()[name]
    message = refused(function, name, value.to(wrong))
    assert f"got {wrong}" in message and "expected a contiguous torch." in message


@pytest.mark.parametrize("function, name", [
    ("halfspace_box_projection", "w"), ("halfspace_box_projection", "delta"), ("line_search_step", "candidates"),
    ("line_search_step", "next"), ("line_search_step", "closest")])  # fmt: skip
def test_dtypes_that_differ_from_that_of_x(function, name):
    for mine, other in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
        value = FUNCTIONS[function](other)[name]
        assert f"expected a contiguous {mine} tensor" in refused(function, name, value, mine)


@every_tensor
def test_wrong_numbers_of_dimensions(function, name):
    value = FUNCTIONS[function]()[name]
    message = refused(function, name, value[None].contiguous())
    assert message.endswith(str(list(value[None].shape)))
    refused(function, name, value[0].clone())
    refused(function, name, torch.zeros((1,) * 6, dtype=value.dtype))
    refused(function, name, torch.tensor(0, dtype=value.dtype))


# a size that another argument must follow is that argument's fault
LEADERS = {("halfspace_box_projection", "x"): "w", ("draws", "index"): "out", ("draws", "draw"): "out",
           ("line_search_step", "rows"): "next", ("line_search_step", "x"): "candidates",
           ("logit_gap", "logits"): "label"}  # fmt: skip


@every_tensor
@pytest.mark.parametrize("more", [False, True], ids=["shorter", "longer"])
def test_wrong_sizes_along_every_dimension(function, name, more):
    value = FUNCTIONS[function]()[name]
    free = {("logit_gap", "logits"): [1], ("line_search_step", "logits"): [1], ("draws", "out"): [2],
            ("line_search_step", "candidates"): [0]}.get((function, name), [])  # fmt: skip
    for dim in range(value.dim()):
        if more:
            wrong = torch.cat([value, value.narrow(dim, 0, 1)], dim)
        else:
            wrong = value.narrow(dim, 0, value.shape[dim] - 1).clone()
        if dim in free and name != "candidates":
            call(function, **{name: wrong})
            continue
        with pytest.raises(ValueError) as error:
            call(function, **{name: wrong})
        blamed = "lines" if name == "candidates" and dim == 0 else LEADERS.get((function, name), name)
        assert str(error.value).startswith(f"{blamed}: expected a contiguous"), (dim, error.value)


@every_tensor
def test_tensors_that_are_not_contiguous(function, name):
    value = FUNCTIONS[function]()[name]
    wide = torch.stack([value, value], -1)[..., 0]
    assert wide.shape == value.shape and not wide.is_contiguous()
    assert "got non-contiguous" in refused(function, name, wide)
    if value.dim() == 2:
        assert "got non-contiguous" in refused(function, name, value.t().contiguous().t())
    assert "got non-contiguous" in refused(function, name, value[:1].expand(value.shape))


@every_tensor
def test_tensors_on_another_device(function, name):
    value = FUNCTIONS[function]()[name]
    assert refused(function, name, value.to("meta")) == f"{name}: expected a tensor on cpu, got one on meta"


@every_tensor
@pytest.mark.parametrize("value", [None, 3, [1.0], "x"], ids=str)
def test_what_is_no_tensor(function, name, value):
    if (function, name, value) == ("line_search_step", "logits", None):
        call(function, logits=None)
        return
    with pytest.raises((AttributeError, TypeError, ValueError)):
        call(function, **{name: value})


@pytest.mark.parametrize("function, name, value", [
    ("draws", "key", -1), ("draws", "key", 2**64), ("draws", "key", 1.5), ("draws", "threads", None),
    ("halfspace_box_projection", "norm", "2"), ("halfspace_box_projection", "lower", None),
    ("halfspace_box_projection", "norm", 2**40), ("logit_gap", "allowance", "small"),
    ("line_search_step", "probes", 0.5), ("line_search_step", "tol", None),
])  # fmt: skip
def test_numbers_of_the_wrong_kind(function, name, value):
    with pytest.raises(TypeError):
        call(function, **{name: value})


@pytest.mark.parametrize("function", FUNCTIONS)
def test_too_few_and_too_many_arguments(function):
    values = list(FUNCTIONS[function]().values())
    for wrong in ([], values[:-1], [*values, 1]):
        with pytest.raises(TypeError):
            getattr(native, function)(*wrong)


@pytest.mark.parametrize("threads", [-5, 0, 1, 64])
def test_any_number_of_threads_is_taken(threads):
    for function in ("halfspace_box_projection", "draws", "line_search_step"):
        call(function, threads=threads)


def test_sizes_of_one_and_of_zero_have_any_stride():
    out = torch.zeros(1, dtype=torch.float64).as_strided((1,), (7,))
    logits = torch.zeros(8).as_strided((1, 2), (5, 1))
    native.logit_gap(logits, torch.zeros(1, dtype=torch.int64), out, 0.0)
    empty = torch.zeros(0, dtype=torch.float64).as_strided((0,), (3,))
    native.logit_gap(torch.zeros(0, 2).as_strided((0, 2), (9, 9)), torch.zeros(0, dtype=torch.int64), empty, 0.0)


def test_nothing_is_written_outside_of_the_result():
    for dim in (1, 3, 4, 15, 16, 17, 63, 65):
        frame = torch.full((3, 2, dim + 8), 7.0)
        out = frame.flatten()[:2 * 3 * dim].view(3, 2, dim)
        native.draws(torch.arange(2), torch.arange(3), out, 5, True, 1)
        assert (frame.flatten()[2 * 3 * dim:] == 7).all() and not (out == 7).any()
        for dtype in (torch.float32, torch.float64):
            memory = torch.full((3 * dim + 40,), 7.0, dtype=dtype)
            delta, feasible = memory[:3 * dim].view(3, dim), torch.zeros(3, dtype=torch.bool)
            x, w, c = torch.full((3, dim), 0.5).to(dtype), torch.ones(3, dim).to(dtype), torch.full((3,), 0.1 * dim)
            for norm in (1, 2, 3):
                native.halfspace_box_projection(x, w, c.double(), delta, feasible, norm, 0.0, 1.0, 1)
                assert (memory[3 * dim:] == 7).all() and feasible.all() and (delta <= 0.5).all()


@pytest.mark.parametrize("counter, key", [([0] * 3, [0] * 2), ([0] * 4, [0]), ([0, 0, 0, 2**32], [0, 0]),
                                          ([0, 0, 0, -1], [0, 0]), ("abcd", "ab"), (None, None)])
def test_philox_refuses_what_are_not_words(counter, key):
    with pytest.raises(TypeError):
        native.philox(counter, key)


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
        args[name][3 if name == "label" else 0] = number  # row 3 is looked at first
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
    run = subprocess.run([sys.executable, "-c", FOLLOW.replace("OUTSIDE", repr(OUTSIDE)), given], capture_output=True,
                         text=True, timeout=90)
    return {tuple(line.split()[:2]): int(line.split()[2]) for line in run.stdout.splitlines()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("name, number", OUTSIDE)
def test_numbers_that_point_outside_are_refused_before_they_are_followed(followed, name, number):
    assert followed[name, str(number)] == 0
