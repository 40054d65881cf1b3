"""Trains the MNIST classifier of the benchmarks once and keeps it as safetensors.

python -m benchmarks.common.mnist_cnn --out FILE [--data-root DIR] [--epochs N] [--limit N]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from robustperf import nets
from robustperf.data import Dataset, load
from robustperf.nets import weights_file
from robustperf.training import ERM, fit

from .options import CHECKPOINT, add_data_root


def trained(
    data_root: Path | None = None, path: Path = CHECKPOINT, epochs: int = 2, limit: int = 60_000
) -> tuple[torch.nn.Module, Dataset]:
    """(classifier in eval mode, MNIST's test images); trains on `limit` images where `path` does not exist."""
    test = load("mnist", "test", data_root)
    if not path.exists():
        torch.manual_seed(0)
        model = nets.build("small-cnn")
        fit(
            model,
            ERM(),
            load("mnist", "train", data_root).limit(limit),
            validation=None,
            epochs=epochs,
            batch_size=128,
            optimizer="adam",
            lr=2e-3,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        weights_file.save(path, model)
    return weights_file.load(path).eval(), test


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, default=CHECKPOINT)
    add_data_root(options)
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--limit", type=int, default=60_000, help="of the training images")
    arguments = options.parse_args()
    model, test = trained(arguments.data_root, arguments.out, arguments.epochs, arguments.limit)
    with torch.no_grad():
        accuracy = (model(test.x).argmax(1) == test.y).double().mean()
    print(f"{arguments.out}: test accuracy {accuracy:.2%}")


if __name__ == "__main__":
    main()
