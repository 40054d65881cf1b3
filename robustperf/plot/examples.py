"""Figures of adversarial examples."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from robustperf.plot.images import image_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def adversarial_examples(
    x: torch.Tensor,
    found: Mapping[str, Any],
    path: str | os.PathLike[str] | None = None,
    predicted: Mapping[str, Sequence[Any]] | None = None,
    title: str | None = None,
    labels: Sequence[str] | None = None,
) -> Figure:
    """Images and the adversarial examples of several models side by side, each with its distance, after Figure 7 of
    Tibo et al. 2021: one row per image, one column per model. Where none was found, the place is empty.

    Args:
        x: [B, C, H, W] in [0, 1]; grey, RGB or RGBA.
        found: model -> the `robustperf.robustness.Margins` of x, found with keep_points=True; drawn in this order.
        path: also save the figure there, as in `margin_curves`.
        predicted: model -> the labels [B] that it gives its adversarial examples, written after the distances.
        title: above the figure, wrapped to its width.
        labels: B texts, one per row.

    Returns a matplotlib Figure that pyplot does not manage.

    Raises TypeError if a value of `found` is not a `Margins` with points; ValueError if there are no models or images,
    if shapes do not fit, or if `predicted` has other models; FileNotFoundError if the folder of `path` does not exist.

    >>> x, model = rp.data.load("digits", "test").x[:2], rp.nets.build("small-cnn", size=8)
    >>> found = {"untrained": rp.margins(model, x, attacks="fgsm,bg", keep_points=True)}
    >>> figure = adversarial_examples(x, found, "examples.png")
    """
    if not isinstance(found, Mapping) or not found:
        raise ValueError(f"found: expected a mapping from models to Margins, got {found!r}")
    if predicted is not None and predicted.keys() != found.keys():
        raise ValueError(f"predicted: expected labels of {', '.join(found)}, got those of {', '.join(predicted)}")
    texts = []
    for name, margins in found.items():
        point = getattr(margins, "point", None)
        if point is None:
            raise TypeError(
                f"found[{name!r}]: expected Margins with points, margins(..., keep_points=True), got "
                f"{type(margins).__name__}"
            )
        if point.shape != x.shape:
            raise ValueError(f"found[{name!r}]: expected points of shape {list(x.shape)}, got {list(point.shape)}")
        endings = [""] * len(x)
        if predicted is not None:
            endings = [f"  \u2192 {int(label)}" for label in predicted[name]]
            if len(endings) != len(x):
                raise ValueError(f"predicted[{name!r}]: expected {len(x)} labels, got {len(endings)}")
        texts.append([
            f"{distance:.3g}{ending}" if there else "none found"
            for distance, there, ending in zip(margins.distance.tolist(), margins.found.tolist(), endings, strict=True)
        ])  # fmt: skip
    points = torch.stack([margins.point.to(x) for margins in found.values()])
    return image_grid(x, points, path=path, title=title, labels=labels, names=list(found), texts=texts)
