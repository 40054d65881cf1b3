"""The parts of `gpu_speed.py` in which a model works too: the search and a step of training."""

from __future__ import annotations

from functools import partial

import line_search
import torch
import training
from gpu_bench import Bench, image_bytes
from gpu_timing import because, once_each
from harness import interleave

from robustperf import nets, ops, random
from robustperf.ops.line_search_step import new_search
from robustperf.robustness.boundary import TOL, closest_boundary, distances
from robustperf.training import MRT


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
    def ours(backend, model):
        return closest_boundary(model, x, candidates, backend=backend).distance

    case = f"closest_boundary, {name}"
    good = bench.sound(case, lambda backend: ours(backend, model).nan_to_num(posinf=-1.0), 1e-3)
    has, bisection = {}, partial(line_search.bisect_every_line, model, x, candidates)
    for backend in good:
        recording = Recording(model)
        ours(backend, recording)

        def forwards(seen=recording.seen):
            with torch.no_grad():
                for each in seen:
                    model(each)

        times = interleave({backend: partial(ours, backend, model), "forwards": forwards, "bisection": bisection},
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
