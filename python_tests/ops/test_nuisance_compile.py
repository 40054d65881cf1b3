"""Nuisance programs inside torch.library and torch.compile."""

import pytest
import torch

from python_tests.support.nuisance import BRIGHTER, STEPS, deltas, images, leaves, program_of, without_ties
from robustperf.ops import nuisance
from robustperf.ops.program import (
    Program,
)

OP = "nuisance"

# ---- torch.library and torch.compile


CHECKED = [(3, ["brightness"]), (3, ["add"]), (2, ["shot"]), (3, ["blur", "hue"]), (1, ["background of grey", "fog"])]


@pytest.mark.parametrize("channels, names", CHECKED)
def test_opcheck_of_nuisance_and_its_backward_pass(backend, device, channels, names):
    program = Program(tuple(STEPS[one] for one in names))
    layout = program.layout((channels, 6, 5))
    after = program.steps[0].shape_after((channels, 6, 5))
    grad = torch.randn(2, 2, *after, generator=torch.Generator().manual_seed(4)).to(device)
    x, delta = without_ties((2, channels, 6, 5)), deltas(program, 2, 2, (channels, 6, 5), fraction=0.3)
    image, part = leaves(x, delta, device, torch.float32)
    how = layout.codes, layout.parameters, backend
    torch.library.opcheck(torch.ops.robustperf.nuisance.default, (image, part, *how))
    torch.library.opcheck(torch.ops.robustperf.nuisance_backward.default,
                          (grad, image.detach(), part.detach(), *how))  # fmt: skip


def test_opcheck_of_other_layouts_and_of_no_images(backend, device):
    program = program_of("add")
    layout = program.layout((3, 6, 5))
    how = layout.codes, layout.parameters, backend
    x, delta = without_ties((2, 3, 6, 5)), deltas(program, 2, 2, (3, 6, 5), fraction=0.3)
    wide = x.contiguous(memory_format=torch.channels_last)
    for image, part in ((wide, delta[:1].double()), (x[:0].float(), delta[:, :0])):
        image, part = leaves(image, part, device, image.dtype)
        torch.library.opcheck(torch.ops.robustperf.nuisance.default, (image, part, *how))
        grad = torch.ones(part.shape[0], *image.shape, dtype=image.dtype, device=device)
        torch.library.opcheck(torch.ops.robustperf.nuisance_backward.default,
                              (grad, image.detach(), part.detach(), *how))  # fmt: skip


def test_the_backward_pass_where_autograd_is_disabled(backend, device):
    """In inference mode, and in a compiled graph."""
    layout = BRIGHTER.layout((1, 2, 2))
    grad, x = torch.ones(1, 1, 1, 2, 2, device=device), torch.full((1, 1, 2, 2), 0.5, device=device)
    args = grad, x, torch.zeros(1, 1, 1, device=device), layout.codes, layout.parameters, backend
    with torch.inference_mode():
        by_x, by_delta = torch.ops.robustperf.nuisance_backward(*args)
    assert by_x.eq(1).all() and by_delta.item() == 2


def test_opcheck_of_the_draws(backend, device):
    layout = program_of("from grey").layout((1, 6, 5))
    index, draw = torch.arange(5, device=device)[::2], torch.arange(2, device=device)
    rest = layout.codes, layout.parameters, -7, None, backend
    torch.library.opcheck(torch.ops.robustperf.nuisance_sample.default, (index, draw, *rest))
    for dtype in (torch.float32, torch.float64):
        x, out = images((3, 1, 6, 5)).to(device, dtype), torch.zeros(2, 3, 3, 6, 5, dtype=dtype, device=device)
        torch.library.opcheck(torch.ops.robustperf.nuisance_draw.default, (out, x, index, draw, *rest))
    torch.library.opcheck(torch.ops.robustperf.nuisance_draw.default, (out[:0], x, index, draw[:0], *rest))


def test_a_compiled_function_and_its_gradients_equal_the_eager_ones(backend, device):
    program = Program((STEPS["rotation"], STEPS["hue"], STEPS["contrast"], STEPS["blur"]))

    def loss(x, delta):
        return nuisance(x * 0.9, delta.sin(), program, backend=backend).square().sum((2, 3, 4))

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for batch in (2, 3):  # another size is another graph or a dynamic one
        given = without_ties((batch, 3, 6, 5)), deltas(program, 2, batch, (3, 6, 5), fraction=0.3)
        found = []
        for function in (loss, compiled):
            x, delta = leaves(*given, device)
            out = function(x, delta)
            out.sum().backward()
            found.append((out.detach(), x.grad, delta.grad))
        for eager, graph in zip(*found, strict=True):
            assert torch.equal(eager, graph)


def test_a_compiled_function_refuses_pixels_where_native_checks_them(backend, device):
    compiled = torch.compile(lambda x, delta: nuisance(x, delta, program_of("brightness"), backend=backend) + 1,
                             fullgraph=True, backend="aot_eager")  # fmt: skip
    x, delta = torch.full((1, 1, 2, 2), 2.0, device=device), torch.zeros(1, 1, 1, device=device)
    if backend == "native":
        with pytest.raises(ValueError, match=r"x: expected pixels within \[0, 1\]"):
            compiled(x, delta)
    else:
        assert compiled(x, delta).eq(2).all()


def test_on_the_meta_device_shapes_are_worked_out():
    program = program_of("from grey")
    x = torch.zeros(2, 1, 6, 5, device="meta", dtype=torch.float64)
    out = nuisance(x, torch.zeros(4, 2, program.layout((1, 6, 5)).dim, device="meta", dtype=torch.float64), program)
    assert (out.shape, out.dtype, out.device.type) == ((4, 2, 3, 6, 5), torch.float64, "meta")
