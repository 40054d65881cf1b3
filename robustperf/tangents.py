"""Forward-mode differentiation: which tensors carry a tangent (`torch.func.jvp`, `torch.autograd.forward_ad`)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.autograd import forward_ad
from torch.compiler import is_compiling


def has_tangent(tensor: torch.Tensor) -> bool:
    """Whether forward mode differentiates along `tensor`."""
    return forward_ad._current_level >= 0 and not is_compiling() and forward_ad.unpack_dual(tensor).tangent is not None


def refuse_tangents(name: str, tensors: Iterable[torch.Tensor | None]) -> None:
    """Raises NotImplementedError where one of `tensors` carries a tangent, which `name` would drop."""
    if forward_ad._current_level < 0:
        return
    if any(tensor is not None and has_tangent(tensor) for tensor in tensors):
        raise NotImplementedError(
            f"{name}: has no derivative in forward mode (torch.func.jvp, jacfwd; torch.autograd.forward_ad), "
            "got an argument with a tangent"
        )
