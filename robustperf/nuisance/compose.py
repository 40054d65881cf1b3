"""Composition of kernels (R equation 6.1)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import groupby

import torch

from robustperf import check, random
from robustperf.kernel import Kernel, check_shape, reaches_delta
from robustperf.nuisance.program_kernel import ProgramKernel
from robustperf.ops.draws import Key
from robustperf.ops.program import Program, Shape


class Compose(Kernel):
    """G_n(... G_1(x, delta_1) ..., delta_n): the first kernel of the list is applied first.

    Each part has its own components of delta; they are concatenated in the list's order. With `shared=True` all parts
    get the same delta, as R equation 6.1 is printed: G_1(G_2(x, delta), delta). Parts with equal distributions of delta
    share it as it is. Where the distributions differ, each part is `normalised()` and delta is in [-1, 1]^q, as in R:

        both = Compose([Brightness((0, 5)), Contrast((0, 4))], shared=True)      # both.dim == 1, delta in [-1, 1]

    Consecutive known kernels are merged into one program, which runs in one pass over the image. Where other kernels
    are among the parts, part i after merging draws under its own key, `random.fold_in(key, i)`.

    Args:
        kernels: one or more.
        shared: whether all parts get the same delta.

    Attributes:
        parts: the kernels that are applied, after merging.

    The composition has a gradient in delta (`differentiable_in_delta`) if a part has one and all parts after it have
    one in x.

    Raises TypeError for anything but kernels; ValueError for an empty list, and for parts that cannot share delta
    because their dims differ, or because their distributions differ and are not uniform between bounds.

    >>> from robustperf.nuisance import Brightness, Contrast, Rotation
    >>> Compose([Rotation(30), Brightness(0.4)]).dim  # the same as Rotation(30) + Brightness(0.4)
    2
    >>> Compose([Brightness((0, 5)), Contrast((0, 4))], shared=True).dim  # one delta in [-1, 1] for both
    1
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
        parts = [part for kernel in kernels for part in _flattened(kernel, shared)]
        if shared and len({part.distribution for part in parts}) > 1:
            parts = _normalised(parts)
        for known, run in groupby(parts, lambda part: isinstance(part, ProgramKernel)):
            run = list(run)
            self.parts += [ProgramKernel(_merged([part.program for part in run], shared))] if known else run
        if shared:
            _check_dims([dim for part in self.parts if (dim := _fixed_dim(part)) is not None])

    def dim_for(self, shape: Shape | None) -> int:
        dims = [part.dim_for(at) for part, at in self._with_shapes(shape)]
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
        self.dim_for(shape)  # raises where the parts cannot share delta
        deltas = []
        for number, (part, at) in enumerate(self._with_shapes(shape)):
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
            try:  # what a user's own kernel returned is not checked yet
                check.tensor("G(x, delta)", out, (draws, batch, "C", "H", "W"), dtypes=(x.dtype,), device=x.device)
                out = part.transform(out.flatten(0, 1), own.flatten(0, 1)[None], backend=backend)[0]
            except (TypeError, ValueError) as error:
                raise type(error)(f"{part!r}, applied to the output of other kernels: {error}") from error
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
        for (part, at), own in zip(self._with_shapes(shape), self._split(delta, shape), strict=True):
            part.check_delta(own, at)

    def project(self, delta: torch.Tensor, shape: Shape | None = None) -> torch.Tensor:
        check_shape(delta, self.dim_for(shape))
        pairs = zip(self._with_shapes(shape), self._split(delta, shape), strict=True)
        projected = [part.project(own, at) for (part, at), own in pairs]
        return projected[0] if self.shared else torch.cat(projected, -1)

    def bounds_for(self, shape: Shape | None) -> torch.Tensor:
        return self._concatenated("bounds_for", shape)

    def centre_for(self, shape: Shape | None) -> torch.Tensor:
        return self._concatenated("centre_for", shape)

    def radius_for(self, shape: Shape | None) -> torch.Tensor:
        return self._concatenated("radius_for", shape)

    def identity_for(self, shape: Shape | None) -> torch.Tensor:
        identities = [part.identity_for(at) for part, at in self._with_shapes(shape)]
        if not self.shared:
            return torch.cat(identities)
        if not all(torch.equal(each, identities[0]) for each in identities):
            raise ValueError(f"kernel: expected parts with the same identity delta, got {self!r}")
        return identities[0]

    @property
    def uniform(self) -> bool:
        return all(part.uniform for part in self.parts)

    @property
    def distribution(self) -> Hashable:
        each = tuple(part.distribution for part in self.parts)
        return None if None in each else each[0] if self.shared or len(each) == 1 else each

    @property
    def ball(self) -> tuple[float, float] | None:
        return self.parts[0].ball if len(self.parts) == 1 else None

    @property
    def differentiable_in_delta(self) -> bool:
        return reaches_delta((part.differentiable_in_delta, part.differentiable_in_x) for part in self.parts)

    @property
    def differentiable_in_x(self) -> bool:
        return all(part.differentiable_in_x for part in self.parts)

    def _concatenated(self, name: str, shape: Shape | None) -> torch.Tensor:
        """What the method `name` of each part returns for its components, [..., q]."""
        found = [getattr(part, name)(at) for part, at in self._with_shapes(shape)]
        return found[0] if self.shared else torch.cat(found, -1)

    def _with_shapes(self, shape: Shape | None) -> Iterator[tuple[Kernel, Shape | None]]:
        """Each part with the shape of the images that it gets."""
        for part in self.parts:
            yield part, shape
            shape = shape if shape is None else part.shape_after(shape)

    def _split(self, delta: torch.Tensor, shape: Shape | None) -> Sequence[torch.Tensor]:
        """Each part's components of delta."""
        if self.shared:
            return [delta] * len(self.parts)
        return delta.split([part.dim_for(at) for part, at in self._with_shapes(shape)], -1)

    def __repr__(self) -> str:
        text = " + ".join(map(repr, self.parts))
        return f"({text}) with a shared delta" if self.shared else text


def _flattened(kernel: Kernel, shared: bool) -> list[Kernel]:
    """The parts of a composition within another, where flattening changes nothing; else the kernel itself."""
    if isinstance(kernel, Compose) and (len(kernel.parts) == 1 or not shared and not kernel.shared):
        return kernel.parts
    return [kernel]


def _fixed_dim(part: Kernel) -> int | None:
    """q, or None where it depends on the images' shape."""
    try:
        return part.dim
    except ValueError:
        return None


def _check_dims(dims: list[int]) -> None:
    if len(set(dims)) > 1:
        raise ValueError(f"kernels: expected parts of one dim to share delta, got {dims}")


def _normalised(parts: list[Kernel]) -> list[Kernel]:
    """The parts with delta in [-1, 1]^q, so that they can share it; ValueError where they cannot."""
    for part in parts:
        if not part.uniform:
            raise ValueError(
                "kernels: expected parts with the same distribution of delta to share it, or with uniform "
                f"distributions, got {' and '.join(map(repr, parts))}, where that of {part!r} is not uniform"
            )
    return [part.normalised() for part in parts]


def _merged(programs: list[Program], shared: bool) -> Program:
    """One program of the steps of several, which share one delta or have their own components."""
    steps, groups, above = [], [], 0
    for program in programs:
        own = program.groups or range(len(program.steps))
        steps += program.steps
        groups += [above + group for group in own]
        above += 0 if shared else max(own) + 1
    return Program(tuple(steps), tuple(groups))
