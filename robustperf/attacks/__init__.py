"""Attacks: where the lines of the margin search end. One file an attack; each names its source and its defaults."""

from robustperf.attacks.attack import Adversarial, Attack
from robustperf.attacks.bg import BG
from robustperf.attacks.fgsm import FGSM
from robustperf.attacks.pgd import PGD

__all__ = ["BG", "FGSM", "PGD", "Adversarial", "Attack"]
