"""The native module's own checks: whatever it is handed, a readable error that names the argument, and no crash."""

import ast
import math
import os
import subprocess
import sys
import warnings

import pytest
import torch
from torch._subclasses import FakeTensorMode

from robustperf.ops.program import FOG_NODES, MAX_RADIUS, MAX_STEPS, Distribution, Outside, Source, Transform
from robustperf.ops.search_state import FIELD, new_search

native = pytest.importorskip("robustperf._native", exc_type=ImportError)


def gap_arguments(dtype=torch.float32):
    return {"logits": torch.zeros(4, 3, dtype=dtype), "label": torch.zeros(4, dtype=torch.int64),
            "gap": torch.zeros(4, dtype=torch.float64), "allowance": 0.0}  # fmt: skip


def projection_arguments(dtype=torch.float32):
    return {
        "x": torch.zeros(4, 3, dtype=dtype),
        "w": torch.ones(4, 3, dtype=dtype),
        "c": torch.ones(4, dtype=torch.float64),
        "delta": torch.zeros(4, 3, dtype=dtype),
        "feasible": torch.zeros(4, dtype=torch.bool),
        "norm": 2,
        "lower": 0.0,
        "upper": 1.0,
        "threads": 2,
    }


def best_arguments(dtype=torch.float32):
    return {"logits": torch.zeros(2, 4, 3, dtype=dtype), "target": torch.zeros(4, dtype=torch.int64),
            "loss": torch.zeros(4, dtype=dtype if dtype == torch.float64 else torch.float32),
            "index": torch.zeros(4, dtype=torch.int64), "first": 0, "fresh": True, "whole_batch": True,
            "label_smoothing": 0.1, "ignore_index": -100, "threads": 2}  # fmt: skip


def draws_arguments(dtype=torch.float32):
    return {
        "index": torch.arange(4),
        "draw": torch.arange(3),
        "out": torch.zeros(3, 4, 5),
        "key": 1,
        "normal": True,
        "threads": 2,
    }


def search_arguments(dtype=torch.float32):
    points, ensemble, dim, active = 4, 2, 5, 3
    lines, state = new_search(
        torch.ones(points).double(),
        torch.ones(points, ensemble, dtype=torch.float64),
        torch.full((points, ensemble), math.nan, dtype=torch.float64),
    )
    state[:, FIELD["line"]], state[:, FIELD["step"]] = 0.0, 1.0  # under way: the logits given are taken
    return {
        "logits": torch.zeros(active, 2, dtype=dtype),
        "rows": torch.tensor([3, 0, 1]),
        "label": torch.zeros(points, dtype=torch.int64),
        "x": torch.zeros(points, dim, dtype=dtype),
        "candidates": torch.ones(ensemble, points, dim, dtype=dtype),
        "lines": lines,
        "state": state,
        "next": torch.zeros(active, dim, dtype=dtype),
        "closest": torch.zeros(points, dim, dtype=dtype),
        "allowance": 0.0,
        "tol": 0.01,
        "bisection": False,
        "probes": 0,
        "patience": 20.0,
        "threads": 2,
    }


T = Transform
SHAPE = (3, 5, 6)


def steps(*given):
    """(codes, numbers) of steps (transform, *settings), whose deltas are drawn between 0 and 1."""
    sizes = {T.BACKGROUND: 3, T.FOG: 1 + FOG_NODES} | dict.fromkeys((T.ADD, T.IMPULSE, T.SHOT), math.prod(SHAPE))
    laws = {T.FOG: Distribution.FOG} | dict.fromkeys((T.ADD, T.IMPULSE, T.SHOT), Distribution.EVERYWHERE)
    codes, numbers, begin = [], [], 0
    for transform, *settings in given:
        size = int(settings[0]).bit_count() if transform == T.AFFINE else sizes.get(transform, 1)
        codes += [int(transform), int(laws.get(transform, Distribution.BOX)), size, begin]
        numbers += [0.0] * 6 + [1.0] * 6 + [float(value) for value in settings] + [0.0] * (4 - len(settings))
        begin += size
    return codes, numbers


# one of each kind: a look at the whole image, a warp, a blur, fields
MUCH = steps((T.AFFINE, 63, Outside.ZEROS), (T.CONTRAST,), (T.BLUR, 2), (T.ADD, 0), (T.FOG,),
             (T.BACKGROUND, Source.CORNER))  # fmt: skip
