"""Tensors of more than 2^31 elements, which need indices of 64 bits. The system allocates only the pages that are
written, so the zeros around the few numbers that matter cost nothing."""

import math

import numpy as np
import torch

from robustperf import ops
from robustperf.ops.search_state import FIELD, new_search

MANY = 2**31


def zeros(*shape, dtype=torch.float32):
    """Zeros whose pages are allocated when they are written."""
    size = math.prod(shape) * torch.finfo(dtype).bits // 8
    return torch.from_numpy(np.zeros(size, dtype=np.uint8)).view(dtype).view(shape)


def test_best_of_k_reads_the_last_of_many_logits():
    draws, batch, classes = 2, 4, MANY // 8 + 16
    logits = zeros(draws, batch, classes, dtype=torch.bfloat16)
    assert logits.numel() > MANY
    logits[1, 3, -1] = 60.0
    target = torch.tensor([0, 1, 2, classes - 2])
    loss, index = ops.best_of_k(logits, target, backend="native")
    level = math.log(classes)
    torch.testing.assert_close(loss, torch.tensor([level, level, level, 60.0]), rtol=1e-4, atol=0)
    assert index.tolist() == [0, 0, 0, 1]


def test_a_search_step_writes_from_the_far_end_of_many_candidates():
    ensemble, points, dim = 3, 4, MANY // 10
    x, candidates = zeros(points, dim), zeros(ensemble, points, dim)
    assert candidates.numel() > MANY
    x[3, -1], candidates[2, 3, -1], candidates[2, 3, 0] = 0.25, 0.75, 1.0
    lines, state = new_search(
        torch.ones(points, dtype=torch.float64),
        torch.tensor([[math.inf, math.inf, 1.0]] * points, dtype=torch.float64),
        torch.full((points, ensemble), math.nan, dtype=torch.float64),
    )
    rows, label, place = torch.tensor([3]), torch.zeros(points, dtype=torch.int64), torch.full((1, dim), math.nan)
    ops.line_search_step(None, rows, label, x, candidates, lines, state, place, x, tol=2.0**-6, backend="native")
    assert state[3, FIELD["line"]] == 2 and state[3, FIELD["step"]] == 1
    assert place[0, 0] == 1.0 and place[0, -1] == 0.75 and place[0, 1:-1].count_nonzero() == 0
