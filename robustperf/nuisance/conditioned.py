"""Kernels conditioned on an event (T Example 4): label-aware and on-manifold kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from robustperf import check
from robustperf.classifier import Labeller, labels_of
from robustperf.kernel import Kernel, check_kernel
from robustperf.nuisance.uniform import LARGEST, UniformDelta
from robustperf.ops.program import Shape

# scikit-learn computes the distances of rows with many features from squared norms, in float64: their rounding error is
# about 1e-8 of the rows' norms
_TOLERANCE = 1e-6
_METRICS = {1.0: "manhattan", 2.0: "euclidean", float("inf"): "chebyshev"}


class _Seeded(UniformDelta):
    """x' is a function of x and `size` uniforms, without a gradient in them."""

    size: int
    differentiable_in_delta = False

    def dim_for(self, shape: Shape | None) -> int:
        return self.size


class LabelAware(_Seeded):
    """Q(. | x) given that x' has the label of x: Q(. | x) | {x' : Y(x') = Y(x)} (T Example 4).

    Rejection sampling: draws of `kernel` until one has the label. delta is three uniforms, which give the sequence of
    draws its sample id, so that the k-th draw of a sample is the same whatever the batch. Gradients in x are those of
    `kernel`.

    Args:
        kernel: Q.
        labeller: Y, from images [B, C, H, W] to labels [B] int64.
        tries: the maximum number of draws for each x'.

    Raises TypeError or ValueError for wrong arguments. Drawing raises ValueError where none of `tries` draws has the
    label.

    >>> labeller = lambda images: (images.mean((1, 2, 3)) > 0.5).long()
    >>> kernel = LabelAware(rp.nuisance.GaussianNoise(0.3), labeller)
    >>> x = torch.full((2, 1, 2, 2), 0.6)
    >>> labeller(kernel.draw(x, key=0, index=torch.arange(2), draws=3).flatten(0, 1))
    tensor([1, 1, 1, 1, 1, 1])
    """

    kernel: Kernel
    labeller: Labeller
    tries: int

    size = 3

    def __init__(self, kernel: Kernel, labeller: Labeller, tries: int = 1000) -> None:
        check_kernel(kernel)
        if not callable(labeller):
            raise TypeError(f"labeller: expected a callable, got {type(labeller).__name__}")
        self.kernel, self.labeller = kernel, labeller
        self.tries = check.integer("tries", tries, 1)

    def shape_after(self, shape: Shape) -> Shape:
        return self.kernel.shape_after(shape)

    @property
    def differentiable_in_x(self) -> bool:
        return self.kernel.differentiable_in_x

    def defined(self, x: torch.Tensor) -> torch.Tensor:
        return self.kernel.defined(x)

    def transform(self, x: torch.Tensor, delta: torch.Tensor, *, backend: str | None = None) -> torch.Tensor:
        draws, batch = delta.shape[:2]
        wanted = labels_of(self.labeller, x).repeat(draws)
        first, second, third = (delta.detach().double().flatten(0, 1).clamp(max=LARGEST) * 2**24).long().T
        sequence = first | second << 24 | third >> 9 << 48  # 63 bits
        row = torch.arange(batch, device=x.device).repeat(draws)
        pending, positions, images = torch.arange(len(row), device=x.device), [], []
        for trial in range(self.tries):
            trials = torch.tensor([trial], device=x.device)
            drawn = self.kernel.draw_for(x[row[pending]], 0, sequence[pending], trials, backend=backend)[0]
            accepted = labels_of(self.labeller, drawn) == wanted[pending]
            positions.append(pending[accepted])
            images.append(drawn[accepted])
            pending = pending[~accepted]
            if not len(pending):
                return torch.cat(images)[torch.cat(positions).argsort()].unflatten(0, (draws, batch))
        rows = row[pending].unique().tolist()
        raise ValueError(
            f"labeller: expected the label of x in at least one of {self.tries} draws of {self.kernel!r}, got it in "
            f"none for {len(rows)} of {batch} images, the first at {rows[:5]}"
        )

    def __repr__(self) -> str:
        return f"label_aware({self.kernel!r}, {self.labeller!r}, {self.tries})"


