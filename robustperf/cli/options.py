"""What the commands share: options, the data and networks that they name, and results as JSON has them."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustperf.files import user_path
from robustperf.names import ROOT_VARIABLE, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from robustperf.data import Dataset, ImageFolder

NETWORK = "robey-cnn"  # that `train` makes where none is named

_SIDE = 32  # that `load` gives images of different sizes, and gtsrb has where it is there as images of one size

Data = Annotated[
    str,
    typer.Option(metavar="NAME", help="A data set (see `robustperf data list`), an npz file or a folder of images."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        metavar="DIR",
        envvar=ROOT_VARIABLE,
        parser=user_path,
        help="The folder that holds a folder per data set.",
    ),
]
DOMAIN_HELP = "such as brightness:low or contrast:90-100 (see `robustperf data domains`); snow:3 of cure-tsr."
Domain = Annotated[str | None, typer.Option(metavar="DOMAIN", help="Only the images in it, " + DOMAIN_HELP)]
Limit = Annotated[int | None, typer.Option(min=1, help="The first so many points only.")]
Size = Annotated[int | None, typer.Option(min=1, metavar="N", help="Resize the images to N x N pixels.")]
Rgb = Annotated[bool, typer.Option("--rgb", help="Repeat the channel of grey images three times.")]
Checkpoint = Annotated[
    Path, typer.Option("--checkpoint", metavar="FILE", parser=user_path, help="Weights, a safetensors file.")
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="What makes the network; needed where the checkpoint's header does "
        "not name one of robustperf's, which also says how to resize the images.",
    ),
]

Picture = Annotated[Path, typer.Option(metavar="FILE", parser=user_path, help="The picture: .png, .pdf or .svg.")]


def load_data(
    name: str,
    split: str,
    root: Path | None,
    *,
    domain: str | None = None,
    limit: int | None = None,
    size: int | None = None,
    rgb: bool = False,
) -> Dataset | ImageFolder:
    """The data set of these options. Raises as `data.load`, and ValueError where it has no points."""
    from robustperf.data import Dataset

    dataset = _load(name, split, root, domain, size)
    if not len(dataset):
        raise ValueError(f"data: {dataset.name} has no points")
    dataset = dataset if limit is None else dataset.limit(limit)
    if isinstance(dataset, Dataset):
        if size is not None and shape_of(dataset)[1:] != (size, size):
            dataset = dataset.resized(size)
        dataset = dataset.rgb() if rgb else dataset
    return dataset


def shape_of(dataset: Dataset | ImageFolder) -> tuple[int, int, int]:
    """(C, H, W) of its images."""
    from robustperf.data import ImageFolder

    return (3, dataset.size, dataset.size) if isinstance(dataset, ImageFolder) else tuple(dataset.x.shape[1:])


def load_network(path: Path, model: str | None, size: int | None, rgb: bool) -> tuple[nn.Module, int | None, bool]:
    """(the network in the checkpoint `path`, the size that it takes, whether it takes RGB images); `model`, `size` and
    `rgb` are the options, and come first."""
    from robustperf.nets import weights_file

    network = weights_file.load(path, None if model is None else make_network(model))
    if model is None:
        parameters = inspect.signature(type(network)).parameters
        taken = {name: parameter.default for name, parameter in parameters.items()} | network.architecture[1]
        size = taken.get("size") if size is None else size
        rgb = rgb or taken["in_channels"] == 3
    return network, size, rgb


def make_network(path: str) -> nn.Module:
    """The network that MODULE:FUNCTION makes; modules in the current folder are found too."""
    from torch import nn

    name, _, function = path.partition(":")
    if not (name and function):
        raise ValueError(f"model: expected MODULE:FUNCTION, such as mynet:make, got {path!r}")
    with _current_folder_first():
        module = None
        try:
            module = importlib.import_module(name)
            make = getattr(module, function)
        except (Exception, SystemExit) as error:  # a script may end, and whatever it does may fail
            meant = did_you_mean(function, dir(module)) if isinstance(error, AttributeError) and module else ""
            raise ValueError(
                f"model: expected MODULE:FUNCTION that can be imported, got {path!r}: {_told(error)}{meant}"
            ) from error
        try:
            made = make()
        except (Exception, SystemExit) as error:
            raise ValueError(
                f"model: expected a function that makes a network without arguments, got {path!r}: {_told(error)}"
            ) from error
    if not isinstance(made, nn.Module):
        raise ValueError(f"model: {path} made a {type(made).__name__}, not a torch.nn.Module")
    return made


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """The current folder on the path of imports, as `python -m` has it and a console script has not."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        with suppress(ValueError):  # the module may have taken it off itself
            sys.path.remove("")


def say(console: Console, text: str) -> None:
    """Prints a line as it is, to be copied from."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def draw_picture(picture: Callable[..., Any], *arguments: Any, path: Path, **named: Any) -> bool:
    """Whether `picture(*arguments, path=path, **named)` has drawn: a picture comes after the results, and one that
    fails, for want of a font, of TeX or of room on the disk, costs a line on standard error."""
    from robustperf import check

    try:
        picture(*arguments, path=path, **named)
    except Exception as error:  # matplotlib's raise what they come upon
        typer.echo(f"robustperf: warning: the picture {path} could not be drawn: {check.line_of(error)}", err=True)
        return False
    return True


def plain(value: Any) -> Any:
    """`value` as strict JSON has it: infinities and NaN as text."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _told(error: BaseException) -> str:
    """What was raised, what it says, and where, unless nothing but the import or the call itself failed."""
    from robustperf import check

    *_, last = traceback.extract_tb(error.__traceback__)
    ours = last.filename == __file__ or last.filename.startswith("<frozen")
    return f"{type(error).__name__}: {check.line_of(error)}" + ("" if ours else f" ({last.filename}:{last.lineno})")


def _load(name: str, split: str, root: Path | None, domain: str | None, size: int | None) -> Dataset | ImageFolder:
    """Images that come in different sizes get theirs as they are read."""
    from robustperf.data import load
    from robustperf.data.load import LAYOUTS, NAMES

    sized = any(layout.sized for layout in LAYOUTS.get(name, ())) and size != _SIDE
    if size is not None and (sized or (name not in NAMES and user_path(name).is_dir())):
        try:
            return load(name, split, root, domain=domain, size=size)
        except FileNotFoundError:  # gtsrb may be there as images of one size alone
            pass
    return load(name, split, root, domain=domain)
