"""A fitted scikit-learn SVC as a PyTorch module: the same labels, with gradients."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.compiler import is_compiling
from torch.nn.functional import linear

from robustperf import check, ops
from robustperf.transfer import image_rows

KERNELS = ("linear", "poly", "rbf")
_ROWS = 1024  # points at a time where memory is proportional to points times support vectors
_BATCH = 4096  # and where it is proportional to points


class SVMModule(torch.nn.Module):
    """A support vector classifier of images [B, ...], which it flattens; create one with `from_sklearn`.

    It consists of P = C (C - 1) / 2 one-vs-one classifiers. Its outputs [B, C], one for each class in the order of
    `classes_`, are continuous and piecewise differentiable in their decision values. The argmax is the label that
    `SVC.predict` returns: the class with the most votes, and the first of those with equally many (or, with
    break_ties=True, the most confident). Let u_1 >= u_2 >= ... be the sorted decision values of a class against the
    C - 1 others: it has i votes or more where u_i > 0. So class c has more votes than j where

        more(c, j) = max_i min(u_i(c), -u_i(j))

    is above 0, and at least as many where -more(j, c) is. Each is the amount by which all decision values must change
    to reverse that. The lead of c over j is the one of the two that breaks ties as the SVC does, and the output of c is
    its smallest lead. For two classes the outputs are the negative decision value and the decision value.

    scikit-learn's own scores of this shape, `decision_function_shape="ovr"`, are votes + s / (3 (|s| + 1)) with s the
    sum of a class's decision values. They are discontinuous where a vote changes, so that gradients do not lead there,
    and they break ties by the larger s, which `predict` does only with break_ties=True.

    Args:
        classes, kernel, support, dual, intercept, gamma, coef0, degree, break_ties, dtype: the attributes below.

    Attributes:
        classes_: [C], the labels that the SVC was fitted with, a numpy array.
        kernel, gamma, coef0, degree, break_ties: those of the SVC, gamma as a float.
        support: [S, D] float64, the support vectors; for the linear kernel [P, D], the weights.
        dual: [P, S] float64, for the pairs of classes (0, 1), (0, 2), ..., (1, 2), ...; None for the linear kernel.
        intercept: [P] float64. These three stay float64: the terms of a decision value are much larger than their sum.
            Where float32 rounding may change the label of an image, its decision values are computed in float64; the
            outputs of other float32 images, by an RBF kernel, in float32.
        dtype: of the images and of the outputs, as set by `float()` and `double()`.

    >>> from sklearn.svm import SVC
    >>> digits = rp.data.load("digits", "test")
    >>> svc = SVC().fit(digits.x.flatten(1), digits.y)
    >>> module = SVMModule.from_sklearn(svc)
    >>> bool((module.predict(digits.x) == svc.predict(digits.x.flatten(1))).all())
    True
    """

    classes_: np.ndarray
    kernel: str
    gamma: float
    coef0: float
    degree: int
    break_ties: bool
    dtype: torch.dtype

    def __init__(
        self,
        classes: np.ndarray,
        kernel: str,
        support: torch.Tensor,
        dual: torch.Tensor | None,
        intercept: torch.Tensor,
        *,
        gamma: float,
        coef0: float,
        degree: int,
        break_ties: bool,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.classes_, self.kernel, self.gamma, self.coef0, self.degree = classes, kernel, gamma, coef0, degree
        self.break_ties, self.dtype, self._cached = break_ties, dtype, None
        for name, value in (("support", support), ("dual", dual), ("intercept", intercept)):
            self.register_buffer(name, value)
        pair, sign = _pairs_of_each_class(len(classes))
        self.register_buffer("_pair", pair, persistent=False)
        self.register_buffer("_sign", sign.double(), persistent=False)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> SVMModule:
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=before["intercept"].device)).dtype
        for name, value in before.items():  # `fn` may round them; their float64 values are kept
            setattr(self, name, value.to(getattr(self, name).device))
        return self

    @classmethod
    def from_sklearn(cls, svc: Any, *, dtype: torch.dtype = torch.float32) -> SVMModule:
        """The module of a fitted `sklearn.svm.SVC` or `NuSVC` with a linear, polynomial or RBF kernel.

        Args:
            svc: the SVC. For a Pipeline that ends in one, or a search over one, the result is that of
                `module_from_sklearn`.
            dtype: float32 or float64, of the images and of the outputs. The decision values are computed in float64 in
                either case and equal scikit-learn's up to rounding.

        Raises TypeError for another estimator, ValueError for one that is not fitted, for another kernel, and for
        fitted parameters that are not finite or whose shapes do not match.

            module = SVMModule.from_sklearn(SVC().fit(X, y))
        """
        from sklearn.model_selection import GridSearchCV, RandomizedSearchCV  # imported here: it takes half a second
        from sklearn.pipeline import Pipeline
        from sklearn.svm import SVC, NuSVC

        if isinstance(svc, GridSearchCV | RandomizedSearchCV | Pipeline):
            from robustperf.transfer.estimators import module_from_sklearn

            return module_from_sklearn(svc, dtype=dtype)
        if not isinstance(svc, (SVC, NuSVC)):
            got = f"the class {svc.__name__}" if isinstance(svc, type) else type(svc).__name__
            raise TypeError(
                f"svc: expected a fitted sklearn.svm.SVC or NuSVC, got {got}; "
                "robustperf.transfer.module_from_sklearn takes other classifiers"
            )
        if dtype not in check.REAL:
            raise TypeError(f"dtype: expected {' or '.join(map(str, check.REAL))}, got {dtype}")
        if callable(svc.kernel):
            raise ValueError(
                "svc: expected the kernel 'linear', 'poly' or 'rbf', got a function, which acts on numpy arrays and "
                "has no gradient"
            )
        if svc.kernel not in KERNELS:
            raise ValueError(f"svc: expected the kernel 'linear', 'poly' or 'rbf', got {svc.kernel!r}")
        if not hasattr(svc, "support_vectors_"):
            raise ValueError("svc: expected a fitted SVC, got one that is not fitted")
        if len(svc.classes_) < 2:
            raise ValueError(f"svc: expected at least two classes, got {list(svc.classes_)}")
        if svc.break_ties and svc.decision_function_shape == "ovo":
            raise ValueError(
                "svc: expected break_ties=False with decision_function_shape='ovo', got True, which its own predict "
                "rejects too"
            )
        support, intercept = _finite(svc, "support_vectors_"), _finite(svc, "intercept_")
        dual = _pairwise(_finite(svc, "dual_coef_"), svc.n_support_.tolist(), len(support))
        if len(dual) != len(intercept):
            raise ValueError(f"svc.intercept_: expected {len(dual)} values, got {len(intercept)}")
        if len(svc.classes_) == 2:  # only then scikit-learn reverses the sign: above 0 is the second class
            dual, intercept = -dual, -intercept
        if svc.kernel == "linear":
            support, dual = dual @ support, None
        return cls(
            svc.classes_,
            svc.kernel,
            support,
            dual,
            intercept,
            gamma=float(svc._gamma),
            coef0=float(svc.coef0),
            degree=int(svc.degree),
            break_ties=bool(svc.break_ties) and len(svc.classes_) > 2,
            dtype=dtype,
        )

    def affine_logits(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(W [2, D], b [2]) float64 of outputs W x + b; None unless the kernel is linear and there are two classes."""
        if self.kernel != "linear" or len(self.classes_) != 2:
            return None
        return torch.cat([self.support, -self.support]), torch.cat([self.intercept, -self.intercept])

    def decisions(self, x: torch.Tensor) -> torch.Tensor:
        """The one-vs-one decision values [B, C (C - 1) / 2] of images x [B, ...], of their dtype: above 0 is a vote for
        the first class of the pair. For more than two classes they are scikit-learn's `decision_function` of shape
        "ovo"; for two classes the negative of that, whose sign scikit-learn reverses.

        They are computed in float64, so that they do not depend on the rest of the batch. An image that is not finite
        gives NaN.

        Raises TypeError for a wrong dtype, ValueError for a wrong shape or device.
        """
        return self._decisions(self._flat(x)).to(x.dtype)

    def _decisions(self, x: torch.Tensor) -> torch.Tensor:
        """The decision values [B, P] of rows [B, D], in float64."""
        x = x.double()
        x = x.where(x.isfinite(), torch.nan)  # infinities could cancel
        if self.kernel == "linear":
            return linear(x, self.support, self.intercept)
        if self.kernel == "poly":
            return torch.cat([self._polynomial(part) for part in x.split(_ROWS)])
        return ops.rbf_decision(x, self.support, self.dual, self.intercept, self.gamma)

    def _flat(self, x: torch.Tensor, dtypes: tuple[torch.dtype, ...] | None = None) -> torch.Tensor:
        """Checked rows [B, D]; `dtypes` are those that the images may have, None for `dtype` only."""
        check.tensor("x", x, ("B", ...), dtypes=dtypes or (self.dtype,), device=self.intercept.device)
        if x.dim() < 2 or math.prod(x.shape[1:]) != self.support.shape[1]:
            raise ValueError(f"x: expected images of {self.support.shape[1]} values, got shape {list(x.shape)}")
        return x.flatten(1)

    def _polynomial(self, x: torch.Tensor) -> torch.Tensor:
        """Decision values of the polynomial kernel; autograd keeps some arrays [B, S] for the backward pass."""
        return linear((self.gamma * linear(x, self.support) + self.coef0) ** self.degree, self.dual, self.intercept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The smallest lead [B, C] of each class for images x [B, ...] of dtype `dtype`; above 0 for the label only.

        Raises TypeError for a wrong dtype, ValueError for a wrong shape or device.
        """
        rows = self._flat(x)
        quick = self._mostly_sure and x.dtype == torch.float32 and not is_compiling()
        decisions = self._quick_decisions(rows) if quick else self._decisions(rows)
        each = self._of_each_class(decisions)
        ranked, confidence = each.sort(dim=2).values, each.sum(2)
        leads = [self._least_lead(ranked, confidence, c) for c in range(len(self.classes_))]
        return torch.stack(leads, 1).to(x.dtype)

    @property
    def _mostly_sure(self) -> bool:
        """Whether the signs of the decision values decide, for which float32 mostly suffices."""
        return self.kernel == "rbf" and not self.break_ties

    def _of_each_class(self, decisions: torch.Tensor) -> torch.Tensor:
        """[B, C, C - 1], each class's decision values against the others: above 0 is a vote; none is 0."""
        # a value of 0 is a vote for the second class; with break_ties=True, for the first
        smallest = torch.finfo(self.dtype).tiny * (1 if self.break_ties else -1)
        decisions = torch.where(decisions == 0, decisions + smallest, decisions)
        return decisions[:, self._pair] * self._sign

    def _least_lead(self, ranked: torch.Tensor, confidence: torch.Tensor, c: int) -> torch.Tensor:
        mine, theirs = ranked[:, c : c + 1], -ranked
        more = torch.minimum(mine, theirs).amax(2)  # [B, C]
        as_many = torch.maximum(mine, theirs).amin(2)
        if self.break_ties:
            lead = torch.clamp(confidence[:, c : c + 1] - confidence, more, as_many)
            return torch.cat([lead[:, :c], lead[:, c + 1 :]], 1).amin(1)
        return torch.cat([more[:, :c], as_many[:, c + 1 :]], 1).amin(1)

    @torch.no_grad()
    def predict(self, x: torch.Tensor | np.ndarray) -> torch.Tensor | np.ndarray:
        """The labels [B] that the SVC predicts, from `classes_`: the argmax of the outputs, found by counting votes.

        Args:
            x: images [B, ...], a tensor or an array, float32 or float64 whatever `dtype` is; an array of integers too.

        Returns a tensor if x is one and the labels are numeric, else an array. Raises TypeError or ValueError as
        `decisions`, and ValueError for images that are not finite.
        """
        images = self._flat(check.images("x", image_rows.as_tensor(x)), check.REAL)
        if self._mostly_sure:
            index = torch.cat([self._label(part.double()) for part in self._quick_decisions(images).split(_ROWS)])
        else:
            index = torch.cat([self._label(self._decisions(part)) for part in images.split(_BATCH)])
        return image_rows.labels_like(x, self.classes_, index)

    def _quick_decisions(self, x: torch.Tensor) -> torch.Tensor:
        """RBF decision values [B, P] in float32, and those of the images whose label rounding may change as float64 has
        them. The relative error of exp(-gamma |x - s|^2) is about gamma eps (|x| + |s|)^2, and is summed over the dual
        coefficients. These norms are taken from the supports' centre; `ops.rbf_decision` takes them from the centre of
        some of the supports, which is within `reach` of it. The rounding of s itself, and that of x [B, D] where it is
        float64, are proportional to their norms from 0."""
        operands, centre, reach, length, weight = self._rounded()
        rounded = x.float()
        decisions = ops.rbf_decision(rounded, *operands, self.gamma)
        unsure, eps = [], torch.finfo(torch.float32).eps
        with torch.no_grad():
            for part, points in zip(decisions.split(_ROWS), rounded.split(_ROWS), strict=True):
                size = (points - centre).norm(dim=1) + 3 * reach
                lengths = length if rounded is x else length + points.norm(dim=1)
                relative = eps * (4 + 2 * self.gamma * size * (size + lengths))
                rounding = relative[:, None] * weight + eps * operands[2].abs()
                unsure.append(self._is_unsure(part.double(), ~(part.abs() > rounding)))
            again = torch.cat(unsure).nonzero()[:, 0]
        if not len(again):
            return decisions
        return decisions.double().index_copy(0, again, self._decisions(x[again]))

    def _rounded(self) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(support, dual and intercept in float32, the supports' centre, their largest distance from it, their largest
        norm, the sums of |dual|). Cached, since computing them takes as long as predicting hundreds of labels."""
        exact = self.support, self.dual, self.intercept
        versions = [None if value.is_inference() else value._version for value in exact]
        if self._cached is None or self._cached[1] != versions or any(map(operator.is_not, self._cached[0], exact)):
            support, dual, _ = operands = [value.float() for value in exact]
            centre = support.mean(0)
            reach, length = ((support - origin).norm(dim=1).amax() for origin in (centre, 0))
            self._cached = exact, versions, (operands, centre, reach, length, dual.abs().sum(1))
        return self._cached[2]

    def _is_unsure(self, decisions: torch.Tensor, unsure: torch.Tensor) -> torch.Tensor:
        """[B] bool, whether the unsure signs may change the label."""
        votes, doubt = self._of_each_class(decisions) > 0, unsure[:, self._pair]
        least, most = (votes & ~doubt).sum(2), (votes | doubt).sum(2)
        others = most.scatter(1, least.argmax(1)[:, None], -1).amax(1)
        return (least.amax(1) <= others) & unsure.any(1)

    def _label(self, decisions: torch.Tensor) -> torch.Tensor:
        return self._most_votes(self._of_each_class(decisions))

    def _most_votes(self, each: torch.Tensor) -> torch.Tensor:
        votes = (each > 0).sum(2)
        if self.break_ties:
            confidence = each.sum(2).double()
            votes = votes + confidence / (3 * (confidence.abs() + 1))
        return votes.argmax(1)  # the first of equally many


def _finite(svc: Any, name: str) -> torch.Tensor:
    """A fitted array in float64; it is sparse where the training images were."""
    value = getattr(svc, name)
    value = value.toarray() if hasattr(value, "toarray") else value
    return check.finite(f"svc.{name}", torch.tensor(np.asarray(value), dtype=torch.float64))


def _pairwise(dual: torch.Tensor, counts: list[int], total: int) -> torch.Tensor:
    """[P, S], for each pair of classes the coefficients of all support vectors, from libsvm's [C - 1, S]. There, row r
    of a vector of class c is its coefficient against class r for r < c and against class r + 1 for r >= c."""
    classes = len(counts)
    if dual.shape != (classes - 1, total) or sum(counts) != total:
        raise ValueError(
            f"svc.dual_coef_: expected shape {[classes - 1, total]} and {total} support vectors of all "
            f"classes, got {list(dual.shape)} and {counts}"
        )
    of_class = [slice(sum(counts[:c]), sum(counts[: c + 1])) for c in range(classes)]
    pairs = []
    for i in range(classes):
        for j in range(i + 1, classes):
            row = torch.zeros(total, dtype=dual.dtype)
            row[of_class[i]], row[of_class[j]] = dual[j - 1, of_class[i]], dual[i, of_class[j]]
            pairs.append(row)
    return torch.stack(pairs)


def _pairs_of_each_class(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[C, C - 1] each: the pairs of each class, and 1 where it is the first of the pair, -1 where it is the second."""
    pair = torch.zeros(classes, classes, dtype=torch.int64)
    first, second = torch.triu_indices(classes, classes, 1)
    pair[first, second] = pair[second, first] = torch.arange(len(first))
    others = ~torch.eye(classes, dtype=torch.bool)
    sign = torch.ones(classes, classes, dtype=torch.float32).triu() * 2 - 1
    return pair[others].view(classes, -1), sign[others].view(classes, -1)
