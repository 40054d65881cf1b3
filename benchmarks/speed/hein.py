"""A training step with Hein's cross-Lipschitz regulariser, compared with the double loop over classes.

    python -m benchmarks.speed.hein [--out DIR]

The networks are T's MNIST classifier at two widths and a small CNN; ten classes, 28x28. The loop already takes each
pair of classes once and the gradients of all samples together.
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from benchmarks.common.options import add_timing, parse, parser
from benchmarks.common.report import Report
from benchmarks.common.timing import interleave
from robustperf import nets, random
from robustperf.training import ERM, CrossLipschitz

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


def main() -> None:
    options = parser(__doc__)
    add_timing(options, repeats=7, threads=1)
    options.add_argument("--batch-size", type=int, nargs="+", default=[32, 128])
    options.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    arguments = parse(options, selections=("batch_size", "networks"))
    losses = {"CrossLipschitz": ours(CrossLipschitz(WEIGHT)), "double loop": double_loop, "no regulariser": ours(ERM())}
    report = Report("hein", "A training step with Hein's regulariser, ten classes, 28x28", arguments.output)
    for name in arguments.networks:
        torch.manual_seed(0)
        model = NETWORKS[name]().train()
        for batch in arguments.batch_size:
            x, y = torch.rand(batch, 1, 28, 28), torch.arange(batch) % 10
            values = {}

            def step(name, model=model, x=x, y=y, values=values):
                model.zero_grad()
                loss = losses[name](model, x, y)
                loss.backward()
                values[name] = loss.item()

            times = interleave({loss: lambda loss=loss: step(loss) for loss in losses}, arguments.repeats)
            difference = abs(values["CrossLipschitz"] / values["double loop"] - 1)
            for loss in losses:
                report.add(**{
                    "case": f"{name}, batch {batch}: {loss}", "ms": times[loss] * 1e3,
                    "x faster than the loop": times["double loop"] / times[loss],
                    "relative difference of the losses": difference if loss == "CrossLipschitz" else None,
                })  # fmt: skip
    report.show(bars=("case", "x faster than the loop"))


if __name__ == "__main__":
    main()
