"""Nuisance programs on images that take a cluster of blocks, more images than run at the same time, against the
reference in float64. test_emulated.py runs this file."""

import pytest
import torch

from python_tests.support.nuisance import (
    CHAINS,
    COMPOSITIONS,
    STEPS,
    channels_of,
    deltas,
    gradients,
    leaves,
    program_of,
    without_ties,
)
from robustperf import _native_cuda
from robustperf.ops import nuisance
from robustperf.ops.program import Program

OP = "nuisance"
# Four pixels at a time, one at a time, and doubles; each is just more than one block takes.
SHAPES = [(torch.float32, 68, 64), (torch.float32, 67, 63), (torch.float64, 36, 29)]
every_shape = pytest.mark.parametrize("dtype, height, width", SHAPES, ids=str)


@pytest.fixture(params=["clusters", "no clusters"])
def device(request, monkeypatch):
    """The CPU, with clusters, and without them and with a block's last thread first."""
    if request.param == "no clusters":
        monkeypatch.setenv("EMULATED_CAPABILITY", "8")
        monkeypatch.setenv("EMULATED_ORDER", "reverse")
    return torch.device("cpu")


def scratch(program, *shape):
    layout = program.layout(shape)
    x, delta = torch.zeros(1, *shape), torch.zeros(1, 1, layout.dim)
    return _native_cuda.nuisance_scratch(x, delta, layout.codes, layout.parameters, False)


def test_larger_images_are_those_that_a_cluster_takes(backend, monkeypatch):
    program = Program((STEPS["contrast"],))
    small, large = scratch(program, 1, 64, 64), scratch(program, 1, 68, 64)
    assert large == 8 * small
    monkeypatch.setenv("EMULATED_CAPABILITY", "8")
    assert scratch(program, 1, 68, 64) == small


@every_shape
@pytest.mark.parametrize("name", ["contrast", "fog", "background of a corner", *COMPOSITIONS])
def test_the_images_are_the_reference_s(backend, device, name, dtype, height, width):
    program, channels = program_of(name), channels_of(name)[-1]
    x, delta = (
        without_ties((3, channels, height, width)),
        deltas(program, 2, 3, (channels, height, width), fraction=0.5),
    )
    want = nuisance(x.to(dtype).double(), delta.double(), program, backend="reference")
    error = (nuisance(x.to(dtype), delta.to(dtype), program, backend=backend).double() - want).abs()
    if dtype == torch.float64:
        assert error.max() < 1e-11
    else:  # rounding before a corner's colour or a hue can be amplified
        assert error.max() < 1e-3 and error.mean() < 1e-5


@every_shape
@pytest.mark.parametrize("name", [*CHAINS, "contrast", "fog", "background of a corner", "affine in zeros", "blur"])
def test_the_gradients_are_the_reference_s(backend, device, name, dtype, height, width):
    channels, steps = CHAINS[name] if name in CHAINS else (channels_of(name)[-1], [name])
    program, shape = Program(tuple(STEPS[one] for one in steps)), (channels, height, width)
    x, delta = without_ties((2, *shape)), deltas(program, 2, 2, shape, fraction=0.15)
    out = nuisance(x, delta.double(), program, backend="reference")
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    want = gradients("reference", program, *leaves(x, delta), weights)
    got = gradients(backend, program, *leaves(x, delta, device, dtype), weights.to(dtype))
    for value, truth in zip(got, want, strict=True):
        error = (value.double() - truth).abs() / truth.abs().max()
        # in float32 a pixel near a kink may be on its other side
        assert error.mean() < (2e-4 if dtype == torch.float32 else 1e-11)
        assert dtype == torch.float32 or error.max() < 1e-10
