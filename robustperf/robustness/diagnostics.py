"""What makes margins doubtful: missing gradients, outputs that are not logits, a noisy model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

EVERY = 4
"""Points whose sample id is a multiple of this are evaluated again, for `changed` and `undercut`."""

NEARER = 0.1
"""The fraction by which the nearest point must be nearer for the published attacks to count as undercut."""

_UNDERCUT = 0.1  # the fraction of the points compared from which on it is reported


@dataclass(frozen=True)
class Diagnostics:
    """Warning signs that margins may be wrong, as counts of points.

    Attributes:
        points: N.
        flat: for each attack the points where a gradient was zero or not finite. There the attack had no direction,
            and the distance is probably too large. Attacks without gradients have 0.
        probabilities: points whose outputs are in [0, 1] and add up to 1: the model seems to end in a softmax or
            sigmoid, whose gradients vanish where it is confident.
        missing: points for which no adversarial example was found.
        undefined: points without a label, and so without a margin: a logit is NaN, or the label's and another one are
            the same infinity.
        repeated: points evaluated a second time, together with their adversarial examples: every fourth point.
        changed: those of `repeated` where the second evaluation gave another label to x, or gave the adversarial
            example the label of x: the model is noisy, or its outputs depend on the batch.
        compared: those of `repeated` whose nearest adversarial example came from an attack other than the published
            three (FGSM, PGD and BG with the settings of their publications), if one of these ran too.
        undercut: those of `compared` where it is more than 10 % nearer than what the published attacks found: none of
            their lines has crossed a boundary at 1.1 times its distance (one evaluation for each longer line).

    >>> found = Diagnostics(points=100, flat={"FGSM": 25})
    >>> found.fractions["flat FGSM"]
    0.25
    >>> found.messages
    ['FGSM had a zero or non-finite gradient at 25.00% of the points, where its distances may be too large']
    """

    points: int = 0
    flat: Mapping[str, int] = field(default_factory=dict)
    probabilities: int = 0
    missing: int = 0
    undefined: int = 0
    repeated: int = 0
    changed: int = 0
    compared: int = 0
    undercut: int = 0

    @property
    def fractions(self) -> dict[str, float]:
        """Each count as a fraction of the points that were checked for it; 0 where none were."""

        def of(count: int, all: int) -> float:
            return count / all if all else 0.0

        flat = {f"flat {name}": of(count, self.points) for name, count in self.flat.items()}
        return flat | {
            "probabilities": of(self.probabilities, self.points), "missing": of(self.missing, self.points),
            "undefined": of(self.undefined, self.points), "changed": of(self.changed, self.repeated),
            "undercut": of(self.undercut, self.compared),
        }  # fmt: skip

    @property
    def messages(self) -> list[str]:
        """A sentence for each warning sign present, with its fraction; empty if there are none."""
        fraction = self.fractions
        lines = [
            f"{name} had a zero or non-finite gradient at {fraction[f'flat {name}']:.2%} of the points, where its "
            "distances may be too large"
            for name, count in self.flat.items()
            if count
        ]
        if self.probabilities:
            lines.append(
                f"the outputs look like probabilities at {fraction['probabilities']:.2%} of the points: leave "
                "out the last softmax or sigmoid, whose gradients vanish where the model is confident"
            )
        if self.changed:
            lines.append(
                f"at {fraction['changed']:.2%} of {self.repeated} points the label of x or of its adversarial "
                "example changed when evaluated again: the model is noisy (dropout, random layers), or "
                "depends on the batch"
            )
        if self.undefined:
            lines.append(f"{fraction['undefined']:.2%} of the points have NaN logits: no label, and so no margin")
        if self.missing:
            lines.append(
                f"no adversarial example was found for {fraction['missing']:.2%} of the points: their margin "
                "counts as the largest distance"
            )
        if fraction["undercut"] >= _UNDERCUT:
            lines.append(
                f"{fraction['undercut']:.2%} of {self.compared} points found by other attacks are more than "
                f"{NEARER:.0%} nearer than those of the published ones, which overestimate margins here"
            )
        return lines

    @property
    def captions(self) -> tuple[str, ...]:
        """`messages` in a few words, for the legend of a plot; without `missing`, which the plot shows itself."""
        fraction = self.fractions
        captions = [
            f"{name}: no gradient at {fraction[f'flat {name}']:.1%}" for name, count in self.flat.items() if count
        ]
        if self.probabilities:
            captions.append(f"outputs look like probabilities at {fraction['probabilities']:.1%}")
        if self.changed:
            captions.append(f"noisy model: {fraction['changed']:.1%} changed their label")
        if self.undefined:
            captions.append(f"NaN logits at {fraction['undefined']:.1%}, left out")
        if fraction["undercut"] >= _UNDERCUT:
            captions.append(f"published attacks undercut at {fraction['undercut']:.1%}")
        return tuple(captions)

    @staticmethod
    def merge(parts: Sequence[Diagnostics]) -> Diagnostics:
        """The sum over several parts of the points."""
        names = dict.fromkeys(name for part in parts for name in part.flat)
        flat = {name: sum(part.flat.get(name, 0) for part in parts) for name in names}
        counts = {
            each.name: sum(getattr(part, each.name) for part in parts)
            for each in fields(Diagnostics)
            if each.name != "flat"
        }
        return Diagnostics(flat=flat, **counts)
