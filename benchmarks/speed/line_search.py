"""The closest boundary of an ensemble on a trained MNIST CNN, compared with batched bisection of every line.

    python -m benchmarks.speed.line_search --data-root DIR [--out DIR]

Prints model evaluations per point, wall time and the percentage of it outside the model, how far the margins are from
the exhaustive ones, and how many returned points are still adversarial when evaluated alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

import robustperf as rp
from robustperf.attacks import BG, FGSM, PGD
from robustperf.robustness.search import distances

from ..common.cases import COMPILED, EAGER, OURS, Case
from ..common.digits_cnn import digits_network
from ..common.mnist_cnn import trained
from ..common.options import add_mnist_model, add_timing, parse, parser
from ..common.report import Report
from ..common.timing import Call, interleave

BISECTION, GAPS_PASSED = "bisection of every line", "closest_boundary, gaps passed on"
PUBLISHED = (FGSM(loss="cross_entropy"), PGD(norm=2, loss="cross_entropy"), BG())
HALVINGS = 20  # the tolerance of the search, 2^-20


class Clocked(torch.nn.Module):
    """Counts the seconds in the model and the images that it evaluates."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model, self.seconds, self.images = model, 0.0, 0

    def forward(self, x):
        began = time.perf_counter()
        logits = self.model(x)
        self.seconds += time.perf_counter() - began
        self.images += len(x)
        return logits


@torch.no_grad()
def bisect_every_line(model, x, candidates):
    """The search without the library: both ends, then every line halved, one batch per attack."""
    labels = model(x).argmax(1)
    best = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
    for x_adv in candidates:
        crossed = model(x_adv).argmax(1) != labels
        low, high = x.new_zeros(len(x)), x.new_ones(len(x))
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            over = model(x + middle[:, None, None, None] * (x_adv - x)).argmax(1) != labels
            low, high = torch.where(over, low, middle), torch.where(over, middle, high)
        point = x + high[:, None, None, None] * (x_adv - x)
        best = torch.minimum(best, distances(x, point, 2.0).where(crossed, torch.inf))
    return best


@torch.no_grad()
def searches(model: torch.nn.Module, x: torch.Tensor) -> dict[str, Callable[[torch.nn.Module], torch.Tensor]]:
    """The searches between x and the points of three attacks, as functions from a model to distances."""
    labels = model(x).argmax(1)
    found = [attack(model, x, labels) for attack in PUBLISHED]
    candidates, gap_end = torch.stack([a.point for a in found]), torch.stack([a.gap for a in found])
    gaps = (rp.ops.logit_gap(model(x), labels), gap_end)
    return {
        BISECTION: lambda model: bisect_every_line(model, x, candidates),
        "closest_boundary, candidates only": lambda model: rp.closest_boundary(model, x, candidates).distance,
        GAPS_PASSED: lambda model: rp.closest_boundary(model, x, candidates, labels=labels, gaps=gaps).distance,
    }


def cases(quick: bool) -> list[Case]:
    """`ops.line_search_step` within `closest_boundary`."""

    def make(points: int) -> dict[str, Call]:
        model, x = digits_network()
        calls = searches(model, x[:points])
        found: dict[str, Call] = {OURS: partial(calls[GAPS_PASSED], model), EAGER: partial(calls[BISECTION], model)}
        return found if quick else found | {COMPILED: partial(calls[BISECTION], torch.compile(model))}

    points = 64 if quick else 256
    return [Case(f"line_search, closest of three candidates, {points} points", partial(make, points))]


def main() -> None:
    options = parser(__doc__)
    add_timing(options)
    add_mnist_model(options)
    options.add_argument("--points", type=int, default=256)
    arguments = parse(options)
    model, test = trained(arguments.data_root, arguments.checkpoint)
    x = test.x[: arguments.points]
    calls = searches(model, x)
    times = interleave({name: lambda call=call: call(model) for name, call in calls.items()}, arguments.repeats)
    slowest = times[BISECTION]
    exhaustive = calls[BISECTION](model)
    report = Report(
        "line_search", f"Closest of three candidates, {len(x)} MNIST points, tolerance 2^-20", arguments.output
    )
    for name, call in calls.items():
        outside = []
        for _ in range(arguments.repeats):
            clocked = Clocked(model)
            began = time.perf_counter()
            distance = call(clocked)
            outside.append(1 - clocked.seconds / (time.perf_counter() - began))
        both = exhaustive.isfinite() & distance.isfinite()
        excess = (distance - exhaustive)[both].abs() - 2e-5
        report.add(**{
            "case": name, "evaluations per point": clocked.images / len(x), "ms": times[name] * 1e3,
            "x faster": slowest / times[name], "% outside the model": 100 * sorted(outside)[len(outside) // 2],
            "worst relative difference beyond 2e-5": max((excess / exhaustive[both]).max().item(), 0.0),
            "found": int(distance.isfinite().sum()),
        })  # fmt: skip
    report.show(bars=("case", "ms"))
    with torch.no_grad():
        labels = model(x).argmax(1)
        candidates = torch.stack([attack(model, x, labels).point for attack in PUBLISHED])
        boundary = rp.closest_boundary(model, x, candidates, labels=labels)
        alone = torch.cat([model(point[None]).argmax(1) for point in boundary.point])
    still = (alone != labels)[boundary.distance.isfinite()]
    print(f"evaluated one by one, {int(still.sum())} of the {len(still)} returned points are adversarial")


if __name__ == "__main__":
    main()
