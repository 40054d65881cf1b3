"""The basic robustness measure (T Definition 1), estimated from draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from robustperf import check
from robustperf.classifier import Classifier, check_no_nan, evaluating, in_fixed_batches, laid_out, logits_of
from robustperf.kernel import Kernel, check_kernel
from robustperf.ops.draws import check_key
from robustperf.progress import progress_bar
from robustperf.result import Result
from robustperf.robustness.confidence import check_confidence, clopper_pearson
from robustperf.robustness.sequential import unbiased

_FIRST_STAGE = 32


@dataclass(frozen=True, eq=False, repr=False)
class BasicRobustness(Result):
    """ρ_Q^f at N points, on the CPU.

    Attributes:
        rho: [N] float64, the fraction of the draws that f labels as it labels x, corrected for the stopping rule where
            `width` was given; NaN where Q(. | x) does not exist.
        lower, upper: [N] float64, a confidence interval for each point; NaN where rho is.
        agreed: [N] int64, the number of draws with the label of x.
        draws: [N] int64, the number that were evaluated.
        label: [N] int64, f(x).
        confidence: of the intervals.

    >>> model = lambda images: torch.cat([0.5 - images, images - 0.5], 1).flatten(1)  # of one pixel
    >>> found = rp.basic_robustness(model, torch.full((1, 1, 1, 1), 0.4), rp.nuisance.LinfBall(0.2), samples=10_000)
    >>> (found.lower < 0.75) & (found.upper > 0.75)
    tensor([True])
    """

    rho: torch.Tensor
    lower: torch.Tensor
    upper: torch.Tensor
    agreed: torch.Tensor
    draws: torch.Tensor
    label: torch.Tensor
    confidence: float

    def _facts(self) -> dict[str, Any]:
        return {
            "n": len(self.rho),
            "mean rho": self.rho.mean().item(),
            "draws": int(self.draws.sum()),
            "confidence": self.confidence,
        }


def basic_robustness(
    model: Classifier,
    x: torch.Tensor,
    kernel: Kernel,
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    width: float | None = None,
    until_disagreement: bool = False,
    key: int = 0,
    batch_size: int = 64,
    index: torch.Tensor | None = None,
    progress: bool | Callable[[int], None] = False,
) -> BasicRobustness:
    """ρ(x) = Q({x' : f(x') = f(x)} | x) of each point, with Clopper-Pearson intervals (T Definition 1).

    The label is the model's own: robustness is not accuracy (T postulate P1).

    Args:
        model: a classifier on the points' device; run in eval mode and left unchanged.
        x: [N, C, H, W] float32 or float64, finite.
        kernel: Q.
        samples: draws of each point, at most, >= 1.
        confidence: of each point's interval.
        width: stop at a point once its interval is no wider. The interim analyses are after 32, 64, 128, ... draws.
            With L of them the intervals are those of 1 - (1 - confidence) / L, so that they hold at all analyses
            simultaneously. Where `samples` do not suffice an interval stays wider than this. Such a rule would bias the
            fraction of the draws, by up to 0.005 for a width of 0.1 (it stops early where the draws happen to agree);
            `rho` is the unbiased estimate of Girshick, Mosteller and Savage (1946), cut to the
            interval, whose bias is below 1e-5.
        until_disagreement: stop at a point at the first draw with another label, from which on ρ < 1: all that
            H = 1 needs (T section 2). The intervals are exact for this rule; `rho`, then (n - 1) / n for n
            draws, is the maximum likelihood estimate, biased low.
        key: 64 bits, of the draws.
        batch_size: images in one forward pass; neither it nor the order of the points changes a draw. A label may
            change where the model itself rounds differently in another batch.
        index: [N] int64, the points' sample ids in their data set, which the draws depend on; 0..N-1 by default.
        progress: show a bar on standard error; or a function that is called with the number of points newly done.

    Raises TypeError or ValueError for a wrong argument, a kernel that does not take these images, or NaN logits.

    >>> from robustperf.nuisance import LinfBall
    >>> model = lambda images: torch.cat([0.5 - images, images - 0.5], 1).flatten(1)  # of one pixel
    >>> basic_robustness(model, torch.full((1, 1, 1, 1), 0.4), LinfBall(0.2), samples=10_000)
    BasicRobustness(n=1, mean rho=0.75, draws=10000, confidence=0.95)
    """

    def label_of(images, ids):
        logits = logits_of(model, laid_out(model, images))
        check_no_nan(logits, ids)
        return logits.argmax(1)

    check.tensor("x", x, ("N", "C", "H", "W"))
    sampling = Sampling(samples, confidence, width, until_disagreement, key, batch_size)
    model = in_fixed_batches(model, min(batch_size, samples * max(1, len(x))))
    with evaluating(model), progress_bar(progress is True, "basic robustness", len(x)) as advance:
        return agreement(label_of, x, kernel, sampling, index, progress if callable(progress) else advance)


@dataclass(frozen=True)
class Sampling:
    """How many draws of a point are evaluated; the fields are the arguments of `basic_robustness`."""

    samples: int
    confidence: float
    width: float | None
    until_disagreement: bool
    key: int
    batch_size: int

    def __post_init__(self) -> None:
        check.integer("samples", self.samples, 1, 2**32)
        check.integer("batch_size", self.batch_size, 1)
        check_confidence(self.confidence)
        check_key(self.key)
        if self.width is not None and self.until_disagreement:
            raise ValueError(
                f"width: expected None beside until_disagreement=True, which is another stopping rule, got {self.width}"
            )


@torch.no_grad()
def agreement(
    label_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    kernel: Kernel,
    sampling: Sampling,
    index: torch.Tensor | None = None,
    advance: Callable[[int], None] | None = None,
) -> BasicRobustness:
    """`basic_robustness` of a function from images [B, ...] and their sample ids [B] to labels [B]; `advance` is called
    with the number of points newly done."""
    check.tensor("x", x, ("N", "C", "H", "W"))
    check_kernel(kernel)
    confidence, batch_size, until_disagreement = sampling.confidence, sampling.batch_size, sampling.until_disagreement
    stages = interim_stages(sampling.samples, sampling.width, confidence)
    key, total = sampling.key, len(x)
    index = torch.arange(total, device=x.device) if index is None else index
    check.tensor("index", index, (total,), dtypes=(torch.int64,), device=x.device)
    check.images("x", x)

    level = 1 - (1 - confidence) / len(stages)
    continues = [_wider(stage, level, sampling.width) for stage in stages[:-1]]
    agreed, draws, label = torch.zeros(3, total, dtype=torch.int64, device=x.device)
    defined = torch.ones(total, dtype=torch.bool, device=x.device)
    for start in range(0, total, batch_size):
        part = slice(start, start + batch_size)
        label[part] = label_of(x[part], index[part])
        defined[part] = kernel.defined(x[part])
        active = start + defined[part].nonzero()[:, 0]
        done = 0
        for place, stage in enumerate(stages):
            while done < stage and active.numel():
                count = min(stage - done, max(1, batch_size // len(active)))
                images = kernel.draw(
                    x[active], key=key, index=index[active], draws=torch.arange(done, done + count, device=x.device)
                )
                done += count
                labels = label_of(images.flatten(0, 1), index[active].repeat(count)).view(count, -1)
                same = (labels == label[active]).long()
                if until_disagreement:
                    same = same.cumprod(0)  # of the draws up to the first disagreement
                    agreed[active] += same.sum(0)
                    draws[active] += same.sum(0) + 1 - same[-1]
                    active = active[same[-1] == 1]
                else:
                    agreed[active] += same.sum(0)
                    draws[active] += count
            if place < len(continues):
                active = active[continues[place].to(x.device)[agreed[active]]]
        if advance is not None:
            advance(len(x[part]))

    agreed, draws, label, defined = (values.cpu() for values in (agreed, draws, label, defined))
    lower, upper = clopper_pearson(agreed, draws, level)
    if until_disagreement:  # the draws were not fixed beforehand: P(at least n draws) = ρ^(n - 1)
        lower = ((1 - level) / 2) ** (1 / agreed.double())
    rho = agreed / draws.double()
    if continues:
        rho = unbiased(agreed.where(defined, 0), draws.where(defined, stages[0]), stages, continues).clamp(lower, upper)
    rho, lower, upper = (torch.where(defined, value, torch.nan) for value in (rho, lower, upper))
    return BasicRobustness(rho, lower, upper, agreed, draws, label, confidence)


def interim_stages(samples: int, width: float | None, confidence: float) -> list[int]:
    """The numbers of draws at which the interval is analysed: 32, 64, ..., `samples`, from the first at which `width`
    can be reached (all draws agree) to the first at which it must be; only `samples` where no width is given."""
    if width is None:
        return [samples]
    check.number("width", width, above=0, below=1)
    stages, stage = [], _FIRST_STAGE
    while stage < samples:
        if _width(stage, stage, confidence) <= width:
            stages.append(stage)
        stage *= 2
    stages.append(samples)
    level = 1 - (1 - confidence) / len(stages)
    widest = [_width(stage // 2, stage, level) for stage in stages]
    return [stage for place, stage in enumerate(stages) if place == 0 or widest[place - 1] > width]


def _wider(draws: int, confidence: float, width: float) -> torch.Tensor:
    """[draws + 1] bool, for each number of draws that agree whether the interval is wider than `width`."""
    lower, upper = clopper_pearson(torch.arange(draws + 1), torch.full((draws + 1,), draws), confidence)
    return upper - lower > width


def _width(agreed: int, draws: int, confidence: float) -> float:
    lower, upper = clopper_pearson(torch.tensor(agreed), torch.tensor(draws), confidence)
    return (upper - lower).item()
