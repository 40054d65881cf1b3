"""MNIST-C's corruptions of 10,000 images; a few of them compared with loops over single images in NumPy and SciPy.

    python -m benchmarks.speed.mnist_c --data-root DIR [--points N] [--peer-points N] [--threads N] [--out DIR]

The time includes the draws. The loops make their own draws and are timed on --peer-points images. With --out the
picture shows all sixteen sets. On a busy machine use --threads 1, since threads wait for each other.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from scipy import ndimage

from robustperf import plot, random
from robustperf.data import load
from robustperf.names import CORRUPTIONS
from robustperf.nuisance import mnist_c

from ..common.cases import EAGER, OURS, Case
from ..common.digits_cnn import digit_images
from ..common.options import add_data_root, add_timing, parse, parser
from ..common.report import Report
from ..common.timing import Call, interleave

KEY = random.key(0)
SHOWN = [3, 2, 1, 18, 4, 8]  # digits 0 to 5 of the test set


def blurred(image: np.ndarray, sigma: float | tuple[float, float]) -> np.ndarray:
    return ndimage.gaussian_filter(image, sigma, mode="nearest")


def shot_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(rng.poisson(3 * image) / 3, 0, 1)


def glass_blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = blurred(image, (0.7, 0))
    for _ in range(2):
        for row in range(27, 1, -1):
            for column in range(27, 1, -1):
                if rng.random() < 0.5:
                    down, right = rng.integers(-1, 1, 2)
                    other = row + down, column + right
                    image[row, column], image[other] = image[other], image[row, column]
    return blurred(image, (0.7, 0))


def rotate(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle = 0.4 * rng.choice([-1, 1])
    matrix = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return ndimage.affine_transform(image, matrix, 13.5 - matrix @ [13.5, 13.5], order=1, mode="grid-constant")


def spatter(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    mask = blurred((blurred(rng.normal(0.65, 0.3, image.shape), 1) > 0.65).astype(float), 1.5)
    mask[mask < 0.8] = 0
    return image * (1 - mask) + 63 / 255 * mask


LOOPS = {loop.__name__: loop for loop in (shot_noise, glass_blur, rotate, spatter)}


def over_images(name: str, images: np.ndarray) -> list[np.ndarray]:
    """The loop over single images."""
    rng = np.random.default_rng(0)
    return [LOOPS[name](image, rng) for image in images]


def cases(quick: bool) -> list[Case]:
    """`eager` is our reference in PyTorch; `loop` the one over single images."""

    def make(name: str, count: int) -> dict[str, Call]:
        x, kernel, index = digit_images(count), mnist_c(name), torch.arange(count)
        digits = x[:, 0].double().numpy()
        return {
            OURS: lambda: kernel.draw(x, key=KEY, index=index),
            EAGER: lambda: kernel.draw(x, key=KEY, index=index, backend="reference"),
            **({"loop": lambda: over_images(name, digits)} if name in LOOPS else {}),
        }

    count = 20 if quick else 500
    chosen = list(LOOPS) if quick else [name for name in CORRUPTIONS if name != "identity"]
    return [Case(f"mnist_c, {name}, {count} images", partial(make, name, count)) for name in chosen]


def main() -> None:
    options = parser(__doc__)
    add_timing(options, repeats=3)
    add_data_root(options)
    options.add_argument("--points", type=int, default=10_000)
    options.add_argument("--peer-points", type=int, default=200)
    arguments = parse(options, selections=("peer_points",))
    dataset = load("mnist", "test", arguments.data_root)
    x = dataset.x[: arguments.points]
    index, out = torch.arange(len(x)), torch.empty(1, *x.shape)
    digits = x[: arguments.peer_points, 0].double().numpy()

    report = Report(
        "mnist_c", f"MNIST-C's corruptions of {len(x):,} images, {arguments.threads} threads", arguments.output
    )
    total = 0.0
    for name in CORRUPTIONS:
        kernel = mnist_c(name)
        seconds = interleave(
            {"": lambda kernel=kernel: kernel.draw(x, key=KEY, index=index, out=out)}, arguments.repeats, warmup=1
        )[""]
        total += seconds
        row = {"corruption": name, "ms": 1e3 * seconds, "images/s": len(x) / seconds}
        if name in LOOPS:
            of_loop = interleave({"": partial(over_images, name, digits)}, arguments.repeats, warmup=0)[""] / len(
                digits
            )
            row["x faster than a loop"] = of_loop * len(x) / seconds
        report.add(**row)
    report.add(corruption="all", ms=1e3 * total, **{"images/s": len(x) * len(CORRUPTIONS) / total})
    report.show()
    if arguments.output.folder is not None:
        ids = torch.tensor(SHOWN)
        drawn = torch.cat([mnist_c(name).draw(dataset.x[ids], key=KEY, index=ids) for name in CORRUPTIONS])
        plot.image_grid(dataset.x[ids], drawn, path=arguments.output.folder / "mnist_c.png", names=CORRUPTIONS)


if __name__ == "__main__":
    main()
