"""The parts of `gpu.py` that measure: each operation on two backends, over its floor, beside its peers.

    python benchmarks/gpu_speed.py colours --device cuda --out colours.json

A floor is what the device needs at least: the bytes that must be moved at the bandwidth measured in this run, the
integer operations, or a launch, whichever takes longest. Where the work is the model's, the floor is the model alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent / "speed"))
import best_of_k
import halfspace_box_projection
import line_search
import nuisance as images
import training
from gpu_figures import Figures
from gpu_timing import because, launches, limits, once_each, synchronise, take_turns
from harness import interleave

from robustperf import nets, nuisance, ops, random
from robustperf.ops import registry
from robustperf.ops.line_search_step import new_search
from robustperf.robustness.boundary import TOL, closest_boundary_by, distances
from robustperf.robustness.looks import GraphedLooks, Looks, looks_for
from robustperf.training import MRT

BACKENDS = {"cuda": ("cuda", "triton"), "cpu": ("native", "reference")}
"""The two columns on each device."""

# integer operations a random word: ten rounds of Philox (two wide products at half rate, two logic operations, two
# additions of the key) give four; shift and conversion follow
WORD = 10 * (2 * 2 + 2 + 2) / 4 + 4


class Bench:
    """A device with its backends, what it can do at best, and where figures go."""

    def __init__(self, device: str, small: bool, figures: Figures):
        self.device, self.small, self.figures = device, small, figures
        self.backends, self.limits = BACKENDS[device], limits(device, small)
        figures.limits(asdict(self.limits))

    def size(self, full: tuple[int, ...], small: tuple[int, ...]) -> tuple[int, ...]:
        return small if self.small else full

    def generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(0)

    def sound(self, case: str, make: Callable[[str], torch.Tensor], tolerance: float = 1e-4) -> list[str]:
        """The backends that give, on average within `tolerance` of its largest number, what the reference does; a time
        of something else is no figure."""
        good, truth = [], make("reference").double()
        for backend in self.backends:
            try:
                wrong = ((make(backend).double() - truth).abs().mean() / truth.abs().max().clamp_min(1e-30)).item()
                if not wrong <= tolerance:
                    raise ValueError(f"differs from the reference by {wrong:.2g} of its largest number on average")
                good.append(backend)
            except Exception as error:
                self.figures.could_not_run(f"{case}, {backend}", because(error))
        return good

    def race(self, case: str, floor: tuple[float, str], ours: dict[str, Callable], peers: dict[str, Callable],
             repeats: int = 11) -> dict[str, float]:
        """Times of all, in turn; writes the row."""
        times = take_turns({**ours, **peers}, self.device, repeats=3 if self.small else repeats,
                           failed=lambda name, why: self.figures.could_not_run(f"{case}, {name}", why))
        mine = {name: times[name] for name in ours if name in times}
        self.figures.time(case, floor, mine, {name: times[name] for name in peers if name in times},
                          self.launches(case, {name: ours[name] for name in mine}))
        return times

    def launches(self, case: str, calls: dict[str, Callable | list[Callable]]) -> dict[str, int]:
        """How many things each call has the GPU do."""
        counts = {}
        for name, call in calls.items() if self.device != "cpu" else ():
            try:
                counts[name] = len(launches(call[0] if isinstance(call, list) else call))
            except Exception as error:
                self.figures.could_not_run(f"{case}, launches of {name}", because(error))
        return counts

    def faster(self, figure: str, wanted: float, times: dict[str, float], peer: str) -> None:
        has = {name: times[peer] / times[name] for name in self.backends if name in times and peer in times}
        self.figures.asked(f"{figure}, {peer} over ours", wanted, has, "×")

    def share(self, figure: str, wanted: float, times: dict[str, float], moved: int, way: str) -> None:
        bandwidth = getattr(self.limits, way)
        has = {name: 100 * moved / times[name] / bandwidth for name in self.backends if name in times}
        self.figures.asked(f"{figure}, share of {way} bandwidth", wanted, has, "%")

    @contextmanager
    def preferring(self, backend: str) -> Iterator[None]:
        """backend=None means this one: what is built on the operations has no argument for it."""
        caches = (registry.default, registry._default_on, registry.native)
        before = registry._PREFERRED[self.device]
        registry._PREFERRED[self.device] = (backend, "reference")
        for cache in caches:
            cache.cache_clear()
        try:
            yield
        finally:
            registry._PREFERRED[self.device] = before
            for cache in caches:
                cache.cache_clear()


def bandwidth(bench: Bench) -> None:
    """What the device can do at best, as every part measures it for itself."""


def image_bytes(*tensors: torch.Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


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


class Recording(torch.nn.Module):
    """Keeps what the model was shown."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x):
        self.seen.append(x.clone())
        return self.model(x)


