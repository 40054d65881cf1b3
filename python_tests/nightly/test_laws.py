"""The distribution of delta of every nuisance kernel, 4,000 draws each, against closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import beta, chisquare, kstest, norm, uniform

import robustperf as rp
from python_tests.support.program_kernels import EPS, KNOWN, RGB_ONLY, WIDE
from robustperf.names import CORRUPTIONS
from robustperf.nets import munit
from robustperf.nuisance import AugMix, Brightness, Compose, InBounds, L1Ball, LabelAware, LinfBall, OnManifold, mnist_c
from robustperf.ops.program import Distribution

COUNT = 4000
LEAST = 1e-5
"""The least p-value: some 500 laws are tested, and the draws are the same in every run."""
INDEX = torch.arange(COUNT)


def sample(kernel, shape, key=2026):
    """[COUNT, q] float64, one draw of each of as many samples."""
    return kernel.sample(key, INDEX, 1, shape=shape)[0].double().numpy()


def check_law(values, law):
    """The values are of this law, and not of one that is 10 % wider about its median."""
    assert kstest(values, law.cdf).pvalue > LEAST
    middle = law.median()
    assert kstest(middle + (values - middle) * 1.1, law.cdf).pvalue < kstest(values, law.cdf).pvalue


def check_independent(one, other):
    """Chi-square of the ranks in a grid of 10 x 10."""
    grid = [np.floor(10 * np.argsort(np.argsort(values)) / COUNT) for values in (one, other)]
    counts = np.histogram2d(*grid, bins=10)[0]
    assert chisquare(counts.ravel(), ddof=18).pvalue > LEAST


def check_ball(delta, eps, exponent):
    """Uniform in {|v|_p <= eps}: the norm to the power q is uniform, each coordinate has the law of Dirichlet's."""
    q = delta.shape[1]
    size = {1: np.abs(delta).sum(1), 2: np.sqrt((delta**2).sum(1))}[exponent]
    check_law((size / eps) ** q, uniform(0, 1))
    for place in (0, q // 2, q - 1):
        fraction = (np.abs(delta[:, place]) / size) ** exponent
        check_law(fraction, beta(1 / exponent, (q - 1) / exponent))
        positive = (delta[:, place] > 0).mean()
        assert abs(positive - 0.5) < 5 * 0.5 / math.sqrt(COUNT)
    check_independent(size, np.abs(delta[:, 0]) / size)


def components(q):
    return sorted({*range(min(q, 6)), q // 2, q - 1})


@pytest.mark.parametrize("name", KNOWN)
def test_program_kernels(name):
    kernel = KNOWN[name](EPS[name]) if name in EPS else KNOWN[name]()
    shape = (3 if name in RGB_ONLY else 1, *WIDE)
    delta, step = sample(kernel, shape), kernel.program.steps[0]
    assert delta.shape == (COUNT, kernel.dim_for(shape))
    if step.distribution == Distribution.BALL:
        return check_ball(delta, EPS[name], 2)
    for place in components(delta.shape[1]):
        if step.distribution == Distribution.NORMAL:
            law = norm(0, step.upper[0])
        elif step.distribution == Distribution.FOG and place:
            law = uniform(0, 1)
        else:
            each = place if step.distribution == Distribution.BOX else 0
            law = uniform(step.lower[each], step.upper[each] - step.lower[each])
        check_law(delta[:, place], law)
        if place:
            check_independent(delta[:, 0], delta[:, place])


@pytest.mark.parametrize("kernel", [AugMix(), *map(mnist_c, CORRUPTIONS)], ids=repr)
def test_uniform_kernels(kernel):
    delta = sample(kernel, (1, 28, 28)) if kernel.dim_for((1, 28, 28)) < 2000 else None
    if delta is None:  # fog: tens of thousands of components
        delta = kernel.sample(1, INDEX[:40], 1, shape=(1, 28, 28))[0].double().numpy()
        return check_law(np.random.default_rng(0).choice(delta.ravel(), COUNT), uniform(0, 1))
    for place in components(delta.shape[1]) if delta.shape[1] else ():
        check_law(delta[:, place], uniform(0, 1))
        if place:
            check_independent(delta[:, 0], delta[:, place])


@pytest.mark.parametrize("size", [1, 3])
def test_the_l1_ball(size):
    check = sample(L1Ball(0.7), (1, 2, size))
    check_ball(check, 0.7, 1)


def test_learned_kernels():
    torch.manual_seed(0)
    generator = munit.Translator(1, width=2).generator()
    for distribution, law in (("uniform", uniform(-1, 2)), ("normal", norm())):
        delta = sample(rp.nuisance.LearnedKernel(generator, distribution=distribution), (1, 8, 8))
        for place in range(delta.shape[1]):
            check_law(delta[:, place], law)
        check_independent(delta[:, 0], delta[:, 1])


def test_compositions_and_other_boxes():
    kernel = InBounds(Compose([Brightness((-0.2, 0.6)), LinfBall(0.3)]), (-1.0, 1.0))
    delta = sample(kernel, (1, 2, 2))
    check_law(delta[:, 0], uniform(-0.2, 0.8))
    check_law(delta[:, 1], uniform(-0.3, 0.6))
    check_independent(delta[:, 0], delta[:, 1])
    check_independent(delta[:, 1], delta[:, 2])
    for place in range(5):
        check_law(sample(kernel.normalised(), (1, 2, 2))[:, place], uniform(-1, 2))


def test_a_kernel_conditioned_on_the_label():
    """Noise uniform in ± 0.4 about 0.6, given that x' > 0.5: uniform between 0.5 and 1."""
    kernel = LabelAware(LinfBall(0.4), lambda images: (images[:, 0, 0, 0] > 0.5).long())
    x = torch.full((COUNT, 1, 1, 1), 0.6)
    drawn = kernel.draw(x, key=7, index=INDEX, draws=1)[0].flatten().double().numpy()
    check_law(drawn, uniform(0.5, 0.5))


def test_a_kernel_on_reference_images():
    """Uniform among those in the ball."""
    reference = torch.linspace(0, 1, 21)[:, None, None, None]
    kernel = OnManifold(reference, eps=0.26)
    x = torch.full((COUNT, 1, 1, 1), 0.5)
    drawn = (kernel.draw(x, key=7, index=INDEX, draws=1)[0].flatten() * 20).round().long()
    assert drawn.unique().tolist() == list(range(5, 16))
    assert chisquare(torch.bincount(drawn)[5:16].numpy()).pvalue > LEAST
