"""`robustperf nuisance`: figures of models of natural variation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustperf.cli.errors import Command
from robustperf.cli.options import (
    DOMAIN_HELP,
    KERNELS_HELP,
    Classes,
    Cpu,
    Data,
    DataRoot,
    Domain,
    Limit,
    Picture,
    Resume,
    Rgb,
    Size,
    Split,
    Workers,
    draw_picture,
    load_data,
    say,
)
from robustperf.files import user_path
from robustperf.names import PRECISIONS, SHARES

if TYPE_CHECKING:
    import torch

    from robustperf.data import Dataset, ImageFolder
    from robustperf.kernel import Kernel

app: typer.Typer = typer.Typer(help="Show and learn models of natural variation.", no_args_is_help=True)

MAX_COLUMNS = 8


@app.command(cls=Command)
def show(
    kernel: Annotated[
        str,
        typer.Option(
            metavar="SUM",
            help="One kernel, or several in the order they apply, such as "
            "'rotation(30) + brightness((-0.1, 0.4))'. Kernels: " + KERNELS_HELP,
        ),
    ],
    data: Data = "digits",
    data_root: DataRoot = None,
    split: Split = "test",
    domain: Domain = None,
    classes: Classes = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="DOMAIN", help="Show images of this domain beside the points, " + DOMAIN_HELP),
    ] = None,
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
    """Show points under random delta: x, then one image per draw; with --to an image of that domain before them (R
    Figures 9 to 21)."""
    import torch
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from robustperf import plot
    from robustperf.cli.build import build_kernel

    plot.check_path(out)
    model = build_kernel(kernel, shared)
    dataset = load_data(data, split, data_root, domain=domain, classes=classes, size=size, rgb=rgb)
    x, ids = _points(dataset, index, points)
    delta = model.sample(seed, ids, draws, shape=x.shape[1:])
    drawn, names = model(x, delta), None
    if to is not None:
        beside = load_data(data, split, data_root, domain=to, classes=classes, size=size, rgb=rgb)
        target, _ = _points(beside, min(index, max(0, len(beside) - len(x))), len(x))
        if len(target) < len(x) or target.shape[1:] != drawn.shape[2:]:
            raise ValueError(
                f"to: expected {len(x)} images of shape {list(drawn.shape[2:])}, got {len(target)} of "
                f"{list(target.shape[1:])}"
            )
        drawn = torch.cat([target[None], drawn])
        names = [to, *(f"G(x, δ{number})" for number in range(1, draws + 1))]
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
        drawn,
        delta if names is None else None,
        path=out,
        title=repr(model),
        labels=[f"point {n}" for n in ids.tolist()],
        names=names,
    ):
        say(console, f"{'figure':>8}: {out}")


@app.command(cls=Command)
def learn(
    source: Annotated[
        str, typer.Option("--from", metavar="NAME", help="The data set of domain A, as for --data of `show`.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", parser=user_path, help="The folder for the kernel, snapshots, its picture and checkpoints."
        ),
    ],
    domain: Annotated[str | None, typer.Option(metavar="DOMAIN", help="Domain A, " + DOMAIN_HELP)] = None,
    to: Annotated[str | None, typer.Option(metavar="DOMAIN", help="Domain B, " + DOMAIN_HELP)] = None,
    to_data: Annotated[
        str | None, typer.Option(metavar="NAME", help="The data set of domain B; that of domain A by default.")
    ] = None,
    data_root: DataRoot = None,
    split: Split = "train",
    classes: Classes = None,
    limit: Limit = None,
    size: Size = None,
    rgb: Rgb = False,
    style_dim: Annotated[
        int | None, typer.Option(min=1, help="The dimension of delta; 2 below 64 pixels, 8 from there on.")
    ] = None,
    iterations: Annotated[int, typer.Option(min=1, help="Updates of the translator.")] = 2500,
    share: Annotated[str, typer.Option(help=f"The weights that the domains share: {', '.join(SHARES)}.")] = "all",
    width: Annotated[int, typer.Option(min=1, help="Channels of the first convolutions; 64 in the paper.")] = 16,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per step, over all processes; 1 in the paper.")] = 2,
    lr: Annotated[float, typer.Option(help="Adam's learning rate; 1e-4 in the paper.")] = 4e-4,
    cycle: Annotated[float, typer.Option(min=0, help="Weight of the image cycle; 0 in the paper.")] = 10.0,
    distribution: Annotated[str, typer.Option(help="Of delta: uniform, normal or ball.")] = "uniform",
    snapshot: Annotated[
        list[int] | None, typer.Option(min=1, metavar="N", help="Save the kernel after iteration N too.")
    ] = None,
    checkpoint_steps: Annotated[int, typer.Option(min=1, help="Write the kernel and a checkpoint so often.")] = 250,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights, the pairs and the styles.")] = 0,
    resume: Resume = False,
    mixed_precision: Annotated[str, typer.Option(help=", ".join(PRECISIONS) + ".")] = "no",
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard logs in DIR.")] = False,
    workers: Workers = 0,
    cpu: Cpu = False,
) -> None:
    """Learn a model of natural variation from images of two domains, without labels or pairs (R section 4.2)."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from robustperf import nuisance, processes

    if to is None and to_data is None:
        raise ValueError("to: expected domain B, such as --to brightness:high or --to-data NAME, got none")
    a, b = (
        load_data(name, split, data_root, domain=of, classes=classes, limit=limit, size=size, rgb=rgb)
        for name, of in ((source, domain), (to_data or source, to))
    )
    main = processes.join(cpu).is_main_process
    console = Console(quiet=not main)
    try:
        kernel = nuisance.learn(
            a, b, style_dim=style_dim, iterations=iterations, out=out, share=share, width=width, batch_size=batch_size,
            lr=lr, cycle=cycle, distribution=distribution, snapshots=snapshot or (), checkpoint_steps=checkpoint_steps,
            seed=seed, resume=resume, mixed_precision=mixed_precision, log_with="tensorboard" if tensorboard else None,
            workers=workers, cpu=cpu,
        )  # fmt: skip
    except KeyboardInterrupt:
        from robustperf.cli.train import kept
        from robustperf.training.run_folder import RunFolder

        say(console, f"Interrupted. {kept(RunFolder(out))}")
        raise typer.Exit(130) from None
    if not main:
        return
    table = Table(show_header=False, title=Text(f"G from {a.name} to {b.name}, on the images that it learned from"))
    for name, value in kernel.quality(a, b)._facts().items():
        table.add_row(name, f"{value:.3g}" if isinstance(value, float) else str(value))
    console.print(table)
    for what, name in {"kernel": "", "picture": "kernel.png", "quality": "quality.csv", "steps": "steps.csv"}.items():
        say(console, f"{what:>8}: {out / name}")
    say(console, "Next:")
    say(console, f"  robustperf nuisance show --kernel {out} --data {source} --points 4")
    say(console, f"  robustperf train --data {source} --objective mrt --kernel {out} --out {out}-mrt")


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
