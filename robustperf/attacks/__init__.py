"""Attacks: where the lines of the margin search end.

One file for each attack, with its source and its defaults. `robustperf.attacks.attack` shows how to write one.
"""

from robustperf.attacks.attack import Adversarial, Attack
from robustperf.attacks.bg import BG
from robustperf.attacks.coordinates import CoordinateDescent
from robustperf.attacks.fgsm import FGSM
from robustperf.attacks.hopskipjump import HopSkipJump
from robustperf.attacks.label_attack import LabelAttack
from robustperf.attacks.pgd import PGD
from robustperf.attacks.problem import Nearest, Problem
from robustperf.attacks.surfree import SurFree

__all__ = [
    "BG",
    "FGSM",
    "PGD",
    "Adversarial",
    "Attack",
    "CoordinateDescent",
    "HopSkipJump",
    "LabelAttack",
    "Nearest",
    "Problem",
    "SurFree",
]
