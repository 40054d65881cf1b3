"""Any generator G(x, delta) as a kernel."""

from __future__ import annotations

from collections.abc import Callable

import torch

from robustperf import check
from robustperf.classifier import evaluating, frozen
from robustperf.nuisance.learned.generator_kernel import IMAGES_AT_ONCE, GeneratorKernel
from robustperf.ops.program import Shape


class ModuleKernel(GeneratorKernel):
    """x' = generator(x, delta): a network of your own, a CycleGAN, a diffusion model or a renderer.

    Args:
        generator: a `torch.nn.Module` or a function from images [N, C, H, W] in [0, 1] and delta [N, q], of one dtype,
            to images [N, C', H', W'] of that dtype. It must be a function of each image and its delta alone: no random
            numbers of its own, and no dependence on the rest of the batch. It runs in eval mode, its parameters get no
            gradients, and x and delta are copies that it may write into.
        dim: q.
        distribution: of delta, "uniform" on [-1, 1]^q, "normal" or "ball", uniform in the unit ball.
        image_shape: (C', H', W') of its images; None for that of x.
        images_at_once: images in one call of the generator; None for 64 on a CPU, where the activations of more do not
            fit the cache, and all of them on a GPU. There are at least those of one draw.

    Raises TypeError or ValueError for a wrong argument; when called, for images of the generator that have another
    shape, dtype or device, or, on a CPU, values that are not finite.

    >>> import torch, robustperf as rp
    >>> shade = rp.nuisance.ModuleKernel(lambda x, delta: x * (0.75 + 0.25 * delta[:, :1, None, None]), dim=8)
    >>> shade.draw(torch.rand(5, 3, 8, 8), key=0, index=torch.arange(5), draws=10).shape
    torch.Size([10, 5, 3, 8, 8])
    """

    def __init__(
        self,
        generator: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        dim: int = 8,
        *,
        distribution: str = "uniform",
        image_shape: Shape | None = None,
        images_at_once: int | None = None,
    ) -> None:
        super().__init__(dim, distribution)
        if not callable(generator):
            raise TypeError(f"generator: expected a module or a function of (x, delta), got {type(generator).__name__}")
        self.generator = generator
        self.image_shape: Shape | None = None if image_shape is None else check.image_shape("image_shape", image_shape)
        self.images_at_once: int | None = (
            None if images_at_once is None else check.integer("images_at_once", images_at_once, 1)
        )

    def shape_after(self, shape: Shape) -> Shape:
        return shape if self.image_shape is None else self.image_shape

    def generate(self, x: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        at_once = self.images_at_once or (IMAGES_AT_ONCE if x.device.type == "cpu" else len(x) * len(delta))
        shape = self.shape_after(tuple(x.shape[1:]))
        parts = []
        with evaluating(self.generator), frozen(self.generator):
            for some in delta.split(max(1, at_once // len(x))):
                made = self.generator(x.repeat(len(some), 1, 1, 1), some.flatten(0, 1).clone())
                rows = len(some) * len(x)
                check.tensor("generator(x, delta)", made, (rows, *shape), dtypes=(x.dtype,), device=x.device)
                if made.device.type == "cpu" and not torch.compiler.is_compiling():
                    check.finite("generator(x, delta)", made.detach())
                parts.append(made.unflatten(0, some.shape[:2]))
        return torch.cat(parts)

    def __repr__(self) -> str:
        name = getattr(self.generator, "__name__", None) or type(self.generator).__name__
        return f"generator({name}, dim={self.q}, distribution={self.law!r})"
