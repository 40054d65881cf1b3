"""Co-training of a classifier and a generator of adversarial examples (Tibo et al. 2021, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from robustperf import check, random
from robustperf.classifier import Classifier, evaluating, frozen, laid_out, logits_of, without_wrapper
from robustperf.equality import same
from robustperf.nets.dropout import drawing
from robustperf.training.learner import Learner
from robustperf.training.objective import Objective, check_batch, cross_entropies
from robustperf.training.optimizers import Optimizer, Rate, check_rate


@dataclass(frozen=True, eq=False)
class CoTrain(Objective):
    """Robust co-training of a classifier f and a generator g (T section 3.1, Algorithm 1).

    The classifier's loss (T equation 10), with x' = g(x) and p the softmax outputs:

        mean_j [l(x^(j), y^(j)) + weight CE(p(x^(j)), p(x'^(j))) / (1 + ||x^(j) - x'^(j)||_2^2)],
        CE(p, q) = -sum_c p[c] log q[c],

    from one forward pass of the 2 B images [x; x']. Gradients flow through both p but not into the generator, which is
    in eval mode: each x' depends on its own x only, not on the rest of the batch, and the classifier's update leaves
    the generator unchanged, batch-norm statistics included.

    `fit(classifier, CoTrain(classifier, generator, weight), ...)` updates the classifier and then the generator in each
    step. The generator takes batches from a shuffling of its own, under the key
    `random.fold_in(random.key(seed), random.Salt.GENERATOR)`. In a plain loop `generator_loss` is its loss.

    Args:
        classifier: f, the model that `fit` or the call is given.
        generator: g, from images [B, ...] to images of the same shape, such as `robustperf.nets.TiboGenerator`; trained
            in place.
        weight: lambda, of the regulariser.
        generator_steps: the generator's updates after each of the classifier's in `fit`, each on a batch of its own; 1
            in Algorithm 1.
        distance_weight: of the distance in the generator's loss; 1 in equation 9. There the other term is at most 1, so
            that another label pays only within a distance of sqrt(2 / distance_weight).
        optimizer, lr: the generator's in `fit`, as there; None for the same as the classifier's. Where `fit` gets a
            torch optimizer, one is needed here too.

    Raises TypeError or ValueError for a wrong argument; when called, for another model than the classifier, or a
    generator whose images have another shape.

    >>> classifier, data = rp.nets.build("small-cnn", size=8), rp.data.load("digits", "test")
    >>> objective = CoTrain(classifier, rp.nets.TiboGenerator(1, width=4), weight=0.5, lr=1e-3)
    >>> rp.training.fit(classifier, objective, data, epochs=1, batch_size=256, progress=False).columns
    ('loss', 'accuracy', 'generator_loss', 'generator_distance')
    """

    classifier: nn.Module = field(repr=False)
    generator: nn.Module = field(repr=False)
    weight: float
    generator_steps: int = field(default=1, kw_only=True)
    distance_weight: float = field(default=1.0, kw_only=True)
    optimizer: Optimizer | None = field(default=None, kw_only=True)
    lr: Rate | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name, model in (("classifier", self.classifier), ("generator", self.generator)):
            if not isinstance(model, nn.Module):
                raise TypeError(f"{name}: expected a torch.nn.Module, got {type(model).__name__}")
        if self.generator is self.classifier:
            raise ValueError("generator: expected another module than the classifier, got the same")
        if next(self.generator.parameters(), None) is None:
            raise ValueError("generator: expected parameters to train, got none")
        check.number("weight", self.weight, least=0)
        check.integer("generator_steps", self.generator_steps, 1)
        check.number("distance_weight", self.distance_weight, least=0)
        if self.lr is not None:
            check_rate(self.lr)

    def __eq__(self, other: object) -> bool:
        return same(vars(self), vars(other)) if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), self.weight))

    def loss(
        self, model: Classifier, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> torch.Tensor:
        self._check_classifier(model)
        generator = without_wrapper(self.generator)
        with evaluating(generator), torch.no_grad():
            generated = _images(generator, x)
        logits = logits_of(model, laid_out(model, torch.cat([x, generated])))
        clean = cross_entropies(logits[: len(x)], y)[0]
        log_p, log_q = logits.to(clean.dtype).log_softmax(1).split(len(x))
        different = -(log_p.exp() * log_q).sum(1)
        return (clean + self.weight * different / (1 + _squared_norms(generated - x))).mean()

    def generator_loss(self, x: torch.Tensor, *, key: int, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The generator's loss on a batch (T equation 9), to call `backward()` on, and the mean distance.

        mean_j [distance_weight / 2 ||g(x^(j)) - x^(j)||_2^2 + max(p(g(x^(j)))[i] - p(g(x^(j)))[l], 0)]

        with i the classifier's label of x^(j), and l the label of the second largest value of p(g(x^(j))): the
        difference counts while g(x^(j)) has the label of x^(j), and is 0 otherwise. The classifier is in eval mode and
        gets no gradients; the generator's mode is the caller's.

        Args:
            x: [B, C, H, W] float32 or float64, B >= 1.
            key: 64 bits, another for each step, and different from those of the classifier's steps.
            index: [B] int64 >= 0, the sample ids in the data set, for the draws of `robustperf.nets.Dropout`.

        Returns two scalars: the loss, and mean_j ||g(x^(j)) - x^(j)||_2 without a gradient.

        Raises TypeError or ValueError as the call of the objective.
        """
        return self._generator_step(self.generator, x, None, key=key, index=index)

    def learners(self, model: nn.Module) -> Sequence[Learner]:
        """The classifier, and then the generator on batches of its own."""
        self._check_classifier(model)
        generator = Learner(
            "generator",
            self.generator,
            self._generator_step,
            figures=("distance",),
            optimizer=self.optimizer,
            lr=self.lr,
            own_batches=True,
            updates=self.generator_steps,
            salt=random.Salt.GENERATOR,
        )
        return (*super().learners(model), generator)

    def _generator_step(self, generator, x, y, *, key, index):
        """`generator_loss` with the generator in the wrapper of `fit`."""
        check_batch(x, index=index)
        classifier = without_wrapper(self.classifier)
        with drawing(random.fold_in(key, random.Salt.DROPOUT), index), evaluating(classifier):
            with torch.no_grad():
                label = _probabilities(classifier, x).argmax(1, keepdim=True)
            generated = _images(generator, x)
            with frozen(classifier):
                p = _probabilities(classifier, generated)
        second = p.topk(2).indices[:, 1:]
        gap = (p.gather(1, label) - p.gather(1, second))[:, 0]
        squares = _squared_norms(generated - x)
        return (self.distance_weight / 2 * squares + gap.relu()).mean(), squares.detach().sqrt().mean()

    def _check_classifier(self, model):
        if without_wrapper(model) is not without_wrapper(self.classifier):
            raise ValueError(
                f"classifier: expected the model that is trained, the same object, got another "
                f"{type(self.classifier).__name__}"
            )


def _images(generator, x):
    """The generator's images, of x's shape and dtype."""
    generated = generator(laid_out(generator, x))
    return check.tensor("generator(x)", generated, tuple(x.shape), dtypes=check.REAL + check.HALF, device=x.device).to(
        x
    )


def _probabilities(classifier, x):
    logits = logits_of(classifier, laid_out(classifier, x))
    return (logits.float() if logits.dtype in check.HALF else logits).softmax(1)


def _squared_norms(difference):
    """[B] squared L2 norms."""
    return difference.flatten(1).square().sum(1)
