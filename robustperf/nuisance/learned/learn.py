"""`learn`: a model of natural variation from two unpaired domains (R sections 4.2 and 4.3)."""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from robustperf import check, random
from robustperf.classifier import Classifier
from robustperf.files import atomic_write, user_path
from robustperf.names import PRECISIONS, SHARES, check_name
from robustperf.nets.munit import MunitDiscriminator, Translator
from robustperf.nets.munit_generator import sizes_for
from robustperf.nuisance.learned.domain import Domain, Pairs, domains_of
from robustperf.nuisance.learned.generator_kernel import DISTRIBUTIONS
from robustperf.nuisance.learned.kernel import FILE, LearnedKernel
from robustperf.nuisance.learned.quality import KernelQuality, measure

if TYPE_CHECKING:
    from accelerate import Accelerator

_MEASURED = 128  # images of each domain, for the quality while it learns
_SHOWN, _DRAWS = 5, 5  # images and draws of the picture


def learn(
    a: Any,
    b: Any,
    *,
    style_dim: int | None = None,
    iterations: int = 2500,
    out: str | Path | None = None,
    share: str = "all",
    width: int = 16,
    batch_size: int = 2,
    lr: float = 4e-4,
    image: float = 10.0,
    content: float = 1.0,
    style: float = 1.0,
    adversarial: float = 1.0,
    cycle: float = 10.0,
    downsamplings: int | None = None,
    residual_blocks: int | None = None,
    distribution: str = "uniform",
    snapshots: Sequence[int] = (),
    checkpoint_steps: int = 250,
    classifier: Classifier | None = None,
    seed: int = 0,
    resume: bool = False,
    mixed_precision: str = "no",
    workers: int = 0,
    log_with: str | list[str] | None = None,
    cpu: bool = False,
    progress: bool = True,
) -> LearnedKernel:
    """Learns G(x, delta) with P_B = G # (P_A x P_Delta) (R equation 4.3) by MUNIT, from two data sets of images without
    labels and without pairs.

    The defaults learn in minutes on a CPU. Those of R (Table 8) are `share="none", width=64, batch_size=1, lr=1e-4,
    cycle=0`, with some 10^5 iterations on a GPU. It runs on `training.fit`: under `torchrun` or `accelerate launch` on
    many devices; and it resumes a run that was killed, to the same weights, bit for bit on the same hardware. Adam has
    betas (0.5, 0.999) and a weight decay of 1e-4.

    Args:
        a, b: domains A and B: data sets whose labels are not read, or images [N, C, H, W] in [0, 1]; grey, RGB or of
            any number of channels, with sides divisible by four. Only a mapping from A to B is returned.
        style_dim: q, the dimension of delta; None for 2 below 64 pixels and 8 from there on (R section 7.2).
        iterations: updates of the translator, and as many of the discriminators.
        out: a folder for kernel.safetensors (what `LearnedKernel.load` reads), kernel.png (a picture of it),
            quality.csv, snapshots and the files of `fit`; None for none of them.
        share: which weights the two domains share: "none", the paper's form; "content", the content encoder; or "all",
            the decoder too. Separate weights get the brightness right and lose the label unless they train much longer.
        width: channels of the first convolutions.
        batch_size: pairs of images in an iteration, of all processes together.
        lr: Adam's learning rate.
        image, content, style, adversarial, cycle: the weights of the losses: of reconstructing images, content and
            style codes, of the least-squares GAN, and of images mapped to the other domain and back.
        downsamplings, residual_blocks: of the networks; None for 1 and 1 below 64 pixels, 2 and 4 from there on.
        distribution: P(Delta) of the kernel: "uniform" on [-1, 1]^q (R section 7.2) or "normal", the prior that G is
            learned with.
        snapshots: iterations after which the kernel is saved in `out`/snapshots/ITERATION too (R section 7.1).
        checkpoint_steps: how often a checkpoint, the kernel, its quality and its picture are written.
        classifier: an oracle, for the label kept in quality.csv.
        seed: of the weights, the pairs and the styles.
        resume: resume the run in `out`, if there is one, to the same weights.
        mixed_precision: "no", "bf16" or "fp16".
        workers: processes that load samples of a torch data set.
        log_with: trackers of accelerate, such as "tensorboard" (in `out`).
        cpu: use no GPU.
        progress: show a bar on standard error.

    Returns the kernel.

    Raises:
        TypeError, ValueError: a wrong argument; domains of different shapes, one domain given twice, pixels outside
            [0, 1], or fewer images than a batch; a run in `out` that is not to be resumed, has other settings, or is in
            use by another process.
        FloatingPointError: a loss that is not finite; the kernel of the last checkpoint is in `out`.
        OSError: a file that could not be written.

    >>> dark = rp.data.load("digits", "train").x[:200]
    >>> bright = (rp.data.load("digits", "train").x[200:400] + 0.4).clamp(max=1)
    >>> kernel = rp.nuisance.learn(dark, bright, iterations=2, width=4, progress=False)  # 2,500 by default
    >>> kernel.draw(dark[:4], key=rp.random.key(0), index=torch.arange(4), draws=10).shape
    torch.Size([10, 4, 1, 8, 8])
    """
    # a higher floor: nothing else here needs it
    from robustperf.training import fit
    from robustperf.training.accelerator import accelerator_for
    from robustperf.training.munit import Munit

    iterations, batch_size, seed, snapshots, checkpoint_steps = check.plain(
        (iterations, batch_size, seed, list(snapshots), checkpoint_steps)
    )
    counts = {"iterations": iterations, "batch_size": batch_size, "checkpoint_steps": checkpoint_steps}
    for name, value in counts.items():
        check.integer(name, value, 1)
    for step in snapshots:
        check.integer("snapshots", step, 1, iterations)
    check.number("lr", lr, above=0)
    check_name("share", share, SHARES)
    check_name("distribution", distribution, DISTRIBUTIONS)
    check_name("mixed_precision", mixed_precision, PRECISIONS)
    if out is None and (snapshots or resume or log_with == "tensorboard"):
        raise ValueError("out: expected a folder for snapshots, checkpoints and logs, got None")
    one, other = domains_of(a, b)
    for domain in (one, other):
        if len(domain) < batch_size:
            raise ValueError(
                f"{domain.name}: expected at least one batch of {batch_size} images, got {len(domain)}: {domain.title}"
            )
    channels, *size = one.shape
    default = sizes_for(*size)
    sizes = {
        "style_dim": default.style_dim if style_dim is None else style_dim,
        "downsamplings": default.downsamplings if downsamplings is None else downsamplings,
        "residual_blocks": default.residual_blocks if residual_blocks is None else residual_blocks,
    }
    check.integer("downsamplings", sizes["downsamplings"], 1, 2)
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(random.key(seed))
        translator = Translator(channels, width=width, share=share, **sizes)
        discriminator = MunitDiscriminator(channels, tuple(size), width, default.layers)
    objective = Munit(discriminator, image, content, style, adversarial, cycle)
    folder = None if out is None else user_path(out)
    run = _Run(translator, one, other, folder, distribution, set(snapshots), checkpoint_steps, iterations, classifier)
    run.quality(run.kernel(0), 1)  # a classifier that does not take the images is an error now
    with ExitStack() as stack:
        accelerator = stack.enter_context(accelerator_for(mixed_precision, log_with, out, cpu))
        try:
            fit(
                translator,
                objective,
                Pairs(one, other, iterations * batch_size),
                validation=None,
                epochs=1,
                batch_size=batch_size,
                optimizer=partial(torch.optim.Adam, betas=(0.5, 0.999), weight_decay=1e-4, fused=True),
                lr=lr,
                seed=seed,
                out=out,
                resume=resume,
                checkpoint_steps=None if out is None else checkpoint_steps,
                workers=workers,
                log_with=log_with,
                progress=progress,
                accelerator=accelerator,
                after_step=None if out is None else partial(run.after_step, accelerator),
            )
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}{run.describe_kernel()}") from None
    return run.kernel(iterations)


