"""Several kernels as one (R equation 6.1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch

from robustperf import random
from robustperf.kernel import Kernel, Shape, check_shape
from robustperf.nuisance.known import KnownKernel
from robustperf.ops.program import Program


class Compose(Kernel):
    """G_n(... G_1(x, delta_1) ..., delta_n): the first kernel of the list is the first that the image meets.

    Each part has components of delta of its own, side by side in the list's order. With `shared=True` all take one and
    the same delta, as R equation 6.1 is printed; they must then have the same Delta.

    Known kernels in a row are one program, run in one pass over the image. Where a kernel of another make is among the
    parts, each stretch draws under a key of its own, `random.fold_in(key, its place)`.

    Args:
        kernels: one or more.
        shared: one delta for all.

    Raises TypeError for something else than kernels, ValueError for none, and for shared ones of unlike Delta.
    """

    def __init__(self, kernels: Sequence[Kernel], *, shared: bool = False):
        if isinstance(kernels, Kernel):
            raise TypeError("kernels: expected a list of kernels, got a Kernel")
        kernels = list(kernels)
        for number, kernel in enumerate(kernels):
            if not isinstance(kernel, Kernel):
                raise TypeError(f"kernels[{number}]: expected a Kernel, got {type(kernel).__name__}")
        if not kernels:
            raise ValueError("kernels: expected one or more, got none")
        self.shared = shared
        self.parts: list[Kernel] = []
        parts = [part for kernel in kernels for part in _taken_apart(kernel, shared)]
        for known, stretch in groupby(parts, lambda part: isinstance(part, KnownKernel)):
            stretch = list(stretch)
            self.parts += [KnownKernel(_joined([part.program for part in stretch], shared))] if known else stretch

    def dim_for(self, shape: Shape | None) -> int:
        dims = [part.dim_for(at) for part, at in self._met(shape)]
        if self.shared and len(set(dims)) > 1:
            raise ValueError(f"kernels: expected parts of one dim to share delta, got {dims}")
        return dims[0] if self.shared else sum(dims)

    def shape_after(self, shape: Shape) -> Shape:
        for part in self.parts:
            shape = part.shape_after(shape)
        return shape

    def sample_for(self, shape, key, index, draws, *, backend=None):
        self.dim_for(shape)  # its errors
        deltas = []
        for number, (part, at) in enumerate(self._met(shape)):
            own = key if len(self.parts) == 1 else random.fold_in(key, number)
            deltas.append(part.sample_for(at, own, index, draws, backend=backend))
            if self.shared:
                break
        return deltas[0] if len(deltas) == 1 else torch.cat(deltas, 2)

    def transform(self, x, delta, *, backend=None):
        draws, batch = delta.shape[:2]
        parts = self._split(delta, tuple(x.shape[1:]))
        out = self.parts[0].transform(x, parts[0], backend=backend)
        for part, own in zip(self.parts[1:], parts[1:], strict=True):
            try:
                out = part.transform(out.flatten(0, 1), own.flatten(0, 1)[None], backend=backend)[0]
            except ValueError as error:
                raise ValueError(f"{part!r}, which meets what other kernels made: {error}") from error
            out = out.unflatten(0, (draws, batch))
        return out

    def draw_for(self, x, key, index, draws, *, out=None, backend=None):
        if len(self.parts) == 1:
            return self.parts[0].draw_for(x, key, index, draws, out=out, backend=backend)
        return super().draw_for(x, key, index, draws, out=out, backend=backend)

    def check_delta(self, delta: torch.Tensor, shape: Shape) -> None:
        for (part, at), own in zip(self._met(shape), self._split(delta, shape), strict=True):
            part.check_delta(own, at)

    def project(self, delta: torch.Tensor, shape: Shape | None = None) -> torch.Tensor:
        check_shape(delta, self.dim_for(shape))
        pairs = zip(self._met(shape), self._split(delta, shape), strict=True)
        projected = [part.project(own, at) for (part, at), own in pairs]
        return projected[0] if self.shared else torch.cat(projected, -1)

    def radius_for(self, shape: Shape | None) -> torch.Tensor:
        radii = [part.radius_for(at) for part, at in self._met(shape)]
        return radii[0] if self.shared else torch.cat(radii)

    def _met(self, shape):
        """Each part with the shape of the images that it meets."""
        for part in self.parts:
            yield part, shape
            shape = shape if shape is None else part.shape_after(shape)

    def _split(self, delta, shape):
        """Each part's components."""
        if self.shared:
            return [delta] * len(self.parts)
        return delta.split([part.dim_for(at) for part, at in self._met(shape)], -1)

    def __repr__(self) -> str:
        text = " + ".join(map(repr, self.parts))
        return f"({text}) with one delta" if self.shared else text


def _taken_apart(kernel, shared):
    """The parts of a composition that is part of another, where the meaning stays the same."""
    if isinstance(kernel, Compose) and (len(kernel.parts) == 1 or not shared and not kernel.shared):
        return kernel.parts
    return [kernel]


def _joined(programs, shared):
    steps, groups, above = [], [], 0
    for program in programs:
        if shared and [step[1:4] for step in program.steps] != [step[1:4] for step in programs[0].steps]:
            raise ValueError("kernels: expected parts with the same law and bounds of delta to share it, got "
                             f"{KnownKernel(programs[0])} and {KnownKernel(program)}")
        own = program.groups or range(len(program.steps))
        steps += program.steps
        groups += [above + group for group in own]
        above += 0 if shared else max(own) + 1
    return Program(tuple(steps), tuple(groups))
