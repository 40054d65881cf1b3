"""Random calls of the public functions, with small classifiers of which the right result is known.

Half of the calls have one argument that is never valid. They must raise TypeError or ValueError, and the message must
have the argument's name. The others must return the right value.
"""

import dataclasses
import inspect
import math
import warnings

import numpy as np
import torch
from scipy.stats import beta
from torch import nn

import robustperf as rp
from python_tests.support.fuzz_random import Random
from robustperf import attacks, random, training
from robustperf.nuisance import KERNELS
from robustperf.robustness import accuracy_bound, clopper_pearson, label_preservation

NO_NUMBER = ("x", math.nan, math.inf, -math.inf, None, [1.0], {}, 1j, object(), torch.zeros(2), np.zeros(2), True)
NO_INTEGER = (*NO_NUMBER[:-2], 1.5, -1, True)
NO_KEY = (*NO_NUMBER[:-2], 1.5, -1, 2**64, 2**80, True)
NO_IMAGES = (
    None, 3, "digits", object(), torch.zeros(()), torch.zeros(4, dtype=torch.int64), torch.full((2, 3), math.nan),
    torch.full((2, 3), math.inf), torch.full((2, 3), 1.5), torch.full((2, 3), -0.5),
    torch.zeros(2, 3, dtype=torch.uint8),
    torch.zeros(2, 3, dtype=torch.complex64), torch.zeros(2, 3, dtype=torch.float16), torch.zeros(2, 3, device="meta"),
)  # fmt: skip
NO_IDS = (3, "all", [0.5], torch.zeros(2), torch.zeros(99, dtype=torch.int64), torch.zeros(2, 2, dtype=torch.int64))
NO_CONFIDENCE = (*NO_NUMBER, 0, 1, -0.5, 2.0)


def linear(random):
    """(a linear classifier of two classes, points in [0, 1], their margins without bounds by norm)."""
    dim, batch = 1 + random.below(6), random.one((0, 1, 2, 5))
    model = nn.Linear(dim, 2, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.randn(2, dim, generator=random.torch, dtype=torch.float64))
        model.bias.copy_(torch.randn(2, generator=random.torch, dtype=torch.float64))
    x = torch.rand(batch, dim, generator=random.torch, dtype=torch.float64)
    w, b = (model.weight[0] - model.weight[1]).detach(), (model.bias[0] - model.bias[1]).detach()
    gap = (x @ w + b).abs()
    return model, x, {1: gap / w.abs().max(), 2: gap / w.norm(), math.inf: gap / w.abs().sum()}


def margins(random):
    model, x, truth = linear(random)
    norm = random.one((1, 2, math.inf))
    arguments = {"model": model, "x": x, "norm": norm, "bounds": (-math.inf, math.inf), "key": 3, "batch_size": 4,
                 "tol": 2**-20, "probes": 0, "index": torch.arange(len(x)), "labels": None}  # fmt: skip
    bad = {"x": NO_IMAGES[:8], "norm": (*NO_NUMBER[:2], 3, -1, True, None), "key": NO_KEY,
           "batch_size": (*NO_INTEGER, 0), "bounds": (3, (1, 0), (0, 0), "01", (math.nan, 1), None),
           "tol": NO_CONFIDENCE,
           "probes": NO_INTEGER, "index": NO_IDS, "labels": NO_IDS, "attacks": ("nope", 3, [4], "fgsm(", "pgd(eps=-1)"),
           "lattice": (0, -1, "x", math.nan)}  # fmt: skip
    return rp.margins, arguments, bad, lambda found: torch.allclose(found.distance, truth[norm], rtol=1e-6, atol=1e-12)


def crossing(random):
    """A threshold on one feature, and a line across it."""
    at = 0.1 + 0.8 * random.numpy.random()

    def model(x):
        return torch.cat([at - x, x - at], 1)

    count = 1 + random.below(4)
    return at, model, torch.zeros(count, 1, dtype=torch.float64), torch.ones(count, 1, dtype=torch.float64)


SEARCH = {"tol": NO_CONFIDENCE, "probes": NO_INTEGER, "method": ("newton", 3, None), "labels": NO_IDS[2:],
          "backend": ("fast", 3)}  # fmt: skip


