"""What a report measures: its settings, checked before any work."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch

from robustperf import check
from robustperf.attacks.named import Attacks, attacks_of
from robustperf.data import Dataset, ImageFolder
from robustperf.data.batches import load_batches
from robustperf.data.inputs import Arrays, as_data
from robustperf.kernel import Kernel, check_kernel
from robustperf.names import CORRUPTIONS
from robustperf.nuisance import Brightness, Contrast, GaussianNoise, Rotation, Translation, mnist_c
from robustperf.robustness.confidence import check_confidence

ATTACKS = "tibo,fast"
"""The attacks of a report: those of 2021 and today's, so that the page shows which won."""

NORMS: tuple[float, ...] = (2.0, math.inf, 1.0)
"""The norms of a report."""

Kernels = Mapping[str, Kernel] | Sequence[Kernel]
"""Kernels, with names or named by their `repr`."""

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Plan:
    """The data and the settings of a report; `report` describes them.

    >>> model, digits = rp.nets.build("small-cnn", size=8), rp.data.load("digits", "test")
    >>> few = digits.x[:8], digits.y[:8]
    >>> found = rp.report(model, few, norms=[2], attacks="fgsm", kernels=[rp.nuisance.Rotation(15)], samples=5)
    >>> found.plan.norms, found.plan.samples
    ((2.0,), 5)
    """

    data: Any
    norms: tuple[float, ...]
    attacks: Attacks | None
    kernels: Mapping[str, Kernel]
    corruptions: Mapping[str, Kernel]
    left_out: Mapping[str, str]
    samples: int
    examples: int
    confidence: float
    seed: int
    batch_size: int
    shape: tuple[int, ...]

    def batches(self) -> list[torch.Tensor]:
        """The sample ids of each batch."""
        return list(torch.arange(len(self.data)).split(self.batch_size))

    def ensemble(self, norm: float) -> Attacks:
        """The attacks in this norm, of a model whose margins have no closed form."""
        if self.attacks is not None:
            return self.attacks
        return ATTACKS if norm else "fast"  # the others change every value

    @property
    def name(self) -> str:
        """Of the data."""
        return str(getattr(self.data, "name", type(self.data).__name__))

    @property
    def class_names(self) -> list[str] | None:
        """Those of a folder of images; None where classes have numbers only."""
        return getattr(self.data, "class_names", None)

    @cached_property
    def _digest(self) -> str | None:
        return digest(self.data)  # once for all models

    def settings(self) -> dict[str, Any]:
        """Everything that the results depend on besides the model, as JSON has it."""
        return {
            "data": self.name,
            "data_sha256": self._digest,
            "points": len(self.data),
            "shape": list(self.shape),
            "norms": [f"{norm:g}" for norm in self.norms],
            "attacks": [
                {"name": attack.name, **{name: str(value) for name, value in asdict(attack).items()}}
                for norm in self.norms
                for attack in attacks_of(self.ensemble(norm), norm)
            ],
            "closed_form": self.attacks is None,
            "kernels": {name: repr(kernel) for name, kernel in self.kernels.items()},
            "corruptions": list(self.corruptions),
            "samples": self.samples,
            "examples": self.examples,
            "confidence": self.confidence,
            "seed": self.seed,
            "batch_size": self.batch_size,
        }


def plan(
    data: Any,
    *,
    norms: Sequence[float | str],
    attacks: Attacks | None,
    kernels: Kernels | None,
    corruptions: bool | None,
    samples: int,
    examples: int,
    confidence: float,
    seed: int,
    batch_size: int,
) -> Plan:
    """The checked `Plan` of these arguments of `report`."""
    data = as_data("data", data)
    if not len(data):
        raise ValueError("data: expected at least one sample, got an empty data set")
    norms = tuple(check.norm(norm, zero=True) for norm in norms)
    if not norms or len(set(norms)) < len(norms):
        raise ValueError(f"norms: expected at least one, each once, got {[f'{norm:g}' for norm in norms]}")
    for norm in norms if attacks is not None else ():
        attacks_of(attacks, norm)
    x, _, index = next(load_batches(data, [torch.zeros(1, dtype=torch.int64)], _CPU))
    check.images("data", x, (0.0, 1.0))
    images = x.dim() == 4
    chosen, left_out = {}, {}
    if kernels is not None:
        named = kernels if isinstance(kernels, Mapping) else {repr(kernel): kernel for kernel in kernels}
        for kernel in named.values():
            check_kernel(kernel)
        if named and not images:
            raise ValueError(f"kernels: expected none for data that are not images [C, H, W], got {list(named)}")
        for kernel in named.values():
            _draw(kernel, x, index)  # raises now, not after hours, for a kernel that does not take the images
        chosen = dict(named)
    elif images:
        chosen, left_out = _taken(_defaults(), x, index)
    suite: dict[str, Kernel] = {}
    if corruptions or (corruptions is None and images and x.shape[1] == 1):
        if not images:
            raise ValueError(f"corruptions: expected images [C, H, W], got samples of shape {list(x.shape[1:])}")
        suite, further = _taken({name: mnist_c(name) for name in CORRUPTIONS if name != "identity"}, x, index)
        left_out |= further
    return Plan(
        data=data, norms=norms, attacks=attacks, kernels=chosen, corruptions=suite, left_out=left_out,
        samples=check.integer("samples", samples, 1), examples=check.integer("examples", examples, 0),
        confidence=check_confidence(confidence), seed=check.integer("seed", seed, 0),
        batch_size=check.integer("batch_size", batch_size, 1), shape=tuple(x.shape[1:]),
    )  # fmt: skip


def digest(data: Any) -> str | None:
    """SHA-256 of images and labels in memory; of a folder of images, of its name and labels; None of other data."""
    if not isinstance(data, Dataset | Arrays | ImageFolder):
        return None
    found = hashlib.sha256()
    for values in (data.y,) if isinstance(data, ImageFolder) else (data.x, data.y):
        found.update(f"{values.dtype} {list(values.shape)}".encode())
        found.update(values.contiguous().numpy().data if values.numel() else b"")
    return found.hexdigest()


def _defaults() -> dict[str, Kernel]:
    """Kernels by their text on the command line."""
    return {
        "rotation(15)": Rotation(15),
        "translation(0.1)": Translation(0.1),
        "brightness(0.3)": Brightness(0.3),
        "contrast(0.3)": Contrast(0.3),
        "gaussian_noise(0.1)": GaussianNoise(0.1),
    }


def _taken(
    kernels: Mapping[str, Kernel], x: torch.Tensor, index: torch.Tensor
) -> tuple[dict[str, Kernel], dict[str, str]]:
    """(the kernels that take images like x, the others with the reason)."""
    taken, left_out = {}, {}
    for name, kernel in kernels.items():
        try:
            _draw(kernel, x, index)
            taken[name] = kernel
        except (ValueError, TypeError) as error:
            left_out[name] = str(error)
    return taken, left_out


def _draw(kernel: Kernel, x: torch.Tensor, index: torch.Tensor) -> None:
    if kernel.defined(x).all():
        kernel.draw(x, key=0, index=index)


def norm_name(norm: float) -> str:
    """L₂, as text."""
    return {0: "L₀", 1: "L₁", 2: "L₂", math.inf: "L∞"}[norm]
