"""The parts of `benchmarks.gpu` that measure times: each operation on two backends, over its floor and with its peers.

    python -m benchmarks.gpu.speed colours --device cuda --out colours.json

A floor is the least time that the device needs: the bytes that must be moved at the bandwidth measured in this run, the
integer operations, or a launch, whichever takes longest. Where a model is evaluated, the floor is the model alone. A
result is compared with the reference on the CPU before it is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.common.augmentation_peers import colour_peers
from benchmarks.common.tables import dtype_name
from benchmarks.common.timing import device_times, synchronize
from benchmarks.gpu.bench import Bench, image_bytes
from benchmarks.gpu.device import launches
from benchmarks.gpu.figures import Figures
from benchmarks.gpu.jobs import mrt, search
from benchmarks.gpu.processes import BACKENDS
from benchmarks.speed import best_of_k, halfspace_box_projection
from benchmarks.speed import nuisance as images
from robustperf import nuisance, ops

# integer operations per random word: ten rounds of Philox (two wide products at half rate, two logic operations, two
# additions of the key) give four words; shift and conversion follow
WORD = 10 * (2 * 2 + 2 + 2) / 4 + 4
COMPARED = 4  # images at the end of a batch that are compared with the reference's


def bandwidth(bench: Bench) -> None:
    """Only the device's limits, which every part measures."""


def _drawing(kernel, x, index, out):
    """Three functions: a draw for each image on a backend, its last images, and those by the reference on the CPU."""
    last = slice(-COMPARED, None)

    def draw(backend):
        return kernel.draw(x, key=images.KEY, index=index, out=out, backend=backend)

    def expected():
        return kernel.draw(x[last].cpu(), key=images.KEY, index=index[last].cpu(), backend="reference")

    return draw, lambda backend: draw(backend)[:, last], expected


def colours(bench: Bench) -> None:
    """The fused pipelines at full size, draws included."""
    shape = bench.size((1024, 3, 224, 224), (16, 3, 32, 32))
    x = torch.rand(shape, device=bench.device, generator=bench.generator())
    index, out = torch.arange(len(x), device=bench.device), torch.empty((1, *shape), device=bench.device)
    predicted = {"four colours": "55-65 %", "affine": "20-30 %"}
    for name, parts in images.CASES.items():
        case, kernel = f"{name}, {'x'.join(map(str, shape))}", nuisance.Compose(parts)
        with bench.attempt(case):
            draw, last, expected = _drawing(kernel, x, index, out)
            agreeing = bench.agreeing(case, last, expected)
            peers = {"copy": lambda: out[0].copy_(x), **_image_peers(bench, case, name, kernel, x, index)}
            moved = image_bytes(x, out)
            times = bench.race(case, bench.limits.floor(moved), {each: partial(draw, each) for each in agreeing}, peers)
            if name in predicted:
                bench.fraction(case, 85, times, moved, "copy", predicted[name])
                bench.faster(case, 10, times, "kornia eager")
                if bench.compiles:
                    bench.faster(case, 1.5, times, "torch.compile of the reference")


def _image_peers(bench, case, name, kernel, x, index):
    plain = images.eager(kernel, tuple(x.shape), bench.device)
    peers = {"the reference": lambda: plain(x)}
    if name == "affine + four colours":
        return peers
    if bench.compiles:
        compiled = torch.compile(plain)
        peers["torch.compile of the reference"] = lambda: compiled(x)
    if name == "affine":
        by_hand = images.grid_sample(kernel.sample(images.KEY, index, 1, shape=tuple(x.shape[1:])))
        peers["affine_grid + grid_sample"] = lambda: by_hand(x)
    with bench.attempt(f"{case}, kornia eager"):
        theirs = colour_peers().get("kornia") if name == "four colours" else _kornia_affine()
        if theirs is None:
            raise ImportError("kornia is not installed")
        peers["kornia eager"] = lambda: theirs(x)
    return peers