DIM = sum(MUCH[0][2::4])


def nuisance_arguments(dtype=torch.float32):
    return {
        "x": torch.full((4, *SHAPE), 0.5, dtype=dtype),
        "delta": torch.full((2, 4, DIM), 0.5, dtype=dtype),
        "out": torch.zeros(2, 4, *SHAPE, dtype=dtype),
        "codes": MUCH[0],
        "numbers": MUCH[1],
        "key": 0,
        "index": None,
        "draw": None,
        "threads": 2,
    }


def nuisance_draw_arguments(dtype=torch.float32):
    drawn = {"delta": None, "key": 2**64 - 1, "index": torch.arange(4), "draw": torch.arange(2)}
    return nuisance_arguments(dtype) | drawn


def nuisance_backward_arguments(dtype=torch.float32):
    return {
        "grad": torch.ones(2, 4, *SHAPE, dtype=dtype),
        "x": torch.full((4, *SHAPE), 0.5, dtype=dtype),
        "delta": torch.full((2, 4, DIM), 0.5, dtype=dtype),
        "grad_x": torch.zeros(4, *SHAPE, dtype=dtype),
        "grad_delta": torch.zeros(2, 4, DIM, dtype=dtype),
        "codes": MUCH[0],
        "numbers": MUCH[1],
        "threads": 2,
    }


def nuisance_sample_arguments(dtype=torch.float32):
    return {
        "index": torch.arange(4),
        "draw": torch.arange(2),
        "delta": torch.zeros(2, 4, DIM),
        "codes": MUCH[0],
        "numbers": MUCH[1],
        "key": 1,
        "threads": 2,
    }


def rbf_arguments(dtype=torch.float32):
    return {"products": torch.zeros(4, 3, dtype=dtype), "squares_of_x": torch.ones(4, dtype=dtype),
            "squares_of_s": torch.ones(3, dtype=dtype), "gamma": 0.5, "threads": 2}  # fmt: skip


def rbf_sums_arguments(dtype=torch.float32):
    *operands, (name, threads) = rbf_arguments(dtype).items()
    sums = {"coefficients": torch.ones(2, 3, dtype=torch.float64), "sums": torch.zeros(4, 2, dtype=torch.float64)}
    return dict(operands) | sums | {name: threads}


# by the native function's name and, where that has two ways, a word for the way
FUNCTIONS = {"logit_gap": gap_arguments, "halfspace_box_projection": projection_arguments, "draws": draws_arguments,
             "line_search_step": search_arguments, "best_of_k": best_arguments, "nuisance": nuisance_arguments,
             "nuisance drawn": nuisance_draw_arguments, "nuisance_backward": nuisance_backward_arguments,
             "nuisance_sample": nuisance_sample_arguments, "rbf_kernel": rbf_arguments,
             "rbf_sums": rbf_sums_arguments}  # fmt: skip
TENSORS = [(function, name) for function, arguments in FUNCTIONS.items() for name, value in arguments().items()
           if isinstance(value, torch.Tensor)]  # fmt: skip

every_tensor = pytest.mark.parametrize("function, name", TENSORS)


def native_function(function):
    return getattr(native, function.split()[0])


def call(function, dtype=torch.float32, **changes):
    return native_function(function)(*(FUNCTIONS[function](dtype) | changes).values())


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
    if (function, name) == ("best_of_k", "logits") and wrong in (torch.float16, torch.bfloat16):
        call(function, wrong)
        return
    message = refused(function, name, value.to(wrong))
    assert f"got {wrong}" in message and "expected a contiguous torch." in message


@pytest.mark.parametrize("function, name", [
    ("halfspace_box_projection", "w"), ("halfspace_box_projection", "delta"), ("line_search_step", "candidates"),
    ("line_search_step", "next"), ("line_search_step", "closest"), ("nuisance", "delta"), ("nuisance", "out"),
    ("nuisance drawn", "out"), ("nuisance_backward", "grad"), ("nuisance_backward", "delta"),
    ("nuisance_backward", "grad_x"), ("nuisance_backward", "grad_delta"), ("rbf_kernel", "squares_of_x"),
    ("rbf_kernel", "squares_of_s"), ("rbf_sums", "squares_of_x"), ("rbf_sums", "squares_of_s")])  # fmt: skip
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
           ("logit_gap", "logits"): "label", ("best_of_k", "logits"): "target", ("nuisance_sample", "index"): "delta",
           ("nuisance_sample", "draw"): "delta", ("nuisance drawn", "draw"): "out",
           ("rbf_kernel", "products", 0): "squares_of_x", ("rbf_kernel", "products", 1): "squares_of_s",
           ("rbf_sums", "products", 0): "squares_of_x", ("rbf_sums", "products", 1): "squares_of_s",
           ("rbf_sums", "coefficients", 0): "sums",
           ("nuisance", "x", 0): "delta", ("nuisance drawn", "x", 0): "index", ("nuisance_backward", "x", 0): "delta",
           ("nuisance", "delta", 0): "out", ("nuisance_backward", "delta", 0): "grad"}  # fmt: skip


