"""The closest boundary of an ensemble on a trained MNIST CNN, compared with batched bisection of every line.

    python -m benchmarks.speed.line_search --data-root DIR [--out DIR]

Prints model evaluations per point, wall time and the percentage of it outside the model, how far the margins are from
the exhaustive ones, and how many returned points are still adversarial when evaluated alone.
"""

from __future__ import annotations

import time

import torch

import robustperf as rp
from benchmarks.common.mnist_cnn import trained
from benchmarks.common.options import add_mnist_model, add_timing, parse, parser
from benchmarks.common.report import Report
from benchmarks.common.timing import interleave
from robustperf.attacks import BG, FGSM, PGD
from robustperf.robustness.search import distances

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


def main() -> None:
    options = parser(__doc__)
    add_timing(options)
    add_mnist_model(options)
    options.add_argument("--points", type=int, default=256)
    arguments = parse(options)
    model, test = trained(arguments.data_root, arguments.checkpoint)
    x = test.x[: arguments.points]
    with torch.no_grad():
        labels = model(x).argmax(1)
    published = (FGSM(loss="cross_entropy"), PGD(norm=2, loss="cross_entropy"), BG())
    found = [attack(model, x, labels) for attack in published]
    candidates, gap_end = torch.stack([a.point for a in found]), torch.stack([a.gap for a in found])
    with torch.no_grad():
        gap = rp.ops.logit_gap(model(x), labels)
    calls = {
        "bisection of every line": lambda model: bisect_every_line(model, x, candidates),
        "closest_boundary, candidates only": lambda model: rp.closest_boundary(model, x, candidates).distance,
        "closest_boundary, gaps passed on": lambda model: (
            rp.closest_boundary(model, x, candidates, labels=labels, gaps=(gap, gap_end)).distance
        ),
    }
    times = interleave({name: lambda call=call: call(model) for name, call in calls.items()}, arguments.repeats)
    slowest = times["bisection of every line"]
    exhaustive = calls["bisection of every line"](model)
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
    boundary = rp.closest_boundary(model, x, candidates, labels=labels, gaps=(gap, gap_end))
    with torch.no_grad():
        alone = torch.cat([model(point[None]).argmax(1) for point in boundary.point])
    still = (alone != labels)[boundary.distance.isfinite()]
    print(f"evaluated one by one, {int(still.sum())} of the {len(still)} returned points are adversarial")


if __name__ == "__main__":
    main()
