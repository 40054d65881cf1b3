"""A nuisance program on a batch of images, with gradients in the images and in delta."""

from __future__ import annotations

import torch

from robustperf import check
from robustperf.ops import registry
from robustperf.ops.program import Layout, Program, channels_out


def nuisance(x: torch.Tensor, delta: torch.Tensor, program: Program, *, backend: str | None = None) -> torch.Tensor:
    """G(x, delta) of R section 4 for every delta: the program's steps, in one pass over each image.

    `robustperf.nuisance` holds the kernels that write programs and check delta's range.

    Args:
        x: [B, C, H, W] float32 or float64 in [0, 1]; checked on the CPU only, for on a GPU
            the check would synchronise.
        delta: [K, B, q] of x's dtype, finite, q = `program.layout((C, H, W)).dim`.

    Returns [K, B, C', H, W] of x's dtype; C' is 3 after a background, C otherwise. Gradients in x and in delta, once.

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, device, pixel or backend, NotImplementedError for
    a gradient of the gradient, and in forward mode (`torch.func.jvp`).

    >>> program, x = rp.nuisance.Brightness(0.4).program, torch.full((2, 1, 8, 8), 0.5)
    >>> delta = rp.ops.nuisance_sample(rp.random.key(0), torch.arange(2), torch.arange(3), program)  # [3, 2, 1]
    >>> rp.ops.nuisance(x, delta, program).shape
    torch.Size([3, 2, 1, 8, 8])
    """
    layout = check_images(x, program)
    check.tensor("delta", delta, ("K", x.shape[0], layout.dim), dtypes=(x.dtype,), device=x.device)
    return nuisance_unchecked(x, delta, program, backend=backend)


def nuisance_unchecked(
    x: torch.Tensor, delta: torch.Tensor, program: Program, *, backend: str | None = None
) -> torch.Tensor:
    """`nuisance` of x, a tensor [B, C, H, W], and delta [K, B, q] of its dtype and device. The shapes that the program
    takes, the pixels and delta's values are still checked, the values by the backend in its pass over them."""
    layout = layout_of(x, program)
    backend = registry.choose("nuisance", backend, x.device)
    x = check_range(x, backend, delta)
    return _nuisance(backend, x, delta, layout.codes, layout.parameters)


def check_images(x: torch.Tensor, program: Program) -> Layout:
    """The program for x's shape, after a check of x's shape and dtype."""
    check.tensor("x", x, ("B", "C", "H", "W"))
    return layout_of(x, program)


def layout_of(x: torch.Tensor, program: Program) -> Layout:
    """The program for the shape of x [B, C, H, W]; ValueError for one that it cannot take."""
    if 0 in x.shape[1:]:
        raise ValueError(f"x: expected images with pixels, got shape {list(x.shape)}")
    return program.layout(x.shape[1:])


def check_range(x: torch.Tensor, backend: str, delta: torch.Tensor | None = None) -> torch.Tensor:
    """x, clamped where it is beyond [0, 1] by rounding; ValueError for pixels outside and a delta that is not finite.
    x itself on a GPU, where the check would synchronise, and on a backend that checks."""
    if backend == "reference" and x.device.type == "cpu" and not torch.compiler.is_compiling():
        x = check.images("x", x, (0.0, 1.0))
        if delta is not None:
            check.finite("delta", delta)
    return x


def _fake(x, delta, codes, parameters, backend):
    return x.new_empty((delta.shape[0], x.shape[0], channels_out(codes, x.shape[1]), *x.shape[2:]))


def _setup(ctx, inputs, output):
    x, delta, ctx.codes, ctx.parameters, ctx.backend = inputs
    ctx.save_for_backward(x, delta)


def _backward(ctx, grad):
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (grad, *ctx.saved_tensors)):
        raise NotImplementedError("nuisance: has no gradient of its gradient (create_graph=True)")
    return *_nuisance_backward(ctx.backend, grad, *ctx.saved_tensors, ctx.codes, ctx.parameters), None, None, None


def _backward_fake(grad, x, delta, codes, parameters, backend):
    return torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(
        delta, memory_format=torch.contiguous_format
    )


_nuisance_backward = registry.register(
    "nuisance_backward",
    "(Tensor grad, Tensor x, Tensor delta, int[] codes, float[] parameters, str backend) -> (Tensor, Tensor)",
    _backward_fake,
)
_nuisance = registry.register(
    "nuisance", "(Tensor x, Tensor delta, int[] codes, float[] parameters, str backend) -> Tensor",
    _fake, _backward, _setup,
)  # fmt: skip
