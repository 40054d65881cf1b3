"""What the commands share: options, loading the data and networks that they name, and JSON results."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import math
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustperf.files import user_path
from robustperf.names import LIBRARIES, ROOT_VARIABLE, did_you_mean
from robustperf.nuisance import NAMES

if TYPE_CHECKING:
    import torch
    from rich.console import Console
    from torch import nn

    from robustperf.adapters import Wrapped
    from robustperf.data import Dataset, ImageFolder

NETWORK = "robey-cnn"  # the default of `train`
LEARNED = "learned"  # in a sum of kernels
KERNELS_HELP = (
    f"{', '.join(NAMES)}, {LEARNED}('DIR'). DIR alone, a folder of `robustperf nuisance learn`, is that learned kernel."
)

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
        help="The data root: a folder with one folder per data set.",
    ),
]
DOMAIN_HELP = (
    "such as brightness:low or contrast:90-100 (see `robustperf data domains`); snow:3 of cure-tsr; "
    "'brightness:low & contrast:low', which is in both, or 'brightness:low | contrast:low', in either."
)
Domain = Annotated[str | None, typer.Option(metavar="DOMAIN", help="Use only its images, " + DOMAIN_HELP)]
Classes = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="Use only these classes, labelled from 0: labels or names, such as 0-9,12."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Use only the first N points.", metavar="N")]
Split = Annotated[str, typer.Option(help="train or test.")]
Size = Annotated[int | None, typer.Option(min=1, metavar="N", help="Resize the images to N x N pixels.")]
Rgb = Annotated[bool, typer.Option("--rgb", help="Repeat the channel of grey images three times.")]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        metavar="FILE",
        parser=user_path,
        help="Weights, a safetensors file. Not needed where --model names a network with weights of its own.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="A function that makes the network; or timm:NAME, hf:NAME, torchvision:NAME or onnx:FILE, with the "
        "library's weights unless there is a checkpoint. Needed unless the checkpoint's header names a network of "
        "robustperf's. These and named networks set the size of the images.",
    ),
]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read a folder of images.")]
Cpu = Annotated[bool, typer.Option("--cpu", help="Use no GPU.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume the run in DIR.")]
Picture = Annotated[Path, typer.Option(metavar="FILE", parser=user_path, help="The figure: .png, .pdf or .svg.")]


def load_data(
    name: str,
    split: str,
    root: Path | None,
    *,
    domain: str | None = None,
    classes: str | None = None,
    limit: int | None = None,
    size: int | None = None,
    rgb: bool = False,
) -> Dataset | ImageFolder:
    """The data set of these options. Raises as `data.load`, and ValueError if it is empty."""
    from robustperf.data import Dataset

    dataset = _load(name, split, root, domain, size)
    if not len(dataset):
        raise ValueError(f"data: expected at least one point, got an empty {dataset.name}")
    dataset = dataset if classes is None else dataset.select_classes(_class_list(classes, dataset.class_names))
    dataset = dataset if limit is None else dataset.limit(limit)
    if isinstance(dataset, Dataset):
        if size is not None and shape_of(dataset)[1:] != (size, size):
            dataset = dataset.resized(size)
        dataset = dataset.rgb() if rgb else dataset
    return dataset


def _class_list(text: str, class_names: Sequence[str]) -> list[int | str]:
    """The classes of a list such as "0-9,12" or "cat,dog"; whatever is a class's name is taken as that."""
    found: list[int | str] = []
    for each in (part.strip() for part in text.split(",")):
        limits = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", each, re.ASCII)
        if each in class_names or not limits:
            found.append(each)
        else:
            first, last = int(limits[1]), int(limits[2] or limits[1])
            if not first <= last < len(class_names):
                raise ValueError(f"classes: expected labels or ranges in 0..{len(class_names) - 1}, got {each!r}")
            found += range(first, last + 1)
    return found


def shape_of(dataset: Dataset | ImageFolder) -> tuple[int, int, int]:
    """(C, H, W) of its images."""
    from robustperf.data import ImageFolder

    return (3, dataset.size, dataset.size) if isinstance(dataset, ImageFolder) else tuple(dataset.x.shape[1:])


def load_network(
    path: Path | None, model: str | None, size: int | None, rgb: bool
) -> tuple[nn.Module, int | None, bool]:
    """(the network `model` with the weights in the checkpoint `path`, the image size it takes, whether it takes RGB
    images).

    The options `model`, `size` and `rgb` take precedence. ValueError where neither names weights.
    """
    from robustperf.nets import weights_file

    if model is not None and is_library(model):
        network = _library_network(path, model)
        channels, height, _ = network.image_shape or (None, None, None)
        return network, height if size is None else size, rgb or channels == 3
    if path is None:
        raise ValueError(f"checkpoint: expected a file, or a model with weights of its own, {_named()}, got none")
    network = weights_file.load(path, None if model is None else make_network(model))
    if model is None:
        parameters = inspect.signature(type(network)).parameters
        taken = {name: parameter.default for name, parameter in parameters.items()} | network.architecture[1]
        size = taken.get("size") if size is None else size
        rgb = rgb or taken["in_channels"] == 3
    return network, size, rgb


def is_library(model: str) -> bool:
    """Whether `model` is a name that `load_model` takes."""
    return model.partition(":")[0] in LIBRARIES


def _named() -> str:
    return "such as " + ", ".join(f"{library}:{'FILE' if library == 'onnx' else 'NAME'}" for library in LIBRARIES)