def search(bench: Bench) -> None:
    """The line-search step, and whole searches over the time of their model's forwards alone. The networks are not
    trained; the last bias makes all classes as likely. No TF32, whose rounding is beyond the search's tolerance."""
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    points = 32 if bench.small else 256
    networks = {f"SmallCNN, {points} points of 1x28x28": (nets.SmallCNN(), (points, 1, 28, 28)),
                f"ResNet-20, {4 * points} points of 3x32x32": (nets.build("resnet20"), (4 * points, 3, 32, 32))}
    for name, (model, shape) in list(networks.items())[: 1 if bench.small else 2]:
        model = model.to(bench.device).eval().requires_grad_(False)
        x = torch.rand(shape, device=bench.device, generator=bench.generator())
        *_, last = (module for module in model.modules() if isinstance(module, torch.nn.Linear))
        logits = model(x)
        last.bias -= logits.mean(0)
        candidates = torch.stack([x.roll(shift, 0) for shift in (1, 2, 3)])
        _step(bench, name, model, x, candidates)
        _whole_search(bench, name, model, x, candidates)


def _whole_search(bench, name, model, x, candidates):
    """With looks that serve batch after batch, as `margins` has them: on a GPU CUDA graphs where these are quicker."""
    def ours(backend, looks):
        return closest_boundary_by(looks, x, candidates, backend=backend).distance

    case = f"closest_boundary, {name}"
    good = bench.sound(case, lambda backend: ours(backend, looks_for(model, x)).nan_to_num(posinf=-1.0), 1e-3)
    has, bisection = {}, partial(line_search.bisect_every_line, model, x, candidates)
    for backend in good:
        recording, looks = Recording(model), looks_for(model, x)
        # the same looks without graphs, whose replays the recording would not see
        ours(backend, Looks(recording) if bench.device == "cpu" else GraphedLooks(recording, lambda look: None))

        def forwards(seen=recording.seen):
            with torch.no_grad():
                for each in seen:
                    model(each)

        times = interleave({backend: partial(ours, backend, looks), "forwards": forwards, "bisection": bisection},
                           3 if bench.small else 11, warmup=2 if bench.small else 8)
        has[backend] = times[backend] / times["forwards"]
        bench.figures.time(
            f"{case}, {backend}", (times["forwards"], f"its {len(recording.seen)} model forwards alone, eager"),
            {backend: times[backend]}, {"bisection of every line": times["bisection"]},
            evaluations_a_point=sum(map(len, recording.seen)) / len(x))  # fmt: skip
    bench.figures.asked(f"{case}, time over its forwards", 1.15, has, "×", at_most=True)


