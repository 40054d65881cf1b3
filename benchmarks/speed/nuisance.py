"""Fused nuisance kernels compared with kornia, eager PyTorch, torch.compile of the reference, and a copy.

    python -m benchmarks.speed.nuisance [--all-instruction-sets] [--out DIR]

One draw for each image; the time includes drawing delta. `robustperf` returns newly allocated memory, as its peers and
`clone` do; `out=` writes into existing memory, as `copy` does. The eager peer of a warp is affine_grid and grid_sample
with the matrices of the warp precomputed; that of the others is the reference. The backward pass has gradients in x and
in delta; its peer is autograd through the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional

from robustperf import _native, nuisance, random
from robustperf.ops.reference.nuisance import nuisance as reference

from ..common.augmentation_peers import colour_peers
from ..common.cases import COMPILED, EAGER, OURS, Case
from ..common.options import add_instruction_sets, add_timing, parse, parser, run_other_instruction_sets
from ..common.report import Report
from ..common.timing import Call, interleave

COLOURS = [nuisance.Brightness(0.4), nuisance.Contrast(0.4), nuisance.Saturation(0.4), nuisance.Hue(0.1)]
AFFINE = nuisance.Affine(30, 0.1, 0.2, 10)
CASES = {"four colours": COLOURS, "affine": [AFFINE], "affine + four colours": [AFFINE, *COLOURS]}
OTHERS = {
    name: [nuisance.KERNELS[name]()]
    for name in ("gamma", "blur", "fog", "gaussian_noise", "impulse_noise", "shot_noise")
}
SHAPES = ((1024, 3, 32, 32), (64, 3, 224, 224))
KEY = random.key(0)
BACKENDS = {OURS: None, EAGER: "reference"}
PEERS = ("kornia", "albumentations", EAGER, COMPILED)


def eager(kernel: nuisance.Compose, shape: tuple[int, ...], device: str = "cpu") -> Callable:
    """The reference with draws of torch's own generator."""
    (known,) = kernel.parts
    layout = known.program.layout(shape[1:])
    lower = torch.tensor([number for step in known.program.steps for number in step.lower], device=device)
    upper = torch.tensor([number for step in known.program.steps for number in step.upper], device=device)

    def run(x):
        delta = lower + (upper - lower) * torch.rand(1, len(x), layout.dim, device=device)
        return reference(x, delta, layout.codes, layout.parameters)

    return run


def grid_sample(delta: torch.Tensor) -> Callable:
    """Plain PyTorch for a warp: affine_grid and grid_sample, with the matrices of `delta` precomputed."""
    angle, shift_x, shift_y, scale, shear_x, shear_y = delta[0].unbind(1)
    cosine, sine, zoom = angle.deg2rad().cos(), angle.deg2rad().sin(), 1 + scale
    kx, ky = shear_x.deg2rad().tan(), shear_y.deg2rad().tan()
    xx, xy = ((1 + kx * ky) * cosine - kx * sine) / zoom, (-(1 + kx * ky) * sine - kx * cosine) / zoom
    yx, yy = (sine - ky * cosine) / zoom, (cosine + ky * sine) / zoom
    theta = torch.stack([xx, xy, -2 * (xx * shift_x + xy * shift_y), yx, yy, -2 * (yx * shift_x + yy * shift_y)], 1)

    def run(x):
        grid = functional.affine_grid(theta.view(-1, 2, 3), list(x.shape), align_corners=False)
        return functional.grid_sample(x, grid, align_corners=False)

    return run


def contenders(name: str, kernel: nuisance.Compose, shape: tuple[int, ...], compiles: bool = True) -> dict[str, Call]:
    """A draw for each image; `compiles` tells whether `torch.compile` is a contender."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    index, existing = torch.arange(len(x)), torch.empty(1, *shape)
    calls: dict[str, Call] = {
        OURS: lambda: kernel.draw(x, key=KEY, index=index),
        "out=": lambda: kernel.draw(x, key=KEY, index=index, out=existing),
        "copy": lambda: existing[0].copy_(x),
        "clone": x.clone,
    }
    if name in CASES:
        by_hand = plain = eager(kernel, shape)
        if name == "affine":
            delta = kernel.sample(KEY, index, 1, shape=shape[1:])
            by_hand = grid_sample(delta)
            error = (by_hand(x) - kernel(x, delta)[0]).abs().max().item()
            assert error < 1e-3, f"the peer computes something else: {error}"
        calls[EAGER] = lambda: by_hand(x)
        if compiles:
            calls[COMPILED] = partial(torch.compile(plain), x)
    if name == "four colours":
        calls |= {peer: partial(jitter, x) for peer, jitter in colour_peers().items()}
    return calls


def gradient_contenders(kernel: nuisance.Compose, shape: tuple[int, ...]) -> dict[str, Callable[[], tuple]]:
    """The gradients in x and in delta of the same transform."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=generator).requires_grad_()
    delta = kernel.sample(KEY, torch.arange(len(x)), 1, shape=shape[1:]).requires_grad_()
    grad = torch.randn((1, *shape), generator=generator)
    layout = kernel.parts[0].program.layout(shape[1:])
    outs = {OURS: kernel(x, delta), EAGER: reference(x, delta, layout.codes, layout.parameters)}
    return {
        who: lambda out=out: torch.autograd.grad(out, (x, delta), grad, retain_graph=True) for who, out in outs.items()
    }