def _library_network(path: Path | None, model: str) -> Wrapped:
    """The network of another library, with its weights, or with those in `path` and as many classes as they have."""
    from robustperf.adapters import load_model
    from robustperf.nets import weights_file

    if path is None:
        return load_model(model)
    if model.startswith("onnx:"):
        raise ValueError(f"checkpoint: expected none with {model}, whose weights are in the file, got {path}")
    weights, _ = weights_file.read(path)
    network = load_model(model, pretrained=False)
    shapes = {name: value.shape for name, value in weights_file.weights_of(network).items()}
    classes = {
        value.shape[0]
        for name, value in weights.items()
        if name in shapes and value.dim() and value.shape[1:] == shapes[name][1:] and value.shape != shapes[name]
    }
    if len(classes) == 1:
        network = load_model(model, pretrained=False, num_classes=classes.pop())
    return weights_file.load(path, network).eval()


def weights_digest(path: Path | None, model: str | None, network: nn.Module) -> str:
    """SHA-256 of the weights that `load_network` loaded, wherever they come from."""
    from robustperf.nets import weights_file

    if path is not None:
        return weights_file.digest(path)
    if model is not None and model.startswith("onnx:"):
        return hashlib.sha256(user_path(model.removeprefix("onnx:")).read_bytes()).hexdigest()
    return weights_file.digest_of(weights_file.weights_of(network))


def usable_device(text: str) -> torch.device:
    """The device called `text`; with several processes, each has its own GPU.

    Raises ValueError if torch cannot use it here.
    """
    import torch

    from robustperf import processes

    try:
        device = torch.device(text)
        process = processes.join(cpu=device.type == "cpu")
        if process.num_processes > 1 and device.type != "cpu":
            if device.index is not None:
                raise ValueError(
                    f"device: expected cuda, for each of {process.num_processes} processes uses its own GPU, "
                    f"got {text!r}"
                )
            device = process.device
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device: expected one that torch can use here, got {text!r}: {str(error).splitlines()[0]}"
        ) from error
    return device


def command_line(context: typer.Context) -> str:
    """The command with the options that were given, so that it can be run again; without --resume."""
    words = [context.command_path]
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        value = context.params.get(str(parameter.name))
        if parameter.name == "resume" or value is None or source is None or "DEFAULT" in source.name:
            continue
        for each in value if isinstance(value, list | tuple) else [value]:
            option = [max(parameter.opts, key=len)] if parameter.param_type_name == "option" else []
            if isinstance(value, bool):
                words += option if value else list(parameter.secondary_opts)
            else:
                words += [*option, shlex.quote(str(getattr(each, "value", each)))]
    return " ".join(words)


def make_network(path: str) -> nn.Module:
    """The network that MODULE:FUNCTION returns; the module may be in the current folder."""
    from torch import nn

    name, _, function = path.partition(":")
    if not (name and function):
        raise ValueError(f"model: expected MODULE:FUNCTION, such as mynet:make, got {path!r}")
    with _current_folder_first():
        module = None
        try:
            module = importlib.import_module(name)
            make = getattr(module, function)
        except (Exception, SystemExit) as error:  # importing runs the user's code, which may raise anything or exit
            meant = did_you_mean(function, dir(module)) if isinstance(error, AttributeError) and module else ""
            raise ValueError(
                f"model: expected MODULE:FUNCTION that can be imported, got {path!r}: {_description(error)}{meant}"
            ) from error
        try:
            made = make()
        except (Exception, SystemExit) as error:
            raise ValueError(
                f"model: expected a function without arguments that makes a network, got {path!r}: "
                f"{_description(error)}"
            ) from error
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"model: expected a function that returns a torch.nn.Module, got a {type(made).__name__} from {path}"
            + "; margins of what gives labels, such as scikit-learn's classifiers, are found in Python, by "
            "robustperf.margins(estimator, X)" * hasattr(made, "predict")
        )
    return made


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """Puts the current folder on the import path, as `python -m` does and a console script does not."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        with suppress(ValueError):  # the module may have removed it
            sys.path.remove("")


def say(console: Console, text: str) -> None:
    """Prints a line verbatim, so that it can be copied."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def draw_picture(picture: Callable[..., Any], *arguments: Any, path: Path, **named: Any) -> bool:
    """Calls `picture(*arguments, path=path, **named)` and returns whether it succeeded.

    A figure comes after the results: if it fails, because a font, TeX or disk space is missing, a warning is printed to
    standard error and the command continues.
    """
    from robustperf import check

    try:
        picture(*arguments, path=path, **named)
    except Exception as error:  # matplotlib may raise anything
        typer.echo(f"robustperf: warning: the figure {path} could not be drawn: {check.line_of(error)}", err=True)
        return False
    return True


def plain(value: Any) -> Any:
    """`value` as strict JSON: infinities and NaN become text."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _description(error: BaseException) -> str:
    """The type, message and place of an error; no place if the import or the call itself failed."""
    from robustperf import check

    *_, last = traceback.extract_tb(error.__traceback__)
    ours = last.filename == __file__ or last.filename.startswith("<frozen")
    return f"{type(error).__name__}: {check.line_of(error)}" + ("" if ours else f" ({last.filename}:{last.lineno})")


def _load(name: str, split: str, root: Path | None, domain: str | None, size: int | None) -> Dataset | ImageFolder:
    """Loads the data set; images that come in different sizes are resized as they are read."""
    from robustperf.data import load
    from robustperf.data.load import LAYOUTS, NAMES

    sized = any(layout.side not in (None, size) for layout in LAYOUTS.get(name, ()))
    if size is not None and (sized or (name not in NAMES and user_path(name).is_dir())):
        try:
            return load(name, split, root, domain=domain, size=size)
        except FileNotFoundError:  # gtsrb may be there as npz files only, whose images have one size
            pass
    return load(name, split, root, domain=domain)
