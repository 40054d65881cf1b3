"""Right arguments for each function of the native module."""

import math

import pytest
import torch

from robustperf.ops.program import FOG_NODES, Distribution, Outside, Source, Transform
from robustperf.ops.search_state import FIELD, new_search

native = pytest.importorskip("robustperf._native", exc_type=ImportError)


def gap_arguments(dtype=torch.float32):
    return {"logits": torch.zeros(4, 3, dtype=dtype), "label": torch.zeros(4, dtype=torch.int64),
            "gap": torch.zeros(4, dtype=torch.float64), "rounding_tolerance": 0.0, "threads": 2}  # fmt: skip


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


def ball_arguments(dtype=torch.float32):
    return {"x": torch.zeros(4, 3, dtype=dtype), "delta": torch.ones(4, 3, dtype=dtype),
            "radius": torch.ones(4, dtype=torch.float64), "lower": torch.zeros(3, dtype=dtype),
            "upper": torch.ones(3, dtype=dtype), "out": torch.zeros(4, 3, dtype=dtype), "norm": 1,
            "threads": 2}  # fmt: skip


def best_arguments(dtype=torch.float32):
    return {"logits": torch.zeros(2, 4, 3, dtype=dtype), "target": torch.zeros(4, dtype=torch.int64),
            "loss": torch.zeros(4, dtype=dtype if dtype == torch.float64 else torch.float32),
            "index": torch.zeros(4, dtype=torch.int64), "first": 0, "first_chunk": True, "whole_batch": True,
            "label_smoothing": 0.1, "ignore_index": -100,
            "losses": None, "blocks_done": None, "threads": 2}  # fmt: skip


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
    state[:, FIELD["line"]], state[:, FIELD["step"]] = 0.0, 1.0  # in progress: the step reads the logits
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
        "rounding_tolerance": 0.0,
        "tol": 0.01,
        "bisection": False,
        "probes": 0,
        "max_iterations": 20.0,
        "threads": 2,
    }


T = Transform
SHAPE = (3, 5, 6)


def steps(*given):
    """(codes, parameters) of steps (transform, *settings), whose deltas are drawn between 0 and 1."""
    sizes = {T.BACKGROUND: 3, T.FOG: 1 + FOG_NODES} | dict.fromkeys((T.ADD, T.IMPULSE, T.SHOT), math.prod(SHAPE))
    laws = {T.FOG: Distribution.FOG} | dict.fromkeys((T.ADD, T.IMPULSE, T.SHOT), Distribution.EVERYWHERE)
    codes, parameters, begin = [], [], 0
    for transform, *settings in given:
        size = int(settings[0]).bit_count() if transform == T.AFFINE else sizes.get(transform, 1)
        codes += [int(transform), int(laws.get(transform, Distribution.BOX)), size, begin]
        parameters += [0.0] * 6 + [1.0] * 6 + [float(value) for value in settings] + [0.0] * (4 - len(settings))
        begin += size
    return codes, parameters


# a step of each kind: image statistics, a warp, a blur, a delta like the image
EVERY_KIND = steps((T.AFFINE, 63, Outside.ZEROS), (T.CONTRAST,), (T.BLUR, 2), (T.ADD, 0), (T.FOG,),
             (T.BACKGROUND, Source.CORNER))  # fmt: skip
DIM = sum(EVERY_KIND[0][2::4])


def nuisance_arguments(dtype=torch.float32):
    return {
        "x": torch.full((4, *SHAPE), 0.5, dtype=dtype),
        "delta": torch.full((2, 4, DIM), 0.5, dtype=dtype),
        "out": torch.zeros(2, 4, *SHAPE, dtype=dtype),
        "scratch": None,
        "codes": EVERY_KIND[0],
        "parameters": EVERY_KIND[1],
        "threads": 2,
    }


def nuisance_draw_arguments(dtype=torch.float32):
    return {
        "out": torch.zeros(2, 4, *SHAPE, dtype=dtype),
        "x": torch.full((4, *SHAPE), 0.5, dtype=dtype),
        "index": torch.arange(4),
        "draw": torch.arange(2),
        "codes": EVERY_KIND[0],
        "parameters": EVERY_KIND[1],
        "key": 2**64 - 1,
        "threads": 2,
    }


def nuisance_backward_arguments(dtype=torch.float32):
    return {
        "grad": torch.ones(2, 4, *SHAPE, dtype=dtype),
        "x": torch.full((4, *SHAPE), 0.5, dtype=dtype),
        "delta": torch.full((2, 4, DIM), 0.5, dtype=dtype),
        "grad_x": torch.zeros(4, *SHAPE, dtype=dtype),
        "grad_delta": torch.zeros(2, 4, DIM, dtype=dtype),
        "scratch": None,
        "codes": EVERY_KIND[0],
        "parameters": EVERY_KIND[1],
        "threads": 2,
    }


def nuisance_sample_arguments(dtype=torch.float32):
    return {
        "index": torch.arange(4),
        "draw": torch.arange(2),
        "delta": torch.zeros(2, 4, DIM),
        "codes": EVERY_KIND[0],
        "parameters": EVERY_KIND[1],
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


# by the name of the native function
FUNCTIONS = {"logit_gap": gap_arguments, "ball_box_projection": ball_arguments,
             "halfspace_box_projection": projection_arguments, "draws": draws_arguments,
             "line_search_step": search_arguments, "best_of_k": best_arguments, "nuisance": nuisance_arguments,
             "nuisance_draw": nuisance_draw_arguments, "nuisance_backward": nuisance_backward_arguments,
             "nuisance_sample": nuisance_sample_arguments, "rbf_values": rbf_arguments,
             "rbf_sums": rbf_sums_arguments}  # fmt: skip
TENSORS = [(function, name) for function, arguments in FUNCTIONS.items() for name, value in arguments().items()
           if isinstance(value, torch.Tensor)]  # fmt: skip

every_tensor = pytest.mark.parametrize("function, name", TENSORS)


def call(function, dtype=torch.float32, **changes):
    """The function's result for its right arguments with some changed."""
    return getattr(native, function)(*(FUNCTIONS[function](dtype) | changes).values())


def refused(function, name, value, dtype=torch.float32):
    """The message of the error that names the argument."""
    with pytest.raises(ValueError) as error:
        call(function, dtype, **{name: value})
    assert str(error.value).startswith(f"{name}: "), error.value
    return str(error.value)


# a program of one step for each transform and kind of settings
EACH = [(T.BRIGHTNESS,), (T.CONTRAST,), (T.SATURATION, 1), (T.HUE,), (T.GAMMA,), (T.BACKGROUND, Source.CORNER),
        (T.BACKGROUND, Source.COLOUR, 0.1, 0.2, 0.3), (T.AFFINE, 1, Outside.ZEROS), (T.AFFINE, 63, Outside.BORDER),
        (T.ADD, 0), (T.ADD, 1), (T.IMPULSE, 0.5), (T.SHOT, 25), (T.BLUR, 0), (T.BLUR, 2), (T.FOG,)]  # fmt: skip