class OnManifold(_Seeded):
    """P conditioned on the open ball of radius eps around x (T section 2, after Example 4), P the empirical
    distribution of the reference images: x' is uniform among the reference images at a distance below eps from x.

    If x is a reference image, it is one of them. Where there are none Q(. | x) does not exist and `defined` is False.
    The search is scikit-learn's; distances close to eps are recomputed from the differences, in float64. The neighbours
    of the last batch are cached.

    Args:
        reference: [M, C, H, W] float32 or float64, M >= 1, on any device.
        eps: the radius, in units of the pixels.
        norm: 1, 2 or inf, of the distance.

    Raises TypeError or ValueError for wrong arguments. Drawing raises ValueError where no reference image is in the
    ball.

    >>> digits = rp.data.load("digits", "train").x
    >>> kernel, x = OnManifold(digits, eps=1.5), digits[:3]
    >>> kernel.defined(x)
    tensor([True, True, True])
    >>> kernel.draw(x, key=0, index=torch.arange(3), draws=10).shape  # other digits within 1.5 of each
    torch.Size([10, 3, 1, 8, 8])
    """

    reference: torch.Tensor
    eps: float
    norm: float

    size = 2
    differentiable_in_x = False

    def __init__(self, reference: torch.Tensor, eps: float, norm: float = 2) -> None:
        check.tensor("reference", reference, ("M", "C", "H", "W"))
        if not len(reference):
            raise ValueError("reference: expected images, got none")
        self.reference = check.images("reference", reference).detach().clone()
        self.eps, self.norm = check.number("eps", eps, above=0), check.norm(norm)
        from sklearn.neighbors import NearestNeighbors

        self._search = NearestNeighbors(radius=self.eps, metric=_METRICS[self.norm]).fit(_rows(self.reference))
        self._largest = self.reference.abs().max().item()
        self._cached = {}

    def defined(self, x: torch.Tensor) -> torch.Tensor:
        rows = self._rows_of(x)
        found = np.zeros(len(rows), dtype=bool)
        if len(rows):
            distances = self._search.kneighbors(rows, 1)[0][:, 0]
            found = distances < self.eps
            doubtful = np.abs(distances - self.eps) <= self._tolerance(rows)
            if doubtful.any():
                found[doubtful] = [len(near) > 0 for near in self._search_ball(rows[doubtful])]
        return torch.from_numpy(found).to(x.device)

    def transform(self, x: torch.Tensor, delta: torch.Tensor, *, backend: str | None = None) -> torch.Tensor:
        if not delta.numel():
            return x.new_empty(*delta.shape[:2], *x.shape[1:])
        near = self._neighbours(x)
        counts = torch.tensor([len(indices) for indices in near])
        if not counts.all():
            row = int((counts == 0).nonzero()[0])
            nearest = self._search.kneighbors(_rows(x[row : row + 1]), 1, return_distance=False)[0]
            distance = self._distances(_rows(x[row : row + 1]), nearest).item()
            raise ValueError(
                f"eps: expected more than the distance {distance:g} of the nearest reference image to x, "
                f"got {self.eps:g} (image {row} and {int((counts == 0).sum()) - 1} more)"
            )
        uniforms = delta.detach().double().cpu()
        uniform = uniforms[..., 0] + 2**-24 * uniforms[..., 1]
        chosen = (uniform * counts).long().minimum(counts - 1) + counts.cumsum(0) - counts
        indices = torch.cat(near)[chosen]
        return self.reference[indices.to(self.reference.device)].to(x)

    def _neighbours(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The indices of the reference images in the ball around each image, in ascending order."""
        rows = self._rows_of(x)
        keys = [row.tobytes() for row in rows]
        cached = {key: self._cached[key] for key in keys if key in self._cached}
        new = [i for i, key in enumerate(keys) if key not in cached]
        if new:
            for i, near in zip(new, self._search_ball(rows[new]), strict=True):
                cached[keys[i]] = torch.from_numpy(near)
        self._cached = cached
        return [cached[key] for key in keys]

    def _search_ball(self, rows: np.ndarray) -> list[np.ndarray]:
        """The indices of the reference images in the ball around each row, in ascending order."""
        tolerance, found = self._tolerance(rows), []
        for row, distances, near in zip(rows, *self._search.radius_neighbors(rows, self.eps + tolerance), strict=True):
            doubtful = distances >= self.eps - tolerance
            distances[doubtful] = self._distances(row, near[doubtful])
            found.append(np.sort(near[distances < self.eps]))
        return found

    def _tolerance(self, rows: np.ndarray) -> float:
        """A bound on the rounding error of the distances that the search returns."""
        return _TOLERANCE * (1 + max(float(np.abs(rows).max()), self._largest) * rows.shape[1] ** 0.5)

    def _distances(self, row: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """The distances of the row to the reference images at these indices, in float64."""
        near = _rows(self.reference[torch.from_numpy(indices).to(self.reference.device)])
        return np.linalg.norm(near.astype(np.float64) - row.astype(np.float64), self.norm, axis=1)

    def _rows_of(self, x: torch.Tensor) -> np.ndarray:
        if x.shape[1:] != self.reference.shape[1:]:
            raise ValueError(
                f"x: expected images like the reference, {list(self.reference.shape[1:])}, got {list(x.shape[1:])}"
            )
        return _rows(x)

    def _equal_by(self) -> dict[str, Any]:
        return {"reference": self.reference, "eps": self.eps, "norm": self.norm}

    def __repr__(self) -> str:
        return f"on_manifold({len(self.reference)} images, {self.eps}, {self.norm:g})"


def _rows(images: torch.Tensor) -> np.ndarray:
    return images.detach().cpu().flatten(1).numpy()