@every_tensor
@pytest.mark.parametrize("more", [False, True], ids=["shorter", "longer"])
def test_wrong_sizes_along_every_dimension(function, name, more):
    value = FUNCTIONS[function]()[name]
    free = {("logit_gap", "logits"): [1], ("line_search_step", "logits"): [1], ("draws", "out"): [2],
            ("line_search_step", "candidates"): [0], ("best_of_k", "logits"): [0, 2]}  # fmt: skip
    free = free.get((function, name), [])
    for dim in range(value.dim()):
        if more:
            wrong = torch.cat([value, value.narrow(dim, 0, 1)], dim)
        else:
            wrong = value.narrow(dim, 0, value.shape[dim] - 1).clone()
        if dim in free and name != "candidates":
            call(function, **{name: wrong})
            continue
        if function.startswith("nuisance") and name == "x" and dim > 0:  # its program is for images of that shape
            with pytest.raises(ValueError, match=r"program: step \d: "):
                call(function, x=wrong)
            continue
        with pytest.raises(ValueError) as error:
            call(function, **{name: wrong})
        leader = LEADERS.get((function, name, dim), LEADERS.get((function, name), name))
        blamed = "lines" if name == "candidates" and dim == 0 else leader
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


class Subclass(torch.Tensor):
    pass


@every_tensor
def test_subclasses_are_tensors(function, name):
    value = FUNCTIONS[function]()[name]
    call(function, **{name: torch.nn.Parameter(value, requires_grad=False)})
    call(function, **{name: value.as_subclass(Subclass)})
    assert f"got {torch.complex64}" in refused(function, name, value.to(torch.complex64).as_subclass(Subclass))


@every_tensor
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_tensors_without_data_are_not_followed(function, name):
    with FakeTensorMode() as fake:
        value = fake.from_tensor(FUNCTIONS[function]()[name])
    with pytest.raises((ValueError, RuntimeError), match=f"^{name}: expected a tensor with data, got none|FakeTensor"):
        call(function, **{name: value})


@pytest.mark.parametrize("function, name, value", [
    ("draws", "key", -1), ("draws", "key", 2**64), ("draws", "key", 1.5), ("draws", "threads", None),
    ("halfspace_box_projection", "norm", "2"), ("halfspace_box_projection", "lower", None),
    ("halfspace_box_projection", "norm", 2**40), ("logit_gap", "allowance", "small"),
    ("line_search_step", "probes", 0.5), ("line_search_step", "tol", None), ("best_of_k", "first", 0.5),
    ("best_of_k", "ignore_index", 2**64), ("best_of_k", "label_smoothing", None), ("best_of_k", "fresh", "yes"),
    ("rbf_kernel", "gamma", None), ("nuisance", "key", -1), ("nuisance", "key", 2**64), ("nuisance_sample", "key", 0.5),
    *((function, name, value) for function in ("nuisance", "nuisance drawn", "nuisance_backward", "nuisance_sample")
      for name, value in (("codes", None), ("codes", [0.5] * 4), ("codes", [2**63, 0, 1, 0]), ("codes", [None] * 4),
                          ("numbers", None), ("numbers", ["1"] * 16), ("threads", None))),
])  # fmt: skip
def test_numbers_of_the_wrong_kind(function, name, value):
    with pytest.raises(TypeError):
        call(function, **{name: value})


@pytest.mark.parametrize("function", FUNCTIONS)
def test_too_few_and_too_many_arguments(function):
    values = list(FUNCTIONS[function]().values())
    for wrong in ([], values[:-1], [*values, 1]):
        with pytest.raises(TypeError):
            native_function(function)(*wrong)


