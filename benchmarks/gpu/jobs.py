"""The parts of `speed.py` that evaluate a model: the line search and a step of training."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import torch

from benchmarks.common.timing import interleave
from benchmarks.gpu.bench import Bench, image_bytes
from benchmarks.gpu.device import once_each
from benchmarks.speed import line_search, training
from robustperf import closest_boundary, nets, ops, random
from robustperf.ops.search_state import new_search
from robustperf.robustness.search import TOL, distances
from robustperf.training import MRT

COMPARED = 128  # points whose distances are compared with those found on the CPU


class Recording(torch.nn.Module):
    """Keeps the inputs of a model."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model, self.inputs = model, []

    def forward(self, x):
        self.inputs.append(x.clone())
        return self.model(x)


def search(bench: Bench) -> None:
    """The line-search step, and searches over the time of their forward passes alone.

    The networks are untrained; the last bias makes all classes equally likely. TF32 is off, since its rounding exceeds
    the tolerance of the search.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    points = 32 if bench.small else 256
    networks = {
        f"SmallCNN, {points} points of 1x28x28": (nets.SmallCNN(), (points, 1, 28, 28)),
        f"ResNet-20, {4 * points} points of 3x32x32": (nets.build("resnet20"), (4 * points, 3, 32, 32)),
    }
    for name, (model, shape) in list(networks.items())[: 1 if bench.small else 2]:
        with bench.attempt(name):
            model = model.eval().requires_grad_(False)
            x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
            *_, last = (module for module in model.modules() if isinstance(module, torch.nn.Linear))
            last.bias -= model(x).mean(0)
            candidates = torch.stack([x.roll(shift, 0) for shift in (1, 2, 3)])
            with bench.attempt(f"line_search_step, {name}"):
                _step(bench, name, model, x, candidates)
            _whole_search(bench, name, model, x, candidates)


def _whole_search(bench: Bench, name: str, cpu_model: torch.nn.Module, x: torch.Tensor, candidates: torch.Tensor):
    """A search on every backend; all arguments are on the CPU."""
    case, few = f"closest_boundary, {name}", slice(-COMPARED, None)

    def expected():
        found = closest_boundary(cpu_model, x[few], candidates[:, few], backend="reference")
        return found.distance.nan_to_num(posinf=-1.0)

    model, on_device, ends = deepcopy(cpu_model).to(bench.device), x.to(bench.device), candidates.to(bench.device)

    def ours(backend, model=model):
        return closest_boundary(model, on_device, ends, backend=backend).distance

    # convolutions round differently on the CPU, so that a point may differ
    agreeing = bench.agreeing(case, lambda backend: ours(backend)[few].nan_to_num(posinf=-1.0), expected, 2e-2)
    ratios, bisection = {}, partial(line_search.bisect_every_line, model, on_device, ends)
    for backend in agreeing:
        with bench.attempt(f"{case}, {backend}"):
            recording = Recording(model)
            ours(backend, recording)

            def forwards(inputs=recording.inputs):
                with torch.no_grad():
                    for each in inputs:
                        model(each)

            times = interleave(
                {"forward passes": forwards, backend: partial(ours, backend), "bisection": bisection},
                2 if bench.small else 11,
                warmup=1 if bench.small else 8,
                failed=lambda who, error: bench.failed(f"{case}, {who}", error),
            )
            ratios[backend] = times[backend] / times["forward passes"]
            peers = {"bisection of every line": times["bisection"]} if "bisection" in times else {}
            bench.figures.time(
                f"{case}, {backend}", (times["forward passes"], f"its {len(recording.inputs)} forward passes alone"),
                {backend: times[backend]}, peers,
                evaluations_a_point=sum(map(len, recording.inputs)) / len(x))  # fmt: skip
    bench.figures.target(f"{case}, time over its forward passes", 1.15, ratios, "×", at_most=True)


def _step(bench: Bench, name: str, model: torch.nn.Module, x: torch.Tensor, candidates: torch.Tensor):
    """One step of searches that are not finished, prepared on the CPU. A step changes its search in place, so each call
    has its own operands."""
    flat, ends = x.flatten(1), candidates.flatten(2).contiguous()
    rows, labels = torch.arange(len(x)), model(x).argmax(1)
    lengths = distances(x, candidates, 2.0).T.contiguous()
    gap = ops.logit_gap(model(x), labels, backend="reference")
    search_state = new_search(gap, lengths, torch.full_like(lengths, torch.nan))
    state = (*search_state, flat.clone(), torch.full_like(flat, torch.nan))
    fixed = (rows, labels, flat, ends)

    def step(logits, fixed, state, backend):
        ops.line_search_step(logits, *fixed, *state, tol=TOL, backend=backend)

    step(None, fixed, state, "reference")
    logits = model(state[-2].view_as(x))

    def stepped(backend, device):
        own = [each.to(device, copy=True) for each in state]
        step(logits.to(device), [each.to(device) for each in fixed], own, backend)
        return torch.cat([each.flatten().nan_to_num().clamp(-2, 100).double() for each in own])

    case = f"line_search_step, {name}"
    agreeing = bench.agreeing(case, lambda backend: stepped(backend, bench.device), lambda: stepped("reference", "cpu"))
    fixed_there, logits_there, times = [each.to(bench.device) for each in fixed], logits.to(bench.device), {}
    calls = {
        backend: [
            partial(step, logits_there, fixed_there, [each.to(bench.device, copy=True) for each in state], backend)
            for _ in range(13)
        ]
        for backend in agreeing
    }
    count = bench.launches(case, calls)
    for backend in agreeing:
        with bench.attempt(f"{case}, {backend}"):
            times[backend] = once_each(calls[backend][1:], bench.device)
    bench.figures.time(case, bench.limits.floor(image_bytes(flat, flat, flat, logits)), times, launches=count)
    if bench.device != "cpu":
        bench.figures.target(f"{case}, launches", 1, count, "", at_most=True)


def mrt(bench: Bench) -> None:
    """A step of MRT-10 compared with the published loop, and whether both choose the same draws."""
    k, alone = 2 if bench.small else 10, "the model alone"
    if bench.small:
        training.BATCH = 8
    case = f"MRT-{k} step, R A.2's CNN with batch norm, batch {training.BATCH}"
    kernel_on = bench.backends[0] if bench.backends else "reference"
    losses = training.contenders("MRT", k, kernel_on=kernel_on)
    losses[f"published, kernel of {kernel_on}"] = losses.pop("published, our kernel")
    ours, half = losses.pop("float32"), losses.pop("bfloat16 selection")

    def on(backend, run):
        with ops.preferring(backend):
            run()

    calls = {alone: _model_alone(bench, k)}
    calls |= {name: training.step(loss_of, bench.device) for name, loss_of in losses.items()}
    calls |= {backend: partial(on, backend, training.step(ours, bench.device)) for backend in bench.backends}
    calls[f"bfloat16 selection, {kernel_on}"] = partial(on, kernel_on, training.step(half, bench.device))
    times = interleave(
        calls,
        2 if bench.small else 21,
        warmup=1 if bench.small else 2,
        failed=lambda name, error: bench.failed(f"{case}, {name}", error),
    )
    floor = bench.limits.floor(0)
    if alone in times:
        floor = times.pop(alone), f"{k} forward passes, forward and backward pass of two batches, the optimizer, alone"
    ours_times = {name: times.pop(name) for name in bench.backends if name in times}
    bench.figures.time(case, floor, ours_times, times)
    bench.faster(case, 4, {**ours_times, **times}, "published")
    batches, same = 2 if bench.small else 20, {}
    for backend in ours_times:
        with bench.attempt(f"{case}, draws chosen by {backend}"), ops.preferring(backend):
            same[backend] = _equal_selections(bench, k, batches)
    bench.figures.target(f"{case}, batches of {batches} in which both choose the same draw", batches, same, "batches")


def _model_alone(bench: Bench, k: int):
    """The step's evaluations of the model, without draws and choice."""
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
    """In how many batches selection="batch" takes the same draw as the published loop, both with the same draws and the
    model in eval mode."""
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
