"""Runs every operation once on a backend, on small odd shapes, and compares it with the reference on the CPU.

    python -m benchmarks.gpu.operations --backend cuda --device cuda
    compute-sanitizer --tool memcheck --kernel-name kns=robustperf python -m benchmarks.gpu.operations --backend cuda

Prints a line for each call. The exit status is 1 where one raised or differs from the reference, and `CONTEXT_LOST`
where the device no longer works in this process; another process can take the rest of a shared list.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.common.tables import dtype_name
from benchmarks.common.timing import synchronize
from benchmarks.gpu.device import context_works, reason
from benchmarks.gpu.processes import CONTEXT_LOST
from benchmarks.gpu.shared_work import SharedWork
from robustperf import closest_boundary, nuisance, ops, random
from robustperf.ops import registry

KEY = random.key(2**63 + 11)
SHAPES = ((3, 3, 13, 17), (2, 3, 32, 32), (5, 3, 37, 53))
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
MAX_DIFFERENT = 1e-3  # fraction of values that may fall on the other side of a threshold, such as one shot more

Outcome = dict[str, str | None]
Make = Callable[[str, str], tuple[torch.Tensor, ...]]


def normals(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def uniforms(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def labels(count: int, classes: int) -> torch.Tensor:
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(2))


def logit_gap(dtype, backend, device):
    logits = normals(37, 11, dtype=dtype).to(device)
    return (ops.logit_gap(logits, labels(37, 11).to(device), backend=backend),)


def best_of_k(dtype, selection, classes, backend, device):
    logits, target = normals(5, 37, classes, dtype=dtype).to(device), labels(37, classes).to(device)
    running = ops.best_of_k(logits[:3].contiguous(), target, selection=selection, backend=backend)
    return ops.best_of_k(
        logits[3:].contiguous(), target, selection=selection, running=running, first=3, backend=backend
    )


def projection(dtype, norm, dim, backend, device):
    x, w = uniforms(7, dim, dtype=dtype).to(device), normals(7, dim, dtype=dtype).to(device)
    c = (0.3 * w.abs() * torch.where(w > 0, 1 - x, x)).sum(1)
    return ops.halfspace_box_projection(x, w, c, norm=norm, backend=backend)


def into_ball(dtype, norm, dim, backend, device):
    x, delta = uniforms(7, dim, dtype=dtype).to(device), normals(7, dim, dtype=dtype).to(device)
    radius = 0.3 * torch.linalg.vector_norm(delta, norm, dim=1)
    return (ops.ball_box_projection(x, delta, radius, norm=norm, backend=backend),)


def draws(normal, backend, device):
    index, draw = torch.tensor([0, 7, 2**32, 2**63 - 1]), torch.tensor([0, 1, 2**32 - 1])
    return (ops.draws(KEY, index.to(device), draw.to(device), 13, normal=normal, backend=backend),)


def closest(method, backend, device):
    """A search, `line_search_step` from the first evaluation to the last, in float64."""
    weight = normals(5, 30, dtype=torch.float64).to(device)
    x, ends = uniforms(19, 30, dtype=torch.float64).to(device), uniforms(3, 19, 30, dtype=torch.float64).to(device)
    found = closest_boundary(lambda x: torch.tanh(x @ weight.T), x, ends.flip(1), method=method, backend=backend)
    return found.distance, found.candidate


def rbf_decision(dtype, backend, device):
    x, support = (uniforms(count, 30, dtype=dtype).to(device) for count in (19, 257))
    decision = ops.rbf_decision(
        x.requires_grad_(),
        support,
        normals(3, 257, dtype=dtype).to(device),
        normals(3, dtype=dtype).to(device),
        0.5,
        backend=backend,
    )
    return decision.detach(), *torch.autograd.grad(decision.square().sum(), x)


def drawn(kernel, shape, dtype, backend, device):
    x = uniforms(*shape, dtype=dtype).to(device)
    return (kernel.draw(x, key=KEY, index=torch.arange(len(x), device=device), draws=3, backend=backend),)


def sampled(kernel, shape, backend, device):
    index = torch.arange(shape[0], device=device)
    return (kernel.sample(KEY, index, 3, shape=shape[1:], backend=backend),)


def forward_backward(kernel, shape, dtype, backend, device):
    """The transformed images and the gradients in x and in delta."""
    x = uniforms(*shape, dtype=dtype).to(device).requires_grad_()
    delta = kernel.sample(KEY, torch.arange(shape[0]), 3, shape=shape[1:], backend="reference").to(device, dtype)
    out = kernel(x, delta.requires_grad_(), backend=backend)
    grad = normals(*out.shape, dtype=dtype).to(device)
    return out.detach(), *torch.autograd.grad(out, (x, delta), grad)


def kernels() -> dict[str, nuisance.Compose]:
    """Each program kernel, and chains of them."""
    arguments = {"l2_ball": (2.5,), "linf_ball": (0.1,), "background_colour": ((0,) * 3, (1,) * 3, "corner")}
    alone = {
        name: kind(*arguments.get(name, ()))
        for name, kind in nuisance.KERNELS.items()
        if issubclass(kind, nuisance.ProgramKernel)
    }
    chains = {
        "four colours": ("brightness", "contrast", "saturation", "hue"),
        "warp, colours, noise": ("affine", "brightness", "contrast", "gaussian_noise"),
        "long chain": ("rotation", "contrast", "blur", "fog", "affine", "gamma", "hue", "impulse_noise", "shot_noise"),
    }
    return {
        name: nuisance.Compose([alone[part] for part in parts])
        for name, parts in {**{name: (name,) for name in alone}, **chains}.items()
    }


def calls() -> Iterator[tuple[str, Make]]:
    """(name, a function of backend and device) for each call."""
    wide, half = (torch.float32, torch.float64), (torch.bfloat16, torch.float16)
    for dtype in (*wide, *half):
        kind = dtype_name(dtype)
        yield f"logit_gap {kind}", partial(logit_gap, dtype)
        for selection in ("sample", "batch"):
            for classes in (3, 257):
                yield f"best_of_k {kind} {selection} {classes}", partial(best_of_k, dtype, selection, classes)
    for dtype in wide:
        kind = dtype_name(dtype)
        for norm in (1, 2, float("inf")):
            for dim in (37, 3075):
                yield f"halfspace_box_projection {kind} p={norm} {dim}", partial(projection, dtype, norm, dim)
                yield f"ball_box_projection {kind} p={norm} {dim}", partial(into_ball, dtype, norm, dim)
    for normal in (False, True):
        yield f"draws {'normal' if normal else 'uniform'}", partial(draws, normal)
    for dtype in wide:
        yield f"rbf_decision {dtype_name(dtype)}", partial(rbf_decision, dtype)
    for method in ("chandrupatla", "bisection"):
        yield f"line_search_step {method}", partial(closest, method)
    for name, kernel in kernels().items():
        yield f"nuisance_sample {name}", partial(sampled, kernel, SHAPES[0])
        for shape, dtype in zip(SHAPES, (torch.float32, torch.float32, torch.float64), strict=True):
            size = "x".join(map(str, shape))
            yield f"nuisance_draw {name} {size}", partial(drawn, kernel, shape, dtype)
            if name not in ("impulse_noise", "shot_noise", "long chain"):  # no gradient in delta
                yield f"nuisance {name} {size} backward", partial(forward_backward, kernel, shape, dtype)


def difference(ours: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> str | None:
    """How the results differ; None where they agree."""
    for number, (mine, right) in enumerate(zip(ours, expected, strict=True)):
        mine = mine.cpu()
        if mine.shape != right.shape or mine.dtype != right.dtype:
            return f"result {number} is {list(mine.shape)} {mine.dtype}, not {list(right.shape)} {right.dtype}"
        tolerance = TOLERANCE.get(right.dtype, 0.0)
        # gradients are sums over an image, with the rounding of the largest
        size = right.abs().max().item() if right.is_floating_point() and right.numel() else 1.0
        wrong = ~torch.isclose(mine, right, rtol=tolerance, atol=tolerance * max(size, 1.0), equal_nan=True)
        if wrong.sum() > MAX_DIFFERENT * wrong.numel():
            return f"{int(wrong.sum())} of {wrong.numel()} values of result {number} differ from the reference's"
    return None


def check(name: str, make: Make, backend: str, device: str) -> Outcome:
    """The outcome of one call, compared with the reference on the CPU."""
    try:
        expected = make("reference", "cpu")
        ours = make(backend, device)
        synchronize(device)
        return {"name": name, "wrong": difference(ours, expected)}
    except Exception as error:
        return {"name": name, "wrong": reason(error)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--backend", default="cuda")
    options.add_argument("--device", default="cuda")
    options.add_argument("--small", action="store_true", help="a few of the operations")
    options.add_argument("--share", type=Path, help="the folder of a shared list")
    options.add_argument("--process", type=int, default=0, help="this one's number")
    options.add_argument("--processes", type=int, default=1)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    # a gap allows for TensorFloat-32 where convolutions may use it; the reference on the CPU does not
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if missing := registry.missing(arguments.backend):
        sys.exit(f"{arguments.backend}: {missing}")
    known = dict(calls())
    work, wrong = SharedWork(arguments.share, arguments.process, arguments.processes), False
    for name in work.take(list(known)[:: 9 if arguments.small else 1]):
        print(f"{name}: started", flush=True)
        outcome = check(name, known[name], arguments.backend, arguments.device)
        work.record(**outcome)
        print(f"{name}: {outcome['wrong'] or 'agrees'}", flush=True)
        wrong |= outcome["wrong"] is not None
        if wrong and not context_works(arguments.device):
            print("the device no longer works in this process", flush=True)
            sys.exit(CONTEXT_LOST)
    sys.exit(wrong and arguments.share is None)


if __name__ == "__main__":
    main()
