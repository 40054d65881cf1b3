"""ADDA, adversarial discriminative domain adaptation (Tzeng et al. 2017), a baseline of R Table 6."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from robustperf import check, random
from robustperf.classifier import Classifier, device_of, evaluating, frozen, laid_out, logits_of, without_wrapper
from robustperf.data.batches import load_batches
from robustperf.data.inputs import Arrays, as_data
from robustperf.nets.dtype import made_in_float32
from robustperf.training.learner import MODEL, Learner
from robustperf.training.objective import Objective, check_batch
from robustperf.training.optimizers import Optimizer, Rate, check_rate

_TRAINED = 0.9  # of the loss of uniform probabilities; that of an untrained classifier is above it


@made_in_float32
class DomainDiscriminator(nn.Module):
    """Tells the features of the source domain from those of the target domain: two layers of `width` values with ReLU,
    and one logit (Tzeng et al. 2017, section 5; R gives no sizes).

    Args:
        source: the classifier that was trained on the source domain. A copy of it, in eval mode and without gradients,
            is saved with the weights, so that a resumed run has the same features.
        features: the number of features.
        width: of the hidden layers.

    Forward: features [N, features] -> logits [N], high for the source domain.
    """

    def __init__(self, source: nn.Module, features: int, width: int = 500) -> None:
        super().__init__()
        for name, value in {"features": features, "width": width}.items():
            check.integer(name, value, 1)
        self.layers = nn.Sequential(
            nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )
        self.source = copy.deepcopy(source).eval().requires_grad_(False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers(features)[:, 0]


@dataclass(frozen=True, eq=False)
class ADDA(Objective):
    """The second stage of ADDA: adapts a classifier to a domain without labels (R A.1).

    First a classifier is trained on the labelled source domain. Then a copy of its encoder, that is of all but its last
    layer, is trained on the unlabelled target domain, to give features that a discriminator takes for those of the
    source domain; the last layer is kept. With the probability D that features are of the source domain, the source
    encoder E and the target encoder T:

        discriminator: -mean_j log D(E(x^(j))) - mean_j log(1 - D(T(t^(j)))),
        target encoder: -mean_j log D(T(t^(j))).

    `fit` takes the batches x of the labelled domain, and ADDA as many images t of the target domain, each drawn
    uniformly and independently; the draws depend on the key and the sample ids only. `fit` updates the encoder, and
    then the discriminator on the features of the same step. Labels do not enter this stage: `fit` takes no validation
    set and keeps the last epoch.

    R A.1 has LeNet, and 100 epochs for each stage. Tzeng et al. train the second stage by Adam with a learning rate of
    2e-4 and betas (0.5, 0.999) in batches of 128.

    Args:
        target: the target domain: images [N, C, H, W] as a tensor; or a `Dataset`, a torch data set, (x, y) or a
            DataLoader, whose labels are not read. It has the shape of the source's images.
        source: the classifier that was trained on the source domain, which is copied. The model that `fit` is given is
            this one, or a copy.
        layer: the name of the last layer among the modules of `source`; None for its last `torch.nn.Linear`. The
            features are what enters it, flattened.
        width: of the discriminator's hidden layers.
        optimizer, lr: the discriminator's in `fit`; None for the same as the encoder's. Where `fit` gets a torch
            optimizer, one is needed here too.

    Attributes:
        discriminator: a new `DomainDiscriminator`, trained in place.

    Raises TypeError or ValueError for a wrong argument, a layer that is not the last, or target images that the
    classifier does not take; when called, for images of another shape than the target's, fewer target images than a
    batch has, or a model with another last layer than the source's. Warns where the source classifier is hardly better
    on the first batch than uniform probabilities: it has not been trained.

    >>> digits = rp.data.load("digits", "test")
    >>> dark, bright = digits.limit(200), (digits.x[200:] + 0.3).clamp(max=1)
    >>> model = rp.nets.build("small-cnn", size=8, classes=10)
    >>> rp.training.fit(model, rp.training.ERM(), dark, epochs=1, progress=False).best  # the first stage
    1
    >>> objective = ADDA(bright, model)
    >>> settings = {"optimizer": "adam", "lr": 2e-4, "validation": None, "progress": False}
    >>> rp.training.fit(model, objective, dark, epochs=1, **settings).columns  # the second stage
    ('loss', 'accuracy', 'discriminator_loss', 'discriminator_accuracy')
    """

    target: Any = field(repr=False)
    source: nn.Module = field(repr=False)
    layer: str | None = None
    width: int = 500
    optimizer: Optimizer | None = field(default=None, kw_only=True)
    lr: Rate | None = field(default=None, kw_only=True)
    discriminator: DomainDiscriminator = field(init=False, repr=False)

    classifies: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.source, nn.Module):
            raise TypeError(f"source: expected a torch.nn.Module, got {type(self.source).__name__}")
        check.integer("width", self.width, 1)
        if self.lr is not None:
            check_rate(self.lr)
        source = without_wrapper(self.source)
        own = vars(self)  # the dataclass is frozen
        own["layer"] = _last_layer(source, self.layer)
        own["_data"] = _target_data(self.target)
        first = self._images(torch.zeros(1, dtype=torch.int64), 0, device_of(source))
        parameter = next(source.parameters())
        with evaluating(source), torch.no_grad():
            try:
                features, logits = self._features(source, first.to(parameter.dtype))
            except (RuntimeError, ValueError) as error:
                raise ValueError(
                    f"target: expected images that the source classifier takes, got {list(first.shape[1:])}: "
                    f"{check.line_of(error)}"
                ) from error
            if not torch.equal(source.get_submodule(self.layer)(features), logits):
                raise ValueError(f"layer: expected the last layer of the source classifier, got {self.layer!r}")
        discriminator = DomainDiscriminator(source, features.shape[1], self.width)
        discriminator.layers.to(features.device, features.dtype)
        own["discriminator"] = discriminator
        own["source"] = discriminator.source

    def __repr__(self) -> str:
        name = getattr(self._data, "name", type(self._data).__name__)
        return f"ADDA(target={name} of {len(self._data)} images, layer={self.layer!r}, width={self.width})"

    def loss(
        self, model: Classifier, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> torch.Tensor:
        if "_of_target" not in vars(self):  # the first call
            self._check_layer(model)
            self._warn_if_untrained(x, y)
        target = self._target_batch(x, key, index)
        features, _ = self._features(model, target)
        with frozen(self.discriminator):
            score = self.discriminator(features)
        vars(self)["_of_target"] = features.detach()  # for the discriminator's update of this step
        return functional.softplus(-score).mean()

    def discriminator_loss(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The discriminator's loss on source images x [B, C, H, W] and the target features of the last call of the
        objective, to call `backward()` on; and its accuracy, the mean of those on the two domains."""
        check_batch(x, index=index)
        source = without_wrapper(model).source
        with evaluating(source), torch.no_grad():
            of_source, _ = self._features(source, x)
        of_target = vars(self)["_of_target"]
        on_source, on_target = model(torch.cat([of_source, of_target])).split([len(of_source), len(of_target)])
        loss = functional.softplus(-on_source).mean() + functional.softplus(on_target).mean()
        accuracy = ((on_source > 0).double().mean() + (on_target < 0).double().mean()) / 2
        return loss, accuracy

    def learners(self, model: nn.Module) -> Sequence[Learner]:
        """The model without its last layer, and then the discriminator."""
        self._check_layer(model)
        discriminator = Learner(
            "discriminator",
            self.discriminator,
            self.discriminator_loss,
            figures=("accuracy",),
            optimizer=self.optimizer,
            lr=self.lr,
        )
        return Learner(MODEL, model, self, frozen=(model.get_submodule(self.layer),)), discriminator

    def _features(self, model, x):
        """(what enters the last layer [N, F], float32 at least; the logits) of the images."""
        x, entered = laid_out(model, x), []
        layer = without_wrapper(model).get_submodule(self.layer)
        hook = layer.register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0]))
        try:
            logits = logits_of(model, x)
        finally:
            hook.remove()
        if len(entered) != 1:
            raise ValueError(f"layer: expected one that is evaluated once, got {self.layer!r}, {len(entered)} times")
        features = entered[0].flatten(1)
        return features.float() if features.dtype in check.HALF else features, logits

    def _target_batch(self, x, key, index):
        """As many images of the target domain as x has, of its shape and dtype."""
        if len(x) > len(self._data):
            raise ValueError(
                f"target: expected at least as many images as a batch has, {len(x)}, got {len(self._data)}"
            )
        key = random.fold_in(key, random.Salt.TARGET)
        uniforms = random.uniform(key, index, 1, 1)[0, :, 0]
        images = self._images((uniforms.double() * len(self._data)).long().cpu(), key, x.device)
        if images.shape != x.shape:
            raise ValueError(
                f"target: expected images of the source's shape {list(x.shape[1:])}, got {list(images.shape[1:])}"
            )
        return images.to(x.dtype)

    def _images(self, rows, key, device):
        ((images, _, _),) = load_batches(self._data, [rows], device, keys=[key], labelled=False)
        return check.images("target", images)

    def _check_layer(self, model):
        """Raises TypeError or ValueError unless the model has the source's last layer, with its weights."""
        model = without_wrapper(model)
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
        layer = dict(model.named_modules()).get(self.layer)
        found = {} if layer is None else layer.state_dict()
        expected = self.source.get_submodule(self.layer).state_dict()
        if found.keys() != expected.keys() or not all(
            torch.equal(found[name].cpu(), value.cpu()) for name, value in expected.items()
        ):
            raise ValueError(
                f"model: expected the source classifier or a copy of it, whose last layer {self.layer!r} is kept, got "
                f"a {type(model).__name__} with another last layer"
            )

    def _warn_if_untrained(self, x, y):
        """Warns where the source classifier's cross-entropy is about that of uniform probabilities."""
        with evaluating(self.source), torch.no_grad():
            logits = logits_of(self.source, laid_out(self.source, x)).float()
        check.labels("y", y, logits.shape[1], synchronise=True)
        loss, uniform = functional.cross_entropy(logits, y).item(), math.log(logits.shape[1])
        if loss > _TRAINED * uniform:
            warnings.warn(
                f"source: expected a classifier that was trained on the source domain, as by fit(model, ERM(), ...); "
                f"its loss on the first batch is {loss:.3g}, that of uniform probabilities {uniform:.3g}",
                stacklevel=2,
            )


def _last_layer(source, name):
    """The name of the last layer: `name`, or that of the last linear layer."""
    modules = dict(source.named_modules())
    if name is None:
        linear = [each for each, module in modules.items() if isinstance(module, nn.Linear)]
        if not linear:
            raise ValueError(f"layer: expected the name of the last layer of {type(source).__name__}, got None")
        name = linear[-1]
    if name not in modules or not name:
        raise ValueError(f"layer: expected the name of a module of {type(source).__name__}, got {name!r}")
    return name


def _target_data(target):
    """What `load_batches` takes, not empty."""
    if isinstance(target, torch.Tensor):
        check.tensor("target", target, ("N", ...))
        target = Arrays(target.detach().cpu(), torch.full((len(target),), -1))
    data = as_data("target", target)
    if not len(data):
        raise ValueError("target: expected images, got none")
    return data
