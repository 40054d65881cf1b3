"""Compiles every kernel that the calls below launch, for sm_80 and sm_90, and runs none. Started by test_triton.py,
with the operations' names; prints a line a variant of a kernel."""

import inspect
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction, mangle_type

from python_tests.support.nuisance import STEPS
from robustperf.ops import registry
from robustperf.ops.program import Distribution, Program, channels_out
from robustperf.ops.search_state import new_search

TARGETS = 80, 90
_done = set()


def compile_instead(kernel, *args, grid, warmup, **settings):
    """Takes the place of JITFunction.run, and like it makes constants of ones."""
    names = inspect.signature(kernel.fn).parameters
    options = {name: settings.pop(name) for name in list(settings) if name not in names}
    values = inspect.signature(kernel.fn).bind(*args, **settings).arguments
    signature, constants, attributes = {}, {}, {}
    for parameter in kernel.params:
        value, free = values[parameter.name], not (parameter.do_not_specialize or parameter.annotation_type)
        if parameter.is_constexpr or value is None or (free and isinstance(value, int) and value == 1):
            signature[parameter.name], constants[parameter.num,] = "constexpr", value
            continue
        signature[parameter.name] = parameter.annotation_type or mangle_type(value)
        if isinstance(value, torch.Tensor) or (free and value % 16 == 0):
            attributes[parameter.num,] = [["tt.divisibility", 16]]
    variant = f"{kernel.__name__}({', '.join(map(str, signature.values()))}; {list(constants.values())})"
    if variant in _done:
        return
    # the first of a kernel for every target, its other variants for the latest
    targets = TARGETS[-1:] if any(one.startswith(f"{kernel.__name__}(") for one in _done) else TARGETS
    _done.add(variant)
    for target in targets:
        source = ASTSource(kernel, signature, constants, attributes)
        compiled = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
        assert compiled.asm["cubin"]
        # a contracted product and sum would not have the bits of csrc/core
        fused = sum("fma." in line for line in compiled.asm["ptx"].splitlines())
        print(f"sm_{target} {fused} fused {variant}", flush=True)


def numbers(*values):
    return torch.tensor(values, dtype=torch.int64)


def call_draws(run):
    for normal in (False, True):
        run(2**63 + 1, numbers(0, 1), numbers(0, 1, 2), 5, normal)


def call_logit_gap(run):
    for dtype in (torch.float64, torch.bfloat16):
        run(torch.zeros(2, 10, dtype=dtype), numbers(0, 1), 1e-6)


def call_best_of_k(run):
    for dtype, shape in ((torch.float32, (4, 3, 1000)), (torch.float16, (1, 1, 1)), (torch.bfloat16, (4, 3, 10))):
        loss = torch.zeros(shape[1])
        for whole_batch, fresh, smoothing in ((False, True, 0.0), (True, False, 0.1)):
            run(
                torch.zeros(shape, dtype=dtype),
                numbers(0, 1, 2),
                loss,
                numbers(0, 0, 0),
                0,
                fresh,
                whole_batch,
                smoothing,
                -100,
            )


def call_ball_box_projection(run):
    for dtype, norm, dim in ((torch.float32, 1, 700), (torch.float32, 2, 1), (torch.float64, 2, 700),
                             (torch.float64, 3, 700)):  # fmt: skip
        x = torch.zeros(2, dim, dtype=dtype)
        run(x, x, torch.zeros(2, dtype=torch.float64), x[0], x[0], norm)


def call_halfspace_box_projection(run):
    for dtype, norm, dim in ((torch.float32, 1, 700), (torch.float32, 2, 1), (torch.float64, 3, 700)):
        x = torch.zeros(2, dim, dtype=dtype)
        run(x, x, torch.zeros(2, dtype=torch.float64), norm, 0.0, 1.0)


def call_line_search_step(run):
    for dtype, logits, bisection, points, lines in (
        (torch.float32, None, False, 3, 2), (torch.float32, torch.float32, False, 3, 2),
        (torch.float64, torch.bfloat16, True, 1, 1),
    ):  # fmt: skip
        x, wide = torch.zeros(points, 5, dtype=dtype), torch.zeros(points, lines, dtype=torch.float64)
        state = new_search(wide[:, 0].contiguous(), wide, wide)
        seen, every = None if logits is None else torch.zeros(points, 4, dtype=logits), torch.arange(points)
        candidates = x.expand(lines, points, 5).contiguous()
        run(seen, every, every, x, candidates, *state, x.clone(), x.clone(), 1e-6, 2.0**-20, bisection, 2, 40)


# Every transform, on images of one pixel too.
PROGRAMS = [
    (torch.float32, (3, 9, 16), ["affine in its border", "contrast", "hue", "saturation", "gamma", "brightness", "blur",
                                 "background of a corner", "impulse", "fog", "add and clamp", "shot"]),
    (torch.float64, (1, 9, 8), ["brightness", "background of grey", "background of a colour", "hue"]),
    (torch.float32, (1, 1, 1), ["affine in zeros", "fog"]),
]  # fmt: skip


def images():
    """(x, delta, the program's codes and numbers, a gradient of the result) for each of PROGRAMS."""
    for dtype, shape, names in PROGRAMS:
        layout = Program(tuple(STEPS[name] for name in names)).layout(shape)
        draws = batch = 1 if shape == (1, 1, 1) else 2
        x, delta = torch.zeros(batch, *shape, dtype=dtype), torch.zeros(draws, batch, layout.dim, dtype=dtype)
        channels = channels_out(layout.codes, shape[0])
        yield x, delta, layout.codes, layout.parameters, torch.zeros(draws, batch, channels, *shape[1:], dtype=dtype)


def call_nuisance(run):
    for x, delta, codes, settings, _ in images():
        run(x, delta, codes, settings)


def call_nuisance_backward(run):
    for x, delta, codes, settings, grad in images():
        run(grad, x, delta, codes, settings)


def call_nuisance_draw(run):
    for x, _, codes, settings, out in images():
        run(out, x, torch.arange(len(x)), torch.arange(len(out)), codes, settings, 2**63 + 1)


def call_nuisance_sample(run):
    ball, normal = (STEPS["add"]._replace(distribution=Distribution[name]) for name in ("BALL", "NORMAL"))
    layout = Program((STEPS["affine in zeros"], STEPS["fog"], ball, normal, STEPS["impulse"])).layout((3, 4, 5))
    run(numbers(0, 1), numbers(0, 1, 2), layout.codes, layout.parameters, 2**63 + 1)


def call_rbf_decision(run):
    for dtype in (torch.float32, torch.float64):
        run(
            torch.zeros(2, 3, dtype=dtype),
            torch.zeros(20, 3, dtype=dtype),
            torch.zeros(1, 20, dtype=dtype),
            torch.zeros(1, dtype=dtype),
            0.5,
        )


def call_rbf_decision_backward(run):
    zeros = torch.zeros(2, 3)
    run(zeros[:, :1], zeros, torch.zeros(20, 3), torch.zeros(1, 20), 0.5)


if __name__ == "__main__":
    JITFunction.run = compile_instead
    for op in sys.argv[1:]:
        globals()[f"call_{op}"](registry.implementation(op, "triton"))
