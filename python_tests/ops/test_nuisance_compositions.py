"""Programs of several steps, and values beyond [0, 1] between them."""

import math
import os

import pytest
import torch

from python_tests.support.nuisance import (
    COMPOSITIONS,
    STEPS,
    T,
    both_dtypes,
    case,
    channels_of,
    close,
    deltas,
    fitted,
    images,
    plain,
    program_of,
    run,
    size_of,
    step,
)
from robustperf.ops import nuisance
from robustperf.ops.program import (
    FOG_NODES,
    MAX_STEPS,
    Program,
)

OP = "nuisance"

# ---- compositions


@pytest.mark.parametrize("height, width", [(6, 5), (33, 21)])
@pytest.mark.parametrize("name", COMPOSITIONS)
def test_compositions_in_float64(backend, device, name, height, width):
    program, x, delta, want = case(name, channels_of(name)[0], height, width, 2)
    close(run(backend, device, program, x, delta, torch.float64), want, 1e-11)


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_compositions_in_float32(backend, device, name):
    program, x, delta, want = case(name, channels_of(name)[0], 33, 21, 2)
    got = run(backend, device, program, x, delta, torch.float32).double()
    # what stands before a corner or a hue may be steep there
    assert (got - want).abs().max() < 2e-4 and (got - want).abs().mean() < 5e-6


@both_dtypes
@pytest.mark.parametrize("name", COMPOSITIONS)
@pytest.mark.parametrize("height, width", [(6, 5), (33, 21), (3, 700)])
def test_a_composition_is_its_steps_one_after_the_other(backend, device, name, height, width, dtype):
    channels, (draws, batch) = channels_of(name)[0], (2, 2)
    program, x = fitted(program_of(name), height, width), images((batch, channels, height, width)).to(device, dtype)
    delta = deltas(program, draws, batch, (channels, height, width)).to(device, dtype)
    got = nuisance(x, delta, program, backend=backend)
    image, rest = x.expand(draws, *x.shape).flatten(0, 1), delta.flatten(0, 1)
    for one in program.steps:
        size = size_of(one, image.shape[1:])
        image, rest = nuisance(image, rest[None, :, :size], Program((one,)), backend=backend)[0], rest[:, size:]
    assert torch.equal(got, image.view(got.shape))


def test_as_many_steps_as_a_program_may_have(backend, device):
    names = ["brightness", "affine in its border", "contrast", "hue", "blur", "gamma", "fog", "saturation"]
    program = Program(tuple(STEPS[names[i % 8]] for i in range(MAX_STEPS)))
    x = images((1, 3, 8, 7))
    delta = deltas(program, 1, 1, (3, 8, 7), fraction=0.2)
    close(run(backend, device, program, x, delta, torch.float64), plain(program, x, delta), 1e-10)


@both_dtypes
def test_steps_of_one_group_share_their_delta(backend, device, dtype):
    x = images((2, 3, 6, 5))
    for steps, groups, places in (
        (["brightness", "contrast"], (0, 0), [0, 0]),
        (["hue", "gamma", "brightness", "hue"], (0, 1, 1, 0), [0, 1, 1, 0]),
        (["add and clamp", "impulse", "add and clamp"], (5, 5, 2), [0, 0, 1]),
        (["fog", "brightness", "fog"], (0, 1, 0), [0, 1, 0]),
    ):
        ones = [STEPS[one] for one in steps]
        shared, apart = Program(tuple(ones), groups), Program(tuple(ones))
        sizes = [size_of(one, x.shape[1:]) for one in ones]
        own = {place: torch.rand(2, 2, size, generator=torch.Generator().manual_seed(place)) * 0.4
               for place, size in zip(places, sizes, strict=True)}  # fmt: skip
        delta = torch.cat([own[place] for place in sorted(own)], 2)
        assert shared.layout(x.shape[1:]).dim == delta.shape[2]
        want = run(backend, device, apart, x, torch.cat([own[place] for place in places], 2), dtype)
        assert torch.equal(run(backend, device, shared, x, delta, dtype), want)


# Pixels leave [0, 1] where an addition is not clamped; the step behind it meets them.
BEYOND = ["brightness", "contrast", "saturation", "gamma", "background of a colour", "impulse", "blur", "fog",
          "rotation"]  # fmt: skip


@both_dtypes
@pytest.mark.parametrize("name", BEYOND)
def test_pixels_outside_the_range_between_steps(backend, device, name, dtype):
    program = Program((STEPS["add"], STEPS[name]))
    x = images((2, 3, 6, 5))
    delta = deltas(program, 2, 2, (3, 6, 5))
    added = x.to(dtype) + delta[..., :90].view(2, 2, 3, 6, 5).to(dtype)
    assert (added < -0.3).any() and (added > 1.3).any()
    alone = Program((STEPS[name],))
    if name == "gamma":
        added = added.clamp_min(0)
    want = torch.cat([plain(alone, added[k], delta[k : k + 1, :, 90:]) for k in range(2)])
    close(run(backend, device, program, x, delta, dtype), want, 4e-6 if dtype == torch.float32 else 1e-12)


@both_dtypes
def test_shot_noise_of_more_than_white_is_white(backend, device, dtype):
    """At the highest rate too, where the first term of the sum is beyond the least number."""
    x, added = torch.ones(1, 1, 1, 4), torch.tensor([0.0, 0.4, 0.5, 1.0])
    delta = torch.cat([added, torch.full((4,), 0.75)])[None, None]
    program = Program((STEPS["add"], step(T.SHOT, (0,), (1,), 500)))
    assert run(backend, device, program, x, delta, dtype).flatten().tolist() == [1, 1, 1, 1]


@both_dtypes
def test_fog_over_an_image_below_zero(backend, device, dtype):
    """Its greatest value is below zero, and the formula is taken at its word."""
    program = Program((STEPS["add"], STEPS["fog"]))
    x, strength = torch.full((1, 1, 2, 3), 0.125), 0.5
    delta = torch.cat([torch.full((1, 1, 6), -0.25), torch.full((1, 1, 1), strength), torch.zeros(1, 1, FOG_NODES)], 2)
    out = run(backend, device, program, x, delta, dtype)
    close(out, torch.full_like(out, 0.125**2 / (strength - 0.125)).double(), 1e-7)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("number", [-0.25, math.nan], ids=["below zero", "nan"])
def test_the_backward_pass_of_fog_stays_within_the_image(backend, device, number):
    """Where no pixel may be the greatest value that it looks for; in a child, for what is beyond the image."""
    if device.type != "cpu":
        pytest.skip("a GPU does not survive a fork")
    program = Program((STEPS["add"], STEPS["fog"]))
    layout = program.layout((1, 4, 4))
    x, delta = torch.full((1, 1, 4, 4), 0.125), torch.zeros(1, 1, layout.dim)
    delta[..., :16], delta[..., 16] = number + 0.001 * torch.arange(16), 0.5
    args = torch.ones(1, 1, 1, 4, 4), x, delta, layout.codes, layout.parameters
    want = torch.cat([part.flatten() for part in torch.ops.robustperf.nuisance_backward(*args, "reference")])
    assert want.any()
    child = os.fork()
    if child == 0:
        got = torch.cat([part.flatten() for part in torch.ops.robustperf.nuisance_backward(*args, backend)])
        os._exit(0 if math.isnan(number) or torch.allclose(got, want, rtol=1e-4, atol=1e-6) else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "3: it ended with a wrong gradient"