def _kornia_affine():
    from kornia.augmentation import RandomAffine

    return RandomAffine(30, (0.1, 0.1), (0.8, 1.2), 10, p=1.0)


def noise(bench: Bench) -> None:
    """The other kernels, forward, a draw for each image."""
    shape = bench.size((256, 3, 224, 224), (16, 3, 32, 32))
    x = torch.rand(shape, device=bench.device, generator=bench.generator())
    index, out = torch.arange(len(x), device=bench.device), torch.empty((1, *shape), device=bench.device)
    for name, parts in images.OTHERS.items():
        case, kernel = f"{name}, {'x'.join(map(str, shape))}", nuisance.Compose(parts)
        words = x.numel() if name.endswith("noise") else 0
        with bench.attempt(case):
            draw, last, expected = _drawing(kernel, x, index, out)
            agreeing = bench.agreeing(case, last, expected, 1e-3)
            bench.race(
                case,
                bench.limits.floor(image_bytes(x, out), "copy", WORD * words),
                {each: partial(draw, each) for each in agreeing},
                {"copy": lambda: out[0].copy_(x)},
            )


def draws(bench: Bench) -> None:
    """Uniforms and normals compared with torch's own."""
    count, batch, dim = bench.size((10, 1024, 3072), (3, 16, 64))
    index, draw = torch.arange(batch, device=bench.device), torch.arange(count, device=bench.device)
    peer = torch.empty(count, batch, dim, device=bench.device)
    for normal in (False, True):
        case = f"draws {'normal' if normal else 'uniform'} [{count}, {batch}, {dim}]"

        def make(backend, index=index, draw=draw, normal=normal):
            return ops.draws(images.KEY, index, draw, dim, normal=normal, backend=backend)

        agreeing = bench.agreeing(
            case,
            lambda backend, make=make: make(backend)[:, -COMPARED:],
            lambda make=make: make("reference", index[-COMPARED:].cpu(), draw.cpu()),
            1e-6,
        )
        floor = bench.limits.floor(image_bytes(peer), "copy", WORD * peer.numel())
        bench.race(
            case,
            floor,
            {name: partial(make, name) for name in agreeing},
            {"torch's own": peer.normal_ if normal else peer.uniform_},
        )


def backward(bench: Bench) -> None:
    """The gradients in x and in delta, from the gradient of the result."""
    shape = bench.size((256, 3, 224, 224), (8, 3, 32, 32))
    x = torch.rand(shape, device=bench.device, generator=bench.generator()).requires_grad_()
    grad = torch.randn((1, *shape), device=bench.device, generator=bench.generator())
    for name, parts in images.CASES.items():
        case, kernel = f"backward pass, {name}, {'x'.join(map(str, shape))}", nuisance.Compose(parts)
        index = torch.arange(len(x), device=bench.device)
        with bench.attempt(case):
            delta = kernel.sample(images.KEY, index, 1, shape=shape[1:]).requires_grad_()

            def gradients(backend, x=x, delta=delta, grad=grad, kernel=kernel):
                out = kernel(x, delta, backend=backend)
                return partial(torch.autograd.grad, out, (x, delta), grad, retain_graph=True)

            def expected(delta=delta, gradients=gradients):
                last = (x[-COMPARED:], delta[:, -COMPARED:], grad[:, -COMPARED:])
                return gradients("reference", *[each.detach().cpu().requires_grad_() for each in last])()[0]

            agreeing = bench.agreeing(
                case, lambda backend, gradients=gradients: gradients(backend)()[0][-COMPARED:], expected, 1e-3
            )
            peers = {}
            with bench.attempt(f"{case}, autograd of the reference"):
                peers["autograd of the reference"] = gradients("reference")
            bench.race(
                case, bench.limits.floor(image_bytes(x, grad, x)), {each: gradients(each) for each in agreeing}, peers
            )
            del peers


