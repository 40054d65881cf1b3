"""Dropout with one mask for each sample: it does not depend on the batch, the sample's place in it or the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count

import torch
from torch import nn

from robustperf import check, ops
from robustperf.ops.draws import check_draws

_DRAWS, _CALLS = 2**20, 2**12  # together the 2^32 draw indices
_drawing: ContextVar[tuple[int, torch.Tensor, Iterator[int]] | None] = ContextVar("drawing", default=None)


@contextmanager
def drawing(key: int, index: torch.Tensor) -> Iterator[None]:
    """A context in which every `Dropout` in train mode draws its masks under `key` for the samples `index`.

    In the n-th such call (n = 0, 1, ...), row k B + b of the input gets draw n 2^20 + k of sample index[b] (see
    `ops.draws`). The input is thus a batch, or clean images followed by their draws, [x; G(x, delta_1); ...]. Nested
    contexts count their own calls, and other threads do not see this one. A forward pass that is repeated, as under
    activation checkpointing, draws other masks.

    Args:
        key: 64 bits, under which nothing else is drawn for these samples.
        index: [B] int64 >= 0, the sample ids in the data set.

    Raises TypeError for a wrong dtype, ValueError for a wrong key, shape or range.

    >>> model, x = torch.nn.Sequential(torch.nn.Linear(6, 3), Dropout()), torch.rand(32, 6)
    >>> with drawing(rp.random.key(0), torch.arange(32)):
    ...     logits = model(x)
    """
    check.tensor("index", index, ("B",), dtypes=(torch.int64,))
    check_draws(key, index, index[:0])
    token = _drawing.set((key, index, count()))
    try:
        yield
    finally:
        _drawing.reset(token)


class Dropout(nn.Dropout):
    """`nn.Dropout` whose mask, within `drawing`, is a function of key, sample id, draw and call.

    A value is kept where its uniform is at least p, and then divided by 1 - p. The component of the draw is the value's
    position in its row [...] in row-major order, whatever the memory format of x; the result has that of x. Outside of
    `drawing`, in eval mode, for p = 0 and 1, and while torch.compile traces, it is `nn.Dropout` itself.

    Forward: x [K B, ...] of any floating-point dtype, draw-major -> the same shape, dtype and memory format.

    Raises TypeError for another dtype; ValueError where the number of rows is no multiple of B, and beyond 2^20 draws
    or 2^12 calls.

    >>> layer, x = Dropout(0.5), torch.ones(4, 6)
    >>> key, index = rp.random.key(0), torch.arange(4)
    >>> with drawing(key, index):
    ...     whole = layer(x)
    >>> with drawing(key, index[2:]):
    ...     part = layer(x[2:])
    >>> torch.equal(whole[2:], part)
    True
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        current = None if torch.compiler.is_compiling() else _drawing.get()
        if current is None or not self.training or not 0 < self.p < 1:
            return super().forward(x)
        key, index, calls = current
        check.tensor("x", x, ("K B", ...), dtypes=check.REAL + check.HALF)
        draws = len(x) // max(len(index), 1)
        if draws * len(index) != len(x):
            raise ValueError(f"x: expected a multiple of {len(index)} rows, one for each sample, got {len(x)}")
        call = next(calls)
        if draws > _DRAWS or call >= _CALLS:
            raise ValueError(f"drawing: expected at most {_DRAWS} draws and {_CALLS} calls, got {draws} in call {call}")
        first = _DRAWS * call
        draw_indices = torch.arange(first, first + draws, device=x.device)
        uniform = ops.draws(key, index.to(x.device), draw_indices, x[:1].numel())
        kept = uniform.ge_(self.p).to(x.dtype).view(x.shape)
        return (x.mul_(kept) if self.inplace else x * kept).mul_(1 / (1 - self.p))
