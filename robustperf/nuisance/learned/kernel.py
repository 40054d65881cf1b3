"""The kernel that `learn` returns."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from typing import Any

import torch

from robustperf import check
from robustperf.files import user_path
from robustperf.nets import weights_file
from robustperf.nets.munit_generator import Encoded, MunitGenerator
from robustperf.nets.paired_generator import PairedGenerator
from robustperf.nuisance.learned.generator_kernel import IMAGES_AT_ONCE, GeneratorKernel
from robustperf.ops.program import Shape
from robustperf.tangents import has_tangent

FILE = "kernel.safetensors"
_FORMAT = "learned kernel 1"
_GENERATORS: dict[str, type[MunitGenerator]] = {"munit": MunitGenerator, "paired": PairedGenerator}
_KEPT = 2**28  # bytes of content that are kept between calls, at most


class LearnedKernel(GeneratorKernel):
    """x' = G(x, delta) with a learned G (R section 4.3): the content of x is encoded once for all draws, and decoded
    with each draw's delta as the style.

    The content of the last images is kept, so that the calls of one training step encode them once. On a CPU 64 images
    are decoded at a time, whose activations fit the cache. G takes images of any size that is divisible by
    2^downsamplings, also of data that it was not learned on (R section 6.4). delta = 0 is the centre of Delta, and not
    the identity: G(x, 0) is an image of domain B.

    A draw depends on key, sample id and draw index only, to the rounding of the convolutions, which may differ with the
    number of images.

    Args:
        generator: G.
        distribution: of delta, "uniform" on [-1, 1]^q (R section 7.2); "normal", the prior that G was learned with; or
            "ball", uniform in the unit ball, as for G of `learn_paired`.
        facts: about the run that learned it, as JSON has them; saved with it.

    Raises TypeError or ValueError for a wrong argument; when called, for images with other channels than those that G
    was learned on, of a size that it does not take, or with pixels outside [0, 1].

    >>> dark = rp.data.load("digits", "train").x[:100]
    >>> rp.nuisance.learn(dark, 1 - dark, iterations=1, width=4, progress=False).save("g")
    >>> kernel = LearnedKernel.load("g")
    >>> kernel.draw(dark[:4], key=0, index=torch.arange(4), draws=10).shape
    torch.Size([10, 4, 1, 8, 8])
    """

    generator: MunitGenerator
    facts: dict[str, Any]

    def __init__(
        self, generator: MunitGenerator, *, distribution: str = "uniform", facts: Mapping[str, Any] | None = None
    ) -> None:
        if type(generator) not in _GENERATORS.values():
            raise TypeError(
                f"generator: expected a MunitGenerator or a PairedGenerator, got {type(generator).__name__}"
            )
        super().__init__(generator.settings["style_dim"], distribution)
        self.generator = copy.deepcopy(generator).cpu().float().eval().requires_grad_(False)
        self.facts = dict(facts or {})
        self._digest = weights_file.digest_of(weights_file.weights_of(self.generator))
        self._forget()

    def _forget(self) -> None:
        self._copies: dict[tuple[torch.device, torch.dtype], MunitGenerator] = {}
        self._kept: tuple[torch.Tensor, int, Encoded] | None = None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes kernel.safetensors, the weights of G with its settings as JSON in the header, into the folder `path`,
        which is created. Atomic.

        Raises ValueError for weights that are not finite, OSError where the file cannot be written.
        """
        weights = weights_file.weights_of(self.generator)
        for name, value in weights.items():
            check.finite(name, value)
        folder = user_path(path)
        folder.mkdir(parents=True, exist_ok=True)
        kind = next(name for name, generator in _GENERATORS.items() if type(self.generator) is generator)
        settings = {
            "kind": kind, "generator": self.generator.settings, "distribution": self.law, "facts": self.facts
        }  # fmt: skip
        header = {"robustperf": _FORMAT, "settings": json.dumps(settings, sort_keys=True)}
        weights_file.write(folder / FILE, weights, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LearnedKernel:
        """The kernel in a folder of `learn` or `save`, or in the file kernel.safetensors itself.

        Raises FileNotFoundError where there is none; ValueError for a file that is damaged, that is not of a learned
        kernel, or whose weights are not those of its settings.
        """
        path = user_path(path)
        file = path / FILE if path.is_dir() else path
        if not file.exists():
            raise FileNotFoundError(f"kernel: no file {file}; `learn` and `save` write one")
        weights, header = weights_file.read(file)
        if header.get("robustperf") != _FORMAT:
            raise ValueError(f"kernel: {file}: expected a file of robustperf's LearnedKernel.save, got another")
        try:
            settings = json.loads(header["settings"])
            kind = _GENERATORS[settings.get("kind", "munit")]
            with torch.device("meta"):  # no memory for the sizes in the header before the weights have them
                described = kind(**settings["generator"])
            weights_file.load_weights(described, {name: value.to("meta") for name, value in weights.items()})
            with torch.random.fork_rng([]):  # the initial weights, which are replaced
                generator = kind(**settings["generator"])
            weights_file.load_weights(generator, weights)
            for name, value in weights.items():
                check.finite(name, value)
            return cls(generator, distribution=settings["distribution"], facts=settings["facts"])
        except (*weights_file.FAULTS, LookupError, AttributeError) as error:
            raise ValueError(f"kernel: {file} cannot be loaded: {check.line_of(error)}") from error

    def dim_for(self, shape: Shape | None) -> int:
        if shape is not None:
            self._check_shape(shape)
        return self.q

    def generate(self, x: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        at_once = IMAGES_AT_ONCE if x.device.type == "cpu" else len(x) * len(delta)
        network = self._network(x.device, x.dtype)
        begun = self._encoded(network, x, min(at_once, len(x)))
        parts = []
        for first in range(0, len(x), at_once):
            rows = slice(first, first + at_once)
            some = tuple(each[rows] for each in begun)
            width = len(x[rows])
            made = [
                network.decode(some, styles.flatten(0, 1)).unflatten(0, (len(styles), width))
                for styles in delta[:, rows].split(max(1, at_once // width))
            ]
            parts.append(made[0] if len(made) == 1 else torch.cat(made))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def _encoded(self, network: MunitGenerator, x: torch.Tensor, at_once: int) -> Encoded:
        """What `decode` needs of x, kept for the next call with the same images."""
        keeps = not (x.requires_grad and torch.is_grad_enabled()) and not torch.is_inference_mode_enabled()
        keeps = keeps and not torch.compiler.is_compiling() and not has_tangent(x)
        if keeps and self._kept is not None and self._same(x):
            return self._kept[2]
        parts = [network.encode(part) for part in x.split(at_once)]
        begun = parts[0] if len(parts) == 1 else tuple(torch.cat(each) for each in zip(*parts, strict=True))
        if keeps and sum(each.nbytes for each in begun) <= _KEPT:
            # on a CPU the values are compared, so that writes that torch does not count are seen too
            self._kept = (x.detach().clone() if x.device.type == "cpu" else x, x._version, begun)
        return begun

    def _same(self, x: torch.Tensor) -> bool:
        """Whether x are the images of the content that is kept."""
        assert self._kept is not None
        kept, version, _ = self._kept
        if x.device.type != "cpu":  # comparing values would synchronise with the host
            return kept is x and version == x._version
        return kept.dtype == x.dtype and kept.device == x.device and torch.equal(kept, x)

    def _network(self, device: torch.device, dtype: torch.dtype) -> MunitGenerator:
        """G on this device and in this dtype."""
        if (device.type, dtype) == ("cpu", torch.float32):
            return self.generator
        where = (device, dtype)
        if where not in self._copies:
            self._copies[where] = copy.deepcopy(self.generator).to(device, dtype)
        return self._copies[where]

    def _check_shape(self, shape: Shape) -> None:
        channels, height, width = shape
        expected, divisor = self.generator.settings["in_channels"], 2 ** self.generator.settings["downsamplings"]
        if channels != expected:
            raise ValueError(f"x: expected images with {expected} channels for {self!r}, got shape {list(shape)}")
        least = 2 * divisor  # the content has at least two pixels a side, as instance normalisation needs
        if height % divisor or width % divisor or min(height, width) < least:
            raise ValueError(
                f"x: expected images with sides of at least {least} pixels that are divisible by {divisor} for "
                f"{self!r}, got shape {list(shape)}"
            )

    def _equal_by(self) -> dict[str, Any]:
        return {"settings": self.generator.settings, "weights": self._digest, "law": self.law}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_copies", "_kept")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def __repr__(self) -> str:
        return f"learned(dim={self.q}, distribution={self.law!r}, weights={self._digest[:8]})"
