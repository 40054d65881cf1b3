"""What the known models of natural variation (R section 4.1) have in common: each is a program."""

from __future__ import annotations

import math
import numbers

import torch

from robustperf import check, ops
from robustperf.kernel import Kernel, Shape
from robustperf.ops.program import Law, Program, Step, Transform


class KnownKernel(Kernel):
    """A kernel that is a program of `ops.nuisance`: native code runs it, alone or in a composition, in one pass."""

    def __init__(self, program: Program):
        self.program = program

    def shape_after(self, shape: Shape) -> Shape:
        for step in self.program.steps:
            shape = step.shape_after(shape)
        return shape

    def dim_for(self, shape: Shape | None) -> int:
        return self.program.layout(shape).dim

    def sample_for(self, shape, key, index, draws, *, backend=None):
        return ops.nuisance_sample(key, index, draws, self.program, shape, backend=backend)

    def transform(self, x, delta, *, backend=None):
        return ops.nuisance(x, delta, self.program, backend=backend)

    def draw_for(self, x, key, index, draws, *, backend=None):
        if x.requires_grad and torch.is_grad_enabled():
            return super().draw_for(x, key, index, draws, backend=backend)
        return ops.nuisance_draw(x, key, index, draws, self.program, backend=backend)

    def check_delta(self, delta: torch.Tensor, shape: Shape) -> None:
        for step, part in self._parts(delta, shape):
            lower, upper = _bounds(step, part)
            if not (outside := ~((part >= lower) & (part <= upper))).any():  # a NaN is outside
                if step.law != Law.BALL or bool((_norm(part) <= upper[0] * (1 + 1e-5)).all()):
                    continue
                raise ValueError(f"delta: {step.name} expected a norm of at most {step.upper[0]:g}, "
                                 f"got {_norm(part).max().item():g}")
            first = outside.nonzero()[0].tolist()
            lower, upper = (bound.expand(part.shape[-1])[first[-1]].item() for bound in (lower, upper))
            raise ValueError(f"delta: {step.name} expected numbers in [{lower:g}, {upper:g}], "
                             f"got {part[tuple(first)].item():g} in component {first[-1]}")

    def project(self, delta: torch.Tensor, shape: Shape | None = None) -> torch.Tensor:
        check.tensor("delta", delta, (*("K", "B")[-(delta.dim() - 1):], self.dim_for(shape)))
        parts = []
        for step, part in self._parts(delta, shape):
            if step.law == Law.BALL:
                parts.append(part * (step.upper[0] / _norm(part).clamp_min(step.upper[0])))
            else:
                parts.append(torch.clamp(part, *_bounds(step, part)))
        return torch.cat(parts, -1)

    def _parts(self, delta, shape):
        """Each step that draws, with its components of delta."""
        codes = self.program.layout(shape).codes
        for number, step in enumerate(self.program.steps):
            _, law, size, begin = codes[4 * number : 4 * number + 4]
            if law != Law.SHARED:
                yield step, delta[..., begin : begin + size]

    def __repr__(self) -> str:
        return " + ".join(f"{step.name}({_text(step.lower)}, {_text(step.upper)})" for step in self.program.steps)


def span(name: str, value: float | tuple[float, float], least: float = -math.inf,
         most: float = math.inf) -> tuple[float, float]:
    """(lower, upper) from bounds of a delta's component or from a number a > 0, which stands for -a to a, cut to
    `least` and `most`.

    Raises TypeError for anything else, ValueError for an empty or infinite range or one beyond `least` or `most`.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        lower, upper = max(-float(value), least), float(value)
    else:
        try:
            lower, upper = map(float, value)
        except (TypeError, ValueError):
            raise TypeError(f"{name}: expected a number or bounds (lower, upper), got {value!r}") from None
    if not (lower < upper and math.isfinite(upper - lower)):
        raise ValueError(f"{name}: expected a number above 0 or finite bounds with lower < upper, got {value!r}")
    if lower < least or upper > most:
        raise ValueError(f"{name}: expected bounds within [{least:g}, {most:g}], got {value!r}")
    return lower, upper


def box(transform: Transform, name: str, ranges: list[tuple[float, float]], *settings: float) -> Program:
    """A program of one step whose components of delta are uniform, each in a range of its own."""
    lower, upper = zip(*ranges, strict=True)
    return Program((Step(transform, Law.BOX, lower, upper, settings, name),))


def _text(bound):
    return f"{bound[0]:g}" if len(bound) == 1 else "(" + ", ".join(f"{number:g}" for number in bound) + ")"


def _norm(part):
    return part.double().norm(dim=-1, keepdim=True).to(part.dtype)


def _bounds(step, part):
    """The bounds of a step's components, as its delta's dtype has them: single ones, or one a component."""
    if step.law in (Law.NORMAL, Law.BALL):
        lower, upper = (-math.inf,), (math.inf,)
    elif step.law == Law.FOG:
        rest = part.shape[-1] - 1
        lower, upper = (*step.lower, *[0.0] * rest), (*step.upper, *[1.0] * rest)
    else:
        lower, upper = step.lower, step.upper
    return torch.tensor([lower, upper], dtype=torch.float32, device=part.device).to(part.dtype)