@pytest.mark.parametrize("threads", [-5, 0, 1, 64])
def test_any_number_of_threads_is_taken(threads):
    for function in FUNCTIONS.keys() - {"logit_gap"}:
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
            memory.fill_(7.0)
            squares = torch.ones(3, dtype=dtype), torch.ones(dim, dtype=dtype)
            native.rbf_kernel(memory[: 3 * dim].view(3, dim), *squares, 0.5, 1)
            assert (memory[3 * dim :] == 7).all() and (memory[: 3 * dim] <= 1).all()


@pytest.mark.parametrize("wrong", [3, -1, 10**9, -(2**63), 2**63 - 1])
def test_a_target_that_points_outside_is_refused(wrong):
    for place in range(4):
        target = torch.zeros(4, dtype=torch.int64)
        target[place] = wrong
        assert f"expected labels in 0..2, got {wrong}" in refused("best_of_k", "target", target)
        call("best_of_k", target=target, ignore_index=wrong)


def test_the_loss_has_the_dtype_that_the_logits_ask_for():
    for mine, other in ((torch.float32, torch.float64), (torch.float64, torch.float32), (torch.float16, torch.float64)):
        want = torch.float64 if mine == torch.float64 else torch.float32
        message = refused("best_of_k", "loss", torch.zeros(4, dtype=other), mine)
        assert f"expected a contiguous {want} tensor" in message


def test_no_draws_and_no_classes():
    for shape in ((0, 4, 3), (2, 4, 0)):
        assert "at least one draw and one class" in refused("best_of_k", "logits", torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_best_of_k_stays_within_its_tensors(dtype):
    for batch, classes in ((1, 1), (3, 2), (5, 4), (17, 7), (3, 39), (3, 40), (3, 41), (2, 65), (3, 1003)):
        wanted = torch.float64 if dtype == torch.float64 else torch.float32
        frame, places = torch.full((batch + 40,), 7.0, dtype=wanted), torch.full((batch + 40,), 7)
        # what stands before and behind the logits would show: NaN in every row
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
                    1,
                )
                torch.testing.assert_close(frame[:batch], torch.full((batch,), math.log(classes), dtype=wanted))
                assert (places[:batch] == 0).all() and (frame[batch:] == 7).all() and (places[batch:] == 7).all()


# ---- programs

EACH = [(T.BRIGHTNESS,), (T.CONTRAST,), (T.SATURATION, 1), (T.HUE,), (T.GAMMA,), (T.BACKGROUND, Source.CORNER),
        (T.BACKGROUND, Source.COLOUR, 0.1, 0.2, 0.3), (T.AFFINE, 1, Outside.ZEROS), (T.AFFINE, 63, Outside.BORDER),
        (T.ADD, 0), (T.ADD, 1), (T.IMPULSE, 0.5), (T.SHOT, 25), (T.BLUR, 0), (T.BLUR, 2), (T.FOG,)]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_programs_write_nothing_outside_of_their_results(dtype):
    frame = 64
    for given in [[one] for one in EACH] + [EACH]:
        codes, numbers = steps(*given)
        dim = sum(codes[2::4])
        x, index, draw = torch.rand(2, *SHAPE, dtype=dtype), torch.arange(2), torch.arange(3)

        def framed(*shape, dtype=dtype):
            memory = torch.full((math.prod(shape) + 2 * frame,), 7.0, dtype=dtype)
            return memory, memory[frame:-frame].view(shape)

        memory, out = framed(3, 2, *SHAPE)
        delta_memory, delta = framed(3, 2, dim, dtype=torch.float32)
        native.nuisance_sample(index, draw, delta, codes, numbers, 1, 1)
        assert 0 == native.nuisance(x, delta.to(dtype), out, codes, numbers, 0, None, None, 1)
        drawn_memory, drawn = framed(3, 2, *SHAPE)
        assert 0 == native.nuisance(x, None, drawn, codes, numbers, 1, index, draw, 1)
        assert torch.equal(drawn, out) and not (out == 7).any() and not (delta == 7).any()
        grad_memory, grad_x = framed(2, *SHAPE)
        grad_delta_memory, grad_delta = framed(3, 2, dim)
        grad_x.zero_(), grad_delta.zero_()
        native.nuisance_backward(torch.ones_like(out), x, delta.to(dtype), grad_x, grad_delta, codes, numbers, 1)
        for each in (memory, delta_memory, drawn_memory, grad_memory, grad_delta_memory):
            assert each[:frame].eq(7).all() and each[-frame:].eq(7).all(), given


