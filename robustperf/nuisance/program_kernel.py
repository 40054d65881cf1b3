"""What the known models of natural variation (R section 4.1) have in common: each is a program."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch

from robustperf import check, ops
from robustperf.kernel import Kernel, Shape, check_shape, reaches_delta
from robustperf.ops.draws import Key
from robustperf.ops.program import AFFINE_PARAMETERS, Distribution, Outside, Program, Source, Step, Transform, steps_of

_CONSTANT_IN_DELTA = (Transform.IMPULSE, Transform.SHOT)  # or piecewise so
_CONSTANT_IN_X = (Transform.SHOT,)


class ProgramKernel(Kernel):
    """A kernel that is a program of `ops.nuisance`: native code runs it, alone or in a composition, in one pass."""

    program: Program

    def __init__(self, program: Program) -> None:
        self.program: Program = program

    def shape_after(self, shape: Shape) -> Shape:
        for step in self.program.steps:
            shape = step.shape_after(shape)
        return shape

    def dim_for(self, shape: Shape | None) -> int:
        return self.program.layout(shape).dim

    def sample_for(
        self, shape: Shape | None, key: Key, index: torch.Tensor, draws: torch.Tensor, *, backend: str | None = None
    ) -> torch.Tensor:
        return ops.nuisance_sample(key, index, draws, self.program, shape, backend=backend)

    def transform(self, x: torch.Tensor, delta: torch.Tensor, *, backend: str | None = None) -> torch.Tensor:
        return ops.nuisance(x, delta, self.program, backend=backend)

    def draw_for(
        self,
        x: torch.Tensor,
        key: Key,
        index: torch.Tensor,
        draws: torch.Tensor,
        *,
        out: torch.Tensor | None = None,
        backend: str | None = None,
    ) -> torch.Tensor:
        if out is None and x.requires_grad and torch.is_grad_enabled():
            return super().draw_for(x, key, index, draws, backend=backend)
        return ops.nuisance_draw(x, key, index, draws, self.program, out=out, backend=backend)

    def check_delta(self, delta: torch.Tensor, shape: Shape) -> None:
        lower, upper = _limits(self.program, shape, delta.dtype)
        outside = ~((delta >= lower) & (delta <= upper))  # a NaN is outside
        if outside.any():
            *place, component = outside.nonzero()[0].tolist()
            name = next(step.name for step, own in _places(self.program, shape) if own.start <= component < own.stop)
            raise ValueError(
                f"delta: {name} expected numbers in [{lower[component]:g}, {upper[component]:g}], got "
                f"{delta[(*place, component)]:g} in component {component}"
            )
        for step, own in _places(self.program, shape):
            if step.distribution != Distribution.BALL or not delta.numel():
                continue
            if (longest := _norm(delta[..., own]).max()) > _about(step):
                raise ValueError(f"delta: {step.name} expected a norm of at most {step.upper[0]:g}, got {longest:g}")

    def project(self, delta: torch.Tensor, shape: Shape | None = None) -> torch.Tensor:
        check_shape(delta, self.dim_for(shape))
        projected = torch.clamp(delta, *_limits(self.program, shape, delta.dtype).to(delta.device))
        for step, own in _places(self.program, shape):
            if step.distribution == Distribution.BALL:
                part = delta[..., own]
                projected[..., own] = part * (step.upper[0] / _norm(part).clamp_min(step.upper[0])).to(part.dtype)
        return projected

    def bounds_for(self, shape: Shape | None) -> torch.Tensor:
        return _bounds(self.program, shape).clone()

    def identity_for(self, shape: Shape | None) -> torch.Tensor:
        identity = super().identity_for(shape)
        for step, own in _places(self.program, shape):
            if step.transform in _CONSTANT_IN_DELTA:  # 0 is black: the pixel stays in the middle of [0, 1]
                identity[own] = 0.5
        return identity

    @property
    def law(self) -> tuple[Any, ...]:
        return tuple(step[1:4] for step in _drawing(self.program))

    @property
    def uniform(self) -> bool:
        return all(
            step.distribution in (Distribution.BOX, Distribution.EVERYWHERE, Distribution.FOG)
            for step in _drawing(self.program)
        )

    @property
    def ball(self) -> tuple[float, float] | None:
        step, *others = self.program.steps
        norm = {Distribution.BALL: 2.0, Distribution.EVERYWHERE: math.inf}.get(step.distribution)
        if others or step.transform != Transform.ADD or norm is None or not step.settings[0]:  # not clamped
            return None
        return norm, float(step.upper[0])

    @property
    def differentiable_in_delta(self) -> bool:
        return reaches_delta(
            (step.transform not in _CONSTANT_IN_DELTA, step.transform not in _CONSTANT_IN_X)
            for step in self.program.steps
        )

    @property
    def differentiable_in_x(self) -> bool:
        return not any(step.transform in _CONSTANT_IN_X for step in self.program.steps)

    def __repr__(self) -> str:
        return " + ".join(map(_text, self.program.steps))


def span(
    name: str, value: float | tuple[float, float], least: float = -math.inf, most: float = math.inf
) -> tuple[float, float]:
    """(lower, upper) from bounds of a delta's component or from a number a > 0, which stands for -a to a, cut to
    `least` and `most`.

    Raises TypeError for anything else, ValueError for an empty or infinite range or one beyond `least` or `most`.
    """
    if check.is_number(value):
        lower, upper = max(-float(value), least), float(value)
    else:
        try:
            lower, upper = map(float, () if isinstance(value, str) else value)
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
    return Program((Step(transform, Distribution.BOX, lower, upper, settings, name),))


def _text(step):
    """The call that makes a kernel of this one step, as the command line reads it."""
    first, second = (*step.settings, 0, 0)[:2]
    arguments = [_tuple(pair) for pair in zip(step.lower, step.upper, strict=False)]
    if step.transform == Transform.AFFINE:
        drawn = [part for bit, part in enumerate(AFFINE_PARAMETERS) if int(first) >> bit & 1]
        named = [part for part in AFFINE_PARAMETERS if part.startswith(step.name)]
        ranges = dict(zip(drawn, arguments, strict=False))
        arguments = [ranges.get(part, "None") for part in named or ("rotation", "translation_x", "scale", "shear_x")]
        arguments += ["outside='border'"] * (second == Outside.BORDER)
    elif step.transform == Transform.BACKGROUND:
        source = {Source.CORNER: ["'corner'"], Source.COLOUR: [_tuple(step.settings[1:])]}
        arguments = [_tuple(step.lower), _tuple(step.upper), *source.get(first, [])]
    elif step.transform == Transform.ADD:
        arguments = [_number(step.upper[0])] + ["clamp=True"] * bool(step.distribution != Distribution.NORMAL and first)
    elif step.transform in (Transform.IMPULSE, Transform.SHOT):
        arguments = [_number(first)]
    return f"{step.name}({', '.join(arguments)})"


def _tuple(values):
    return "(" + ", ".join(map(_number, values)) + ")"


def _number(value):
    return str(value).removesuffix(".0")


def _norm(part):
    return part.double().norm(dim=-1, keepdim=True)


def _places(program, shape):
    """Each step that draws, with the place of its components of delta."""
    layout = program.layout(shape)
    for step, encoded in zip(program.steps, steps_of(layout.codes, layout.parameters), strict=True):
        if encoded.distribution != Distribution.SHARED:
            yield step, slice(encoded.offset, encoded.offset + encoded.dim)


def _drawing(program):
    """The steps that draw, which are the first of those that share a delta."""
    groups = program.groups or range(len(program.steps))
    return [step for number, step in enumerate(program.steps) if groups[number] not in groups[:number]]


@lru_cache(64)
def _bounds(program, shape):
    """Delta's lower and upper bounds [2, q] as they were given, a ball's those of the cube around it."""
    bounds = []
    for step, own in _places(program, shape):
        lower, upper, size = step.lower, step.upper, own.stop - own.start
        if step.distribution == Distribution.NORMAL:
            lower, upper = (-math.inf,), (math.inf,)
        elif step.distribution == Distribution.BALL:
            lower = (-upper[0],)
        elif step.distribution == Distribution.FOG:
            lower, upper = (*lower, *[0.0] * (size - 1)), (*upper, *[1.0] * (size - 1))
        bounds.append(torch.tensor([lower, upper], dtype=torch.float64).expand(2, size))
    return torch.cat(bounds, 1)


@lru_cache(64)
def _limits(program, shape, dtype):
    """Delta's lower and upper bounds [2, q], as they were given or as float32 has them, whichever is wider: what
    `sample` gives is within, and so are the bounds themselves. A ball has none: its norm is what counts."""
    lower, upper = _bounds(program, shape).clone()
    for step, own in _places(program, shape):
        if step.distribution == Distribution.BALL:
            lower[own], upper[own] = -math.inf, math.inf
    return torch.stack([torch.minimum(lower, lower.float()), torch.maximum(upper, upper.float())]).to(dtype)


def _about(step):
    """The ball's radius, and a little for the rounding of a norm."""
    return step.upper[0] * (1 + 1e-5)
