"""A training step with Hein's cross-Lipschitz regulariser, compared with the double loop over classes.

    python -m benchmarks.speed.hein [--out DIR]

The networks are T's MNIST classifier at two widths and a small CNN; ten classes, 28x28. The loop already takes each
pair of classes once and the gradients of all samples together.
"""

from __future__ import annotations

from functools import partial

import torch
from torch.nn.functional import cross_entropy

from robustperf import nets, random
from robustperf.training import ERM, CrossLipschitz

from ..common.cases import EAGER, OURS, Case
from ..common.options import add_timing, parse, parser
from ..common.report import Report
from ..common.timing import Call, interleave

NETWORKS = {
    "small-cnn": lambda: nets.SmallCNN(size=28),
    "tibo-cnn, width 16": lambda: nets.TiboCNN(width=16, hidden=128),
    "tibo-cnn, width 128": nets.TiboCNN,
}
WEIGHT = 0.1


def double_loop(model, x, y) -> torch.Tensor:
    """The loss as its equation is written, each pair of classes once."""
    x = x.clone().requires_grad_()
    logits, total = model(x), 0
    for i in range(logits.shape[1]):
        for j in range(i):
            (gradient,) = torch.autograd.grad((logits[:, i] - logits[:, j]).sum(), x, create_graph=True)
            total = total + 2 * gradient.square().sum()
    return cross_entropy(logits, y) + WEIGHT * total / (logits.shape[1] ** 2 * len(x))


def ours(objective):
    return lambda model, x, y: objective(model, x, y, key=random.key(0), index=torch.arange(len(x)))


LOSSES = {"CrossLipschitz": ours(CrossLipschitz(WEIGHT)), "double loop": double_loop, "no regulariser": ours(ERM())}


def contenders(name: str, batch: int, values: dict[str, float]) -> dict[str, Call]:
    """A step with each loss, whose values go into `values`."""
    torch.manual_seed(0)
    model, x, y = NETWORKS[name]().train(), torch.rand(batch, 1, 28, 28), torch.arange(batch) % 10

    def step(loss: str) -> None:
        model.zero_grad()
        value = LOSSES[loss](model, x, y)
        value.backward()
        values[loss] = value.item()

    return {loss: partial(step, loss) for loss in LOSSES}


def cases(quick: bool) -> list[Case]:
    """Without `torch.compile`, which has no second derivatives."""

    def make(name: str, batch: int) -> dict[str, Call]:
        calls = contenders(name, batch, {})
        return {OURS: calls["CrossLipschitz"], EAGER: calls["double loop"]}

    return [Case(f"hein, {name}, batch 32", partial(make, name, 32)) for name in list(NETWORKS)[: 1 if quick else None]]


def main() -> None:
    options = parser(__doc__)
    add_timing(options, repeats=7, threads=1)
    options.add_argument("--batch-size", type=int, nargs="+", default=[32, 128])
    options.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    arguments = parse(options, selections=("batch_size", "networks"))
    report = Report("hein", "A training step with Hein's regulariser, ten classes, 28x28", arguments.output)
    for name in arguments.networks:
        for batch in arguments.batch_size:
            values: dict[str, float] = {}
            times = interleave(contenders(name, batch, values), arguments.repeats)
            difference = abs(values["CrossLipschitz"] / values["double loop"] - 1)
            for loss in LOSSES:
                report.add(**{
                    "case": f"{name}, batch {batch}: {loss}", "ms": times[loss] * 1e3,
                    "x faster than the loop": times["double loop"] / times[loss],
                    "relative difference of the losses": difference if loss == "CrossLipschitz" else None,
                })  # fmt: skip
    report.show(bars=("case", "x faster than the loop"))


if __name__ == "__main__":
    main()
