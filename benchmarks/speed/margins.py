"""rp.margins compared with foolbox: the same classifier, points and attack budget; time and median margin of both.

    python -m benchmarks.speed.margins --data-root DIR [--points N] [--out DIR]

foolbox returns the result of each attack; two rows add by hand the closest of the ensemble, and twenty halvings of
every line. foolbox has no BG. Its nearest relative there, DeepFool, linearises up to 50 times and ignores the box; BG
as published linearises once and solves for the box exactly, and `steps` repeats that. Of our two ensembles one has the
published attacks, the other finds closer points on this network. A second table has the preset "fast" and the attacks
of adv-lib and foolbox with 100 passes, each followed by our line search. Last comes the peak memory of `rp.margins` by
the number of points.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch.nn import functional
from torch.nn.functional import cross_entropy

import robustperf as rp
from robustperf.attacks import BG, FGSM, PGD
from robustperf.robustness.search import distances

from ..common.attack_peers import Peer, peers, points_of
from ..common.cases import COMPILED, EAGER, OURS, Case
from ..common.digits_cnn import digits_network
from ..common.memory import peak_growth
from ..common.mnist_cnn import trained
from ..common.options import ROOT, Output, add_mnist_model, add_timing, parse, parser
from ..common.report import Report
from ..common.timing import Call, interleave
from .line_search import bisect_every_line

LOSS = "cross_entropy"  # foolbox's too
PUBLISHED = (FGSM(eps=0.25, loss=LOSS), PGD(norm=2, eps=3.0, steps=40, loss=LOSS), BG(norm=2))
CLOSER = (
    FGSM(eps=0.25, loss=LOSS),
    PGD(norm=2, eps=3.0, steps=40, random_start=False, early_stop=True, loss=LOSS),
    BG(norm=2, steps=5),
)


def foolbox_attacks(model, x):
    """The points of foolbox's FGSM and L2-PGD, with the budgets of PUBLISHED, and of its DeepFool as it is."""
    import foolbox

    peer = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    with torch.no_grad():
        labels = model(x).argmax(1)
    plan = (
        (foolbox.attacks.LinfFastGradientAttack(), 0.25),
        (foolbox.attacks.L2ProjectedGradientDescentAttack(rel_stepsize=2.5 / 40, steps=40), 3.0),
        (foolbox.attacks.L2DeepFoolAttack(), None),
    )
    return [attack(peer, x, labels, epsilons=eps)[1] for attack, eps in plan]


def eager_attacks(model, x):
    """The points of FGSM and PGD-40 with the budgets of PUBLISHED, and of one linearisation of every class, in plain
    PyTorch."""
    x = x.clone().requires_grad_()
    logits = model(x)
    labels = logits.argmax(1)
    (gradient,) = torch.autograd.grad(cross_entropy(logits, labels), x, retain_graph=True)
    fast = (x + 0.25 * gradient.sign()).clamp(0, 1).detach()
    gaps = logits.gather(1, labels[:, None]) - logits
    normals = [torch.autograd.grad(gap.sum(), x, retain_graph=True)[0].flatten(1) for gap in gaps.unbind(1)]
    normal, gap = torch.stack(normals), gaps.detach().t()
    distance = (gap / normal.norm(dim=2)).scatter(0, labels[None], torch.inf)
    distance, nearest = distance.min(0)
    direction = functional.normalize(normal[nearest, torch.arange(len(x))], dim=1)
    linear = (x.detach() - 1.1 * (distance[:, None] * direction).view_as(x)).clamp(0, 1)
    point = (x + functional.normalize(torch.randn(x.shape).flatten(1), dim=1).view_as(x)).clamp(0, 1).detach()
    for _ in range(40):
        point.requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(point), labels), point)
        step = 3.0 * 2.5 / 40 * functional.normalize(gradient.flatten(1), dim=1).view_as(x)
        moved = (point + step - x).detach().flatten(1)
        moved = moved * (3.0 / moved.norm(dim=1, keepdim=True)).clamp(max=1)
        point = (x.detach() + moved.view_as(x)).clamp(0, 1)
    return [fast, point, linear]


