"""Kernels for images with bounds other than [0, 1], such as normalised images."""

from __future__ import annotations

import torch

from robustperf import check
from robustperf.check import Box
from robustperf.kernel import Kernel, check_kernel
from robustperf.nuisance.balls import BALLS
from robustperf.nuisance.normalised import Wrapper
from robustperf.ops.draws import Key


class InBounds(Wrapper):
    """A kernel for images in [0, 1], applied to images in another box [lower, upper].

    The image is mapped to [0, 1], transformed by G, and mapped back: lower + (upper - lower) G((x - lower) / (upper -
    lower), delta). So a parameter in units of the pixel range, such as a noise's standard deviation, is in units of
    each value's own range.

    A norm ball's radius is a distance between images and stays in the units of x: x + delta. With `clamp=True` the
    ball clamps to the bounds.

    delta, its distribution and its range are the kernel's own.

    Args:
        kernel: L1Ball, L2Ball, LinfBall, or any kernel for images in [0, 1].
        bounds: (lower, upper), each a number, an array [C] with one value per channel, or an array that broadcasts to
            an image. ±inf, for no bound, is accepted for norm balls only.

    Raises TypeError for anything but a kernel and bounds; ValueError unless lower < upper, and for infinite bounds with
    a kernel that needs a range. A call raises ValueError for bounds that do not fit the images, and for x outside the
    bounds by more than rounding.

    >>> mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.25, 0.2, 0.2])
    >>> low, high = (0 - mean) / std, (1 - mean) / std  # the bounds of normalised images
    >>> kernel = InBounds(rp.nuisance.Brightness(0.2), (low, high))
    >>> x = low.view(3, 1, 1).repeat(2, 1, 4, 4)
    >>> kernel.draw(x, key=0, index=torch.arange(2), draws=5).shape
    torch.Size([5, 2, 3, 4, 4])
    """

    kernel: Kernel
    bounds: Box

    def __init__(self, kernel: Kernel, bounds: Box) -> None:
        check_kernel(kernel)
        self.kernel, self.bounds = kernel, bounds
        self._adds = isinstance(kernel, tuple(BALLS.values()))
        try:
            lower, upper = (torch.as_tensor(bound, dtype=torch.float64) for bound in bounds)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"bounds: expected (lower, upper), two numbers or arrays, got {bounds!r}") from None
        if not (lower < upper).all():
            raise ValueError(f"bounds: expected lower < upper, got {bounds!r}")
        if not self._adds and not (upper - lower).isfinite().all():
            raise ValueError(
                f"bounds: expected finite bounds for {kernel!r}, whose parameters are in units of the range, got "
                f"{bounds!r}"
            )

    def transform(self, x: torch.Tensor, delta: torch.Tensor, *, backend: str | None = None) -> torch.Tensor:
        box = self._box(x)
        x = check.images("x", x, box) if x.device.type == "cpu" else x
        if self._adds:
            moved = x + delta.unflatten(2, x.shape[1:])
            return moved.clamp(*box) if self._clamps() else moved
        return self._from_unit(self.kernel.transform(self._to_unit(x, box), delta, backend=backend), x, box)

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
        if self._adds or out is not None:
            return super().draw_for(x, key, index, draws, out=out, backend=backend)
        box = self._box(x)
        x = check.images("x", x, box) if x.device.type == "cpu" else x
        drawn = self.kernel.draw_for(self._to_unit(x, box), key, index, draws, backend=backend)
        return self._from_unit(drawn, x, box)

    def defined(self, x: torch.Tensor) -> torch.Tensor:
        return self.kernel.defined(x if self._adds else self._to_unit(x, self._box(x)))

    def _box(self, x: torch.Tensor) -> Box:
        return check.box(self.bounds, x.shape[1:], x.dtype, x.device)

    def _clamps(self) -> bool:
        program = getattr(self.kernel, "program", None)
        return self.kernel.clamp if program is None else bool(program.steps[0].settings[0])

    @staticmethod
    def _to_unit(x: torch.Tensor, box: Box) -> torch.Tensor:
        return ((x - box[0]) / (box[1] - box[0])).clamp(0, 1)

    def _from_unit(self, out: torch.Tensor, x: torch.Tensor, box: Box) -> torch.Tensor:
        if out.shape[2:] != x.shape[1:] and isinstance(box[0], torch.Tensor):
            raise ValueError(
                f"bounds: expected two numbers, not arrays, since {self.kernel!r} changes the images' shape from "
                f"{list(x.shape[1:])} to {list(out.shape[2:])}"
            )
        return box[0] + (box[1] - box[0]) * out

    def __repr__(self) -> str:
        return f"InBounds({self.kernel!r}, {self.bounds!r})"
