"""`robustperf nuisance`: figures of models of natural variation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustperf.cli.errors import Command
from robustperf.cli.options import Data, DataRoot, Domain, Picture, Rgb, Size, Split, draw_picture, load_data, say
from robustperf.nuisance import NAMES

if TYPE_CHECKING:
    import torch

    from robustperf.data import Dataset, ImageFolder
    from robustperf.kernel import Kernel

app: typer.Typer = typer.Typer(help="Show models of natural variation x' = G(x, delta).", no_args_is_help=True)

MAX_COLUMNS = 8


@app.command(cls=Command)
def show(
    kernel: Annotated[
        str,
        typer.Option(
            metavar="SUM",
            help="One kernel, or several in the order they apply, such as "
            f"'rotation(30) + brightness((-0.1, 0.4))'. Kernels: {', '.join(NAMES)}.",
        ),
    ],
    data: Data = "digits",
    data_root: DataRoot = None,
    split: Split = "test",
    domain: Domain = None,
    size: Size = None,
    rgb: Rgb = False,
    index: Annotated[int, typer.Option(min=0, help="The first point.")] = 0,
    points: Annotated[int, typer.Option(min=1, help="The number of points, one row each.")] = 1,
    draws: Annotated[int, typer.Option(min=1, help="Draws of delta per point.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    shared: Annotated[
        bool,
        typer.Option("--shared", help="One delta for all kernels, in [-1, 1] if their ranges differ."),
    ] = False,
    out: Picture = Path("nuisance.png"),
) -> None:
    """Show points under random delta: x, then one image per draw."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from robustperf import plot
    from robustperf.cli.build import build_kernel

    plot.check_path(out)
    model = build_kernel(kernel, shared)
    dataset = load_data(data, split, data_root, domain=domain, size=size, rgb=rgb)
    x, ids = _points(dataset, index, points)
    delta = model.sample(seed, ids, draws, shape=x.shape[1:])
    console = Console()
    if 0 < delta.shape[2] <= MAX_COLUMNS:
        table = Table("point", "draw", box=SIMPLE_HEAD, collapse_padding=True)
        for name in _components(model, x.shape[1:]):
            table.add_column(name, justify="right", overflow="fold")
        for point, of_point in zip(ids.tolist(), delta.transpose(0, 1).tolist(), strict=True):
            for draw, values in enumerate(of_point):
                table.add_row(str(point), str(draw), *(f"{value:.3g}" for value in values))
        console.print(table)
    lines = {"kernel": repr(model), "dim": f"{delta.shape[2]} components of delta"}
    for what, text in lines.items():
        say(console, f"{what:>8}: {text}")
    if draw_picture(
        plot.image_grid,
        x,
        model(x, delta),
        delta,
        path=out,
        title=repr(model),
        labels=[f"point {n}" for n in ids.tolist()],
    ):
        say(console, f"{'figure':>8}: {out}")


@app.command("mnist-c", cls=Command)
def gallery(
    data: Data = "digits",
    data_root: DataRoot = None,
    split: Split = "test",
    size: Annotated[int, typer.Option(min=16, help="The images' side in pixels.")] = 28,
    index: Annotated[int, typer.Option(min=0, help="The first point.")] = 0,
    points: Annotated[int, typer.Option(min=1, help="The number of points, one row each.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    out: Picture = Path("mnist_c.png"),
) -> None:
    """Show a few points under each of MNIST-C's corruptions."""
    import torch
    from rich.console import Console

    from robustperf import plot
    from robustperf.names import CORRUPTIONS
    from robustperf.nuisance import mnist_c

    plot.check_path(out)
    x, ids = _points(load_data(data, split, data_root, size=size), index, points)
    drawn = torch.cat([mnist_c(name).draw(x, key=seed, index=ids) for name in CORRUPTIONS])
    if not draw_picture(
        plot.image_grid, x, drawn, path=out, labels=[f"point {n}" for n in ids.tolist()], names=CORRUPTIONS
    ):
        raise typer.Exit(1)  # the figure is the only result
    say(Console(), f"figure: {out}")


def _points(dataset: Dataset | ImageFolder, index: int, points: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(images, sample ids) of `points` points from `index` on, or fewer at the end of the data set."""
    import torch

    from robustperf.data.batches import load_batches

    if index >= len(dataset):
        raise ValueError(f"index: expected one of {dataset.name}'s {len(dataset)} points, got {index}")
    ids = torch.arange(index, min(index + points, len(dataset)))
    return next(load_batches(dataset, [ids], torch.device("cpu")))[0], ids


def _components(kernel: Kernel, shape: torch.Size) -> list[str]:
    """A name for each component of delta."""
    from robustperf.nuisance import Compose, ProgramKernel
    from robustperf.nuisance.normalised import Normalised
    from robustperf.ops.program import Distribution, steps_of

    if isinstance(kernel, Normalised):
        return _components(kernel.kernel, shape)
    if isinstance(kernel, Compose) and (kernel.shared or len(kernel.parts) == 1):  # consecutive known kernels are fused
        of_parts = []
        for part in kernel.parts:
            of_parts.append(_components(part, shape))
            shape = part.shape_after(tuple(shape))
        return [", ".join(names) for names in zip(*of_parts, strict=True)]
    if not isinstance(kernel, ProgramKernel):
        return [f"delta[{number}]" for number in range(kernel.dim_for(tuple(shape)))]
    layout, names = kernel.program.layout(shape), []
    for step, encoded in zip(kernel.program.steps, steps_of(layout.codes, layout.parameters), strict=True):
        if encoded.distribution == Distribution.SHARED:
            names = [f"{name}, {step.name}" for name in names]
        else:
            names += [step.name] if encoded.dim == 1 else [f"{step.name}[{number}]" for number in range(encoded.dim)]
    return names
