"""An epoch of the paired auto-encoder of T appendix B, by `fit` and by a plain PyTorch loop.

    python benchmarks/speed/autoencoder.py [--out DIR]

The plain loop is what one would write: a DataLoader over clean and shifted images, a mask for each decoder, Adam as it
comes. Both start from the same weights; half of the images are shifted.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import Report, interleave, parser

from robustperf.transfer import PairedAutoencoder

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


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.set_defaults(repeats=9)
    options.add_argument("--images", type=int, default=640, help="clean and shifted ones, together an epoch")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    clean, shifted = torch.rand(2, arguments.images // 2, 1, 28, 28)
    sides = {
        "plain loop": lambda: plain(clean, shifted),
        "plain loop, fused Adam": lambda: plain(clean, shifted, fused=True),
        "fit": lambda: network().fit(clean, shifted, epochs=1, batch_size=BATCH, progress=False),
    }
    times = interleave(sides, arguments.repeats, warmup=1)
    report = Report("autoencoder", f"An epoch of the paired auto-encoder, {arguments.images} images", arguments.out)
    for side, seconds in times.items():
        report.add(
            case=side,
            **{
                "ms a step": 1e3 * seconds / (arguments.images // BATCH),
                "x the plain loop's speed": times["plain loop"] / seconds,
            },
        )
    report.show(bars=("case", "x the plain loop's speed"))


if __name__ == "__main__":
    main()
