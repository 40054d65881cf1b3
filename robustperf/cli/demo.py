"""`robustperf demo`: train a small network on scikit-learn's digits and find its margins, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustperf.cli.margins import report
from robustperf.cli.options import say
from robustperf.files import lock_folder, user_path


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", parser=user_path, help="The folder for the results.")] = Path(
        "robustperf-demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights, the order of images and the attacks.")] = 0,
) -> None:
    """Train a small network on scikit-learn's digits and find the margin of every test point."""
    import torch
    from rich.console import Console

    from robustperf import nets
    from robustperf.attacks.named import attacks_of
    from robustperf.data import load
    from robustperf.names import DEFAULT_ATTACKS
    from robustperf.nets import weights_file
    from robustperf.robustness.margin_run import MarginRun
    from robustperf.training import ERM, fit

    console = Console()
    train, test = load("digits", "train"), load("digits", "test")
    settings = {"size": 8, "classes": train.classes}
    torch.manual_seed(seed)
    model = nets.build("small-cnn", **settings)
    with console.status("training a small network"):
        fit(model, ERM(), train, validation=None, epochs=30, optimizer="adam", lr=2e-3, seed=seed, progress=False)
    with lock_folder(out):
        MarginRun.forget(out)  # a demo always starts a new run
        weights_file.save(out / "model.safetensors", model)
        report(model, test, attacks_of(DEFAULT_ATTACKS, 2), 2, out, seed=seed, console=console)
    say(console, f"{'model':>8}: {out / 'model.safetensors'}")
