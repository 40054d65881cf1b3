"""Attacks: where the lines of the margin search end.

One file for each attack, with its source and its defaults. `robustperf.attacks.attack` shows how to write one.
"""

from robustperf.attacks.apgd import APGD
from robustperf.attacks.attack import Adversarial, Attack
from robustperf.attacks.bg import BG
from robustperf.attacks.coordinates import CoordinateDescent
from robustperf.attacks.ddn import DDN
from robustperf.attacks.fab import FAB
from robustperf.attacks.fgsm import FGSM
from robustperf.attacks.fmn import FMN
from robustperf.attacks.hopskipjump import HopSkipJump
from robustperf.attacks.label_attack import LabelAttack
from robustperf.attacks.pdpgd import PDPGD
from robustperf.attacks.pgd import PGD
from robustperf.attacks.problem import Nearest, Problem
from robustperf.attacks.shrinking_ball import ShrinkingBall
from robustperf.attacks.shrinking_support import ShrinkingSupport
from robustperf.attacks.sigma_zero import SigmaZero
from robustperf.attacks.square import Square
from robustperf.attacks.superdeepfool import SuperDeepFool
from robustperf.attacks.surfree import SurFree

__all__ = [
    "APGD",
    "Adversarial",
    "Attack",
    "BG",
    "CoordinateDescent",
    "DDN",
    "FAB",
    "FGSM",
    "FMN",
    "HopSkipJump",
    "LabelAttack",
    "Nearest",
    "PDPGD",
    "PGD",
    "Problem",
    "ShrinkingBall",
    "ShrinkingSupport",
    "SigmaZero",
    "Square",
    "SuperDeepFool",
    "SurFree",
]
