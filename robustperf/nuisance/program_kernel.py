"""The base of the known models of natural variation (R section 4.1): each is a program of `ops.nuisance`."""

from __future__ import annotations

import math
from collections.abc import Hashable
from functools import lru_cache

import torch

from robustperf import check
from robustperf.kernel import Kernel, check_shape, reaches_delta, widened
from robustperf.ops.draws import Key
from robustperf.ops.nuisance import nuisance_unchecked
from robustperf.ops.nuisance_draw import nuisance_draw_unchecked
from robustperf.ops.nuisance_sample import nuisance_sample_unchecked
from robustperf.ops.program import (
    AFFINE_PARAMETERS,
    Distribution,
    Outside,
    Program,
    Shape,
    Source,
    Step,
    Transform,
    steps_of,
)
from robustperf.tangents import has_tangent

_CONSTANT_IN_DELTA = (Transform.IMPULSE, Transform.SHOT)  # or piecewise constant
_CONSTANT_IN_X = (Transform.SHOT,)


class ProgramKernel(Kernel):
    """A kernel that is a program of `ops.nuisance`: compiled code runs it, alone or in a composition, in one pass.

    Args:
        program: the steps, each a transform with the distribution of its delta.

    >>> kernel = ProgramKernel(rp.nuisance.Hue(0.1).program)
    >>> kernel.dim
    1
    >>> kernel.draw(torch.rand(2, 3, 8, 8), key=0, index=torch.arange(2), draws=5).shape
    torch.Size([5, 2, 3, 8, 8])
    """

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
        return nuisance_sample_unchecked(key, index, draws, self.program, shape, backend=backend)

    def transform(self, x: torch.Tensor, delta: torch.Tensor, *, backend: str | None = None) -> torch.Tensor:
        return nuisance_unchecked(x, delta, self.program, backend=backend)

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
        if out is None and (x.requires_grad and torch.is_grad_enabled() or has_tangent(x)):
            return super().draw_for(x, key, index, draws, backend=backend)
        return nuisance_draw_unchecked(x, key, index, draws, self.program, out=out, backend=backend)

    def check_delta(self, delta: torch.Tensor, shape: Shape) -> None:
        lower, upper = _limits(self.program, shape, delta.dtype)
        outside = ~((delta >= lower) & (delta <= upper))  # a NaN is outside
        if outside.any():
            *place, component = outside.nonzero()[0].tolist()
            name = next(step.name for step, own in _slices(self.program, shape) if own.start <= component < own.stop)
            raise ValueError(
                f"delta: {name} expected values in [{lower[component]:g}, {upper[component]:g}], got "
                f"{delta[(*place, component)]:g} in component {component}"
            )
        for step, own in _slices(self.program, shape):
            if step.distribution != Distribution.BALL or not delta.numel():
                continue
            if (longest := _norm(delta[..., own]).max()) > _largest(step):
                raise ValueError(f"delta: {step.name} expected a norm of at most {step.upper[0]:g}, got {longest:g}")

    def project(self, delta: torch.Tensor, shape: Shape | None = None) -> torch.Tensor:
        check_shape(delta, self.dim_for(shape))
        projected = torch.clamp(delta, *_limits(self.program, shape, delta.dtype).to(delta.device))
        for step, own in _slices(self.program, shape):
            if step.distribution == Distribution.BALL:
                part = delta[..., own]
                projected[..., own] = part * (step.upper[0] / _norm(part).clamp_min(step.upper[0])).to(part.dtype)
        return projected

    def bounds_for(self, shape: Shape | None) -> torch.Tensor:
        return _bounds(self.program, shape).clone()

    def identity_for(self, shape: Shape | None) -> torch.Tensor:
        identity = super().identity_for(shape)
        for step, own in _slices(self.program, shape):
            if step.transform in _CONSTANT_IN_DELTA:  # 0 gives black: the pixel is kept in the middle of [0, 1]
                identity[own] = 0.5
        return identity

    @property
    def distribution(self) -> Hashable:
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
    """(lower, upper) of a component of delta, from these bounds or from a number a > 0, which means [-a, a] without
    what is below `least`.

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
    """A program of one step whose components of delta are uniform, each in its own range."""
    lower, upper = zip(*ranges, strict=True)
    return Program((Step(transform, Distribution.BOX, lower, upper, settings, name),))


def _text(step: Step) -> str:
    """The call that creates a kernel of this one step, in the syntax of the command line."""
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


def _tuple(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(map(_number, values)) + ")"


def _number(value: float) -> str:
    return str(value).removesuffix(".0")


def _norm(part: torch.Tensor) -> torch.Tensor:
    return part.double().norm(dim=-1, keepdim=True)


@lru_cache(64)
def _slices(program: Program, shape: Shape | None) -> tuple[tuple[Step, slice], ...]:
    """Each step that draws, with the slice of its components of delta."""
    layout = program.layout(shape)
    return tuple(
        (step, slice(encoded.offset, encoded.offset + encoded.dim))
        for step, encoded in zip(program.steps, steps_of(layout.codes, layout.parameters), strict=True)
        if encoded.distribution != Distribution.SHARED
    )


def _drawing(program: Program) -> list[Step]:
    """The steps that draw: of the steps that share a delta, the first."""
    groups = program.groups or range(len(program.steps))
    return [step for number, step in enumerate(program.steps) if groups[number] not in groups[:number]]


@lru_cache(64)
def _bounds(program: Program, shape: Shape | None) -> torch.Tensor:
    """Delta's lower and upper bounds [2, q] float64 as given; for a ball those of the cube around it."""
    bounds = []
    for step, own in _slices(program, shape):
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
def _limits(program: Program, shape: Shape | None, dtype: torch.dtype) -> torch.Tensor:
    """`widened` bounds of delta [2, q]. A ball has none: it bounds the norm."""
    bounds = _bounds(program, shape).clone()
    for step, own in _slices(program, shape):
        if step.distribution == Distribution.BALL:
            bounds[0, own], bounds[1, own] = -math.inf, math.inf
    return widened(bounds, dtype)


def _largest(step: Step) -> float:
    """The ball's radius plus a tolerance for the rounding of a norm."""
    return step.upper[0] * (1 + 1e-5)
