"""The native module refuses programs that are malformed or do not suit the images."""

import ast
import math
import os
import warnings

import pytest
import torch

from python_tests.support.bindings import EACH, FUNCTIONS, SHAPE, T, call, native, steps
from robustperf.ops.program import MAX_RADIUS, MAX_STEPS, Distribution, Source


def test_pixels_outside_the_range_are_reported():
    for value in (-1e-30, 1.0001, math.nan, math.inf, -math.inf):
        for place in ((0, 0, 0, 0), (3, 2, 4, 5), (2, 1, 0, 5)):
            for function in ("nuisance", "nuisance_draw"):
                x = torch.full((4, *SHAPE), 0.5)
                assert call(function, x=x) == 0
                x[place] = value
                assert call(function, x=x) == 1


def at(place, value, given):
    """The codes or parameters `given` with another value at one place."""
    return [*given[:place], value, *given[place + 1 :]]


ONE = steps((T.BRIGHTNESS,))
TWO = steps((T.BRIGHTNESS,), (T.GAMMA,))
nan, inf = math.nan, math.inf
SIZES = "program: expected 1 to 32 steps of 4 codes and 16 parameters, got {} and {}"
# what no draw and no image can take
MALFORMED = {
    "no step": ([], [], SIZES.format(0, 0)),
    "no parameters": (ONE[0], [], SIZES.format(4, 0)),
    "a number less": (ONE[0], ONE[1][1:], SIZES.format(4, 15)),
    "a number more": (ONE[0], [*ONE[1], 0.0], SIZES.format(4, 17)),
    "a code less": (ONE[0][1:], ONE[1], SIZES.format(3, 16)),
    "a code more": ([*ONE[0], 0], ONE[1], SIZES.format(5, 16)),
    "parameters of one step for two": (TWO[0], ONE[1], SIZES.format(8, 16)),
    "too many steps": (ONE[0] * (MAX_STEPS + 1), ONE[1] * (MAX_STEPS + 1), SIZES.format(132, 528)),
    "transform 12": (at(0, 12, ONE[0]), ONE[1], "program: step 0: unknown transform 12"),
    "transform -1": (at(0, -1, ONE[0]), ONE[1], "program: step 0: unknown transform -1"),
    "a transform of 2^32": (at(4, 2**32, TWO[0]), TWO[1], "program: step 1: unknown transform 4294967296"),
    "law 6": (at(1, 6, ONE[0]), ONE[1], "program: step 0: unknown distribution 6"),
    "law -1": (at(1, -1, ONE[0]), ONE[1], "program: step 0: unknown distribution -1"),
    "the greatest law": (at(5, 2**63 - 1, TWO[0]), TWO[1], "program: step 1: unknown distribution 9223372036854775807"),
    "no components": (at(2, 0, ONE[0]), ONE[1], "program: step 0: its delta cannot have 0 components"),
    "components -1": (at(2, -1, ONE[0]), ONE[1], "program: step 0: its delta cannot have -1 components"),
    "2^31 components": ([9, 1, 2**31, 0], ONE[1], "program: step 0: its delta cannot have 2147483648 components"),
    "the greatest size": ([9, 1, 2**63 - 1, 0], ONE[1], "program: step 0: its delta cannot have 9223372036854775807"),
    "a box of seven": ([6, 0, 7, 0], ONE[1], "program: step 0: its delta cannot have 7 components"),
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
    """(codes, parameters) of one step that is wrong by its settings alone."""
    codes, parameters = steps((T.AFFINE, 1) if transform == T.AFFINE else (transform,))
    return codes, [*parameters[:12], *map(float, settings), *[0.0] * (4 - len(settings))]


MASK, RADIUS = "program: step 0: expected a mask in 1..63", "program: step 0: expected a radius in 0..4, got "
# what images of 3 channels and 5 by 6 pixels cannot take
UNSUITED = {
    **{f"a mask of {mask}": (*settings_of(T.AFFINE, mask), MASK) for mask in (0, 0.5, -1, 64, 1e300, nan, inf, -inf)},
    "a mask of two for a delta of one": (*settings_of(T.AFFINE, 3), "program: step 0: its delta cannot have 1 comp"),
    **{f"a radius of {radius}": (*settings_of(T.BLUR, radius), RADIUS)
       for radius in (5, -1, -0.5, 4.5, MAX_RADIUS, 1e300, nan, inf, -inf)},
    "grey to a background": (*settings_of(T.BACKGROUND, Source.GREY),
                             "program: step 0: it does not take images of 3 channels"),
    "too few components": ([7, 1, 89, 0], ONE[1], "program: step 0: its delta cannot have 89 components"),
    "too many components": ([9, 1, 91, 0], ONE[1], "program: step 0: its delta cannot have 91 components"),
    "a brightness of two": ([0, 0, 2, 0], ONE[1], "program: step 0: its delta cannot have 2 components"),
    "a colour of two": ([5, 0, 2, 0], at(12, 1.0, ONE[1]), "program: step 0: its delta cannot have 2 components"),
    "a fog without nodes": ([11, 4, 1, 0], ONE[1], "program: step 0: its delta cannot have 1 components"),
}  # fmt: skip


def with_program(function, codes, parameters):
    """The arguments for a program, right but for it: delta has as many components as it says, where that can be had."""
    arguments = FUNCTIONS[function]()
    sizes = [size for law, size in zip(codes[1::4], codes[2::4], strict=False) if law != Distribution.SHARED]
    dim = sum(sizes) if sizes and 0 < sum(sizes) < 1000 else 1
    for name in ("delta", "grad_delta"):
        if arguments.get(name) is not None:
            arguments[name] = torch.zeros(2, 4, dim)
    return arguments | {"codes": codes, "parameters": parameters}


NUISANCES = ["nuisance", "nuisance_draw", "nuisance_backward", "nuisance_sample"]


def outcome(function, codes, parameters, message):
    try:
        getattr(native, function)(*with_program(function, codes, parameters).values())
    except ValueError as error:
        return "refused" if str(error).startswith(message) else f"refused with {str(error)!r}"
    return "taken"


def outcomes(cases, functions):
    """What came of each case, in children of this process: what is wrongly taken may be followed anywhere."""
    found = {}
    while len(found) < len(cases):
        rest = list(cases)[len(found) :]
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            for name in rest:
                each = {function: outcome(function, *cases[name]) for function in functions}
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
        return outcomes(MALFORMED, NUISANCES) | outcomes(UNSUITED, NUISANCES[:3])


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_programs_are_refused_and_never_followed(refused_programs, name):
    assert refused_programs[name] == dict.fromkeys(NUISANCES, "refused")


@pytest.mark.parametrize("name", UNSUITED)
def test_programs_that_do_not_suit_the_images_are_refused(refused_programs, name):
    assert refused_programs[name] == dict.fromkeys(NUISANCES[:3], "refused")


@pytest.mark.parametrize("channels, wrong, right", [
    (1, [T.SATURATION, T.HUE], [T.CONTRAST, T.BACKGROUND]),
    (2, [T.SATURATION, T.HUE, T.CONTRAST, T.BACKGROUND], [T.FOG]),
    (3, [T.BACKGROUND], [T.SATURATION, T.HUE, T.CONTRAST]), (5, [T.SATURATION, T.HUE, T.CONTRAST, T.BACKGROUND], []),
])  # fmt: skip
def test_channels_must_suit_every_step(channels, wrong, right):
    x = torch.full((1, channels, 4, 4), 0.5)
    for transform in wrong + right:
        codes, parameters = steps((T.BRIGHTNESS,), (transform,))  # of a background: that of grey images
        out = torch.zeros(1, 1, 3 if transform == T.BACKGROUND else channels, 4, 4)
        args = x, torch.zeros(1, 1, sum(codes[2::4])), out
        if transform in right:
            assert 0 == native.nuisance(*args, None, codes, parameters, 1)
            continue
        with pytest.raises(ValueError, match=f"program: step 1: it does not take images of {channels} channels"):
            native.nuisance(*args, None, codes, parameters, 1)


def test_a_background_of_grey_has_three_channels_and_what_follows_sees_them():
    codes, parameters = steps((T.BACKGROUND, Source.GREY), (T.HUE,))
    x, delta = torch.full((2, 1, 4, 4), 0.5), torch.zeros(1, 2, 4)
    assert 0 == native.nuisance(x, delta, torch.zeros(1, 2, 3, 4, 4), None, codes, parameters, 1)
    with pytest.raises(ValueError, match=r"out: expected .* shape \[1, 2, 3, 4, 4\], got torch.float32 \[1, 2, 1, 4"):
        native.nuisance(x, delta, torch.zeros(1, 2, 1, 4, 4), None, codes, parameters, 1)
    codes, parameters = steps((T.BACKGROUND, Source.GREY), (T.BACKGROUND, Source.GREY))
    with pytest.raises(ValueError, match="program: step 1: it does not take images of 3 channels"):
        native.nuisance(x, torch.zeros(1, 2, 6), torch.zeros(1, 2, 3, 4, 4), None, codes, parameters, 1)


@pytest.mark.parametrize("shape", [(2, 0, 4, 4), (2, 3, 0, 4), (2, 3, 4, 0), (0, 2**28, 1, 1), (0, 1, 2**14, 2**14),
                                   (0, 1, 2**50, 4), (0, 2**40, 1, 1)], ids=str)  # fmt: skip
def test_images_of_no_pixels_and_of_too_many(shape):
    x = torch.zeros(shape)
    with pytest.raises(ValueError, match=r"x: expected images with 1 to 2\^28 pixels, got \["):
        native.nuisance(x, torch.zeros(1, shape[0], 1), torch.zeros(1, *shape), None, *ONE, 1)


def test_bounds_and_settings_beyond_all_measure():
    """Those that no check knows of end in parameters, not in a crash."""
    for value in (nan, inf, -inf, 1e308, -1e308, 0.0):
        for one in EACH:
            codes, parameters = steps(one)
            keep = parameters[12] if one[0] in (T.AFFINE, T.BLUR, T.BACKGROUND) else value
            program = {"codes": codes, "parameters": [value] * 12 + [keep, value, value, value]}
            delta = torch.full((2, 4, codes[2]), value, dtype=torch.float64)
            assert call("nuisance_draw", torch.float64, **program) in (0, 2)  # 2: delta is not finite
            assert call("nuisance", torch.float64, delta=delta, **program) == (0 if math.isfinite(value) else 2)
            call("nuisance_backward", torch.float64, delta=delta, grad_delta=torch.zeros_like(delta), **program)
