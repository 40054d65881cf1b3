"""`learn`: a model of natural variation from two unpaired domains (R sections 4.2 and 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustperf.classifier import Classifier
from robustperf.names import SHARES, check_name
from robustperf.nets.munit import MunitDiscriminator, Translator
from robustperf.nets.munit_generator import sizes_for
from robustperf.nuisance.learned.domain import domains_of
from robustperf.nuisance.learned.kernel import LearnedKernel
from robustperf.nuisance.learned.run import LearningRun


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
        distribution: P(Delta) of the kernel: "uniform" on [-1, 1]^q (R section 7.2); "normal", the prior that G is
            learned with; or "ball", uniform in the unit ball.
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
    from robustperf.training.munit import Munit  # a higher floor: nothing else here needs it

    check_name("share", share, SHARES)
    run = LearningRun(
        *domains_of(a, b), iterations=iterations, batch_size=batch_size, lr=lr, out=out, distribution=distribution,
        snapshots=list(snapshots), checkpoint_steps=checkpoint_steps, classifier=classifier, seed=seed, resume=resume,
        mixed_precision=mixed_precision, workers=workers, log_with=log_with, cpu=cpu, progress=progress,
    )  # fmt: skip
    channels, *size = run.a.shape
    with run.initial_weights():
        translator = Translator(
            channels, width=width, share=share, **run.sizes(style_dim, downsamplings, residual_blocks)
        )
        discriminator = MunitDiscriminator(channels, tuple(size), width, sizes_for(*size).layers)
    objective = Munit(discriminator, image, content, style, adversarial, cycle)
    return run.train(translator, objective, translator.generator, {"share": share})