def test_pixels_outside_the_range_are_told():
    for value in (-1e-30, 1.0001, math.nan, math.inf, -math.inf):
        for place in ((0, 0, 0, 0), (3, 2, 4, 5), (2, 1, 0, 5)):
            for function in ("nuisance", "nuisance drawn"):
                x = torch.full((4, *SHAPE), 0.5)
                assert call(function, x=x) == 0
                x[place] = value
                assert call(function, x=x) == 1


def at(place, value, given):
    """The codes or numbers `given` with another value at one place."""
    return [*given[:place], value, *given[place + 1 :]]


ONE = steps((T.BRIGHTNESS,))
TWO = steps((T.BRIGHTNESS,), (T.GAMMA,))
nan, inf = math.nan, math.inf
SIZES = "program: expected 1 to 32 steps of 4 codes and 16 numbers, got {} and {}"
# what no draw and no image can take
MALFORMED = {
    "no step": ([], [], SIZES.format(0, 0)),
    "no numbers": (ONE[0], [], SIZES.format(4, 0)),
    "a number less": (ONE[0], ONE[1][1:], SIZES.format(4, 15)),
    "a number more": (ONE[0], [*ONE[1], 0.0], SIZES.format(4, 17)),
    "a code less": (ONE[0][1:], ONE[1], SIZES.format(3, 16)),
    "a code more": ([*ONE[0], 0], ONE[1], SIZES.format(5, 16)),
    "numbers of one step for two": (TWO[0], ONE[1], SIZES.format(8, 16)),
    "too many steps": (ONE[0] * (MAX_STEPS + 1), ONE[1] * (MAX_STEPS + 1), SIZES.format(132, 528)),
    "transform 12": (at(0, 12, ONE[0]), ONE[1], "program: step 0: unknown transform 12"),
    "transform -1": (at(0, -1, ONE[0]), ONE[1], "program: step 0: unknown transform -1"),
    "a transform of 2^32": (at(4, 2**32, TWO[0]), TWO[1], "program: step 1: unknown transform 4294967296"),
    "law 6": (at(1, 6, ONE[0]), ONE[1], "program: step 0: unknown law 6"),
    "law -1": (at(1, -1, ONE[0]), ONE[1], "program: step 0: unknown law -1"),
    "the greatest law": (at(5, 2**63 - 1, TWO[0]), TWO[1], "program: step 1: unknown law 9223372036854775807"),
    "no components": (at(2, 0, ONE[0]), ONE[1], "program: step 0: its delta cannot have 0 components under law 0"),
    "components -1": (at(2, -1, ONE[0]), ONE[1], "program: step 0: its delta cannot have -1 components"),
    "2^31 components": ([9, 1, 2**31, 0], ONE[1], "program: step 0: its delta cannot have 2147483648 components"),
    "the greatest size": ([9, 1, 2**63 - 1, 0], ONE[1], "program: step 0: its delta cannot have 9223372036854775807"),
    "a box of seven": ([6, 0, 7, 0], ONE[1], "program: step 0: its delta cannot have 7 components under law 0"),
    "a gap before delta": (at(3, 1, ONE[0]), ONE[1], "program: step 0: its delta cannot begin at 1"),
    "a place below delta": (at(3, -1, ONE[0]), ONE[1], "program: step 0: its delta cannot begin at -1"),
    "delta twice": (at(7, 0, TWO[0]), TWO[1], "program: step 1: its delta cannot begin at 0"),
    "a gap in delta": (at(7, 2, TWO[0]), TWO[1], "program: step 1: its delta cannot begin at 2"),
    "nobody to share with": ([0, 5, 1, 0], ONE[1], "program: step 0: its delta cannot begin at 0"),
    "shared behind the end": ([0, 0, 1, 0, 4, 5, 1, 1], TWO[1], "program: step 1: its delta cannot begin at 1"),
    "shared over the end": ([5, 0, 3, 0, 5, 5, 3, 1], TWO[1], "program: step 1: its delta cannot begin at 1"),
    "shared below": ([0, 0, 1, 0, 4, 5, 1, -1], TWO[1], "program: step 1: its delta cannot begin at -1"),
    "shared at the least place": ([0, 0, 1, 0, 4, 5, 1, -(2**63)], TWO[1],
                                  "program: step 1: its delta cannot begin at -9223372036854775808"),
    "shared at the greatest place": ([0, 0, 1, 0, 4, 5, 1, 2**63 - 1], TWO[1],
                                     "program: step 1: its delta cannot begin at 9223372036854775807"),
}  # fmt: skip


