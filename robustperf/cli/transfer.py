"""`robustperf transfer`: train a classifier on clean images and adapt it to a shift without labels."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from robustperf import nets
from robustperf.cli.options import (
    KERNELS_HELP,
    Data,
    DataRoot,
    Resume,
    Rgb,
    Size,
    draw_picture,
    load_data,
    plain,
    say,
    shape_of,
)
from robustperf.files import atomic_write, record_settings, user_path
from robustperf.names import check_name

SVC = "svc"
SHOWN = 8  # points in the figure
ENOUGH = 100  # unused training images that `adapt` needs for its warning


def transfer(
    kernel: Annotated[
        str,
        typer.Option(
            metavar="SUM",
            help=f"The shift, such as 'rotation(30) + brightness(0.4)'. Kernels: {KERNELS_HELP}",
        ),
    ] = "mnist_c('stripe')",
    data: Data = "digits",
    data_root: DataRoot = None,
    classifier: Annotated[str, typer.Option(help=f"{SVC} (scikit-learn) or a network: {', '.join(nets.NAMES)}.")] = SVC,
    gamma: Annotated[str, typer.Option(help=f"Of the RBF kernel of {SVC}: a number, scale or auto.")] = "0.05",
    penalty: Annotated[float, typer.Option("-C", min=0, help=f"Of {SVC}.")] = 5.0,
    classifier_epochs: Annotated[int, typer.Option(min=1, help="Of a network.")] = 10,
    clean: Annotated[int | None, typer.Option(min=1, help="Clean training images; half of all by default.")] = None,
    shifted: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Shifted images, of other originals; all that are left by default. 0 trains T on clean images.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Use only the first N test points.")] = None,
    size: Size = None,
    rgb: Rgb = False,
    code: Annotated[int, typer.Option(min=1, help="Units of the auto-encoders' code.")] = 128,
    width: Annotated[int, typer.Option(min=1, help="Channels of the encoder's first convolution.")] = 32,
    hidden: Annotated[int, typer.Option(min=1, help="Units of the decoders' first layer.")] = 2048,
    epochs: Annotated[int, typer.Option(min=1, help="Of the auto-encoders.")] = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step.")] = 32,
    lr: Annotated[float, typer.Option(help="Adam's learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights, the order of images and the shift.")] = 0,
    out: Annotated[Path, typer.Option(metavar="DIR", parser=user_path, help="The folder for the results.")] = Path(
        "robustperf-transfer"
    ),
    resume: Resume = False,
) -> None:
    """Train a classifier on clean images, learn T = D1 E from shifted ones without labels, and compare f(x) with
    f(T(x)) (T section 4)."""
    import torch
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
    from sklearn.frozen import FrozenEstimator

    from robustperf import __version__, plot, random
    from robustperf.cli.build import build_kernel
    from robustperf.data import Dataset
    from robustperf.nets import weights_file
    from robustperf.transfer import PairedAutoencoder, TransferClassifier

    shift = build_kernel(kernel)
    train, test = (load_data(data, split, data_root, size=size, rgb=rgb) for split in ("train", "test"))
    for dataset in (train, test):
        if not isinstance(dataset, Dataset):
            raise ValueError(f"data: expected a data set in memory, got {data}; --size is for folders of images")
    test = test if limit is None else test.limit(limit)
    shape, key = shape_of(train), random.key(seed)
    if shape_of(test) != shape:
        raise ValueError(f"data: expected train and test images of one shape, got {shape} and {shape_of(test)}")
    clean, shifted = _parts(len(train), clean, shifted)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    seen, hidden_originals, unused = train.rows(order[:clean]), *order[clean:].tensor_split([shifted])
    if len(seen.y.unique()) < 2:
        raise ValueError(f"clean: expected images of at least two classes, got {clean} of one")
    unlabelled = shift.draw(train.x[hidden_originals], key=random.fold_in(key, 0), index=hidden_originals)[0]
    tested = shift.draw(test.x, key=random.fold_in(key, 1), index=torch.arange(len(test)))[0]
    if unlabelled.shape[1:] != train.x.shape[1:]:
        raise ValueError(
            f"kernel: expected one that keeps the shape {shape}, got {tuple(unlabelled.shape[1:])}; --rgb "
            "makes images of three channels"
        )
    torch.manual_seed(seed)
    autoencoder = PairedAutoencoder(shape, code, width, hidden)
    estimator = _estimator(classifier, gamma, penalty, classifier_epochs, shape, train.classes, seed)
    settings = {
        "data": train.name, "kernel": repr(shift), "classifier": classifier, "clean": clean, "shifted": shifted,
        "points": len(test), "shape": shape, "batch_size": batch_size, "lr": lr, "seed": seed,
        "autoencoder": {"image_shape": shape, "code": code, "width": width, "hidden": hidden},
        **({"gamma": gamma, "C": penalty} if classifier == SVC else {}),
    }  # fmt: skip
    record_settings(out, settings, resume=resume)

    console = Console()
    sets = {"clean": test.x.numpy(), "shifted": tested.numpy()}
    options = {"resume": resume, "progress": True}
    try:
        if classifier == SVC:
            with console.status(f"training {classifier} on {clean:,} clean images"):
                estimator.fit(seen.x.flatten(1).numpy(), seen.y.numpy())
        else:
            say(console, f"Training {classifier} on {clean:,} clean images:")
            estimator.fit(seen.x.numpy(), seen.y.numpy(), out=out / "classifier", **options)
        model = TransferClassifier(
            FrozenEstimator(estimator), autoencoder, epochs=epochs, batch_size=batch_size, lr=lr, random_state=seed
        ).fit(seen.x.numpy(), seen.y.numpy())
        before = {name: model.score(x, test.y.numpy()) for name, x in sets.items()}
        say(console, f"Adapting to {shifted:,} shifted images:")
        left = train.rows(unused)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.adapt(
                unlabelled.numpy() if shifted else None,
                out=out / "autoencoder",
                **options,
                validation=(left.x.numpy(), left.y.numpy()) if len(left) >= ENOUGH else None,
            )
    except KeyboardInterrupt:
        say(console, f"Interrupted. {_kept(out)}")
        raise typer.Exit(130) from None
    after = {name: model.score(x, test.y.numpy()) for name, x in sets.items()}
    problems = [str(warning.message) for warning in caught if str(warning.message).startswith("adapt: ")]
    for warning in caught:
        if str(warning.message) not in problems:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    for message in problems:
        say(console, f"warning: {message}")

    table = Table("test images", "f(x)", "f(T(x))", title=Text(f"{classifier} on {train.name}, {shift!r}"))
    for name in sets:
        table.add_row(name, f"{before[name]:.2%}", f"{after[name]:.2%}")
    console.print(table)
    figure, weights, results = out / "transfer.png", out / "autoencoder.safetensors", out / "summary.json"
    weights_file.save(weights, model.autoencoder_)
    facts = {
        **settings,
        "epochs": epochs,
        "accuracy": {"before": before, "after": after},
        "warnings": problems,
        "robustperf": __version__,
        "torch": torch.__version__,
    }
    with atomic_write(results) as partial:
        partial.write_text(json.dumps(plain(facts), indent=1) + "\n")
    few = slice(0, SHOWN)
    restored = torch.as_tensor(model.transform(tested[few].numpy()))
    files = {"weights": weights, "results": results}
    if draw_picture(
        plot.image_grid,
        test.x[few],
        torch.stack([tested[few], restored]),
        path=figure,
        title=repr(shift),
        names=["x̃", "T(x̃)"],
    ):
        files = {"figure": figure, **files}
    for what, path in files.items():
        say(console, f"{what:>8}: {path}")


def _kept(out: Path) -> str:
    """What --resume finds, as a sentence."""
    from robustperf.cli.train import kept
    from robustperf.training.run_folder import RunFolder

    folders = [folder for folder in (out / "autoencoder", out / "classifier") if folder.exists()]
    return kept(RunFolder(folders[0] if folders else out / "autoencoder"))


def _parts(total: int, clean: int | None, shifted: int | None) -> tuple[int, int]:
    """The numbers of clean and of shifted images out of `total`; no original is in both."""
    clean = max(1, total // 2) if clean is None else clean
    if clean > total:
        raise ValueError(f"clean: expected at most the {total} training images, got {clean}")
    shifted = total - clean if shifted is None else shifted
    if clean + shifted > total:
        raise ValueError(
            f"shifted: expected at most {total - clean} beside {clean} clean images, so that no original "
            f"is used twice, got {shifted}"
        )
    return clean, shifted


def _estimator(
    name: str, gamma: str, penalty: float, epochs: int, shape: tuple[int, int, int], classes: int, seed: int
) -> Any:
    if name == SVC:
        from sklearn import svm

        try:
            number = gamma if gamma in ("scale", "auto") else float(gamma)
        except ValueError:
            raise ValueError(f"gamma: expected a number, scale or auto, got {gamma!r}") from None
        return svm.SVC(C=penalty, gamma=number)
    import torch

    from robustperf.cli.build import build_network
    from robustperf.transfer import ModuleClassifier

    check_name("classifier", name, (SVC, *nets.NAMES))
    torch.manual_seed(seed)
    return ModuleClassifier(build_network(name, shape, classes), image_shape=shape, epochs=epochs, random_state=seed)
