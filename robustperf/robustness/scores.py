"""Robustness scores: the basic measure under H, weighted by G, integrated over points and kernels (T Definitions 2 to
4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from robustperf import check, random
from robustperf.attacks.named import Attacks
from robustperf.classifier import Classifier
from robustperf.family import Family
from robustperf.kernel import Kernel
from robustperf.names import DEFAULT_ATTACKS
from robustperf.progress import progress_bar
from robustperf.result import Result
from robustperf.robustness.basic_robustness import basic_robustness
from robustperf.robustness.margins import margins

Function = Callable[[torch.Tensor], torch.Tensor]

_NAMED = {"identity": lambda rho: rho, "certain": lambda rho: (rho == 1).double()}
_CERTAIN = ("draws", "margins")
_ROUNDING = 1e-9
_MIN_EFFECTIVE = 8  # drawn lambdas, for a meaningful standard error


@dataclass(frozen=True, eq=False, repr=False)
class ScoreValue(Result):
    """A robustness score, estimated at N points.

    Attributes:
        value: R. NaN where Q(. | x) does not exist for some point, or, by margins, where the model gives one no label
            (`points` tells which).
        standard_error: of `value`, from the scatter between the points and, where lambda was drawn, between its draws;
            NaN where that was one draw.
        area: the integral of R_{Q_lambda} over A without the density, as T equation 7 has it; the value itself where
            there is no family.
        points: [N] float64, each one's H(rho(x)) G(x), averaged over lambda: `value` is their mean.
        lam: [L, k] float64, where the family was evaluated; [0, 0] without one.
        at: [L] float64, R_{Q_lambda} there: over the radius of a ball with H = certain it is the margin curve (T
            Example 3).
        draws: their total number; 0 where margins were computed instead.

    >>> model = lambda images: torch.cat([images, 0.5 * torch.ones_like(images)], 1).flatten(1)
    >>> x = torch.tensor([0.9, 0.2]).view(2, 1, 1, 1)
    >>> score = rp.Score(rp.nuisance.ball_family(1.0), H="certain", G="empirical", certain="margins")(model, x)
    >>> round(score.value, 4), round(score.area, 4)
    (0.35, 0.35)
    """

    value: float
    standard_error: float
    area: float
    points: torch.Tensor
    lam: torch.Tensor
    at: torch.Tensor
    draws: int

    def _facts(self) -> dict[str, Any]:
        return {"": self.value, "standard error": self.standard_error, "n": len(self.points), "draws": self.draws}


@dataclass(frozen=True)
class Score(check.Settings):
    """R_{Q,H,G}^f, the integral of H(rho_Q^f(x)) G(x) over x (T Definitions 2 and 3), and for a family of kernels its
    average over lambda (Definition 4).

    Q is a kernel or a family: of one variable it is integrated by the Gauss-Legendre rule, otherwise by draws.

    rho is a fraction of draws, so for an H other than the identity the value is biased by H of its scatter, less with
    more draws. With H = certain it is too high: a point counts as certain until a draw has another label, and in many
    dimensions draws find little of what `margins` finds by searching.

    For balls in the unit cube (`ball_family(d)`) and H = certain, the average over eps in [0, d], times d, is the
    average margin (T equations 6 and 7, Examples 2 and 3). `certain="margins"` computes it that way: rho is 1
    in the balls below a point's margin, which attacks and a line search bound from above; `area` is then
    `MarginCurve.area` of these margins, to rounding. Balls that are not clamped reach outside the cube, where no image
    and no margin is: the score of a classifier that is the same everywhere in the cube may be well below the largest
    (0.5 for one that changes right outside), and it is not the average margin.

    Args:
        kernel: Q, a `Kernel` or a `Family`.
        H: "identity"; "certain", the indicator of rho = 1, which stops a point's draws at the first other label; or an
            increasing function of rho [N] float64 in [0, 1] that gives [N] values >= 0.
        G: "uniform", G = 1 on the unit cube (type 1); "empirical", G = p, the density that the points are drawn from
            (type 2); or a function of images [N, C, H, W] that gives their weights [N] >= 0, on the unit cube.
        nodes: L, the number of lambda at which R_{Q_lambda} is evaluated. Where they are drawn, the effective sample
            size under the density must be at least min(8, L): (sum_l q_l)^2 / sum_l q_l^2 is Kish's effective size.
        certain: for H = certain, how rho < 1 is decided: "draws", for any kernel; or "margins", for norm balls within
            the unit cube (clamp=True) of one norm. Where lambda is the radius and uniform, as in `ball_family`, the
            average over lambda is then exact.

    Raises TypeError or ValueError for a wrong argument, an H that decreases or is negative.

    The average margin of points whose label changes at 0.5:

    >>> from robustperf.nuisance import ball_family
    >>> model = lambda images: torch.cat([images, 0.5 * torch.ones_like(images)], 1).flatten(1)
    >>> x = torch.tensor([0.9, 0.2]).view(2, 1, 1, 1)
    >>> round(Score(ball_family(1.0), H="certain", G="empirical", certain="margins")(model, x).area, 4)
    0.35
    """

    kernel: Kernel | Family
    H: str | Function = "identity"
    G: str | Function = "uniform"
    nodes: int = 32
    certain: str = "draws"

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, Kernel | Family):
            raise TypeError(f"kernel: expected a Kernel or a Family, got {type(self.kernel).__name__}")
        for name, value, known in (("H", self.H, tuple(_NAMED)), ("G", self.G, ("uniform", "empirical"))):
            if value not in known and (isinstance(value, str) or not callable(value)):
                raise ValueError(f"{name}: expected {', '.join(known)} or a function, got {value!r}")
        check.integer("nodes", self.nodes, 1)
        if self.certain not in _CERTAIN:
            raise ValueError(f"certain: expected one of {', '.join(_CERTAIN)}, got {self.certain!r}")
        if self.certain == "margins" and self.H != "certain":
            raise ValueError(f"certain: expected draws where H is not certain, got margins beside H={self.H!r}")
        self._check_h(1024)

    def __call__(
        self,
        model: Classifier,
        x: torch.Tensor | None = None,
        *,
        shape: tuple[int, int, int] | None = None,
        points: int | None = None,
        samples: int = 1000,
        key: int = 0,
        batch_size: int = 64,
        index: torch.Tensor | None = None,
        attacks: Attacks | None = None,
        bounds: tuple[float, float] = (0.0, 1.0),
        progress: bool = False,
    ) -> ScoreValue:
        """The score of a classifier.

        Args:
            model: run in eval mode and left unchanged.
            x: [N, C, H, W], the data, where G is "empirical"; None otherwise.
            shape: (C, H, W) of the unit cube's images, where it is not.
            points: N, how many uniform points of the cube are drawn; 1,000 by default.
            samples: draws for each point and each lambda, at most.
            key: 64 bits, of all draws.
            batch_size: images in one forward pass; it does not change a draw.
            index: [N] int64, the points' sample ids, which the draws depend on; 0..N-1 by default.
            attacks: where certain="margins": "fast", "strong", "tibo", names or a list of attacks.
            bounds: (lower, upper) of the box, finite, whose points are drawn where G is not "empirical"; the unit
                cube's by default, and always where certain="margins". Arrays broadcast to an image. The kernel must
                live there too: wrap it in `nuisance.InBounds`.
            progress: show a bar on standard error, over the kernels' points.

        Raises TypeError or ValueError for wrong arguments, an H or a G out of its range there, a density that the
        nodes are too few for.
        """
        check.integer("samples", samples, 1)
        self._check_h(samples)
        if self.G == "empirical":
            x = self._data(x, shape, points)
        else:
            x = self._cube(model, x, shape, points, index, key, bounds)
        weights = self._weights(x)
        lam, volumes, fractions = self._lambdas(key)
        kernels = [self.kernel.at(each) for each in lam] if isinstance(self.kernel, Family) else [self.kernel]
        draws = 0
        if self.certain == "margins":
            if not all(map(check.is_number, bounds)) or tuple(bounds) != (0, 1):
                raise ValueError(f"bounds: expected the unit cube's, (0, 1), where certain is margins, got {bounds!r}")
            norm, eps = _balls(kernels)
            distance = _margins(model, x, norm, attacks, key=key, batch_size=batch_size, index=index)
            certain = (distance > eps[:, None]).double()
            values = certain.where(~distance.isnan(), torch.nan) * weights  # [L, N]
        elif attacks is not None:
            raise ValueError(f"attacks: expected None where certain is draws, got {attacks!r}")
        else:
            values = []
            with progress_bar(progress, "score", len(kernels) * len(x)) as advance:
                for place, kernel in enumerate(kernels):
                    found = basic_robustness(
                        model,
                        x,
                        kernel,
                        samples=samples,
                        until_disagreement=self.H == "certain",
                        key=random.fold_in(key, place),
                        batch_size=batch_size,
                        index=index,
                        progress=advance,
                    )
                    values.append(self._h(found.rho) * weights)
                    draws += int(found.draws.sum())
            values = torch.stack(values)
        at, of_points = values.mean(1), fractions @ values
        exact = self.certain == "margins" and len(lam) and self.kernel.density is None and torch.equal(eps, lam[:, 0])
        if exact:  # the integral of a step over the radius
            lower, upper = self.kernel.lower.item(), self.kernel.upper.item()
            of_points = (distance.clamp(lower, upper) - lower) / (upper - lower) * weights
        if isinstance(self.H, str) and isinstance(self.G, str):
            of_points = of_points.clamp(max=1)  # the fractions add up to 1 but for rounding
        value = of_points.mean().item()
        variance = of_points.var().item() / len(x) if len(x) > 1 else math.nan
        if isinstance(self.kernel, Family) and self.kernel.dim > 1:
            variance += (fractions * (at - value)).square().sum().item() if self.nodes > 1 else math.nan
        at = at if len(lam) else at[:0]
        area = value * self.kernel.volume if exact else (volumes @ at).item() if len(lam) else value
        return ScoreValue(value, math.sqrt(variance), area, of_points, lam, at, draws)

    def _data(self, x, shape, points):
        if shape is not None or points is not None:
            raise ValueError(f"shape, points: expected None where G is empirical, got {shape} and {points}")
        if x is None:
            raise ValueError("x: expected the data [N, C, H, W] where G is empirical, got None")
        check.tensor("x", x, ("N", "C", "H", "W"))
        if not len(x):
            raise ValueError(f"x: expected at least one image, got shape {list(x.shape)}")
        return x

    def _cube(self, model, x, shape, points, index, key, bounds):
        for name, value in (("x", x), ("index", index)):
            if value is not None:
                raise ValueError(
                    f"{name}: expected None, for points of the unit cube are drawn where G is "
                    f"{self.G if self.G == 'uniform' else 'a function'}; G='empirical' takes data"
                )
        shape = check.image_shape("shape", shape)
        points = check.integer("points", 1000 if points is None else points, 1)
        parameters = model.parameters() if isinstance(model, torch.nn.Module) else iter(())
        first = next(parameters, torch.empty(0, dtype=torch.float32))
        index = torch.arange(points, device=first.device)
        drawn = random.uniform(random.fold_in(key, random.Salt.POINTS), index, 1, math.prod(shape))[0]
        drawn = drawn.view(points, *shape).to(first.dtype if first.dtype in check.REAL else torch.float32)
        lower, upper = check.box(bounds, shape, drawn.dtype, drawn.device)
        if not torch.as_tensor(upper - lower).isfinite().all():
            raise ValueError(f"bounds: expected finite ones, whose box points are drawn from, got {bounds!r}")
        return lower + (upper - lower) * drawn

    def _weights(self, x):
        """G at the points, [N] float64; 1 where they are drawn from it."""
        if isinstance(self.G, str):
            return torch.ones(len(x), dtype=torch.float64)
        return _values("G", self.G(x), len(x)).cpu()

    def _lambdas(self, key):
        """(lambda [L, k], its fraction of A's volume [L], its fraction of the average [L])."""
        if isinstance(self.kernel, Kernel):
            return torch.empty(0, 0, dtype=torch.float64), None, torch.ones(1, dtype=torch.float64)
        if self.kernel.dim == 1:
            lam, volumes = self.kernel.nodes(self.nodes)
        else:
            lam = self.kernel.draws(self.nodes, random.fold_in(key, random.Salt.FAMILY))
            volumes = torch.full((self.nodes,), self.kernel.volume / self.nodes, dtype=torch.float64)
        fractions = volumes * self.kernel.density_at(lam)
        total = fractions.sum().item()
        effective = total**2 / fractions.square().sum().item() if total else 0
        few = abs(total - 1) > 0.1 if self.kernel.dim == 1 else effective < min(_MIN_EFFECTIVE, self.nodes) - _ROUNDING
        if total == 0 or few:
            raise ValueError(
                f"nodes: expected enough of them for the density, got {self.nodes}, by which its integral "
                f"is {total:.3g} and {effective:.3g} of them count"
            )
        return lam, volumes, fractions / total

    def _h(self, rho):
        known = rho.nan_to_num(0)
        values = _NAMED[self.H](known) if isinstance(self.H, str) else _values("H", self.H(known), len(rho)).cpu()
        return values.where(~rho.isnan(), torch.nan)

    def _check_h(self, samples):
        """Checks H at all values that a fraction of `samples` draws can have."""
        if isinstance(self.H, str):
            return
        rho = torch.arange(samples + 1, dtype=torch.float64) / samples
        values = _values("H", self.H(rho), samples + 1)
        falls = (values.diff() < -_ROUNDING * values.max()).nonzero()
        if len(falls):
            place = int(falls[0])
            raise ValueError(
                f"H: expected an increasing function, got {values[place]:g} at {rho[place]:g} and "
                f"{values[place + 1]:g} at {rho[place + 1]:g}"
            )


def _balls(kernels: Sequence[Kernel]) -> tuple[float, torch.Tensor]:
    """(norm, radii [L] float64) of balls within the unit cube; ValueError for other kernels."""
    for kernel in kernels:
        if kernel.ball is None or kernel.ball[0] != kernels[0].ball[0]:
            raise ValueError(
                "kernel: expected norm balls of one norm within the unit cube (clamp=True) where certain "
                f"is margins, got {kernel!r}"
            )
    return kernels[0].ball[0], torch.tensor([kernel.ball[1] for kernel in kernels], dtype=torch.float64)


def _margins(model, x, norm, attacks, **arguments) -> torch.Tensor:
    """The margins [N] float64 of points in the unit cube."""
    return margins(model, x, attacks=DEFAULT_ATTACKS if attacks is None else attacks, norm=norm, **arguments).distance


def _values(name: str, values, size: int) -> torch.Tensor:
    """[size] float64, finite and >= 0."""
    values = torch.as_tensor(values, dtype=torch.float64)
    if values.shape != (size,):
        raise ValueError(f"{name}: expected values of shape [{size}], got {list(values.shape)}")
    wrong = ~((values >= 0) & values.isfinite())
    if wrong.any():
        raise ValueError(f"{name}: expected finite numbers >= 0, got {values[wrong][0]:g}")
    return values
