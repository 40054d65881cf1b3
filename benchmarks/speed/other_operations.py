"""The operations that no other module measures alone, compared with PyTorch and its compiled form.

python -m benchmarks.speed.other_operations [--out DIR]

`logit_gap` beside the same in float64, `draws` beside `torch.rand`, `nuisance_sample` beside scaled `torch.rand`, and
`rbf_decision` beside `torch.cdist`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from robustperf import nuisance, ops, random

from ..common.cases import COMPILED, EAGER, OURS, Case
from ..common.options import add_timing, parse, parser
from ..common.report import Report
from ..common.timing import Call, interleave

KEY = random.key(0)


def gap(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """The label's logit minus the largest other one, in float64."""
    z, column = logits.double(), label[:, None]
    return z.gather(1, column)[:, 0] - z.scatter(1, column, -torch.inf).amax(1)


def rbf(
    x: torch.Tensor, support: torch.Tensor, dual: torch.Tensor, intercept: torch.Tensor, gamma: float
) -> torch.Tensor:
    return torch.exp(-gamma * torch.cdist(x, support).square()) @ dual.t() + intercept


def logit_gap(batch: int) -> dict[str, Call]:
    logits, label = torch.randn(batch, 10), torch.arange(batch) % 10
    return _with(partial(ops.logit_gap, logits, label), gap, logits, label)


def draws(batch: int) -> dict[str, Call]:
    index, draw = torch.arange(batch), torch.arange(10)
    return _with(partial(ops.draws, KEY, index, draw, 16), torch.rand, 10, batch, 16)


def nuisance_sample(batch: int) -> dict[str, Call]:
    program, index, draw = nuisance.Affine(30, 0.1, 0.2, 10).program, torch.arange(batch), torch.arange(10)
    lower = torch.tensor([number for step in program.steps for number in step.lower])
    upper = torch.tensor([number for step in program.steps for number in step.upper])

    def scaled() -> torch.Tensor:
        return lower + (upper - lower) * torch.rand(10, batch, len(lower))

    return _with(partial(ops.nuisance_sample, KEY, index, draw, program), scaled)


def rbf_decision(batch: int) -> dict[str, Call]:
    x, support, dual = torch.rand(batch, 64), torch.rand(600, 64), torch.randn(45, 600)
    operands = x, support, dual, torch.randn(45), 0.05
    return _with(partial(ops.rbf_decision, *operands), rbf, *operands)


def _with(ours: Call, eager: Callable[..., torch.Tensor], *operands: object) -> dict[str, Call]:
    return {OURS: ours, EAGER: partial(eager, *operands), COMPILED: partial(torch.compile(eager), *operands)}


OPERATIONS = (logit_gap, draws, nuisance_sample, rbf_decision)


def cases(quick: bool) -> list[Case]:
    batch = 64 if quick else 1024
    return [Case(f"{make.__name__}, batch {batch}", partial(make, batch)) for make in OPERATIONS]


def main() -> None:
    options = parser(__doc__)
    add_timing(options, repeats=101)
    arguments = parse(options)
    report = Report("other_operations", "Operations that no other benchmark measures alone", arguments.output)
    for case in cases(quick=False):
        times = interleave(case.make(), arguments.repeats)
        report.add(**{
            "case": case.name, **{f"{name} ms": 1e3 * seconds for name, seconds in times.items()},
            "x faster than eager": times[EAGER] / times[OURS],
            "x faster than compiled": times[COMPILED] / times[OURS],
        })  # fmt: skip
    report.show(bars=("case", "x faster than eager"))


if __name__ == "__main__":
    main()