def settings_of(transform, *settings):
    """(codes, numbers) of one step that is wrong by its settings alone."""
    codes, numbers = steps((T.AFFINE, 1) if transform == T.AFFINE else (transform,))
    return codes, [*numbers[:12], *map(float, settings), *[0.0] * (4 - len(settings))]


MASK, RADIUS = "program: step 0: expected a mask in 1..63", "program: step 0: expected a radius in 0..4, got "
# what images of 3 channels and 5 by 6 pixels cannot take
UNSUITED = {
    **{f"a mask of {mask}": (*settings_of(T.AFFINE, mask), MASK) for mask in (0, 0.5, -1, 64, 1e300, nan, inf, -inf)},
    "a mask of two for a delta of one": (*settings_of(T.AFFINE, 3), "program: step 0: its delta cannot have 1 comp"),
    **{f"a radius of {radius}": (*settings_of(T.BLUR, radius), RADIUS)
       for radius in (5, -1, -0.5, 4.5, MAX_RADIUS, 1e300, nan, inf, -inf)},
    "grey to a background": (*settings_of(T.BACKGROUND, Source.GREY), "program: step 0: 3 channels do not suit it"),
    "too few components": ([7, 1, 89, 0], ONE[1], "program: step 0: its delta cannot have 89 components"),
    "too many components": ([9, 1, 91, 0], ONE[1], "program: step 0: its delta cannot have 91 components"),
    "a brightness of two": ([0, 0, 2, 0], ONE[1], "program: step 0: its delta cannot have 2 components"),
    "a colour of two": ([5, 0, 2, 0], at(12, 1.0, ONE[1]), "program: step 0: its delta cannot have 2 components"),
    "a fog without nodes": ([11, 4, 1, 0], ONE[1], "program: step 0: its delta cannot have 1 components"),
}  # fmt: skip


def with_program(function, codes, numbers):
    """The arguments for a program, right but for it: delta has as many components as it says, where that can be had."""
    arguments = FUNCTIONS[function]()
    sizes = [size for law, size in zip(codes[1::4], codes[2::4], strict=False) if law != Distribution.SHARED]
    dim = sum(sizes) if sizes and 0 < sum(sizes) < 1000 else 1
    for name in ("delta", "grad_delta"):
        if arguments.get(name) is not None:
            arguments[name] = torch.zeros(2, 4, dim)
    return arguments | {"codes": codes, "numbers": numbers}


EVERY_WAY = ["nuisance", "nuisance drawn", "nuisance_backward", "nuisance_sample"]


def outcome(function, codes, numbers, message):
    try:
        native_function(function)(*with_program(function, codes, numbers).values())
    except ValueError as error:
        return "refused" if str(error).startswith(message) else f"refused with {str(error)!r}"
    return "taken"


def outcomes(cases, ways):
    """What came of each case, in children of this process: what is wrongly taken may be followed anywhere."""
    found = {}
    while len(found) < len(cases):
        rest = list(cases)[len(found) :]
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            for name in rest:
                each = {way: outcome(way, *cases[name]) for way in ways}
                os.write(writer, f"{each!r}\n".encode())
                if set(each.values()) != {"refused"}:
                    break  # nothing that comes after it is evidence
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as lines:
            found |= dict(zip(rest, map(ast.literal_eval, lines), strict=False))
        end = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if end:
            found[list(cases)[len(found)]] = f"ended with {end}"
    return found


@pytest.fixture(scope="module")
def refused_programs():
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python, for a fork beside threads
        return outcomes(MALFORMED, EVERY_WAY) | outcomes(UNSUITED, EVERY_WAY[:3])


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_programs_are_refused_and_never_followed(refused_programs, name):
    assert refused_programs[name] == dict.fromkeys(EVERY_WAY, "refused")


@pytest.mark.parametrize("name", UNSUITED)
def test_programs_that_do_not_suit_the_images_are_refused(refused_programs, name):
    assert refused_programs[name] == dict.fromkeys(EVERY_WAY[:3], "refused")