@dataclass
class _Run:
    """What `learn` writes beside the files of `fit`."""

    translator: Translator
    a: Domain
    b: Domain
    out: Path | None
    distribution: str
    snapshots: set[int]
    every: int
    iterations: int
    classifier: Classifier | None

    def kernel(self, step: int) -> LearnedKernel:
        """The kernel of the translator's current weights."""
        facts = {
            "iterations": step,
            "a": self.a.title,
            "b": self.b.title,
            "image_shape": list(self.a.shape),
            "share": self.translator.settings["share"],
        }
        return LearnedKernel(self.translator.generator(), distribution=self.distribution, facts=facts)

    def after_step(self, accelerator: Accelerator, step: int) -> None:
        regular = step % self.every == 0 or step == self.iterations
        if not regular and step not in self.snapshots:
            return
        assert self.out is not None
        kernel = self.kernel(step)
        try:
            if step in self.snapshots:
                kernel.save(self.out / "snapshots" / str(step))
            if regular:
                kernel.save(self.out)
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
        if self.out is None or not (self.out / FILE).exists():
            return ""
        step = LearnedKernel.load(self.out).facts.get("iterations")
        return f"; {self.out / FILE} is the kernel of iteration {step}"

    def _log(self, step: int, quality: KernelQuality, accelerator: Accelerator) -> None:
        """Adds the row of this iteration to quality.csv and to the trackers."""
        assert self.out is not None
        values = {name: value for name, value in vars(quality).items() if isinstance(value, float)}
        path, rows = self.out / "quality.csv", []
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

        assert self.out is not None
        x, target = self.a.some(_SHOWN)[0], self.b.some(_SHOWN)[0]
        if x.shape[1] not in (1, 3, 4):
            return
        drawn = kernel.draw(x, key=0, index=torch.arange(len(x)), draws=_DRAWS)
        if len(target) == len(x):
            drawn = torch.cat([target[None], drawn])
        names = ["B"] * (len(drawn) - _DRAWS) + [f"G(x, δ{number})" for number in range(1, _DRAWS + 1)]
        title = f"{self.a.title} to {self.b.title}, iteration {step}"
        image_grid(x, drawn, path=self.out / "kernel.png", title=title, names=names)
        for tracker in accelerator.trackers:
            if tracker.name == "tensorboard":
                rows = torch.cat([x[None], drawn]).transpose(0, 1)  # [images, 1 + draws, C, H, W]
                grid = torch.cat(list(torch.cat(list(rows.unbind(0)), 2).unbind(0)), 2)
                grid = (grid if len(grid) > 1 else grid.expand(3, -1, -1))[:3]
                tracker.log_images({"kernel": grid[None].numpy()}, step=step)
