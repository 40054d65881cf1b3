"""The diagnostics that evaluate some points again: noise of the model, and published attacks that were undercut."""

from __future__ import annotations

from dataclasses import replace

import torch

from robustperf.attacks import Adversarial
from robustperf.attacks.losses import gap_at, per_sample
from robustperf.classifier import Classifier, logits_of
from robustperf.robustness.boundary import Boundary
from robustperf.robustness.diagnostics import EVERY, NEARER, Diagnostics
from robustperf.robustness.search import distances


def reevaluate(
    model: Classifier,
    x: torch.Tensor,
    labels: torch.Tensor,
    index: torch.Tensor,
    boundary: Boundary,
    published: dict[int, Adversarial],
    norm: float,
    counts: Diagnostics,
) -> tuple[Diagnostics, torch.Tensor]:
    """(`counts` with `repeated`, `changed`, `compared` and `undercut`, the evaluations that they took [B]).

    Args:
        model, x, labels, index, norm: as in `margins`; the model in eval mode, without gradients.
        boundary: the nearest crossings, from the ensemble's points.
        published: what the published attacks of the ensemble found, by their place in it.
    """
    evaluations = torch.zeros_like(boundary.evaluations)
    every_nth = ((boundary.distance > 0) & (index % EVERY == 0)).nonzero()[:, 0]
    if not every_nth.numel():
        return counts, evaluations
    # a noisy label at x counts too: its adversarial example may well keep the more frequent label
    changed = gap_at(model, x[every_nth], labels[every_nth]) < 0
    evaluations[every_nth] += 1
    has_point = boundary.candidate[every_nth] >= 0
    found = every_nth[has_point]
    if found.numel():
        changed[has_point] |= logits_of(model, boundary.point[found]).argmax(1) == labels[found]
        evaluations[found] += 1
    counts = replace(counts, repeated=len(every_nth), changed=int(changed.sum()))

    places = torch.tensor(list(published), dtype=torch.int64, device=x.device)
    by_others = found[~torch.isin(boundary.candidate[found], places)]
    if not published or not by_others.numel():
        return counts, evaluations
    # whether a published attack's line has crossed at 1.1 times the distance found
    undercut = torch.ones(len(by_others), dtype=torch.bool, device=x.device)
    radius = (1 + NEARER) * boundary.distance[by_others]
    for attack in published.values():
        end, gap = attack.point[by_others], attack.gap[by_others]
        length = distances(x[by_others], end, norm)
        undercut &= ~((length <= radius) & (gap < 0))
        longer = (length > radius).nonzero()[:, 0]
        if longer.numel():
            rows = by_others[longer]
            step = per_sample((radius / length)[longer], x)
            undercut[longer] &= ~(gap_at(model, x[rows] + step * (end[longer] - x[rows]), labels[rows]) < 0)
            evaluations[rows] += 1
    return replace(counts, compared=len(by_others), undercut=int(undercut.sum())), evaluations
