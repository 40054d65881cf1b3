"""Wrong settings of an objective are errors that name them."""

import math

import pytest
import torch

from robustperf.attacks import PGD
from robustperf.nuisance import Brightness
from robustperf.training import MAT, MDA, MRT, AdversarialTraining, GaussianAugmentation


@pytest.mark.parametrize("make", [MRT, MAT, MDA])
@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"kernel": "brightness"}, TypeError, "kernel: expected a Kernel, got str"),
        ({"kernel": Brightness}, TypeError, "kernel: expected a Kernel, got ABCMeta"),
        ({"kernel": None}, TypeError, "kernel: expected a Kernel, got NoneType"),
        ({"k": 0}, ValueError, "k: expected an integer above 0, got 0"),
        ({"k": -1}, ValueError, "k: expected an integer above 0, got -1"),
        ({"k": 2.0}, ValueError, "k: expected an integer above 0, got 2.0"),
        ({"k": True}, ValueError, "k: expected an integer above 0, got True"),
        ({"k": None}, ValueError, "k: expected an integer above 0, got None"),
    ],
)
def test_errors_of_kernel_and_k(make, change, error, message):
    with pytest.raises(error, match=message):
        make(**{"kernel": Brightness()} | change)


@pytest.mark.parametrize(
    "make",
    [
        lambda **settings: MRT(Brightness(), **settings),
        lambda **settings: MAT(Brightness(), **settings),
        lambda **settings: MDA(Brightness(), **settings),
        AdversarialTraining,
        GaussianAugmentation,
    ],
)
@pytest.mark.parametrize("weight", [-1, -1e-9, math.nan, math.inf, "1", None, True, [1.0]])
def test_errors_of_weight(make, weight):
    with pytest.raises(ValueError, match="weight: expected a finite number >= 0, got"):
        make(weight=weight)


@pytest.mark.parametrize(
    "make, change, error, message",
    [
        (MRT, {"selection": "worst"}, ValueError, "selection: expected one of sample, batch, got 'worst'"),
        (MRT, {"selection": None}, ValueError, "selection: expected one of sample, batch, got None"),
        (MRT, {"selection_dtype": torch.float64}, ValueError, "selection_dtype: expected None, .*, got torch.float64"),
        (MRT, {"selection_dtype": torch.float32}, ValueError, "selection_dtype: expected None, .*, got torch.float32"),
        (MRT, {"selection_dtype": "bfloat16"}, ValueError, "selection_dtype: expected None, .*, got 'bfloat16'"),
        (MRT, {"chunk": 0}, ValueError, "chunk: expected an integer above 0, got 0"),
        (MRT, {"chunk": 1.5}, ValueError, "chunk: expected an integer above 0, got 1.5"),
        (MRT, {"chunk": True}, ValueError, "chunk: expected an integer above 0, got True"),
        (MAT, {"step": 0}, ValueError, "step: expected a finite number above 0, got 0"),
        (MAT, {"step": math.inf}, ValueError, "step: expected a finite number above 0, got inf"),
        (MAT, {"step": None}, ValueError, "step: expected a finite number above 0, got None"),
        (MAT, {"start": "zero"}, ValueError, "start: expected one of centre, identity, got 'zero'"),
        (MAT, {"start": None}, ValueError, "start: expected one of centre, identity, got None"),
    ],
)
def test_errors_of_other_settings(make, change, error, message):
    with pytest.raises(error, match=message):
        make(Brightness(), **change)


@pytest.mark.parametrize("attack", ["pgd", PGD, None, lambda *arguments: None])
def test_errors_of_attack(attack):
    with pytest.raises(TypeError, match="attack: expected an Attack, got"):
        AdversarialTraining(attack)


@pytest.mark.parametrize("sigma", [0, -0.1, math.nan, math.inf, "0.1", None])
def test_errors_of_sigma(sigma):
    with pytest.raises(ValueError, match="sigma: expected a finite number above 0, got"):
        GaussianAugmentation(sigma)
