"""Training for robustness: objectives, one file each, that work in any loop; and `fit`, one loop for all of them."""

from robustperf.training.adda import ADDA
from robustperf.training.adversarial import AdversarialTraining
from robustperf.training.augmix import AugMix
from robustperf.training.batches import batches
from robustperf.training.cotrain import CoTrain
from robustperf.training.cross_lipschitz import CrossLipschitz
from robustperf.training.erm import ERM
from robustperf.training.evaluate import Evaluation, evaluate
from robustperf.training.fit import fit
from robustperf.training.gaussian import GaussianAugmentation
from robustperf.training.history import Fitted
from robustperf.training.learner import Learner
from robustperf.training.mat import MAT
from robustperf.training.mda import MDA
from robustperf.training.mrt import MRT
from robustperf.training.objective import Objective

__all__ = [
    "ADDA",
    "ERM",
    "MAT",
    "MDA",
    "MRT",
    "AdversarialTraining",
    "AugMix",
    "CoTrain",
    "CrossLipschitz",
    "Evaluation",
    "Fitted",
    "GaussianAugmentation",
    "Learner",
    "Objective",
    "batches",
    "evaluate",
    "fit",
]
