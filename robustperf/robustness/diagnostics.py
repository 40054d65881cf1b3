"""What makes margins doubtful: gradients that are not there, outputs that are no logits, a model that is noisy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

EVERY = 4
"""Points whose number is a multiple of this are evaluated once more, for `changed` and `undercut`."""

NEARER = 0.1
"""By which share the nearest point must be nearer for the published attacks to count as undercut."""

_UNDERCUT = 0.1  # of the points compared, from which on it is worth a word


@dataclass(frozen=True)
class Diagnostics:
    """Signs that margins are not what they seem, as numbers of points.

    Attributes:
        points: N.
        flat: for each attack the points where a gradient was zero or not finite: there it did not know where to go, and
            distances are too large. Attacks that ask for none have 0.
        probabilities: where the outputs at x are in [0, 1] and add up to 1, so that the model seems to end in a
            softmax or sigmoid, whose gradients vanish where it is sure.
        missing: where no adversarial example was found.
        undefined: where a logit at x is NaN, or the label's and another one are the same infinity: no label, and so
            no margin.
        repeated: the points that were evaluated once more, and their adversarial examples with them: every fourth.
        changed: at how many of them a label differed then, that of x or that of the adversarial example (which had
            the label of x again): the model is noisy, or depends on the batch.
        compared: of their adversarial examples the ones found by an attack that is not one of the published three (FGSM, PGD and BG with the
            settings that they were published with), where there is a published one too.
        undercut: how many of them are more than 10 % nearer than the published attacks' points: no line to these has
            crossed at 1.1 times the distance (one evaluation for each line that is longer).
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
        """Each sign as a fraction, of the points that were looked at for it; 0 where there were none."""

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
        """A line for each sign that there is, with its fraction; none where nothing is wrong."""
        share = self.fractions
        lines = [f"{name} had a zero or non-finite gradient at {share[f'flat {name}']:.2%} of the points: there it did "
                 "not know where to go" for name, count in self.flat.items() if count]
        if self.probabilities:
            lines.append(f"the outputs look like probabilities at {share['probabilities']:.2%} of the points: leave "
                         "out the last softmax or sigmoid, whose gradients vanish where the model is sure")
        if self.changed:
            lines.append(f"at {share['changed']:.2%} of {self.repeated} points the label of x or of its adversarial "
                         "example changed when evaluated once more: the model is noisy (dropout, random layers), or "
                         "depends on the batch")
        if self.undefined:
            lines.append(f"{share['undefined']:.2%} of the points have NaN logits: no label, and so no margin")
        if self.missing:
            lines.append(f"no adversarial example was found for {share['missing']:.2%} of the points: their margin "
                         "counts as the largest distance")
        if share["undercut"] >= _UNDERCUT:
            lines.append(f"{share['undercut']:.2%} of {self.compared} points found by other attacks are more than "
                         f"{NEARER:.0%} nearer than those of the published ones, which overestimate margins here")
        return lines

    @property
    def captions(self) -> tuple[str, ...]:
        """`messages` in a few words, for a picture, without the points that were not found."""
        share = self.fractions
        words = [f"{name}: no gradient at {share[f'flat {name}']:.1%}" for name, count in self.flat.items() if count]
        if self.probabilities:
            words.append(f"outputs look like probabilities at {share['probabilities']:.1%}")
        if self.changed:
            words.append(f"noisy model: {share['changed']:.1%} changed their label")
        if self.undefined:
            words.append(f"NaN logits at {share['undefined']:.1%}, left out")
        if share["undercut"] >= _UNDERCUT:
            words.append(f"published attacks undercut at {share['undercut']:.1%}")
        return tuple(words)

    @staticmethod
    def merge(parts: Sequence[Diagnostics]) -> Diagnostics:
        """Those of all points of several parts."""
        names = dict.fromkeys(name for part in parts for name in part.flat)
        flat = {name: sum(part.flat.get(name, 0) for part in parts) for name in names}
        counts = {each.name: sum(getattr(part, each.name) for part in parts)
                  for each in fields(Diagnostics) if each.name != "flat"}
        return Diagnostics(flat=flat, **counts)
