"""The parts of `gpu.py` that measure: each operation on two backends, over its floor, beside its peers.

    python benchmarks/gpu_speed.py colours --device cuda --out colours.json

A floor is what the device needs at least: the bytes that must be moved at the bandwidth measured in this run, the
integer operations, or a launch, whichever takes longest. Where the work is the model's, the floor is the model alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent / "speed"))
import best_of_k
import halfspace_box_projection
import nuisance as images
from gpu_bench import BACKENDS, Bench, image_bytes
from gpu_figures import Figures
from gpu_jobs import mrt, search
from gpu_timing import because, launches, synchronise

from robustperf import nuisance, ops

# integer operations a random word: ten rounds of Philox (two wide products at half rate, two logic operations, two
# additions of the key) give four; shift and conversion follow
WORD = 10 * (2 * 2 + 2 + 2) / 4 + 4


def bandwidth(bench: Bench) -> None:
    """What the device can do at best, as every part measures it for itself."""


def colours(bench: Bench) -> None:
    """The fused pipelines at full size, draws included."""
    shape = bench.size((1024, 3, 224, 224), (16, 3, 32, 32))
    for name, parts in images.CASES.items():
        case, kernel = f"{name}, {'x'.join(map(str, shape))}", nuisance.Compose(parts)
        x = torch.rand(shape, device=bench.device, generator=bench.generator())
        index, out = torch.arange(len(x), device=bench.device), torch.empty((1, *shape), device=bench.device)
        few, known = slice(0, 8), index[:8]

        def draw(backend, kernel=kernel, x=x, index=index, out=out):
            return kernel.draw(x, key=images.KEY, index=index, out=out, backend=backend)

        good = bench.sound(case, lambda backend, kernel=kernel, x=x[few], known=known: kernel.draw(
            x, key=images.KEY, index=known, backend=backend))
        peers = {"copy": lambda out=out, x=x: out[0].copy_(x), **_image_peers(bench, case, name, kernel, x, index)}
        moved = image_bytes(x, out)
        times = bench.race(case, bench.limits.floor(moved), {name: partial(draw, name) for name in good}, peers)
        if name in ("four colours", "affine"):
            bench.share(case, 85, times, moved, "copy")
            bench.faster(case, 10, times, "kornia eager")
            bench.faster(case, 1.5, times, "torch.compile of the reference")
        del x, out, draw, peers


def _image_peers(bench, case, name, kernel, x, index):
    plain = images.eager(kernel, tuple(x.shape), bench.device)
    peers = {"the reference": lambda: plain(x)}
    if name == "affine + four colours":
        return peers
    compiled = torch.compile(plain)
    peers["torch.compile of the reference"] = lambda: compiled(x)
    if name == "affine":
        by_hand = images.grid_sample(kernel.sample(images.KEY, index, 1, shape=tuple(x.shape[1:])))
        peers["affine_grid + grid_sample"] = lambda: by_hand(x)
    try:
        theirs = images.kornia_colours() if name == "four colours" else _kornia_affine()
        if theirs is None:
            raise ImportError("kornia is not installed")
        peers["kornia eager"] = lambda: theirs(x)
    except Exception as error:
        bench.figures.could_not_run(f"{case}, kornia eager", because(error))
    return peers


def _kornia_affine():
    from kornia.augmentation import RandomAffine

    return RandomAffine(30, (0.1, 0.1), (0.8, 1.2), 10, p=1.0)


def noise(bench: Bench) -> None:
    """The other kernels, forth, a draw for each image."""
    shape = bench.size((256, 3, 224, 224), (16, 3, 32, 32))
    x = torch.rand(shape, device=bench.device, generator=bench.generator())
    index, out = torch.arange(len(x), device=bench.device), torch.empty((1, *shape), device=bench.device)
    for name, parts in images.OTHERS.items():
        case, kernel = f"{name}, {'x'.join(map(str, shape))}", nuisance.Compose(parts)
        words = x.numel() if name.endswith("noise") else 0

        def draw(backend, kernel=kernel):
            return kernel.draw(x, key=images.KEY, index=index, out=out, backend=backend)

        good = bench.sound(case, lambda backend, kernel=kernel: kernel.draw(
            x[:4], key=images.KEY, index=index[:4], backend=backend), 1e-3)
        bench.race(case, bench.limits.floor(image_bytes(x, out), "copy", WORD * words),
                   {name: partial(draw, name) for name in good}, {"copy": lambda: out[0].copy_(x)})


def draws(bench: Bench) -> None:
    """Uniforms and normals beside torch's own."""
    count, batch, dim = bench.size((10, 1024, 3072), (3, 16, 64))
    index, draw = torch.arange(batch, device=bench.device), torch.arange(count, device=bench.device)
    peer = torch.empty(count, batch, dim, device=bench.device)
    for normal in (False, True):
        case = f"draws {'normal' if normal else 'uniform'} [{count}, {batch}, {dim}]"

        def make(backend, normal=normal):
            return ops.draws(images.KEY, index, draw, dim, normal=normal, backend=backend)

        good = bench.sound(case, make, 1e-6)
        floor = bench.limits.floor(image_bytes(peer), "copy", WORD * peer.numel())
        bench.race(case, floor, {name: partial(make, name) for name in good},
                   {"torch's own": peer.normal_ if normal else peer.uniform_})