def line_search(random):
    at, model, x, end = crossing(random)
    arguments = {
        "model": model,
        "x": x,
        "x_adv": end,
        "tol": 2**-20,
        "method": random.one(("chandrupatla", "bisection")),
    }
    bad = SEARCH | {"x": NO_IMAGES[:6], "x_adv": (*NO_IMAGES[:6], torch.ones(9, 1).double())}
    return rp.line_search, arguments, bad, lambda found: bool(((found.step - at).abs() < 1e-5).all())


def closest_boundary(random):
    at, model, x, end = crossing(random)
    arguments = {"model": model, "x": x, "candidates": end[None], "norm": random.one((1, 2, math.inf)), "tol": 2**-20}
    bad = SEARCH | {"norm": ("l2", 3, None, math.nan), "candidates": (*NO_IMAGES[:6], torch.ones(1, 9, 1).double())}
    return rp.closest_boundary, arguments, bad, lambda found: bool(((found.distance - at).abs() < 1e-5).all())


def bright(images):
    mean = images.mean((1, 2, 3))
    return torch.stack([0.5 - mean, mean - 0.5], 1)


SAMPLING = {"samples": (*NO_INTEGER, 0), "confidence": NO_CONFIDENCE, "key": NO_KEY, "batch_size": (*NO_INTEGER, 0),
            "index": NO_IDS[2:], "kernel": (None, 3, "fog", object())}  # fmt: skip
NO_BATCH = (*NO_IMAGES[:6], torch.full((2, 1, 2, 2), math.nan), torch.full((2, 1, 2, 2), 1.5))


def loop(arguments):
    """The fraction of draws above 0.5 on the side of x, by a plain loop."""
    x, kernel, samples = arguments["x"], arguments["kernel"], arguments["samples"]
    drawn = kernel.draw(x, key=arguments["key"], index=torch.arange(len(x)), draws=samples)
    label = bright(x).argmax(1)
    return (bright(drawn.flatten(0, 1)).argmax(1).view(samples, -1) == label).double().mean(0)


def sampling(random):
    x = torch.rand(1 + random.below(4), 1, 2, 2, generator=random.torch)
    return {"x": x, "kernel": rp.nuisance.LinfBall(0.4), "samples": 20, "confidence": 0.9, "key": 5, "batch_size": 7}


def basic_robustness(random):
    arguments = {"model": bright} | sampling(random)
    bad = SAMPLING | {"x": NO_BATCH, "width": (*NO_NUMBER[:4], -1, 0, 2)}
    return rp.basic_robustness, arguments, bad, lambda found: torch.equal(found.rho, loop(arguments))


def preservation(random):
    arguments = {"labeller": lambda images: bright(images).argmax(1)} | sampling(random)
    truth = 1 - loop(arguments).mean().item()
    return (
        label_preservation,
        arguments,
        SAMPLING | {"x": NO_BATCH},
        lambda found: math.isclose(found.eps, truth, abs_tol=1e-12),
    )


def intervals(random):
    trials = random.integers((random.size(),), 100, 1)
    successes = (trials * random.numpy.random()).long()
    level = 0.01 + 0.98 * random.numpy.random()
    k, n = successes.double().numpy(), trials.double().numpy()
    lower = np.where(k == 0, 0, beta.ppf((1 - level) / 2, k, n - k + 1))
    upper = np.where(k == n, 1, beta.ppf((1 + level) / 2, k + 1, n - k))
    arguments = {"successes": successes, "trials": trials, "confidence": level}
    bad = {"successes": (3, None, torch.zeros(2), trials + 1, trials - 1000), "confidence": NO_CONFIDENCE}
    if not len(trials):
        bad["successes"] = bad["successes"][:3]
    return clopper_pearson, arguments, bad, lambda found: np.allclose(found, (lower, upper), atol=1e-9)


def curve(random):
    margins = random.real((1 + random.size(),), torch.float64, unit=True)
    at = random.numpy.random()
    bad = {"margins": ("x", None, [math.nan], [-1.0], object()), "upper": (*NO_NUMBER[:4], -1.0)}

    def check(found):
        below = math.isclose(found.at(at), (margins > at).double().mean().item())
        return below and math.isclose(found.area, margins.clamp_max(1).mean().item(), abs_tol=1e-12)

    return rp.MarginCurve.from_margins, {"margins": margins, "upper": 1.0}, bad, check


def bound(random):
    values = random.numpy.random(3)
    arguments = dict(zip(("accuracy", "eps", "delta"), values.tolist(), strict=True))
    truth = max(0.0, values[0] - values[1] - values[2])
    bad = dict.fromkeys(arguments, (*NO_NUMBER, -0.1, 1.1))
    return accuracy_bound, arguments, bad, lambda found: math.isclose(found, truth, abs_tol=1e-15)


