"""Two auto-encoders with a shared encoder, which map shifted images to clean ones (T section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn, optim
from torch.nn import functional

from robustperf import check
from robustperf.classifier import Classifier, evaluating, laid_out
from robustperf.data import Dataset
from robustperf.nets.dtype import made_in_float32
from robustperf.training import Fitted, Objective, fit
from robustperf.training.optimizers import Optimizer, Rate

SOURCES = CLEAN, SHIFTED = 0, 1
ADAM = partial(optim.Adam, fused=True)  # one pass over the many weights: half of a step's time on a CPU
_BATCH = 1024  # images in one forward pass of `transfer`


@made_in_float32
class PairedAutoencoder(nn.Module):
    """E, D1 and D2 of T appendix B: D1 E reconstructs clean images, D2 E shifted ones, and T = D1 E maps a shifted
    image to a clean one.

    E: convolutions to width, 2 width and 4 width channels (3x3, stride 2, ReLU; 28 -> 14 -> 7 -> 4), then `code` linear
    units. D1 and D2: `hidden` units, H/4 W/4 2width units (both ReLU), transposed convolutions to 2 width, width (3x3,
    stride 2, ReLU) and C channels (3x3, stride 1, sigmoid). The paper gives no padding; here a stride of s divides the
    size by s, rounded up. The initial weights are Keras's defaults, since the paper uses Keras's names of layers:
    Glorot's uniform distribution, biases 0.

    Args:
        image_shape: (C, H, W), H and W divisible by four.
        code: dimension of the code, 128 in the paper.
        width: channels of E's first convolution, 32 in the paper.
        hidden: units in the decoders' first layer, 2048 in the paper.

    Forward: images [B, C, H, W] in [0, 1] -> T(x), of the same shape; with `source` [B] int64, 0 for clean and 1 for
    shifted, each image's own reconstruction.

    Raises ValueError for a wrong argument, images of another shape, and another source; TypeError for its dtype.

    >>> digits = rp.data.load("digits", "test").x
    >>> model = PairedAutoencoder(image_shape=(1, 8, 8), code=8, width=4, hidden=16)
    >>> fitted = model.fit(digits[:64], 0.5 * digits[64:128], epochs=1)
    >>> model.transfer(0.5 * digits[128:130]).shape  # like clean images
    torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self, image_shape: tuple[int, int, int] = (1, 28, 28), code: int = 128, width: int = 32, hidden: int = 2048
    ) -> None:
        super().__init__()
        for name, value in {"code": code, "width": width, "hidden": hidden}.items():
            check.integer(name, value, 1)
        channels, height, columns = self.image_shape = check.image_shape("image_shape", image_shape)
        if height % 4 or columns % 4:
            raise ValueError(f"image_shape: expected sides divisible by 4, got {height} x {columns}")
        convolution = partial(nn.Conv2d, kernel_size=3, stride=2, padding=1)
        self.encoder = nn.Sequential(
            convolution(channels, width),
            nn.ReLU(),
            convolution(width, 2 * width),
            nn.ReLU(),
            convolution(2 * width, 4 * width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * width * -(-height // 8) * -(-columns // 8), code),
        )
        self.clean, self.shifted = (_decoder(self.image_shape, code, width, hidden) for _ in range(2))
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor, source: torch.Tensor | None = None) -> torch.Tensor:
        if tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(f"x: expected images [B, {', '.join(map(str, self.image_shape))}], got {list(x.shape)}")
        code = self.encoder(x)
        if source is None:
            return self.clean(code)
        check.tensor("source", source, (len(x),), dtypes=(torch.int64,), device=x.device)
        order = [(source == number).nonzero()[:, 0] for number in SOURCES]
        if sum(map(len, order)) != len(x):
            raise ValueError(f"source: expected {CLEAN} or {SHIFTED} for each image, got {source.tolist()}")
        # each decoder runs, also on an empty batch: DistributedDataParallel needs its gradients, zero if so
        parts = [self.clean(code[order[CLEAN]]), self.shifted(code[order[SHIFTED]])]
        return torch.cat(parts)[torch.cat(order).argsort()]

    @torch.no_grad()
    def transfer(self, x: torch.Tensor) -> torch.Tensor:
        """T(x) [N, C, H, W] float32 on x's device, computed in eval mode and in batches.

        Args:
            x: images [N, C, H, W] in [0, 1], float32 or float64.

        Raises TypeError for another dtype, ValueError for another shape or pixels outside [0, 1].
        """
        check.tensor("x", x, ("N", *self.image_shape))
        return self._transfer(check.images("x", x, (0.0, 1.0)))

    @torch.no_grad()
    def _transfer(self, x: torch.Tensor) -> torch.Tensor:
        """`transfer` of checked images."""
        device = next(self.parameters()).device
        with evaluating(self):
            parts = [self(laid_out(self, part.to(device, torch.float32))).to(x.device) for part in x.split(_BATCH)]
        return torch.cat(parts).contiguous()

    def fit(
        self,
        clean: torch.Tensor,
        shifted: torch.Tensor | None = None,
        *,
        epochs: int = 100,
        batch_size: int = 32,
        optimizer: Optimizer = ADAM,
        lr: Rate | None = 1e-3,
        **options: Any,
    ) -> Fitted:
        """Trains E, D1 and D2 jointly to reconstruct clean and shifted images, from their current weights (T section 4;
        the defaults are those of appendix B). The loss is `Reconstruction` over random batches of both. Without shifted
        images, T's case N_c = 0, only E and D1 are trained.

        Args:
            clean: [N, C, H, W] float32 in [0, 1].
            shifted: [M, C, H, W] float32 in [0, 1]; neither labels nor their clean originals are needed.
            epochs: passes over all images.
            batch_size: clean and shifted images in a batch, at most the number of all images.
            optimizer: a function that makes one from parameters, or "adadelta", "adam", "sgd".
            lr: a constant, (first, last) with a line between them, or {epoch: rate from then on}.
            options: further ones of `training.fit`: seed, out, resume, progress, mixed_precision, ...

        Returns a `training.Fitted`; its accuracy is NaN.

        Raises TypeError for a wrong dtype; ValueError for wrong shapes, pixels or options; FloatingPointError for a
        loss that is not finite; OSError for a file that could not be written.
        """
        images = {"clean": clean} if shifted is None else {"clean": clean, "shifted": shifted}
        for name, value in images.items():
            check.tensor(name, value, ("N", *self.image_shape), dtypes=(torch.float32,))
            images[name] = check.images(name, value, (0.0, 1.0))
        check.integer("batch_size", batch_size, 1)
        if not len(clean):
            raise ValueError("clean: expected images, got none")
        source = torch.cat([torch.full((len(value),), number) for number, value in enumerate(images.values())])
        data = Dataset(" and ".join(images), torch.cat(list(images.values())), source, len(SOURCES))
        clean_only = len(data) == len(clean)
        self.shifted.requires_grad_(not clean_only)
        try:
            return fit(
                self,
                Reconstruction(),
                data,
                validation=None,
                epochs=epochs,
                batch_size=min(batch_size, len(data)),
                optimizer=optimizer,
                lr=lr,
                **options,
            )
        finally:
            self.shifted.requires_grad_(True)


@dataclass(frozen=True)
class Reconstruction(Objective):
    """The mean over images and pixels of (D_s(E(x)) - x)^2, where the label s is 0 for a clean image and 1 for a
    shifted one. T says "the reconstruction loss"; the squared error is our choice.

    >>> model = PairedAutoencoder(image_shape=(1, 8, 8), code=8, width=4, hidden=16)
    >>> loss = Reconstruction()(model, torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 1, 1]), key=0, index=torch.arange(4))
    >>> loss.shape
    torch.Size([])
    """

    classifies: ClassVar[bool] = False

    def loss(
        self, model: Classifier, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> torch.Tensor:
        return functional.mse_loss(model(laid_out(model, x), y), x)


class _Unflatten(nn.Module):
    """[B, H W C] -> [B, C, H, W], channels last in memory, as in the paper's Reshape: fastest on a CPU."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.size = height, width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(len(x), *self.size, x.shape[1] // (self.size[0] * self.size[1])).permute(0, 3, 1, 2)


def _decoder(image_shape: tuple[int, int, int], code: int, width: int, hidden: int) -> nn.Sequential:
    channels, height, columns = image_shape
    upsampling = partial(nn.ConvTranspose2d, kernel_size=3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(
        nn.Linear(code, hidden),
        nn.ReLU(),
        nn.Linear(hidden, height // 4 * (columns // 4) * 2 * width),
        nn.ReLU(),
        _Unflatten(height // 4, columns // 4),
        upsampling(2 * width, 2 * width),
        nn.ReLU(),
        upsampling(2 * width, width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, channels, 3, padding=1),
        nn.Sigmoid(),
    )
