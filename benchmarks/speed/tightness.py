"""How close the margins of the presets come to the nearest points known, compared with adv-lib and foolbox.

    python -m benchmarks.speed.tightness --data-root DIR [--points N] [--networks A,B] [--norms 2,inf,1,0] [--out DIR]
        [--cells DIR]

Networks of our own making (`benchmarks/common/robust_networks.py`), trained on the first run. Every attack is followed
by our line search, so that the comparison is about direction; of the norm 0, which "tibo" does not have, by our search
that undoes changes. "Best known" is the minimum over all attacks that ran on a point, a run of ours of about 1,000
passes among them. The columns:

- x best known: the area under the margin curve over that of the best known (points without a crossing count as ten
  times the farthest best known);
- within 5 %: the fraction of the points at most 5 % farther than the best known;
- optimality: AttackBench's, (ε0 - ∫ρ) / (ε0 - ∫ρ*) with ρ the robust accuracy, ρ* that of the best known, both
  integrated to ε0, where ρ* reaches zero (Cinà et al. 2024);
- forward, backward: passes per point, without the line search.

With `--cells`, what an attack found on a network is kept in that folder and not measured again.

The second table names the points that resist the presets, the third one averages over the networks.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

import robustperf as rp
from robustperf import check
from robustperf.attacks import Attack, ShrinkingBall, ShrinkingSupport
from robustperf.attacks.named import attacks_of
from robustperf.names import PRESETS
from robustperf.robustness import Boundary
from robustperf.robustness.support import SupportSearch

from ..common.attack_peers import Peer, peers, points_of
from ..common.options import add_data_root, add_timing, parse, parser
from ..common.report import Report
from ..common.robust_networks import FOLDER, RECIPES, network, points

LONG = "1,000 passes"


class Counting(torch.nn.Module):
    """Counts the images of the forward passes and of the backward passes to the logits."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.forwards += len(x)
        logits = self.model(x)
        if logits.requires_grad:
            logits.register_hook(self._back)
        return logits

    def _back(self, gradient: torch.Tensor) -> None:
        self.backwards += gradient.flatten(1).any(1).sum().item() if gradient.dim() == 2 else len(gradient)


@dataclass(frozen=True)
class Found:
    """Distances [N] float64, inf where nothing was found; passes per point; the median seconds of a run."""

    distance: torch.Tensor
    forward: float
    backward: float
    seconds: float


