"""An epoch of the paired auto-encoder of T appendix B, by `fit` and by plain PyTorch loops.

    python -m benchmarks.speed.autoencoder [--out DIR]

A plain loop has a DataLoader over clean and shifted images and a mask for each decoder, with PyTorch's default or fused
Adam. All start from the same weights; half of the images are shifted.
"""

from __future__ import annotations

from functools import partial

import torch
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from robustperf.transfer import PairedAutoencoder

from ..common.cases import EAGER, OURS, Case
from ..common.options import add_timing, parse, parser
from ..common.report import Report
from ..common.timing import Call, interleave

BATCH = 32


def network() -> PairedAutoencoder:
    torch.manual_seed(0)
    return PairedAutoencoder()


def plain(clean: torch.Tensor, shifted: torch.Tensor, fused: bool = False) -> None:
    model = network()
    data = TensorDataset(torch.cat([clean, shifted]), torch.arange(len(clean) + len(shifted)) >= len(clean))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
    for x, is_shifted in DataLoader(data, BATCH, shuffle=True, drop_last=True):
        code, made = model.encoder(x), torch.empty_like(x)
        made[~is_shifted] = model.clean(code[~is_shifted])
        made[is_shifted] = model.shifted(code[is_shifted])
        loss = mse_loss(made, x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()


def contenders(images: int) -> dict[str, Call]:
    """An epoch of so many images."""
    clean, shifted = torch.rand(2, images // 2, 1, 28, 28)
    return {
        "plain loop": lambda: plain(clean, shifted),
        "plain loop, fused Adam": lambda: plain(clean, shifted, fused=True),
        "fit": lambda: network().fit(clean, shifted, epochs=1, batch_size=BATCH, progress=False),
    }


def cases(quick: bool) -> list[Case]:
    def make(images: int) -> dict[str, Call]:
        calls = contenders(images)
        found = {OURS: calls.pop("fit"), EAGER: calls.pop("plain loop")}
        return found if quick else found | calls

    images = 64 if quick else 640
    return [Case(f"autoencoder, an epoch of {images} images", partial(make, images))]


def main() -> None:
    options = parser(__doc__)
    add_timing(options, repeats=9)
    options.add_argument("--images", type=int, default=640, help="of an epoch, clean and shifted ones together")
    arguments = parse(options)
    times = interleave(contenders(arguments.images), arguments.repeats, warmup=1)
    report = Report("autoencoder", f"An epoch of the paired auto-encoder, {arguments.images} images", arguments.output)
    for name, seconds in times.items():
        report.add(
            case=name,
            **{
                "ms per step": 1e3 * seconds / (arguments.images // BATCH),
                "x faster than the plain loop": times["plain loop"] / seconds,
            },
        )
    report.show(bars=("case", "x faster than the plain loop"))


if __name__ == "__main__":
    main()