def back(bench: Bench) -> None:
    """The gradients in x and in delta."""
    shape = bench.size((256, 3, 224, 224), (8, 3, 32, 32))
    x = torch.rand(shape, device=bench.device, generator=bench.generator()).requires_grad_()
    grad = torch.randn((1, *shape), device=bench.device, generator=bench.generator())
    for name, parts in images.CASES.items():
        case, kernel = f"way back, {name}, {'x'.join(map(str, shape))}", nuisance.Compose(parts)
        index = torch.arange(len(x), device=bench.device)
        delta = kernel.sample(images.KEY, index, 1, shape=shape[1:]).requires_grad_()

        def gradients(backend, x=x, kernel=kernel, delta=delta):
            out = kernel(x, delta, backend=backend)
            return partial(torch.autograd.grad, out, (x, delta), grad, retain_graph=True)

        good = bench.sound(case, lambda backend, gradients=gradients: gradients(backend)()[0], 1e-3)
        calls = {name: gradients(name) for name in {*good, "reference"}}
        bench.race(case, bench.limits.floor(image_bytes(x, grad, x)), {name: calls[name] for name in good},
                   {"autograd of the reference": calls["reference"]})
        del calls


def best(bench: Bench) -> None:
    """best_of_k, on operands that no cache holds, and the smallest case by the kernel's own time."""
    device = bench.device
    for shape in (bench.size((10, 1024, 1000), (10, 64, 100)), (10, 64, 10)):
        target = torch.randint(shape[2], (shape[1],), device=device, generator=bench.generator())
        large = shape[1:] != (64, 10)
        several = [3 * torch.randn(shape, device=device, generator=bench.generator()) for _ in range(8 if large else 1)]
        for dtype in (torch.float32, torch.bfloat16):
            logits = [each.to(dtype) for each in several]
            for selection in ("sample", "batch"):
                _best(bench, logits, target, selection, large)


def _best(bench, logits, target, selection, large):
    shape, kind = list(logits[0].shape), str(logits[0].dtype).removeprefix("torch.")
    case = f"best_of_k {shape} {kind} {selection}"
    eager = best_of_k.each_sample if selection == "sample" else best_of_k.whole_batch
    compiled = torch.compile(eager, dynamic=False)

    def ours(backend, each):
        return ops.best_of_k(each, target, selection=selection, backend=backend)

    good = bench.sound(case, lambda backend: ours(backend, logits[0])[0])
    moved = image_bytes(logits[0])
    peers = {"cross_entropy + max": [partial(eager, each, target) for each in logits],
             "sum": [each.sum for each in logits]}
    if kind == "float32":
        peers["torch.compile of it"] = [partial(compiled, each, target) for each in logits]
    times = bench.race(case, bench.limits.floor(moved, "read"),
                       {name: [partial(ours, name, each) for each in logits] for name in good}, peers)
    if kind != "float32":
        return
    if large:
        bench.share(case, 85, times, moved, "read")
        return
    if bench.device == "cpu":
        bench.figures.could_not_run(f"{case}, launches and the kernel's own time", "this is not a GPU")
        return
    count, own = {}, {}
    for name in good:
        try:
            seen = [launches(partial(ours, name, logits[0])) for _ in range(9)]
            count[name] = len(seen[-1])
            own[name] = sorted(sum(seconds for _, seconds in each) for each in seen)[4] * 1e6
        except Exception as error:
            bench.figures.could_not_run(f"{case}, the kernel's own time, {name}", because(error))
    bench.figures.asked(f"{case}, launches", 1, count, "", at_most=True)
    bench.figures.asked(f"{case}, the kernel's own time", 10, own, "μs", at_most=True)


def projection(bench: Bench) -> None:
    """The halfspace-box projection beside what sorts."""
    batch, dim = bench.size((1024, 3072), (16, 96))
    generator = torch.Generator().manual_seed(0)
    sets = [tuple(each.to(bench.device) for each in halfspace_box_projection.operands(
        batch, dim, torch.float32, generator)) for _ in range(4)]
    for norm in (2.0, float("inf"), 1.0):
        case = f"halfspace_box_projection [{batch}, {dim}] float32 p={norm:g}"
        sort = halfspace_box_projection.sort_based
        compiled = torch.compile(sort)

        def ours(backend, x, w, c, norm=norm):
            return ops.halfspace_box_projection(x, w, c, norm=norm, backend=backend)

        good = bench.sound(case, lambda backend, ours=ours: ours(backend, *sets[0])[0])
        x, w, _ = sets[0]
        times = bench.race(case, bench.limits.floor(image_bytes(x, w, x)),
                           {name: [partial(ours, name, *each) for each in sets] for name in good},
                           {"sort-based PyTorch": [partial(sort, *each, norm) for each in sets],
                            "torch.compile of it": [partial(compiled, *each, norm) for each in sets]})
        bench.faster(case, 10, times, "sort-based PyTorch")


PARTS: dict[str, Callable[[Bench], None]] = {
    "bandwidth": bandwidth, "best_of_k": best, "colours": colours, "projection": projection, "line_search": search,
    "training": mrt, "draws": draws, "noise": noise, "way_back": back,
}  # fmt: skip
"""By name, in the order in which `gpu.py` runs them."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("part", choices=PARTS)
    options.add_argument("--device", choices=BACKENDS, default="cuda")
    options.add_argument("--small", action="store_true", help="sizes that show that it runs, and no more")
    options.add_argument("--out", type=Path, required=True, help="a JSON file for the figures")
    arguments = options.parse_args()
    if arguments.small:
        torch.set_num_threads(1)
    PARTS[arguments.part](Bench(arguments.device, arguments.small, Figures(arguments.out)))
    synchronise(arguments.device)


if __name__ == "__main__":
    main()