def run_preset(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, attacks, norm: float, repeats: int) -> Found:
    """`rp.margins`; the passes are those that the attacks count."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        found = rp.margins(model, x, attacks=attacks, norm=norm, labels=y)
        seconds.append(time.perf_counter() - began)
    few = [attack(model, x[:4], y[:4]) for attack in attacks_of(attacks, norm)]
    forward = sum(each.evaluations.double().mean().item() for each in few)
    backward = sum(each.backward.double().mean().item() for each in few)
    return Found(found.distance, forward, backward, sorted(seconds)[len(seconds) // 2])


def run_peer(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, peer: Peer, norm: float, repeats: int) -> Found:
    """A peer's points, then our line search from x through each."""
    seconds, counting = [], Counting(model).eval()
    for _ in range(repeats):
        began = time.perf_counter()
        found = _searched(model, x, y, points_of(peer, counting, x, y)[None], norm)
        seconds.append(time.perf_counter() - began)
    passes = [count / (repeats * len(x)) for count in (counting.forwards, counting.backwards)]
    return Found(found.distance, *passes, sorted(seconds)[len(seconds) // 2])


def _searched(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, points: torch.Tensor, norm: float) -> Boundary:
    if norm == 0:
        gap = torch.full(points.shape[:2], math.nan, dtype=torch.float64)
        return SupportSearch(model, (0.0, 1.0)).nearest(x, points, y, (gap[0], gap))
    return rp.closest_boundary(model, x, points, norm=norm, labels=y, bounds=(0.0, 1.0))


def presets(norm: float) -> list[str]:
    """Those that have the norm."""
    return [preset for preset in PRESETS if norm != 0 or preset != "tibo"]


def _long(norm: float) -> Attack:
    if norm == 0:
        return ShrinkingSupport(steps=75, targets=12)
    if norm == 1:
        return ShrinkingBall(norm, steps=92, targets=3, restarts=5, finalists=1, final_steps=90)
    return ShrinkingBall(norm, steps=30, targets=7, restarts=4, finalists=6, final_steps=95)


def measured(
    model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, norm: float, repeats: int, cells: Path | None
) -> dict[str, Found]:
    """What each attack found, by name; kept in, and read from, the folder `cells`."""
    runs = {preset: partial(run_preset, attacks=preset, repeats=repeats) for preset in presets(norm)}
    runs[LONG] = partial(run_preset, attacks=_long(norm), repeats=1)
    runs |= {name: partial(run_peer, peer=peer, repeats=repeats) for name, peer in peers(norm).items()}
    found = {}
    for name, run in runs.items():
        file = cells / f"{re.sub('[^a-z0-9]+', '_', name.lower())}.pt" if cells else None
        if file is not None and file.exists():
            found[name] = Found(**torch.load(file, weights_only=True))
            continue
        try:
            found[name] = run(model, x, y, norm=norm)
        except Exception as error:  # a peer that fails on a network is left out there, and said so
            if name in (*PRESETS, LONG):
                raise
            print(f"{name} failed: {type(error).__name__}: {error}".splitlines()[0], flush=True)
            continue
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(asdict(found[name]), file)
    return found


def figures(found: Found, best: torch.Tensor) -> dict[str, float]:
    """The columns of one attack, see the module."""
    end = best.max()
    area = found.distance.clamp(max=10 * end).mean()
    return {
        "x best known": (area / best.mean()).item(),
        "within 5 %": (found.distance <= 1.05 * best).double().mean().item(),
        "optimality": ((end - found.distance.clamp(max=end).mean()) / (end - best.mean())).item(),
        "forward": found.forward,
        "backward": found.backward,
        "seconds": found.seconds,
    }


def main() -> None:
    options = parser(__doc__)
    add_timing(options, repeats=1)
    add_data_root(options)
    options.add_argument("--points", type=int, default=100, help="of each network, correctly classified")
    options.add_argument("--networks", default=",".join(RECIPES), help="names, separated by commas")
    options.add_argument("--norms", default="2,inf,1,0", help="of the distances")
    options.add_argument("--cells", type=Path, metavar="DIR", help="keep results here, and resume from them")
    arguments = parse(options, ("networks", "norms"))
    title = f"Distances of {arguments.points} points over the best known"
    report = Report("tightness", title, arguments.output)
    resisting = Report("tightness_points", "Test images whose margin is 5 % or more too large", arguments.output)
    rows: dict[tuple[float, str], list[dict[str, float]]] = {}
    for norm in (check.norm(text, zero=True) for text in arguments.norms.split(",")):
        for name in arguments.networks.split(","):
            model = network(name, arguments.data_root, FOLDER)
            x, y, ids = points(name, model, arguments.points, arguments.data_root)
            cells = arguments.cells and arguments.cells / f"{name.replace(' ', '_')}_{norm:g}_{len(x)}"
            found = measured(model, x, y, norm, arguments.repeats, cells)
            best = torch.stack([each.distance for each in found.values()]).amin(0)
            if best.isinf().any():
                print(f"{name}, norm {norm:g}: no attack crossed at {int(best.isinf().sum())} points, left out")
            kept = best.isfinite()
            for attack, each in found.items():
                part = Found(each.distance[kept], each.forward, each.backward, each.seconds)
                columns = figures(part, best[kept])
                rows.setdefault((norm, attack), []).append(columns)
                report.add(case=f"{name}, norm {norm:g}, {attack}", **columns)
            for preset in ("fast", "strong"):
                far = ids[found[preset].distance > 1.05 * best].tolist()
                resisting.add(case=f"{name}, norm {norm:g}, {preset}", points=len(far), ids=" ".join(map(str, far)))
    report.show()
    resisting.show()
    means = Report("tightness_means", "Means over the networks, and the worst network", arguments.output)
    for (norm, attack), columns in rows.items():
        mean = {key: math.fsum(row[key] for row in columns) / len(columns) for key in columns[0]}
        worst = max(row["x best known"] for row in columns)
        means.add(case=f"norm {norm:g}, {attack}", networks=len(columns), **mean, worst=worst)
    means.show()


if __name__ == "__main__":
    main()
