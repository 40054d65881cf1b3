"""Random logits for best_of_k, and its truth in float64."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from robustperf.ops import best_of_k

inf, nan = math.inf, math.nan
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LOSS = {torch.float32: torch.float32, torch.float64: torch.float64, torch.bfloat16: torch.float32,
        torch.float16: torch.float32}  # fmt: skip
TOLERANCE = {torch.float32: 3e-7, torch.float64: 1e-15}  # relative to 1 + loss
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_selection = pytest.mark.parametrize("selection", ["sample", "batch"])


def truth(logits, target, selection="sample", label_smoothing=0.0, ignore_index=-100):
    """(losses [K, B], scores [K, B], loss [B], index [B]) in float64, by torch's own functions."""
    draws, batch, _ = logits.shape
    losses = cross_entropy(
        logits.double().flatten(0, 1),
        target.repeat(draws),
        reduction="none",
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
    ).view(draws, batch)
    scores = losses if selection == "sample" else losses.sum(1, keepdim=True).expand(-1, batch)
    index = scores.nan_to_num(nan=-1.0, posinf=inf).argmax(0)
    loss = torch.where(scores.isnan().all(0), nan, losses.gather(0, index[None])[0])
    ignored = target == ignore_index
    return losses, scores, loss.masked_fill(ignored, 0.0), index.masked_fill(ignored, 0)


def run(logits, target, backend, device, **settings):
    loss, index = best_of_k(logits.to(device), target.to(device), backend=backend, **settings)
    assert loss.shape == index.shape == target.shape
    assert loss.dtype == LOSS[logits.dtype] and index.dtype == torch.int64
    assert loss.device.type == index.device.type == device.type
    return loss.cpu(), index.cpu()


def check(logits, target, backend, device, ties=False, **settings):
    """Against the truth; `ties`: draws so close that rounding chooses are as good as the best."""
    loss, index = run(logits, target, backend, device, **settings)
    losses, scores, want, best = truth(logits, target, **settings)
    tolerance = TOLERANCE[loss.dtype]
    torch.testing.assert_close(
        loss.double(), want.to(loss.dtype).double(), rtol=4 * tolerance, atol=4 * tolerance, equal_nan=True
    )
    if ties:
        mine, top = scores.gather(0, index[None])[0], scores.gather(0, best[None])[0]
        torch.testing.assert_close(mine, top, rtol=4 * tolerance, atol=4 * tolerance * len(target), equal_nan=True)
    else:
        assert index.tolist() == best.tolist()
    return loss, index


def sample(draws, batch, classes, dtype=torch.float32, seed=0, scale=4.0):
    g = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(draws, batch, classes, generator=g, dtype=torch.float64)
    return logits.to(dtype), torch.randint(classes, (batch,), generator=g)
