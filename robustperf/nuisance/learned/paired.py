"""`learn_paired`: a model of natural variation from pairs of images (Wong and Kolter 2020)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from robustperf import check
from robustperf.classifier import Classifier, evaluating
from robustperf.nets.paired_generator import PairedGenerator
from robustperf.nuisance.learned.domain import domains_of
from robustperf.nuisance.learned.kernel import LearnedKernel
from robustperf.nuisance.learned.run import LearningRun

_PAIRS = 1000  # that the radius is measured on
_AT_ONCE = 64


def learn_paired(
    x: Any,
    shifted: Any,
    *,
    style_dim: int | None = None,
    iterations: int = 2500,
    out: str | Path | None = None,
    width: int = 16,
    batch_size: int = 8,
    lr: float = 1e-3,
    noise: float = 0.1,
    coverage: float = 0.99,
    downsamplings: int | None = None,
    residual_blocks: int | None = None,
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
    """Learns G(x, delta) from pairs of an image and the same image shifted, by a conditional variational auto-encoder
    (Wong and Kolter 2020, "Learning perturbation sets for robust machine learning").

    The kernel draws delta uniformly in the unit ball of R^q, and its latent values are mean(x) + scale(x) radius delta,
    with the mean and the scale of the prior given x. The radius covers a fraction of the pairs: it is this quantile of
    the norms of (posterior mean - prior mean) / prior scale. delta = 0 is the centre of Delta and not the identity.
    `kernel.generator.delta_of(x, shifted)` is the delta of a pair.

    It runs on `training.fit`, under `torchrun` or `accelerate launch` on many devices, and resumes a run that was
    killed to the same weights. Adam has betas (0.5, 0.999) and a weight decay of 1e-4.

    Args:
        x, shifted: data sets whose labels are not read, or images [N, C, H, W] in [0, 1], with sides divisible by four:
            `shifted` holds in each place what became of the image of `x` in the same place.
        style_dim: q, the dimension of delta; None for 2 below 64 pixels and 8 from there on.
        iterations: updates.
        out: a folder for kernel.safetensors (what `LearnedKernel.load` reads), kernel.png (a picture of it),
            quality.csv, snapshots and the files of `fit`; None for none of them.
        width: channels of the first convolutions.
        batch_size: pairs in an iteration, of all processes together.
        lr: Adam's learning rate.
        noise: the standard deviation of shifted images around G, in units of the pixels. A small one reconstructs
            better; a large one leaves components of delta without an effect.
        coverage: the fraction of the pairs whose delta is in the ball, above 0 and at most 1.
        downsamplings, residual_blocks: of the networks; None for 1 and 1 below 64 pixels, 2 and 4 from there on.
        snapshots: iterations after which the kernel is saved in `out`/snapshots/ITERATION too.
        checkpoint_steps: how often a checkpoint, the kernel, its quality and its picture are written.
        classifier: an oracle, for the label kept in quality.csv.
        seed: of the weights, the pairs and the latent values.
        resume: resume the run in `out`, if there is one, to the same weights.
        mixed_precision: "no", "bf16" or "fp16".
        workers: processes that load samples of a torch data set.
        log_with: trackers of accelerate, such as "tensorboard" (in `out`).
        cpu: use no GPU.
        progress: show a bar on standard error.

    Returns the kernel.

    Raises:
        TypeError, ValueError: a wrong argument; data of two shapes or lengths, the same data twice, pixels outside
            [0, 1], or fewer pairs than a batch; a run in `out` that is not to be resumed, has other settings, or is in
            use by another process.
        FloatingPointError: a loss that is not finite; the kernel of the last checkpoint is in `out`.
        OSError: a file that could not be written.

    >>> x = rp.data.load("digits", "train").x[:200]
    >>> rotated = rp.nuisance.Rotation(30).draw(x, key=1, index=torch.arange(200), draws=1)[0]
    >>> kernel = rp.nuisance.learn_paired(x, rotated, iterations=2, width=4, progress=False)  # 2,500 by default
    >>> kernel.draw(x[:4], key=0, index=torch.arange(4), draws=10).shape
    torch.Size([10, 4, 1, 8, 8])
    """
    from robustperf.training.conditional_vae import ConditionalVae  # a higher floor: nothing else here needs it

    check.number("coverage", coverage, above=0, most=1)
    run = LearningRun(
        *domains_of(x, shifted, names=("x", "shifted")), iterations=iterations, batch_size=batch_size, lr=lr, out=out,
        distribution="ball", snapshots=list(snapshots), checkpoint_steps=checkpoint_steps, classifier=classifier,
        seed=seed, resume=resume, mixed_precision=mixed_precision, workers=workers, log_with=log_with, cpu=cpu,
        progress=progress,
    )  # fmt: skip
    if len(run.a) != len(run.b):
        raise ValueError(f"shifted: expected an image for each of x, {len(run.a)}, got {len(run.b)}")
    with run.initial_weights():
        network = PairedGenerator(run.a.shape[0], width=width, **run.sizes(style_dim, downsamplings, residual_blocks))
    generator = partial(_with_radius, network, run.a.some(_PAIRS)[0], run.b.some(_PAIRS)[0], coverage)
    return run.train(network, ConditionalVae(noise), generator, {"coverage": coverage}, aligned=True)


@torch.no_grad()
def _with_radius(network: PairedGenerator, x: torch.Tensor, shifted: torch.Tensor, coverage: float) -> PairedGenerator:
    """A copy on the CPU whose ball contains the latent values of this fraction of the pairs."""
    found = copy.deepcopy(network).cpu().float()
    found.radius.fill_(1)
    with evaluating(found):
        pairs = zip(x.split(_AT_ONCE), shifted.split(_AT_ONCE), strict=True)
        norms = torch.cat([found.delta_of(*pair).norm(dim=1) for pair in pairs])
    found.radius.fill_(norms.quantile(coverage, interpolation="higher").clamp_min(1e-6))
    return found.eval()