def best(bench: Bench) -> None:
    """best_of_k on operands that no cache holds, and the smallest case by the time of its kernel alone."""
    device = bench.device
    for shape in (bench.size((10, 1024, 1000), (10, 64, 100)), (10, 64, 10)):
        target = torch.randint(shape[2], (shape[1],), device=device, generator=bench.generator())
        large = shape[1:] != (64, 10)
        several = [3 * torch.randn(shape, device=device, generator=bench.generator()) for _ in range(8 if large else 1)]
        for dtype in (torch.float32, torch.bfloat16):
            logits = [each.to(dtype) for each in several]
            for selection in ("sample", "batch"):
                case = f"best_of_k {list(shape)} {dtype_name(dtype)} {selection}"
                with bench.attempt(case):
                    _best(bench, case, logits, target, selection, large)


def _best(bench, case, logits, target, selection, large):
    eager = best_of_k.each_sample if selection == "sample" else best_of_k.whole_batch

    def ours(backend, each, target=target):
        return ops.best_of_k(each, target, selection=selection, backend=backend)

    agreeing = bench.agreeing(
        case, lambda backend: ours(backend, logits[0])[0], lambda: ours("reference", logits[0].cpu(), target.cpu())[0]
    )
    moved = image_bytes(logits[0])
    peers = {
        "cross_entropy + max": [partial(eager, each, target) for each in logits],
        "sum": [each.sum for each in logits],
    }
    full = logits[0].dtype == torch.float32
    if full and bench.compiles:
        compiled = torch.compile(eager, dynamic=False)
        peers["torch.compile of it"] = [partial(compiled, each, target) for each in logits]
    times = bench.race(
        case,
        bench.limits.floor(moved, "read"),
        {name: [partial(ours, name, each) for each in logits] for name in agreeing},
        peers,
    )
    if not full:
        return
    if large:
        bench.fraction(case, 85, times, moved, "read", "70-80 %")
        return
    if bench.device == "cpu":
        bench.figures.could_not_run(f"{case}, launches and the kernel's own time", "it needs a GPU")
        return
    count, own = {}, {}
    for name in agreeing:
        with bench.attempt(f"{case}, the kernel's own time, {name}"):
            recorded = [launches(partial(ours, name, logits[0])) for _ in range(9)]
            count[name] = len(recorded[-1])
            own[name] = sorted(sum(seconds for _, seconds in each) for each in recorded)[4] * 1e6
    bench.figures.target(f"{case}, launches", 1, count, "", at_most=True)
    bench.figures.target(f"{case}, the kernel's own time", 10, own, "μs", at_most=True)


def projection(bench: Bench) -> None:
    """The halfspace-box projection compared with an implementation that sorts."""
    batch, dim = bench.size((1024, 3072), (16, 96))
    generator = torch.Generator().manual_seed(0)
    on_cpu = [halfspace_box_projection.operands(batch, dim, torch.float32, generator) for _ in range(4)]
    sets = [tuple(each.to(bench.device) for each in operands) for operands in on_cpu]
    sort, last = halfspace_box_projection.sort_based, slice(-COMPARED, None)
    for norm in (2.0, float("inf"), 1.0):
        case = f"halfspace_box_projection [{batch}, {dim}] float32 p={norm:g}"

        def ours(backend, x, w, c, norm=norm):
            return ops.halfspace_box_projection(x, w, c, norm=norm, backend=backend)

        with bench.attempt(case):
            agreeing = bench.agreeing(
                case,
                lambda backend, ours=ours: ours(backend, *sets[0])[0][last],
                lambda ours=ours: ours("reference", *[each[last] for each in on_cpu[0]])[0],
            )
            peers = {"sort-based PyTorch": [partial(sort, *each, norm) for each in sets]}
            if bench.compiles:
                compiled = torch.compile(sort)
                peers["torch.compile of it"] = [partial(compiled, *each, norm) for each in sets]
            x, w, _ = sets[0]
            times = bench.race(
                case,
                bench.limits.floor(image_bytes(x, w, x)),
                {name: [partial(ours, name, *each) for each in sets] for name in agreeing},
                peers,
            )
            bench.faster(case, 10, times, "sort-based PyTorch")


