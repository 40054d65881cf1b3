"""Builds kernels, objectives and networks from the text of options."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial, wraps
from typing import Any

import torch
from torch import nn

from robustperf import nets, nuisance
from robustperf.attacks import PGD
from robustperf.cli.options import LEARNED, NETWORK, is_library, make_network, shape_of
from robustperf.data import Dataset, ImageFolder
from robustperf.expression import build_list, build_sum
from robustperf.files import user_path
from robustperf.kernel import Kernel
from robustperf.names import check_name
from robustperf.training import (
    ADDA,
    ERM,
    MAT,
    MDA,
    MRT,
    AdversarialTraining,
    AugMix,
    CoTrain,
    CrossLipschitz,
    GaussianAugmentation,
    Objective,
)

OF_ANY_SIZE = ("resnet20", "resnet50")


def build_kernel(text: str, shared: bool = False) -> Kernel:
    """The kernel of `text`, a composition if it names several; with `shared` they share one delta.

    A folder of `nuisance learn` is a learned kernel; within a sum it is `learned("FOLDER")`.
    """
    is_path = os.sep in text.partition("(")[0] or (text != "" and os.path.exists(user_path(text)))
    if is_path and text not in nuisance.NAMES:
        return nuisance.LearnedKernel.load(text)
    makers = {**nuisance.KERNELS, LEARNED: nuisance.LearnedKernel.load}
    try:
        kernels = build_sum(text, makers)
    except ValueError as error:
        raise ValueError(f"kernel: {error}") from error
    return kernels[0] if len(kernels) == 1 else nuisance.Compose(kernels, shared=shared)


def build_objective(
    text: str,
    kernel: Kernel | None = None,
    k: int | None = None,
    weight: float | None = None,
    classifier: nn.Module | None = None,
    channels: int = 1,
    target: Dataset | ImageFolder | None = None,
) -> Objective:
    """The objective of `text`; `kernel`, `k` and `weight` are its arguments unless `text` gives them.

    "cotrain" trains `classifier` together with a new generator of images with `channels` channels; "adda" adapts it to
    the images of `target`.

    Raises ValueError that points at the position in `text`, or names the argument that this objective does not take.
    """
    given = {name: value for name, value in {"k": k, "weight": weight}.items() if value is not None}
    weighted = {name: value for name, value in given.items() if name == "weight"}

    def with_kernel(make: Callable[..., Objective]) -> Callable[..., Objective]:
        return _no_kernel if kernel is None else partial(make, kernel, **given)

    makers = {
        "erm": ERM,
        "mrt": with_kernel(_mrt),
        "mat": with_kernel(MAT),
        "mda": with_kernel(MDA),
        "pgd": partial(_pgd, **weighted),
        "gaussian": partial(GaussianAugmentation, **weighted),
        "augmix": partial(_augmix, **weighted),
        "hein": partial(CrossLipschitz, **weighted),
        "cotrain": partial(_cotrain, classifier, channels, **weighted),
        "adda": partial(_adda, target, classifier),
    }
    try:
        objectives = build_list(text, makers)
    except ValueError as error:
        raise ValueError(f"objective: {error}") from error
    if len(objectives) != 1:
        raise ValueError(f"objective: expected one, got {len(objectives)}: {text}")
    taken = {field.name for field in fields(objectives[0])}
    if isinstance(objectives[0], AugMix):
        taken.remove("kernel")  # AugMix has its own kernel
    for name, value in {"kernel": kernel, "target": target, **given}.items():
        if value is not None and name not in taken:
            raise ValueError(f"{name}: expected none for the objective {text}, which does not take it, got {value!r}")
    return objectives[0]


def new_classifier(
    dataset: Dataset | ImageFolder, network: str | None, model: str | None, batch_norm: bool, seed: int
) -> nn.Module:
    """The network of these options for the data set's images, with the initial weights of `seed`."""
    torch.manual_seed(seed)
    if model is None:
        return build_network(network or NETWORK, shape_of(dataset), dataset.classes, batch_norm)
    if network is not None or batch_norm:
        raise ValueError(f"model: expected no --network or --batch-norm with it, got {model}")
    if is_library(model):
        from robustperf.adapters import load_model

        return load_model(model, pretrained=False, num_classes=dataset.classes).train()
    return make_network(model)


def build_network(name: str, shape: tuple[int, int, int], classes: int, batch_norm: bool = False) -> nn.Module:
    """The network `name`, one of `nets.NAMES`, for images of `shape`. Raises ValueError if it cannot take them."""
    check_name("network", name, nets.NAMES)
    channels, height, width = shape
    arguments = {"in_channels": channels, "classes": classes}
    if name not in OF_ANY_SIZE:
        if height != width:
            raise ValueError(f"network: expected square images for {name}, got {height}x{width}; --size resizes them")
        arguments["size"] = height
    if batch_norm:
        if name != NETWORK:
            raise ValueError(f"batch_norm: expected the network {NETWORK}, got {name}")
        arguments["batch_norm"] = True
    try:
        return nets.build(name, **arguments)
    except ValueError as error:
        raise ValueError(f"network: {error}, for images of {height}x{width} pixels; --size resizes them") from error


def _no_kernel(*arguments: Any, **named: Any) -> Objective:
    raise ValueError("expected a model of natural variation, such as --kernel 'brightness(0.4)', got none")


@wraps(MRT)
def _mrt(*arguments: Any, selection_dtype: str | None = None, **named: Any) -> MRT:
    dtypes = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    return MRT(*arguments, selection_dtype=dtypes.get(selection_dtype, selection_dtype), **named)


def _pgd(
    norm: float = math.inf, *, weight: float = AdversarialTraining.weight, **arguments: Any
) -> AdversarialTraining:
    """R A.1's attack in L-infinity, with `arguments` changed; in L2, its number of steps and loss."""
    default = AdversarialTraining.attack
    if norm == default.norm:
        attack = replace(default, **arguments)
    else:
        attack = PGD(norm, **{"steps": default.steps, "loss": default.loss, **arguments})
    return AdversarialTraining(attack, weight)


def _augmix(*arguments: Any, weight: float = AugMix.weight, **named: Any) -> AugMix:
    """`arguments` are those of its kernel."""
    return AugMix(weight, nuisance.AugMix(*arguments, **named))


def _adda(target: Dataset | ImageFolder | None, classifier: nn.Module, **named: Any) -> ADDA:
    if target is None:
        raise ValueError("expected a domain without labels, such as --target brightness:high, got none")
    return ADDA(target, classifier, **named)


def _cotrain(
    classifier: nn.Module,
    channels: int,
    weight: float,
    *,
    width: int = 128,
    layers: int = 3,
    generator_steps: int = CoTrain.generator_steps,
    distance_weight: float = CoTrain.distance_weight,
) -> CoTrain:
    """`width` and `layers` are the generator's."""
    generator = nets.TiboGenerator(channels, width, layers)
    return CoTrain(classifier, generator, weight, generator_steps=generator_steps, distance_weight=distance_weight)
