"""Several kernels as one (R equation 6.1)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import groupby

import torch

from robustperf import random
from robustperf.kernel import Kernel, Shape, check_shape, reaches_delta
from robustperf.nuisance.program_kernel import ProgramKernel
from robustperf.ops.draws import Key
from robustperf.ops.program import Program


class Compose(Kernel):
    """G_n(... G_1(x, delta_1) ..., delta_n): the first kernel of the list is the first that the image meets.

    Each part has components of delta of its own, side by side in the list's order. With `shared=True` all take one and
    the same delta, as R equation 6.1 is printed: G_1(G_2(x, delta), delta). Parts whose delta has one law take it as it
    is; where their ranges differ, delta is in [-1, 1]^q, as R has it, and each part is taken `normalised()`:

        both = Compose([Brightness((0, 5)), Contrast((0, 4))], shared=True)      # both.dim == 1, delta in [-1, 1]

    Known kernels in a row are one program, run in one pass over the image. Where a kernel of another make is among the
    parts, each stretch draws under a key of its own, `random.fold_in(key, its place)`.

    Args:
        kernels: one or more.
        shared: one delta for all.

    The composition has a gradient in delta (`differentiable_in_delta`) if one part has, and those after it one in x.

    Raises TypeError for something else than kernels, ValueError for none, and for shared ones of unlike dim, or of
    unlike laws that are not uniform between bounds.
    """

    def __init__(self, kernels: Sequence[Kernel], *, shared: bool = False) -> None:
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
        if shared and len({part.law for part in parts}) > 1:
            parts = _normalised(parts)
        for known, stretch in groupby(parts, lambda part: isinstance(part, ProgramKernel)):
            stretch = list(stretch)
            self.parts += [ProgramKernel(_joined([part.program for part in stretch], shared))] if known else stretch
        if shared:
            _check_dims([dim for part in self.parts if (dim := _dim_of_any_image(part)) is not None])

    def dim_for(self, shape: Shape | None) -> int:
        dims = [part.dim_for(at) for part, at in self._met(shape)]
        if not self.shared:
            return sum(dims)
        _check_dims(dims)
        return dims[0]

    def shape_after(self, shape: Shape) -> Shape:
        for part in self.parts:
            shape = part.shape_after(shape)
        return shape

    def sample_for(
        self, shape: Shape | None, key: Key, index: torch.Tensor, draws: torch.Tensor, *, backend: str | None = None
    ) -> torch.Tensor:
        self.dim_for(shape)  # its errors
        deltas = []
        for number, (part, at) in enumerate(self._met(shape)):
            own = key if len(self.parts) == 1 else random.fold_in(key, number)
            deltas.append(part.sample_for(at, own, index, draws, backend=backend))
            if self.shared:
                break
        return deltas[0] if len(deltas) == 1 else torch.cat(deltas, 2)

    def transform(self, x: torch.Tensor, delta: torch.Tensor, *, backend: str | None = None) -> torch.Tensor:
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

    def bounds_for(self, shape: Shape | None) -> torch.Tensor:
        return self._joined("bounds_for", shape)

    def centre_for(self, shape: Shape | None) -> torch.Tensor:
        return self._joined("centre_for", shape)

    def radius_for(self, shape: Shape | None) -> torch.Tensor:
        return self._joined("radius_for", shape)

    def identity_for(self, shape: Shape | None) -> torch.Tensor:
        identities = [part.identity_for(at) for part, at in self._met(shape)]
        if not self.shared:
            return torch.cat(identities)
        if not all(torch.equal(each, identities[0]) for each in identities):
            raise ValueError(f"kernel: expected parts that one delta leaves as they are, got {self!r}")
        return identities[0]

    @property
    def uniform(self) -> bool:
        return all(part.uniform for part in self.parts)

    @property
    def law(self) -> Hashable:
        laws = tuple(part.law for part in self.parts)
        return None if None in laws else laws[0] if self.shared or len(laws) == 1 else laws

    @property
    def ball(self) -> tuple[float, float] | None:
        return self.parts[0].ball if len(self.parts) == 1 else None

    @property
    def differentiable_in_delta(self) -> bool:
        return reaches_delta((part.differentiable_in_delta, part.differentiable_in_x) for part in self.parts)

    @property
    def differentiable_in_x(self) -> bool:
        return all(part.differentiable_in_x for part in self.parts)

    def _joined(self, name, shape):
        """The numbers [..., q] that a method of each part has for its components."""
        found = [getattr(part, name)(at) for part, at in self._met(shape)]
        return found[0] if self.shared else torch.cat(found, -1)

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


def _dim_of_any_image(part):
    """q, or None where it depends on the images' shape."""
    try:
        return part.dim
    except ValueError:
        return None


def _check_dims(dims):
    if len(set(dims)) > 1:
        raise ValueError(f"kernels: expected parts of one dim to share delta, got {dims}")


def _normalised(parts):
    """The parts with delta in [-1, 1]^q, so that they can share it; ValueError where they cannot."""
    for part in parts:
        if not part.uniform:
            raise ValueError(
                "kernels: expected parts with the same law and bounds of delta to share it, or uniform "
                f"laws, got {' and '.join(map(repr, parts))}, where that of {part!r} is not uniform"
            )
    return [part.normalised() for part in parts]


def _joined(programs, shared):
    steps, groups, above = [], [], 0
    for program in programs:
        own = program.groups or range(len(program.steps))
        steps += program.steps
        groups += [above + group for group in own]
        above += 0 if shared else max(own) + 1
    return Program(tuple(steps), tuple(groups))