@pytest.mark.parametrize("channels, wrong, right", [
    (1, [T.SATURATION, T.HUE], [T.CONTRAST, T.BACKGROUND]),
    (2, [T.SATURATION, T.HUE, T.CONTRAST, T.BACKGROUND], [T.FOG]),
    (3, [T.BACKGROUND], [T.SATURATION, T.HUE, T.CONTRAST]), (5, [T.SATURATION, T.HUE, T.CONTRAST, T.BACKGROUND], []),
])  # fmt: skip
def test_channels_must_suit_every_step(channels, wrong, right):
    x = torch.full((1, channels, 4, 4), 0.5)
    for transform in wrong + right:
        codes, numbers = steps((T.BRIGHTNESS,), (transform,))  # of a background: that of grey images
        out = torch.zeros(1, 1, 3 if transform == T.BACKGROUND else channels, 4, 4)
        args = x, torch.zeros(1, 1, sum(codes[2::4])), out
        if transform in right:
            assert 0 == native.nuisance(*args, codes, numbers, 0, None, None, 1)
            continue
        with pytest.raises(ValueError, match=f"program: step 1: {channels} channels do not suit it"):
            native.nuisance(*args, codes, numbers, 0, None, None, 1)


def test_a_background_of_grey_has_three_channels_and_what_follows_sees_them():
    codes, numbers = steps((T.BACKGROUND, Source.GREY), (T.HUE,))
    x, delta = torch.full((2, 1, 4, 4), 0.5), torch.zeros(1, 2, 4)
    assert 0 == native.nuisance(x, delta, torch.zeros(1, 2, 3, 4, 4), codes, numbers, 0, None, None, 1)
    with pytest.raises(ValueError, match=r"out: expected .* shape \[1, 2, 3, 4, 4\], got torch.float32 \[1, 2, 1, 4"):
        native.nuisance(x, delta, torch.zeros(1, 2, 1, 4, 4), codes, numbers, 0, None, None, 1)
    codes, numbers = steps((T.BACKGROUND, Source.GREY), (T.BACKGROUND, Source.GREY))
    with pytest.raises(ValueError, match="program: step 1: 3 channels do not suit it"):
        native.nuisance(x, torch.zeros(1, 2, 6), torch.zeros(1, 2, 3, 4, 4), codes, numbers, 0, None, None, 1)


@pytest.mark.parametrize("shape", [(2, 0, 4, 4), (2, 3, 0, 4), (2, 3, 4, 0), (0, 2**28, 1, 1), (0, 1, 2**14, 2**14),
                                   (0, 1, 2**50, 4), (0, 2**40, 1, 1)], ids=str)  # fmt: skip
def test_images_of_no_pixels_and_of_too_many(shape):
    x = torch.zeros(shape)
    with pytest.raises(ValueError, match=r"x: expected images with 1 to 2\^28 pixels, got \["):
        native.nuisance(x, torch.zeros(1, shape[0], 1), torch.zeros(1, *shape), *ONE, 0, None, None, 1)


def test_bounds_and_settings_beyond_all_measure():
    """Those that no check knows of end in numbers, not in a crash."""
    for value in (nan, inf, -inf, 1e308, -1e308, 0.0):
        for one in EACH:
            codes, numbers = steps(one)
            keep = numbers[12] if one[0] in (T.AFFINE, T.BLUR, T.BACKGROUND) else value
            program = {"codes": codes, "numbers": [value] * 12 + [keep, value, value, value]}
            delta = torch.full((2, 4, codes[2]), value, dtype=torch.float64)
            assert call("nuisance drawn", torch.float64, **program) in (0, 2)  # 2: delta is not finite
            assert call("nuisance", torch.float64, delta=delta, **program) == (0 if math.isfinite(value) else 2)
            call("nuisance_backward", torch.float64, delta=delta, grad_delta=torch.zeros_like(delta), **program)


@pytest.mark.parametrize(
    "counter, key",
    [
        ([0] * 3, [0] * 2),
        ([0] * 4, [0]),
        ([0, 0, 0, 2**32], [0, 0]),
        ([0, 0, 0, -1], [0, 0]),
        ("abcd", "ab"),
        (None, None),
    ],
)
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
    run = subprocess.run(
        [sys.executable, "-c", FOLLOW.replace("OUTSIDE", repr(OUTSIDE)), given],
        capture_output=True,
        text=True,
        timeout=90,
    )
    return {tuple(line.split()[:2]): int(line.split()[2]) for line in run.stdout.splitlines()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("name, number", OUTSIDE)
def test_numbers_that_point_outside_are_refused_before_they_are_followed(followed, name, number):
    assert followed[name, str(number)] == 0