def rbf(bench: Bench) -> None:
    """rbf_decision and its gradient in x compared with plain PyTorch; the floor is the two matrix products alone, in
    float32 without TF32."""
    batch, supports, dim, classifiers = bench.size((1024, 10_000, 784, 45), (16, 128, 49, 3))
    torch.backends.cuda.matmul.allow_tf32 = False
    x, support = (
        torch.rand(count, dim, device=bench.device, generator=bench.generator()) for count in (batch, supports)
    )
    dual = torch.randn(classifiers, supports, device=bench.device, generator=bench.generator()) / supports
    intercept, gamma = torch.zeros(classifiers, device=bench.device), 2.0 / dim
    values = torch.empty(batch, supports, device=bench.device)

    def ours(backend, x=x, operands=(support, dual, intercept)):
        return ops.rbf_decision(x, *operands, gamma, backend=backend)

    def with_cdist(x=x):
        return torch.exp(-gamma * torch.cdist(x, support).square()) @ dual.T + intercept

    def with_matmul(x=x):
        squares = x.square().sum(1, keepdim=True) + support.square().sum(1) - 2 * x @ support.T
        return torch.exp(-gamma * squares) @ dual.T + intercept

    def gradient(call):
        points = x.detach().requires_grad_()
        out = call(x=points)
        return partial(torch.autograd.grad, out.square().sum(), points, retain_graph=True)

    case, last = f"rbf_decision [{batch}, {dim}], {supports} vectors, {classifiers} classifiers", slice(-COMPARED, None)
    agreeing = bench.agreeing(
        case,
        lambda backend: ours(backend)[last],
        lambda: ours("reference", x[last].cpu(), [each.cpu() for each in (support, dual, intercept)]),
    )
    products = device_times(
        {"products": lambda: torch.mm(torch.mm(x, support.T, out=values), dual.T)},
        bench.device,
        failed=lambda name, error: bench.failed(f"{case}, {name}", error),
    )
    floor = (products["products"], "its two matrix products alone") if products else bench.limits.floor(0)
    peers = {"cdist + exp": with_cdist, "matmul + exp": with_matmul}
    if bench.compiles:
        peers["torch.compile of matmul + exp"] = torch.compile(with_matmul)
    bench.race(case, floor, {name: partial(ours, name) for name in agreeing}, peers)
    with bench.attempt(f"{case}, gradient in x"):
        bench.race(
            f"{case}, gradient in x",
            floor,
            {name: gradient(partial(ours, name)) for name in agreeing},
            {"autograd of matmul + exp": gradient(with_matmul)},
        )


PARTS: dict[str, Callable[[Bench], None]] = {
    "bandwidth": bandwidth, "colours": colours, "best_of_k": best, "projection": projection, "line_search": search,
    "training": mrt, "draws": draws, "noise": noise, "backward": backward, "rbf": rbf,
}  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("part", choices=PARTS)
    options.add_argument("--device", choices=BACKENDS, default="cuda")
    options.add_argument("--small", action="store_true", help="sizes that only show that the code runs")
    options.add_argument("--no-compile", action="store_true", help="leaves out torch.compile's peers")
    options.add_argument("--without", help="a backend to leave out")
    options.add_argument("--out", type=Path, required=True, help="a JSON file for the figures")
    arguments = options.parse_args()
    if arguments.small:
        torch.set_num_threads(1)
    PARTS[arguments.part](
        Bench(arguments.device, arguments.small, Figures(arguments.out), arguments.without, not arguments.no_compile)
    )
    synchronize(arguments.device)


if __name__ == "__main__":
    main()