def _step(bench, name, model, x, candidates):
    """One step on searches that all go on. A step moves its search: each call has operands of its own."""
    flat, ends = x.flatten(1), candidates.flatten(2).contiguous()
    rows, labels = torch.arange(len(x), device=bench.device), model(x).argmax(1)
    lengths = distances(x, candidates, 2.0).T.contiguous()
    gap = ops.logit_gap(model(x), labels, backend="reference")
    begun = new_search(gap, lengths, torch.full_like(lengths, torch.nan))
    points, closest = flat.clone(), torch.full_like(flat, torch.nan)

    def step(logits, lines, state, points, closest, backend):
        ops.line_search_step(logits, rows, labels, flat, ends, lines, state, points, closest, tol=TOL, backend=backend)

    step(None, *begun, points, closest, "reference")
    state = (*begun, points, closest)
    logits = model(points.view_as(x))

    def stepped(backend):
        own = [each.clone() for each in state]
        step(logits, *own, backend)
        return torch.cat([each.flatten().nan_to_num().clamp(-2, 100).double() for each in own])

    case = f"line_search_step, {name}"
    good, times = bench.sound(case, stepped), {}
    calls = {backend: [partial(step, logits, *[each.clone() for each in state], backend) for _ in range(13)]
             for backend in good}
    count = bench.launches(case, calls)
    for backend in good:
        try:
            times[backend] = once_each(calls[backend][1:], bench.device)
        except Exception as error:
            bench.figures.could_not_run(f"{case}, {backend}", because(error))
    bench.figures.time(case, bench.limits.floor(image_bytes(flat, flat, flat, logits)), times, launches=count)
    if bench.device != "cpu":
        bench.figures.asked(f"{case}, launches", 1, count, "", at_most=True)


def mrt(bench: Bench) -> None:
    """A whole step of MRT-10 beside the published loop; and whether both choose the same draws."""
    k = 2 if bench.small else 10
    sides = training.contenders("MRT", k, kernel_on=bench.backends[0])
    ours = sides.pop("float32")
    calls = {name: training.step(loss_of, bench.device) for name, loss_of in sides.items()}

    def on(backend, run):
        with bench.preferring(backend):
            run()

    for backend in bench.backends:
        run = partial(on, backend, training.step(ours, bench.device))
        try:
            run()
            calls[backend] = run
        except Exception as error:
            bench.figures.could_not_run(f"MRT-{k} step, {backend}", because(error))
    calls["the model's work alone"] = _model_work(bench, k)
    times = interleave(calls, 3 if bench.small else 21)
    floor = times.pop("the model's work alone")
    mine = {name: times.pop(name) for name in bench.backends if name in times}
    case = f"MRT-{k} step, R A.2's CNN with batch norm, batch {training.BATCH}"
    bench.figures.time(case, (floor, f"{k} forwards, two batches' forward and backward, the optimizer, alone"), mine,
                       times)
    bench.faster(case, 4, {**mine, **times}, "published")
    batches, same = 5 if bench.small else 20, {}
    for backend in mine:
        with bench.preferring(backend):
            same[backend] = _equal_selections(bench, k, batches)
    bench.figures.asked(f"{case}, batches of {batches} where the draw chosen is the published loop's", batches, same,
                        "batches")


def _model_work(bench, k):
    torch.manual_seed(0)
    model = nets.RobeyCNN(classes=training.CLASSES, batch_norm=True).to(bench.device)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    drawn = torch.rand(k * training.BATCH, 3, 32, 32, device=bench.device)
    both, y = drawn[: 2 * training.BATCH], torch.randint(training.CLASSES, (2 * training.BATCH,), device=bench.device)

    def run():
        model.eval()
        with torch.no_grad():
            model(drawn)
        model.train()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(both), y).backward()
        optimizer.step()

    return run


@torch.no_grad()
def _equal_selections(bench: Bench, k: int, batches: int) -> int:
    """In how many of the batches the draw that selection="batch" takes is the published loop's, which is shown the
    same draws and, as ours, looks at the model in eval mode."""
    torch.manual_seed(0)
    model = nets.RobeyCNN(classes=training.CLASSES, batch_norm=True).to(bench.device).eval()
    objective, same = MRT(training.KERNEL, k=k, selection="batch"), 0
    for number in range(batches):
        key = random.fold_in(random.key(0), number)
        x = torch.rand(training.BATCH, 3, 32, 32, device=bench.device)
        y = torch.randint(training.CLASSES, (len(x),), device=bench.device)
        index = torch.arange(len(x), device=bench.device)
        worst, most = x, 0.0
        for drawn in training.KERNEL.draw(x, key=key, index=index, draws=k):
            loss = torch.nn.functional.cross_entropy(model(drawn), y).item()
            if loss > most:
                worst, most = drawn, loss
        same += torch.equal(objective.worst(model, x, y, key=key, index=index), worst)
    return same


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
