"""rp.basic_robustness compared with a plain PyTorch loop: ρ of MNIST points under uniform noise in an L2 ball.

    python -m benchmarks.speed.basic_robustness --data-root DIR [--points N] [--samples K] [--out DIR]

The loop goes point by point, with all draws of a point in one batch, normals scaled to the ball. Two more rows stop at
the first other label, for H = 1, and at the width of an interval: they save draws, not time per draw.
"""

from __future__ import annotations

from functools import partial

import torch

import robustperf as rp
from robustperf.nuisance import L2Ball

from ..common.cases import COMPILED, EAGER, OURS, Case
from ..common.digits_cnn import digits_network
from ..common.mnist_cnn import trained
from ..common.options import add_mnist_model, add_timing, parse, parser
from ..common.report import Report
from ..common.timing import Call, interleave

EPS = 10.0


@torch.no_grad()
def plain_loop(model, x, eps: float, samples: int) -> torch.Tensor:
    """ρ [N] of each point."""
    found = []
    for image in x:
        label = model(image[None]).argmax()
        noise = torch.randn(samples, image.numel())
        radius = eps * torch.rand(samples, 1) ** (1 / image.numel())
        noise *= radius / noise.norm(dim=1, keepdim=True)
        found.append((model(image + noise.view(samples, *image.shape)).argmax(1) == label).double().mean())
    return torch.stack(found)


def cases(quick: bool) -> list[Case]:
    def make(points: int, samples: int) -> dict[str, Call]:
        model, x = digits_network()
        x, kernel = x[:points], L2Ball(EPS)
        calls = {
            OURS: lambda: rp.basic_robustness(model, x, kernel, samples=samples),
            EAGER: lambda: plain_loop(model, x, EPS, samples),
        }
        return calls if quick else calls | {COMPILED: partial(plain_loop, torch.compile(model), x, EPS, samples)}

    points, samples = (20, 100) if quick else (100, 1000)
    return [Case(f"basic_robustness, {points} points, {samples} draws", partial(make, points, samples))]


def main() -> None:
    options = parser(__doc__)
    add_timing(options, repeats=3)
    add_mnist_model(options)
    options.add_argument("--points", type=int, default=1000)
    options.add_argument("--samples", type=int, default=1000)
    options.add_argument("--eps", type=float, default=EPS)
    options.add_argument("--width", type=float, default=0.1)
    options.add_argument("--batch-size", type=int, default=64)
    arguments = parse(options)
    model, test = trained(arguments.data_root, arguments.checkpoint)
    x, kernel, samples = test.x[: arguments.points], L2Ball(arguments.eps), arguments.samples
    found = {}

    def ours(**rule):
        return rp.basic_robustness(model, x, kernel, samples=samples, batch_size=arguments.batch_size, **rule)

    rules = {
        "basic_robustness": {},
        f"intervals no wider than {arguments.width}": {"width": arguments.width},
        "until the first other label (H = 1)": {"until_disagreement": True},
    }

    def run(name):
        found[name] = ours(**rules[name])

    def loop():
        found["plain loop"] = plain_loop(model, x, arguments.eps, samples)

    calls = {name: lambda name=name: run(name) for name in rules}
    times = interleave({"plain loop": loop, **calls}, arguments.repeats, warmup=1)
    report = Report(
        "basic_robustness",
        f"ρ of {len(x)} MNIST points, {samples} draws each, an L2 ball of radius {arguments.eps:g}",
        arguments.output,
    )
    for name in ("plain loop", *rules):
        values = found[name]
        draws = len(x) * samples if name == "plain loop" else int(values.draws.sum())
        rho = values if name == "plain loop" else values.rho
        report.add(**{
            "case": name, "seconds": times[name], "x faster": times["plain loop"] / times[name], "draws": draws,
            "μs per draw": times[name] / draws * 1e6, "mean rho": rho.mean().item(),
            "certain": (rho == 1).double().mean().item(),
        })  # fmt: skip
    report.show(bars=("case", "seconds"))


if __name__ == "__main__":
    main()
