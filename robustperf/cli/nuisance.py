"""`robustperf nuisance`: models of natural variation, looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustperf import plot
from robustperf.cli.data import DataRoot
from robustperf.cli.expression import build_sum
from robustperf.cli.options import Data, Domain, Rgb, Size, load_data
from robustperf.data import Dataset, ImageFolder
from robustperf.kernel import Kernel, Normalised
from robustperf.nuisance import KERNELS, Compose, KnownKernel, mnist_c
from robustperf.nuisance.corruptions import CORRUPTIONS
from robustperf.ops.program import Law
from robustperf.training.batches import load_batches

app = typer.Typer(help="Models of natural variation x' = G(x, delta), looked at.", no_args_is_help=True)

MOST_COLUMNS = 8


@app.command()
def show(
    kernel: Annotated[
        str,
        typer.Option(metavar="SUM", help="One kernel or several, the first one first, such as "
                     f"'rotation(30) + brightness((-0.1, 0.4))'. There are {', '.join(KERNELS)}."),
    ],
    data: Data = "digits",
    data_root: DataRoot = None,
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    domain: Domain = None,
    size: Size = None,
    rgb: Rgb = False,
    index: Annotated[int, typer.Option(min=0, help="The first point.")] = 0,
    points: Annotated[int, typer.Option(min=1, help="So many points from there on, a row each.")] = 1,
    draws: Annotated[int, typer.Option(min=1, help="Draws of delta for each point.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    shared: Annotated[bool, typer.Option("--shared", help="One delta for all kernels of the sum, in [-1, 1] where "
                                               "their ranges differ.")] = False,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The picture: .png, .pdf or .svg.")] = Path("nuisance.png"),
) -> None:
    """Draw a point under many delta: x, then a picture for each draw."""
    model = build_kernel(kernel, shared)
    dataset = load_data(data, split, data_root, domain=domain, size=size, rgb=rgb)
    x, numbers = _points(dataset, index, points)
    delta = model.sample(seed, numbers, draws, shape=x.shape[1:])
    plot.image_grid(x, model(x, delta), delta, out, f"{model!r}", [f"point {n}" for n in numbers.tolist()])

    console = Console()
    if 0 < delta.shape[2] <= MOST_COLUMNS:
        table = Table("point", "draw", box=SIMPLE_HEAD, collapse_padding=True)
        for name in _components(model, x.shape[1:]):
            table.add_column(name, justify="right", overflow="fold")
        for point, of_point in zip(numbers.tolist(), delta.transpose(0, 1).tolist(), strict=True):
            for draw, values in enumerate(of_point):
                table.add_row(str(point), str(draw), *(f"{value:.3g}" for value in values))
        console.print(table)
    for what, text in (("kernel", repr(model)), ("dim", f"{delta.shape[2]} components of delta"), ("picture", out)):
        console.print(Text(f"{what:>8}: {text}"), soft_wrap=True)


@app.command("mnist-c")
def gallery(
    data: Data = "digits",
    data_root: DataRoot = None,
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    size: Annotated[int, typer.Option(min=16, help="The images' side in pixels.")] = 28,
    index: Annotated[int, typer.Option(min=0, help="The first point.")] = 0,
    points: Annotated[int, typer.Option(min=1, help="So many points from there on, a row each.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The picture: .png, .pdf or .svg.")] = Path("mnist_c.png"),
) -> None:
    """Draw a few points under each of MNIST-C's corruptions."""
    x, numbers = _points(load_data(data, split, data_root, size=size), index, points)
    drawn = torch.cat([mnist_c(name).draw(x, key=seed, index=numbers) for name in CORRUPTIONS])
    plot.image_grid(x, drawn, None, out, None, [f"point {n}" for n in numbers.tolist()], CORRUPTIONS)
    Console().print(Text(f"picture: {out}"), soft_wrap=True)


def _points(dataset: Dataset | ImageFolder, index: int, points: int) -> tuple[torch.Tensor, torch.Tensor]:
    """So many images from `index` on, or as many as there are, and their numbers."""
    if index >= len(dataset):
        raise ValueError(f"index: expected one of {dataset.name}'s {len(dataset)} points, got {index}")
    numbers = torch.arange(index, min(index + points, len(dataset)))
    return next(load_batches(dataset, [numbers], torch.device("cpu")))[0], numbers


def build_kernel(text: str, shared: bool = False) -> Kernel:
    """The kernel of `text`, a composition where it names several; with `shared` they take one delta."""
    try:
        kernels = build_sum(text, KERNELS)
    except ValueError as error:
        raise ValueError(f"kernel: {error}") from error
    return kernels[0] if len(kernels) == 1 else Compose(kernels, shared=shared)


def _components(kernel: Kernel, shape: torch.Size) -> list[str]:
    """A name for each component of delta."""
    if isinstance(kernel, Normalised):
        return _components(kernel.kernel, shape)
    if isinstance(kernel, Compose) and (kernel.shared or len(kernel.parts) == 1):  # known kernels in a row are one
        of_parts = []
        for part in kernel.parts:
            of_parts.append(_components(part, shape))
            shape = part.shape_after(tuple(shape))
        return [", ".join(names) for names in zip(*of_parts, strict=True)]
    if not isinstance(kernel, KnownKernel):
        return [f"delta[{number}]" for number in range(kernel.dim_for(tuple(shape)))]
    codes, names = kernel.program.layout(shape).codes, []
    for step, law, size in zip(kernel.program.steps, codes[1::4], codes[2::4], strict=True):
        if law == Law.SHARED:
            names = [f"{name}, {step.name}" for name in names]
        else:
            names += [step.name] if size == 1 else [f"{step.name}[{number}]" for number in range(size)]
    return names
