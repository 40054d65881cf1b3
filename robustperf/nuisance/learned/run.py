"""One run of `learn` or `learn_paired`: its checks, the call of `fit`, and what it writes beside the files of `fit`."""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from robustperf import check, random
from robustperf.classifier import Classifier
from robustperf.files import atomic_write, user_path
from robustperf.names import PRECISIONS, check_name
from robustperf.nets.munit_generator import MunitGenerator, sizes_for
from robustperf.nuisance.learned.domain import Domain, Pairs
from robustperf.nuisance.learned.generator_kernel import DISTRIBUTIONS
from robustperf.nuisance.learned.kernel import FILE, LearnedKernel
from robustperf.nuisance.learned.quality import KernelQuality, measure

if TYPE_CHECKING:
    from accelerate import Accelerator

_MEASURED = 128  # images of each domain, for the quality while it learns
_SHOWN, _DRAWS = 5, 5  # images and draws of the picture


@dataclass
class LearningRun(check.Settings):
    """The settings that `learn` and `learn_paired` have in common, as they describe them; `a` and `b` are checked.

    Raises TypeError or ValueError for a wrong one.
    """

    a: Domain
    b: Domain
    iterations: int
    batch_size: int
    lr: float
    out: str | Path | None
    distribution: str
    snapshots: Sequence[int]
    checkpoint_steps: int
    classifier: Classifier | None
    seed: int
    resume: bool
    mixed_precision: str
    workers: int
    log_with: str | list[str] | None
    cpu: bool
    progress: bool
    generator: Callable[[], MunitGenerator] = field(init=False)
    facts: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "checkpoint_steps"):
            check.integer(name, getattr(self, name), 1)
        for step in self.snapshots:
            check.integer("snapshots", step, 1, self.iterations)
        check.number("lr", self.lr, above=0)
        check_name("distribution", self.distribution, DISTRIBUTIONS)
        check_name("mixed_precision", self.mixed_precision, PRECISIONS)
        if self.out is None and (self.snapshots or self.resume or self.log_with == "tensorboard"):
            raise ValueError("out: expected a folder for snapshots, checkpoints and logs, got None")
        for domain in (self.a, self.b):
            if len(domain) < self.batch_size:
                raise ValueError(
                    f"{domain.name}: expected at least one batch of {self.batch_size} images, got {len(domain)}: "
                    f"{domain.title}"
                )
        self.folder: Path | None = None if self.out is None else user_path(self.out)

    def sizes(self, style_dim: int | None, downsamplings: int | None, residual_blocks: int | None) -> dict[str, int]:
        """The arguments of the networks; None for those of the images' size."""
        default = sizes_for(*self.a.shape[1:])
        sizes = {
            "style_dim": default.style_dim if style_dim is None else style_dim,
            "downsamplings": default.downsamplings if downsamplings is None else downsamplings,
            "residual_blocks": default.residual_blocks if residual_blocks is None else residual_blocks,
        }
        check.integer("downsamplings", sizes["downsamplings"], 1, 2)
        return sizes

    @contextmanager
    def initial_weights(self) -> Iterator[None]:
        """Inside, networks are created with the initial weights of the seed."""
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(random.key(self.seed))
            yield

    def train(
        self,
        network: nn.Module,
        objective: Callable[..., Any],
        generator: Callable[[], MunitGenerator],
        facts: dict[str, Any],
        *,
        aligned: bool = False,
    ) -> LearnedKernel:
        """Trains `network` on pairs of images and returns the kernel of `generator()`.

        Args:
            facts: of the kernel, beside those of every run.
            aligned: whether the pairs are of images in the same place of both domains.

        Raises as `learn`.
        """
        # a higher floor: nothing else here needs it
        from robustperf.training import fit
        from robustperf.training.accelerator import accelerator_for

        self.generator, self.facts = generator, facts
        self.quality(self.kernel(0), 1)  # a classifier that does not take the images is an error now
        with ExitStack() as stack:
            accelerator = stack.enter_context(accelerator_for(self.mixed_precision, self.log_with, self.out, self.cpu))
            try:
                fit(
                    network,
                    objective,
                    Pairs(self.a, self.b, self.iterations * self.batch_size, aligned),
                    validation=None,
                    epochs=1,
                    batch_size=self.batch_size,
                    optimizer=partial(torch.optim.Adam, betas=(0.5, 0.999), weight_decay=1e-4, fused=True),
                    lr=self.lr,
                    seed=self.seed,
                    out=self.out,
                    resume=self.resume,
                    checkpoint_steps=None if self.out is None else self.checkpoint_steps,
                    workers=self.workers,
                    log_with=self.log_with,
                    progress=self.progress,
                    accelerator=accelerator,
                    after_step=None if self.out is None else partial(self.after_step, accelerator),
                )
            except FloatingPointError as error:
                raise FloatingPointError(f"{error}{self.describe_kernel()}") from None
        return self.kernel(self.iterations)

    def kernel(self, step: int) -> LearnedKernel:
        """The kernel of the current weights."""
        facts = {"iterations": step, "a": self.a.title, "b": self.b.title, "image_shape": list(self.a.shape)}
        return LearnedKernel(self.generator(), distribution=self.distribution, facts=facts | self.facts)

    def after_step(self, accelerator: Accelerator, step: int) -> None:
        regular = step % self.checkpoint_steps == 0 or step == self.iterations
        if not regular and step not in self.snapshots:
            return
        assert self.folder is not None
        kernel = self.kernel(step)
        try:
            if step in self.snapshots:
                kernel.save(self.folder / "snapshots" / str(step))
            if regular:
                kernel.save(self.folder)
        except ValueError as error:
            raise FloatingPointError(f"iteration {step}: {error}") from None
        self._log(step, self.quality(kernel, _MEASURED), accelerator)
        try:
            self._draw(kernel, step, accelerator)
        except Exception as error:  # matplotlib may raise anything, and the results are there
            warnings.warn(f"learn: the picture could not be drawn: {check.line_of(error)}", stacklevel=2)

    def quality(self, kernel: LearnedKernel, limit: int) -> KernelQuality:
        """Its figures on a few images of both domains."""
        return measure(kernel, self.a, self.b, classifier=self.classifier, limit=limit, key=0, batch_size=_MEASURED)

    def describe_kernel(self) -> str:
        """What an error says of the kernel that is saved."""
        if self.folder is None or not (self.folder / FILE).exists():
            return ""
        step = LearnedKernel.load(self.folder).facts.get("iterations")
        return f"; {self.folder / FILE} is the kernel of iteration {step}"

    def _log(self, step: int, quality: KernelQuality, accelerator: Accelerator) -> None:
        """Adds the row of this iteration to quality.csv and to the trackers."""
        assert self.folder is not None
        values = {name: value for name, value in vars(quality).items() if isinstance(value, float)}
        path, rows = self.folder / "quality.csv", []
        if path.exists():
            with open(path, newline="") as file:
                rows = [row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) < step]
        with atomic_write(path) as partial_path, open(partial_path, "w", newline="") as file:
            csv.writer(file).writerows([["iteration", *values], *rows, [step, *values.values()]])
        if accelerator.trackers:
            finite = {f"quality/{name}": value for name, value in values.items() if not math.isnan(value)}
            accelerator.log(finite, step=step)

    def _draw(self, kernel: LearnedKernel, step: int, accelerator: Accelerator) -> None:
        from robustperf.plot import image_grid

        assert self.folder is not None
        x, target = self.a.some(_SHOWN)[0], self.b.some(_SHOWN)[0]
        if x.shape[1] not in (1, 3, 4):
            return
        drawn = kernel.draw(x, key=0, index=torch.arange(len(x)), draws=_DRAWS)
        if len(target) == len(x):
            drawn = torch.cat([target[None], drawn])
        names = ["B"] * (len(drawn) - _DRAWS) + [f"G(x, δ{number})" for number in range(1, _DRAWS + 1)]
        title = f"{self.a.title} to {self.b.title}, iteration {step}"
        image_grid(x, drawn, path=self.folder / "kernel.png", title=title, names=names)
        for tracker in accelerator.trackers:
            if tracker.name == "tensorboard":
                rows = torch.cat([x[None], drawn]).transpose(0, 1)  # [images, 1 + draws, C, H, W]
                grid = torch.cat(list(torch.cat(list(rows.unbind(0)), 2).unbind(0)), 2)
                grid = (grid if len(grid) > 1 else grid.expand(3, -1, -1))[:3]
                tracker.log_images({"kernel": grid[None].numpy()}, step=step)
