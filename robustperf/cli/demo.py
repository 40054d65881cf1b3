"""`robustperf demo`: train a small network on the embedded digits and find its margins, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.nn import functional

from robustperf import nets
from robustperf.cli.margins import build_attacks, report
from robustperf.cli.options import say
from robustperf.data import Dataset, load
from robustperf.nets import checkpoint
from robustperf.robustness.store import MarginRun


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the results go.")] = Path("robustperf-demo"),
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Train a small network on scikit-learn's digits and find the margin of every test point."""
    console = Console()
    train, test = load("digits", "train"), load("digits", "test")
    settings = {"size": 8, "classes": train.classes}
    torch.manual_seed(seed)
    model = nets.build("small-cnn", **settings)
    train_briefly(model, train, epochs=30, console=console)
    out.mkdir(parents=True, exist_ok=True)
    MarginRun.forget(out)  # a demonstration starts anew
    checkpoint.save(out / "model.safetensors", model)
    report(model, test, build_attacks("fgsm,pgd(eps=1),bg", 2), 2, out, seed=seed, console=console)
    say(console, f"{'model':>8}: {out / 'model.safetensors'}")


def train_briefly(model: nn.Module, dataset: Dataset, epochs: int, console: Console, batch_size: int = 64) -> None:
    """Plain training with Adam, enough for a classifier to look at."""
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    model.train()
    for _ in track(range(epochs), "training", console=console):
        for rows in torch.randperm(len(dataset)).split(batch_size):
            loss = functional.cross_entropy(model(dataset.x[rows]), dataset.y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
