"""Compiles every kernel that the calls below launch, for sm_80 and sm_90, and runs none. Started by test_triton.py,
with an operation's name; prints a line a kernel."""

import inspect
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction, mangle_type

from robustperf.ops import registry

TARGETS = 80, 90
_done = set()


def compile_instead(kernel, *args, grid, warmup, **settings):
    """Takes the place of JITFunction.run."""
    names = inspect.signature(kernel.fn).parameters
    options = {name: settings.pop(name) for name in list(settings) if name not in names}
    values = inspect.signature(kernel.fn).bind(*args, **settings).arguments
    signature, constants, attributes = {}, {}, {}
    for parameter in kernel.params:
        value = values[parameter.name]
        if parameter.is_constexpr or value is None:
            signature[parameter.name], constants[parameter.num,] = "constexpr", value
            continue
        signature[parameter.name] = parameter.annotation_type or mangle_type(value)
        if isinstance(value, torch.Tensor):
            attributes[parameter.num,] = [["tt.divisibility", 16]]
    variant = f"{kernel.__name__}({', '.join(map(str, signature.values()))}; {list(constants.values())})"
    if variant in _done:
        return
    _done.add(variant)
    for target in TARGETS:
        source = ASTSource(kernel, signature, constants, attributes)
        compiled = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
        assert compiled.asm["cubin"]
        # a contracted product and sum would not have the bits of csrc/core
        fused = [line for line in compiled.asm["ptx"].splitlines() if "fma." in line]
        print(f"sm_{target} {len(fused)} fused {variant}")


def numbers(*values):
    return torch.tensor(values, dtype=torch.int64)


def call_draws(run):
    for normal in (False, True):
        run(2**63 + 1, numbers(0, 1), numbers(0, 1, 2), 5, normal)


if __name__ == "__main__":
    JITFunction.run = compile_instead
    for op in sys.argv[1:]:
        globals()[f"call_{op}"](registry.implementation(op, "triton"))
