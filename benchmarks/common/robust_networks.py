"""The networks on which the tightness of margins is measured: of our own making, by a deterministic recipe, cached."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from robustperf import nets
from robustperf.attacks import PGD
from robustperf.data import Dataset, load
from robustperf.names import ROOT_VARIABLE
from robustperf.nets import weights_file
from robustperf.training import ERM, AdversarialTraining, CrossLipschitz, Objective, fit

from .certified import IntervalBounds
from .options import ROOT
from .other_networks import LargeImages, Transformer

FOLDER = ROOT / "runs" / "tightness"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        data: the data set, its name or its folder below the data root.
        objectives: make the training objectives, one after the other.
        epochs, samples, batch_size: of the training with each; the first so many samples.
        network: makes the network.
        every: only each n-th training image: GTSRB's are sorted by class.
        size: the side that the images are resized to, bilinearly; None keeps them.
        of: another recipe's name; the network is that one's with its logits times `scale`.
    """

    data: str
    objectives: tuple[Callable[[], Objective], ...] = (ERM,)
    epochs: int = 2
    samples: int = 60000
    batch_size: int = 128
    network: Callable[[], torch.nn.Module] = nets.SmallCNN
    every: int = 1
    size: int | None = None
    of: str | None = None
    scale: float = 1.0


def _against(norm: float, eps: float, step: float | None = None) -> Callable[[], Objective]:
    return lambda: AdversarialTraining(PGD(norm, eps=eps, step=step, steps=7, loss="cross_entropy"))


_GROWING = (0.0, 1e-3, 2e-3, 4e-3, 8e-3, 0.015, 0.03, 0.05, 0.08, 0.12, 0.15, 0.15)

RECIPES = {
    "mnist plain": Recipe("mnist"),
    "mnist small logits": Recipe("mnist", of="mnist plain", scale=1e-3),
    "mnist large logits": Recipe("mnist", of="mnist plain", scale=1e3),
    "mnist Lipschitz": Recipe("mnist", (lambda: CrossLipschitz(0.1),), samples=10000),
    "mnist L2": Recipe("mnist", (_against(2, 1.5),), samples=10000),
    "mnist Linf": Recipe("mnist", (_against(math.inf, 0.2, 0.05),), epochs=3, samples=10000),
    "fashion plain": Recipe("fashion-mnist"),
    "fashion L2": Recipe("fashion-mnist", (_against(2, 1.0),), samples=10000),
    "fashion Linf": Recipe("fashion-mnist", (_against(math.inf, 0.1, 0.025),), samples=10000),
    "mnist certified": Recipe(
        "mnist", tuple(partial(IntervalBounds, eps) for eps in _GROWING), epochs=1, samples=10000
    ),
    "cifar resnet20": Recipe(
        "cifar10-prefix", epochs=10, samples=5085, batch_size=64, network=partial(nets.ResNet20, classes=10)
    ),
    "gtsrb transformer": Recipe("gtsrb32", epochs=6, network=partial(Transformer, 43), every=2),
    "gtsrb 224": Recipe("gtsrb32", epochs=4, batch_size=32, network=partial(LargeImages, 43), every=5, size=224),
}


class Scaled(torch.nn.Module):
    """A network whose logits are multiplied by a number."""

    def __init__(self, network: torch.nn.Module, scale: float) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x) * self.scale


def network(name: str, data_root: Path | None = None, folder: Path = FOLDER) -> torch.nn.Module:
    """The network of a recipe in eval mode, without gradients of its parameters; trained where `folder` has no file."""
    recipe = RECIPES[name]
    if recipe.of is not None:
        return Scaled(network(recipe.of, data_root, folder), recipe.scale).eval()
    torch.manual_seed(0)
    model = recipe.network()
    path = folder / f"{name.lower().replace(' ', '_')}.safetensors"
    if not path.exists():
        train = split(recipe, "train", data_root, slice(0, recipe.samples, recipe.every))
        for objective in recipe.objectives:
            fit(
                model,
                objective(),
                train,
                validation=None,
                epochs=recipe.epochs,
                batch_size=recipe.batch_size,
                optimizer="adam",
                lr=2e-3,
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        weights_file.save(path, model)
    return weights_file.load(path, model).eval().requires_grad_(False)


def split(recipe: Recipe, which: str, data_root: Path | None, rows: slice) -> Dataset:
    """Rows of a split of a recipe's data set: of a known layout, or WHICH.npz in its folder below the data root."""
    file = (data_root or Path(os.environ.get(ROOT_VARIABLE, "data"))) / recipe.data / f"{which}.npz"
    dataset = load(file) if file.exists() else load(recipe.data, which, data_root)
    dataset = dataset.rows(torch.arange(len(dataset))[rows])
    return dataset if recipe.size is None else dataset.resized(recipe.size)


def points(name: str, model: torch.nn.Module, count: int, data_root: Path | None = None) -> tuple[torch.Tensor, ...]:
    """(x, labels, ids): the first `count` test images that the network labels rightly."""
    test = split(RECIPES[name], "test", data_root, slice(0, 4 * count + 100))
    x, y = test.x, test.y
    with torch.no_grad():
        ids = (model(x).argmax(1) == y).nonzero()[:count, 0]
    return x[ids], y[ids], ids