def bisected(attacks: Callable, model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The distances of `attacks(model, x)` after 20 halvings of every line."""
    return bisect_every_line(model, x, attacks(model, x))


def cases(quick: bool) -> list[Case]:
    def make(points: int) -> dict[str, Call]:
        model, x = digits_network()
        x = x[:points]
        with torch.no_grad():
            labels = model(x).argmax(1)
        calls = {
            OURS: lambda: rp.margins(model, x, attacks=PUBLISHED),
            EAGER: lambda: bisected(eager_attacks, model, x),
        }
        if not quick:
            compiled = torch.compile(model)
            calls[COMPILED] = lambda: bisected(eager_attacks, compiled, x)
        if find_spec("foolbox"):
            calls["foolbox + bisection"] = lambda: bisected(foolbox_attacks, model, x)
        others = {} if quick else peers(2.0)
        return calls | {name: partial(peer, model, x, labels) for name, peer in others.items()}

    points = 16 if quick else 256
    return [Case(f"margins, FGSM + PGD-40 + BG, {points} points", partial(make, points))]


@torch.no_grad()
def closest(model, x, candidates):
    """The distance of the closest candidate with another label."""
    labels, best = model(x).argmax(1), torch.full((len(x),), torch.inf, dtype=torch.float64)
    for x_adv in candidates:
        best = torch.minimum(best, distances(x, x_adv, 2.0).where(model(x_adv).argmax(1) != labels, torch.inf))
    return best


def peak_mib(points: int, checkpoint: Path, data_root: Path | None) -> float:
    """How many MiB the peak memory of a process grows with the margins of so many points (MNIST's, repeated)."""
    arguments = [
        sys.executable,
        "-m",
        "benchmarks.speed.margins",
        "--peak",
        str(points),
        "--checkpoint",
        str(checkpoint.resolve()),
    ]
    arguments += ["--data-root", str(data_root.resolve())] if data_root else []
    return float(subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout.split()[-1])


def fast_and_peers(model: torch.nn.Module, x: torch.Tensor, repeats: int, output: Output) -> None:
    """A table of the preset "fast" and of the peers with 100 passes."""
    found: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        labels = model(x).argmax(1)

    def ours() -> None:
        found["rp.margins"] = rp.margins(model, x).distance

    def theirs(name: str, peer: Peer) -> None:
        point = points_of(peer, model, x, labels)[None]
        found[name] = rp.closest_boundary(model, x, point, labels=labels, bounds=(0.0, 1.0)).distance

    calls = {name: partial(theirs, name, peer) for name, peer in peers(2.0).items() if name.endswith("-100")}
    times = interleave({"rp.margins": ours} | calls, repeats, warmup=1)
    report = Report("margins_fast", f"Margins of {len(x)} MNIST points, 100 passes, L2", output)
    for name, seconds in times.items():
        crossed = found[name].isfinite()
        report.add(**{
            "case": name, "seconds": seconds, "x the time of rp.margins": seconds / times["rp.margins"],
            "median margin": found[name].median().item(), "mean of those found": found[name][crossed].mean().item(),
            "found": int(crossed.sum()),
        })  # fmt: skip
    report.show(bars=("case", "seconds"))


def main() -> None:
    options = parser(__doc__)
    add_timing(options, repeats=5)
    add_mnist_model(options)
    options.add_argument("--points", type=int, default=256)
    options.add_argument("--peak", type=int, help="only print the peak memory in MiB for so many points")
    arguments = parse(options)
    model, test = trained(arguments.data_root, arguments.checkpoint)
    if arguments.peak is not None:
        x = test.x[:512].repeat(-(-arguments.peak // 512), 1, 1, 1)[: arguments.peak]
        print(peak_growth(lambda x: rp.margins(model, x, attacks=PUBLISHED[::2]), x, first=4096))
        return

    x = test.x[: arguments.points]
    margins = {}

    def published():
        margins["published"] = rp.margins(model, x, attacks=PUBLISHED).distance

    def closer():
        margins["closer"] = rp.margins(model, x, attacks=CLOSER).distance

    def foolbox_closest():
        margins["foolbox"] = closest(model, x, foolbox_attacks(model, x))

    def foolbox_bisected():
        margins["foolbox + bisection"] = bisected(foolbox_attacks, model, x)

    names = {
        "published": "rp.margins, published attacks",
        "closer": "rp.margins, PGD from x and BG(steps=5)",
        "foolbox": "foolbox, closest of the ensemble",
        "foolbox + bisection": "foolbox, then 20 halvings of every line",
    }
    calls = {
        "published": published,
        "closer": closer,
        "foolbox": foolbox_closest,
        "foolbox + bisection": foolbox_bisected,
    }
    times = interleave(calls, arguments.repeats, warmup=1)
    report = Report(
        "margins", f"Margins of {len(x)} MNIST points, FGSM + PGD-40 + BG or DeepFool, L2", arguments.output
    )
    for key, name in names.items():
        report.add(**{
            "case": name, "seconds": times[key], "x faster": times["foolbox + bisection"] / times[key],
            "median margin": margins[key].median().item(), "mean of those found": margins[key][
                margins[key].isfinite()].mean().item(), "found": int(margins[key].isfinite().sum()),
        })  # fmt: skip
    report.show(bars=("case", "seconds"))
    fast_and_peers(model, x, arguments.repeats, arguments.output)
    memory = Report("margins_memory", "Peak memory of rp.margins beyond that of a first 4,096 points", arguments.output)
    for points in (4096, 8192, 16384, 32768):
        memory.add(
            points=points,
            **{
                "images MiB": points * x[0].numel() * 4 / 2**20,
                "more MiB": peak_mib(points, arguments.checkpoint, arguments.data_root),
            },
        )
    memory.show()


if __name__ == "__main__":
    main()
