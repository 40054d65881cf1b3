import torch
from torch.nn.functional import cross_entropy

from robustperf import check


@torch.no_grad()
def best_of_k(logits, target, loss, index, first, first_chunk, whole_batch, label_smoothing, ignore_index):
    draws, batch, classes = logits.shape
    ignored = target == ignore_index
    check.labels("target", target[~ignored], classes)
    losses = cross_entropy(
        logits.reshape(-1, classes).to(loss.dtype),
        target.repeat(draws),
        reduction="none",
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
    )
    if first_chunk:
        loss.fill_(torch.nan)
        index.zero_()
    loss.masked_fill_(ignored, 0.0)
    index.masked_fill_(ignored, 0)
    for draw, candidate in enumerate(losses.view(draws, batch), first):
        score, best = (
            (candidate, loss) if not whole_batch else (total.sum(dtype=torch.float64) for total in (candidate, loss))
        )
        worse = (score > best) | (best.isnan() & ~score.isnan())
        loss.copy_(torch.where(worse, candidate, loss))
        index.copy_(torch.where(worse & ~ignored, draw, index))
