"""The parts of `speed.py` in which a model works too: the search and a step of training."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import line_search
import torch
import training
from harness import interleave

from gpu.bench import Bench, image_bytes
from gpu.timing import once_each
from robustperf import closest_boundary, nets, ops, random
from robustperf.ops.line_search_step import new_search
from robustperf.robustness.search import TOL, distances
from robustperf.training import MRT

COMPARED = 128  # points whose distances are compared with those found on the CPU


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
    """All arguments are on the CPU."""
    case, few = f"closest_boundary, {name}", slice(-COMPARED, None)

    def truth():
        found = closest_boundary(cpu_model, x[few], candidates[:, few], backend="reference")
        return found.distance.nan_to_num(posinf=-1.0)

    model, on_device, ends = deepcopy(cpu_model).to(bench.device), x.to(bench.device), candidates.to(bench.device)

    def ours(backend, model=model):
        return closest_boundary(model, on_device, ends, backend=backend).distance

    # convolutions round differently on the CPU: a point may be lost
    good = bench.sound(case, lambda backend: ours(backend)[few].nan_to_num(posinf=-1.0), truth, 2e-2)
    has, bisection = {}, partial(line_search.bisect_every_line, model, on_device, ends)
    for backend in good:
        with bench.attempt(f"{case}, {backend}"):
            recording = Recording(model)
            ours(backend, recording)

            def forwards(seen=recording.seen):
                with torch.no_grad():
                    for each in seen:
                        model(each)

            times = interleave(
                {"forwards": forwards, backend: partial(ours, backend), "bisection": bisection},
                2 if bench.small else 11,
                warmup=1 if bench.small else 8,
                failed=lambda who, error: bench.failed(f"{case}, {who}", error),
            )
            has[backend] = times[backend] / times["forwards"]
            beside = {"bisection of every line": times["bisection"]} if "bisection" in times else {}
            bench.figures.time(
                f"{case}, {backend}", (times["forwards"], f"its {len(recording.seen)} model forwards alone, eager"),
                {backend: times[backend]}, beside,
                evaluations_a_point=sum(map(len, recording.seen)) / len(x))  # fmt: skip
    bench.figures.asked(f"{case}, time over its forwards", 1.15, has, "×", at_most=True)


def _step(bench: Bench, name: str, model: torch.nn.Module, x: torch.Tensor, candidates: torch.Tensor):
    """One step on searches none of which is finished, prepared on the CPU. A step moves its search: each call has
    operands of its own."""
    flat, ends = x.flatten(1), candidates.flatten(2).contiguous()
    rows, labels = torch.arange(len(x)), model(x).argmax(1)
    lengths = distances(x, candidates, 2.0).T.contiguous()
    gap = ops.logit_gap(model(x), labels, backend="reference")
    begun = new_search(gap, lengths, torch.full_like(lengths, torch.nan))
    state = (*begun, flat.clone(), torch.full_like(flat, torch.nan))
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
    good = bench.sound(case, lambda backend: stepped(backend, bench.device), lambda: stepped("reference", "cpu"))
    there, seen, times = [each.to(bench.device) for each in fixed], logits.to(bench.device), {}
    calls = {
        backend: [
            partial(step, seen, there, [each.to(bench.device, copy=True) for each in state], backend) for _ in range(13)
        ]
        for backend in good
    }
    count = bench.launches(case, calls)
    for backend in good:
        with bench.attempt(f"{case}, {backend}"):
            times[backend] = once_each(calls[backend][1:], bench.device)
    bench.figures.time(case, bench.limits.floor(image_bytes(flat, flat, flat, logits)), times, launches=count)
    if bench.device != "cpu":
        bench.figures.asked(f"{case}, launches", 1, count, "", at_most=True)


def mrt(bench: Bench) -> None:
    """A whole step of MRT-10 beside the published loop; and whether both choose the same draws."""
    k, alone = 2 if bench.small else 10, "the model's work alone"
    if bench.small:
        training.BATCH = 8
    case = f"MRT-{k} step, R A.2's CNN with batch norm, batch {training.BATCH}"
    kernel_on = bench.backends[0] if bench.backends else "reference"
    sides = training.contenders("MRT", k, kernel_on=kernel_on)
    sides[f"published, kernel of {kernel_on}"] = sides.pop("published, our kernel")
    ours, half = sides.pop("float32"), sides.pop("bfloat16 selection")

    def on(backend, run):
        with bench.preferring(backend):
            run()

    calls = {alone: _model_work(bench, k)}
    calls |= {name: training.step(loss_of, bench.device) for name, loss_of in sides.items()}
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
        floor = times.pop(alone), f"{k} forwards, two batches' forward and backward, the optimizer, alone"
    mine = {name: times.pop(name) for name in bench.backends if name in times}
    bench.figures.time(case, floor, mine, times)
    bench.faster(case, 4, {**mine, **times}, "published")
    batches, same = 2 if bench.small else 20, {}
    for backend in mine:
        with bench.attempt(f"{case}, draws chosen by {backend}"), bench.preferring(backend):
            same[backend] = _equal_selections(bench, k, batches)
    bench.figures.asked(
        f"{case}, batches of {batches} where the draw chosen is the published loop's", batches, same, "batches"
    )


def _model_work(bench: Bench, k: int):
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
    same draws and, as ours, evaluates the model in eval mode."""
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
