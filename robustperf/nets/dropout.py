"""Dropout whose masks belong to samples: the same whatever the batch, a sample's place in it and the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count

import torch
from torch import nn

from robustperf import check, ops
from robustperf.ops.draws import check_draws

_DRAWS, _CALLS = 2**20, 2**12  # of the 2^32 numbers of draws
_drawing: ContextVar[tuple[int, torch.Tensor, Iterator[int]] | None] = ContextVar("drawing", default=None)


@contextmanager
def drawing(key: int, index: torch.Tensor) -> Iterator[None]:
    """Inside, every training-mode `Dropout` draws its masks under `key` for the samples `index`.

    The n-th such call (n = 0, 1, ...) gives row k B + b of its input the draw number n 2^20 + k of sample index[b], see
    `ops.draws`: a pass over a batch, or over its clean images followed by their draws, [x; G(x, delta_1); ...]. An
    inner context counts its own calls; another thread does not see this one. A pass that runs twice, as under
    activation checkpointing, draws anew.

    Args:
        key: 64 bits, and none that other draws for these samples are made under.
        index: [B] int64 >= 0, the samples' indices in their data set.

    Raises TypeError for a wrong dtype, ValueError for a wrong key, shape or range.
    """
    check.tensor("index", index, ("B",), dtypes=(torch.int64,))
    check_draws(key, index, index[:0])
    token = _drawing.set((key, index, count()))
    try:
        yield
    finally:
        _drawing.reset(token)


class Dropout(nn.Dropout):
    """`nn.Dropout` whose mask, within `drawing`, is a function of key, sample index, draw and call.

    A value is kept where its uniform is at least p, and then divided by 1 - p. The component of the draw is the value's
    place in its row [...] read in order, whatever the memory format; that of the result is x's. Outside of `drawing`,
    in eval mode, for p = 0 and 1, and in what torch.compile traces, it is `nn.Dropout` itself.

    Forward: x [K B, ...] float of any width, draw-major -> the same shape, dtype and memory format.

    Raises TypeError for another dtype, ValueError for rows that are no multiple of B, and beyond 2^20 draws or 2^12
    calls.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        current = None if torch.compiler.is_compiling() else _drawing.get()
        if current is None or not self.training or not 0 < self.p < 1:
            return super().forward(x)
        key, index, calls = current
        check.tensor("x", x, ("K B", ...), dtypes=check.REAL + check.HALF)
        draws = len(x) // max(len(index), 1)
        if draws * len(index) != len(x):
            raise ValueError(f"x: expected rows for {len(index)} samples or a multiple of it, got {len(x)}")
        call = next(calls)
        if draws > _DRAWS or call >= _CALLS:
            raise ValueError(f"drawing: expected at most {_DRAWS} draws and {_CALLS} calls, got {draws} in call {call}")
        first = _DRAWS * call
        numbers = torch.arange(first, first + draws, device=x.device)
        uniform = ops.draws(key, index.to(x.device), numbers, x[:1].numel())
        kept = uniform.ge_(self.p).to(x.dtype).view(x.shape)
        return (x.mul_(kept) if self.inplace else x * kept).mul_(1 / (1 - self.p))
