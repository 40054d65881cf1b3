"""T's protocol for several shifts: which images are shifted, and one map T for each shift or for all (T section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robustperf import check
from robustperf.transfer.autoencoder import PairedAutoencoder


@dataclass(frozen=True, eq=False)
class OriginalsSplit:
    """Which images of a data set stay clean and which are shifted.

    Attributes:
        clean: [N_o] int64, the rows of the clean images.
        shifted: shift -> [N_c] int64, the rows of the images to which it is applied.

    >>> split = rp.transfer.split_originals(100, ["fog", "stripe"], 10)
    >>> len(split.clean), len(split.shifted["fog"])
    (80, 10)
    """

    clean: torch.Tensor
    shifted: dict[str, torch.Tensor]


def split_originals(images: int, shifts: Sequence[str], count: int | None, *, seed: int = 0) -> OriginalsSplit:
    """T's random split of a training set: N_c = `count` images for each shift, all different, and N_o = `images` -
    (number of shifts) N_c that stay clean, so that no shifted image is a version of a clean one.

    Args:
        images: how many there are, 60,000 in the paper.
        shifts: their names, 15 in the paper.
        count: N_c, 0, 128 or 1024 in the paper. None halves the images: one half stays clean, and every shift is
            applied to all of the other half. This is our reading of the paper's N_c = 30,000, for which its N_o is
            negative.
        seed: of the split.

    Raises ValueError for a wrong argument, or more shifted images than there are.

    >>> split = split_originals(60_000, ["fog", "stripe"], 128)
    >>> len(split.clean), len(split.shifted["fog"])
    (59744, 128)
    """
    check.integer("images", images, 1)
    names = _names("shifts", shifts)
    if count is not None:
        check.integer("count", count, 0)
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    if count is None:
        return OriginalsSplit(order[: images // 2], {name: order[images // 2 :] for name in names})
    first = images - len(names) * count
    if first < 0:
        raise ValueError(
            f"count: expected at most {images // len(names)} images of each shift, of {images} in all, got {count}"
        )
    parts = order[first:].split(count) if count else [order[:0]] * len(names)
    return OriginalsSplit(order[:first], dict(zip(names, parts, strict=True)))


def fit_autoencoders(
    clean: torch.Tensor,
    shifted: Mapping[str, torch.Tensor],
    *,
    joint: bool = False,
    autoencoder: PairedAutoencoder | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    **options: Any,
) -> dict[str, PairedAutoencoder]:
    """T's two protocols for several shifts: TRANSFER-SEPARATE trains a pair of auto-encoders for each shift,
    TRANSFER-JOINT one pair for all shifts together, on their pooled images.

    Args:
        clean: [N, C, H, W] float32 in [0, 1].
        shifted: shift -> [M, C, H, W] float32 in [0, 1], without labels; the originals should not be among `clean`
            (`split_originals`).
        joint: TRANSFER-JOINT instead of TRANSFER-SEPARATE.
        autoencoder: the initial weights, of which each pair trains a copy; None for appendix B's network with the
            initial weights of `seed`.
        seed: of the initial weights and of the training.
        out: the folder of the runs, OUT/SHIFT for each pair, OUT itself for JOINT; None for none.
        options: further ones of `PairedAutoencoder.fit`: epochs, batch_size, resume, progress, ...

    Returns shift -> its pair, whose `transfer` is T; with `joint`, the same pair for all.

    Raises TypeError or ValueError for wrong images, as `PairedAutoencoder.fit`, or no shift.

    >>> x = rp.data.load("digits", "test").x
    >>> small = rp.transfer.PairedAutoencoder(image_shape=(1, 8, 8), code=8, width=4, hidden=16)
    >>> T = fit_autoencoders(x[:64], {"dark": 0.5 * x[64:96]}, autoencoder=small, epochs=1)
    >>> T["dark"].transfer(0.5 * x[96:98]).shape
    torch.Size([2, 1, 8, 8])
    """
    names = _names("shifted", list(shifted))
    check.tensor("clean", clean, ("N", "C", "H", "W"), dtypes=(torch.float32,))
    for name in names:
        check.tensor(f"shifted[{name!r}]", shifted[name], ("M", *clean.shape[1:]), dtypes=(torch.float32,))
    if autoencoder is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            autoencoder = PairedAutoencoder(check.image_shape("clean", tuple(clean.shape[1:])))
    elif not isinstance(autoencoder, PairedAutoencoder):
        raise TypeError(f"autoencoder: expected a PairedAutoencoder, got {type(autoencoder).__name__}")

    def trained(images: torch.Tensor, folder: str | Path | None) -> PairedAutoencoder:
        model = deepcopy(autoencoder)
        model.fit(clean, images, seed=seed, out=folder, **options)
        return model

    if joint:
        return dict.fromkeys(names, trained(torch.cat([shifted[name] for name in names]), out))
    return {name: trained(shifted[name], None if out is None else Path(out) / name) for name in names}


def _names(argument: str, names: Sequence[str]) -> list[str]:
    """The names of shifts as a list; ValueError for none, the same twice, or what cannot name a folder."""
    names = [names] if isinstance(names, str) else list(names)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{argument}: expected one or more different names, got {names}")
    for name in names:
        if not isinstance(name, str) or not name or Path(name).name != name:
            raise ValueError(f"{argument}: expected names without path separators, got {name!r}")
    return names