def cases(quick: bool) -> list[Case]:
    """Without `torch.compile` in the backward pass: its graph cannot be kept for the next turn. `quick` compiles
    the four colours only."""

    def of_reference(kernel: nuisance.Compose, shape: tuple[int, ...]) -> dict[str, Call]:
        x, index = torch.rand(shape), torch.arange(shape[0])
        return {who: partial(kernel.draw, x, key=KEY, index=index, backend=BACKENDS[who]) for who in (OURS, EAGER)}

    def gradients(kernel: nuisance.Compose, shape: tuple[int, ...]) -> dict[str, Call]:
        return gradient_contenders(kernel, (max(shape[0] // 4, 1), *shape[1:]))

    found = []
    for shape in ((64, 3, 32, 32),) if quick else SHAPES:
        size = "x".join(map(str, shape))
        for name, parts in {**CASES, **({} if quick or shape != SHAPES[0] else OTHERS)}.items():
            kernel = nuisance.Compose(parts)
            compiles = not quick or name == "four colours"
            make = partial(contenders, name, compiles=compiles) if name in CASES else of_reference
            found.append(Case(f"nuisance, {name}, {size}", partial(make, kernel, shape)))
            if name in CASES:
                found.append(Case(f"nuisance backward, {name}, a quarter of {size}", partial(gradients, kernel, shape)))
    return found


def forward(name: str, kernel: nuisance.Compose, shape: tuple[int, ...], repeats: int) -> dict:
    """A row: a draw for each image."""
    times = interleave(contenders(name, kernel, shape), repeats)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))[:16]
    delta = kernel.sample(KEY, torch.arange(len(x)), 1, shape=shape[1:])
    exact = kernel(x.double(), delta, backend="reference")
    return {
        "case": f"{name}, {'x'.join(map(str, shape))}",
        **{f"{who} ms": seconds * 1e3 for who, seconds in times.items()},
        "out=, times a copy": times["out="] / times["copy"], "times a clone": times[OURS] / times["clone"],
        **{f"x faster than {who}": times[who] / times[OURS] for who in PEERS if who in times},
        "error": (kernel(x, delta) - exact).abs().max().item(),
    }  # fmt: skip


def backward(name: str, kernel: nuisance.Compose, shape: tuple[int, ...], repeats: int) -> dict:
    """A row: the gradients in x and in delta of the same transform."""
    calls = gradient_contenders(kernel, shape)
    times = interleave(calls, repeats)
    ours, theirs = calls[OURS](), calls[EAGER]()
    return {
        "case": f"{name}, {'x'.join(map(str, shape))}",
        "robustperf ms": times[OURS] * 1e3, "reference ms": times[EAGER] * 1e3,
        "x faster": times[EAGER] / times[OURS],
        "relative difference in x": ((ours[0] - theirs[0]).norm() / theirs[0].norm().clamp_min(1e-30)).item(),
        "in delta": ((ours[1] - theirs[1]).norm() / theirs[1].norm().clamp_min(1e-30)).item(),
    }  # fmt: skip


def main() -> None:
    options = parser(__doc__)
    add_timing(options)
    add_instruction_sets(options)
    arguments = parse(options)
    isa = _native.isa()
    report = Report(f"nuisance_{isa}", f"Nuisance kernels, one draw an image, {isa}", arguments.output)
    gradients = Report(f"nuisance_backward_{isa}", f"Gradients of nuisance kernels, {isa}", arguments.output)
    for name, parts in {**CASES, **OTHERS}.items():
        for shape in SHAPES if name in CASES else SHAPES[:1]:
            kernel = nuisance.Compose(parts)
            report.add(**forward(name, kernel, shape, arguments.repeats))
            if name not in ("impulse_noise", "shot_noise"):  # no gradient in delta
                gradients.add(**backward(name, kernel, (shape[0] // 4, *shape[1:]), max(arguments.repeats // 3, 3)))
    report.show(bars=("case", "out=, times a copy"))
    gradients.show(bars=("case", "x faster"))
    run_other_instruction_sets(arguments)


if __name__ == "__main__":
    main()