def key(random_):
    arguments = {"key": random_.one((0, 1, 2**64 - 1)), "number": random_.below(2**40)}
    bad = dict.fromkeys(arguments, NO_KEY)
    return random.fold_in, arguments, bad, lambda found: 0 <= found < 2**64 and found == random.fold_in(**arguments)


def kernel_draw(random):
    name = random.one(sorted(set(KERNELS) - {"background_colour", "mnist_c"}))
    kernel = KERNELS[name](0.3) if name.endswith("ball") else KERNELS[name]()
    arguments = {"x": torch.rand(2, 3, 9, 11, generator=random.torch), "key": 3, "index": torch.arange(2), "draws": 3}
    bad = {"x": NO_BATCH, "key": NO_KEY, "index": (*NO_IDS, torch.tensor([-1, 0])), "draws": NO_INTEGER,
           "backend": ("fast", 3)}  # fmt: skip

    def check(found):
        again = kernel(arguments["x"], kernel.sample(3, torch.arange(2), 3, shape=(3, 9, 11)), backend="reference")
        inside = name in ("l1_ball", "l2_ball", "linf_ball") or bool(((found >= 0) & (found <= 1)).all())
        return inside and ((found - again).abs() <= 2e-3).double().mean() > 0.95

    return kernel.draw, arguments, bad, check


def accuracy(random):
    x = torch.rand(1 + random.below(9), 1, 2, 2, generator=random.torch)
    y = random.integers((len(x),), 2).contiguous()
    truth = (bright(x).argmax(1) == y).double().mean().item()
    bad = {"dataset": (None, 3, "digits!", object(), (x,)), "batch_size": (*NO_INTEGER, 0), "workers": NO_INTEGER}
    arguments = {"model": bright, "dataset": rp.data.Dataset("toy", x, y, classes=2), "batch_size": 4}
    return training.evaluate, arguments, bad, lambda found: math.isclose(found.top(1), truth)


def settings(random, kinds, arguments):
    """A class that checks its settings: a new object has them."""
    kind = random.one(kinds)
    bad = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        default = parameter.default
        if isinstance(default, bool) or default is inspect.Parameter.empty:
            continue
        if isinstance(default, str):
            bad[name] = ("nope", 3, object())
        elif isinstance(default, int | float) and default != math.inf:
            bad[name] = ("x", math.nan, object(), -1, 1j) if name != "norm" else ("l2", math.nan, 3, -1, True)
    return kind, arguments(kind), bad, lambda found: isinstance(found, kind)


def attack(random):
    kinds = [kind for name in attacks.__all__ if dataclasses.is_dataclass(kind := getattr(attacks, name))]
    return settings(random, [kind for kind in kinds if issubclass(kind, attacks.Attack)], lambda kind: {})


def objective(random):
    kinds = [training.ERM, training.MAT, training.MDA, training.MRT, training.GaussianAugmentation, training.AugMix]
    takes_kernel = (training.MAT, training.MDA, training.MRT)
    return settings(random, kinds, lambda kind: {"kernel": rp.nuisance.Brightness(0.3)} if kind in takes_kernel else {})


FUNCTIONS = {function.__name__: function for function in (
    margins, line_search, closest_boundary, basic_robustness, preservation, intervals, curve, bound, key, kernel_draw,
    accuracy, attack, objective,
)}  # fmt: skip


def fault_of(name: str, seed: int) -> str | None:
    """What is wrong with the call of this seed; None where nothing is."""
    random = Random(seed)
    function, arguments, bad, check = FUNCTIONS[name](random)
    wrong = random.one(sorted(bad)) if bad and random.chance(0.5) else None
    if wrong is not None:
        arguments[wrong] = random.one(bad[wrong])
    call = f"{function}" + (f", {wrong} = {arguments[wrong]!r}" if wrong else "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = function(**arguments)
        except (TypeError, ValueError) as error:
            if wrong is None:
                return f"{call}: {error!r}"
            return None if wrong in str(error) or ALSO.get(wrong, wrong) in str(error) else f"{call}: {error!r}"
    if wrong is not None:
        return f"{call} was accepted: {found!r}"
    return None if check(found) else f"{call}({arguments}) gave {found!r}"


ALSO = {"x_adv": "x'", "kernel": "Kernel", "dataset": "data", "draws": "draw"}
"""Another word for an argument in its error."""
