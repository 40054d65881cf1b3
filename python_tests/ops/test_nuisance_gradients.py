"""Gradients in the images and in delta: by finite differences, and where a transform has corners."""

import pytest
import torch

from python_tests.support.nuisance import (
    CHAINS,
    STEPS,
    affine,
    both_dtypes,
    case,
    channels_of,
    deltas,
    fitted,
    gradients,
    images,
    leaves,
    program_of,
    without_ties,
)
from robustperf.ops import nuisance
from robustperf.ops.program import (
    Outside,
    Program,
)

OP = "nuisance"


SMOOTH = [name for name in STEPS if name != "shot"]


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_by_finite_differences(backend, device, name):
    program = fitted(program_of(name), 3, 4)
    shape = (2 if name == "fog" else channels_of(name)[-1], 3, 4)
    x, delta = leaves(without_ties((1, *shape)), deltas(program, 1, 1, shape, seed=3, fraction=0.8), device)
    assert torch.autograd.gradcheck(lambda x, delta: nuisance(x, delta, program, backend=backend), (x, delta),
                                    eps=1e-6, atol=1e-7, rtol=1e-5)  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_gradients_of_compositions_by_finite_differences(backend, device, name):
    channels, steps = CHAINS[name]
    program, shape = fitted(Program(tuple(STEPS[one] for one in steps)), 4, 3), (channels, 4, 3)
    # two draws of one image, whose gradients meet in it; deltas so small that no clamp makes a tie
    x, delta = leaves(without_ties((1, *shape)), deltas(program, 2, 1, shape, seed=5, fraction=0.15), device)
    assert torch.autograd.gradcheck(lambda x, delta: nuisance(x, delta, program, backend=backend), (x, delta),
                                    eps=1e-6, atol=1e-7, rtol=1e-5, fast_mode=name == "of fields")  # fmt: skip


@pytest.mark.parametrize("dtype, near", [(torch.float32, 2e-4), (torch.float64, 1e-11)], ids=str)
@pytest.mark.parametrize("name", [*SMOOTH, *CHAINS])
def test_gradients_are_those_of_the_reference(backend, device, name, dtype, near):
    if name in CHAINS:
        program, channels = Program(tuple(STEPS[one] for one in CHAINS[name][1])), CHAINS[name][0]
    else:
        program, channels = program_of(name), channels_of(name)[-1]
    for height, width in ((33, 21), (2, 700)):
        shape = (channels, height, width)
        if width == 700:
            program = fitted(program, height, width)
        x, given = without_ties((2, *shape)), deltas(program, 2, 2, shape, fraction=0.15 if name in CHAINS else 0.8)
        out = nuisance(x, given.double(), program, backend="reference")
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        want = gradients("reference", program, *leaves(x, given), weights)
        got = gradients(backend, program, *leaves(x, given, device, dtype), weights.to(device, dtype))
        for mine, truth in zip(got, want, strict=True):
            assert mine.dtype == dtype and mine.is_contiguous()
            wrong = (mine.cpu().double() - truth).abs() / truth.abs().max().clamp_min(1e-9)
            # in float32 a pixel beside a kink may fall on its other side
            assert wrong.mean() < near and (dtype == torch.float32 or wrong.max() < near)
            assert mine.count_nonzero() or name == "impulse"


def test_gradients_of_several_draws_add_up_in_the_image(backend, device):
    for name in ("hue", "affine in zeros", "contrast", "fog", "add"):
        program, (x, delta) = program_of(name), leaves(without_ties((2, 3, 6, 5)), torch.zeros(3, 2, 1), device)
        delta = deltas(program, 3, 2, (3, 6, 5), fraction=0.5).to(delta)
        delta.requires_grad_()
        weights = torch.randn(3, 2, 3, 6, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(device)
        whole, by_delta = gradients(backend, program, x, delta, weights)
        parts = [gradients(backend, program, x, delta[k : k + 1], weights[k : k + 1]) for k in range(3)]
        torch.testing.assert_close(whole, sum(part for part, _ in parts), rtol=1e-13, atol=1e-13)
        alone = [torch.autograd.grad(nuisance(x, delta[k:k + 1], program, backend=backend), delta, weights[k:k + 1])[0]
                 for k in range(3)]  # fmt: skip
        torch.testing.assert_close(by_delta, sum(alone), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("steps", [("brightness", "contrast"), ("add", "add"), ("fog", "fog"),
                                   ("affine in zeros", "affine in its border"), ("hue", "gamma")])  # fmt: skip
def test_gradients_of_a_shared_delta_add_up(backend, device, steps):
    ones = tuple(STEPS[one] for one in steps)
    shared, apart = Program(ones, (0, 0)), Program(ones)
    x, delta = leaves(without_ties((1, 3, 4, 3)), deltas(Program(ones[:1]), 2, 1, (3, 4, 3), fraction=0.1), device)
    weights = torch.randn(2, 1, 3, 4, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(device)
    by_x, by_delta = gradients(backend, shared, x, delta, weights)
    twice = torch.cat([delta, delta], 2).detach().requires_grad_()
    want_x, want_delta = gradients(backend, apart, x, twice, weights)
    torch.testing.assert_close(by_x, want_x, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(by_delta, sum(want_delta.chunk(2, 2)), rtol=1e-13, atol=1e-13)


@both_dtypes
def test_shot_noise_has_gradients_of_zero(backend, device, dtype):
    for names in (["shot"], ["brightness", "shot"], ["shot", "gamma"], ["shot", "fog"]):
        program = Program(tuple(STEPS[one] for one in names))
        x, delta = leaves(without_ties((2, 3, 4, 3)), deltas(program, 2, 2, (3, 4, 3), fraction=0.3), device, dtype)
        by_x, by_delta = gradients(backend, program, x, delta, torch.ones(2, 2, 3, 4, 3, dtype=dtype, device=device))
        assert not by_x.any() and by_x.shape == x.shape and by_delta.shape == delta.shape
        place = names.index("shot")  # only what comes behind it may have a gradient
        assert not by_delta[..., : 36 + place].any() and by_delta[..., 36 + place :].any() == (names[-1] != "shot")


@both_dtypes
def test_impulses_stop_the_gradient_and_leave_it_elsewhere(backend, device, dtype):
    program = program_of("impulse")
    x, delta = leaves(images((1, 2, 3, 4)), torch.linspace(0, 1, 24)[None, None], device, dtype)
    by_x, by_delta = gradients(backend, program, x, delta, torch.full((1, 1, 2, 3, 4), 3.0, dtype=dtype, device=device))
    u = delta.detach().flatten()
    assert torch.equal(by_x.flatten(), torch.where((u < 0.25) | (u >= 0.75), 0, 3).to(dtype)) and not by_delta.any()


@both_dtypes
def test_gradients_where_something_is_divided_by_zero(backend, device, dtype):
    """Black and grey pixels, sigma 0, a fog of nothing over nothing, a white corner: finite numbers."""
    for name, number in (("hue", 0.1), ("gamma", -0.5), ("gamma", -1.0), ("blur", 0.0), ("fog", 0.0), ("contrast", 0.0),
                         ("background of a corner", 0.5), ("saturation", -1.0), ("affine in zeros", 0.0)):  # fmt: skip
        program = program_of(name)
        for pixel in (0.0, 0.5, 1.0):
            x = torch.full((1, 3, 6, 5), pixel)
            x, delta = leaves(x, torch.full((1, 1, program.layout((3, 6, 5)).dim), number), device, dtype)
            for part in gradients(backend, program, x, delta, torch.ones(1, 1, 3, 6, 5, dtype=dtype, device=device)):
                assert part.isfinite().all(), (name, pixel)


def test_a_clamp_passes_gradients_on_its_bounds(backend, device):
    """As torch's does: white times 1 is on the bound, times 1.5 beyond it."""
    x, delta = leaves(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1), device)
    one = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64, device=device)
    assert [part.item() for part in gradients(backend, program_of("brightness"), x, delta, one)] == [1, 1]
    assert [part.item() for part in gradients(backend, program_of("brightness"), x, delta + 0.5, one)] == [0, 0]


def test_places_on_the_last_pixels_follow_delta_where_there_is_something_outside(backend, device):
    """Nothing moved: places on pixels take the slope to the right, those held at the border none."""
    row = torch.tensor([0.1, 0.2, 0.4, 0.8], dtype=torch.float64)
    right = torch.tensor([0.1, 0.2, 0.4, -0.8], dtype=torch.float64)
    for outside, want in ((Outside.ZEROS, right), (Outside.BORDER, right * torch.tensor([0, 1, 1, 0]))):
        for part, x in ((2, row.view(1, 1, 1, 4)), (4, row.view(1, 1, 4, 1))):
            program = Program((affine(part, outside),))
            x, delta = leaves(x, torch.zeros(1, 1, 1), device)
            out = nuisance(x, delta, program, backend=backend).flatten()
            found = torch.cat([torch.autograd.grad(value, delta, retain_graph=True)[0].flatten() for value in out])
            torch.testing.assert_close(found.cpu(), -4 * want, rtol=0, atol=1e-14)


def test_empty_batches_and_no_draws_have_gradients(backend, device):
    for name in ("brightness", "shot", "add", "of much"):
        program = program_of(name)
        for batch, draws in ((0, 2), (2, 0), (0, 0)):
            delta = torch.zeros(draws, batch, program.layout((3, 7, 6)).dim)
            x, delta = leaves(torch.zeros(batch, 3, 7, 6), delta, device)
            weights = torch.ones(draws, batch, 3, 7, 6, dtype=torch.float64, device=device)
            by_x, by_delta = gradients(backend, program, x, delta, weights)
            assert by_x.shape == x.shape and by_delta.shape == delta.shape and not by_x.any()


def test_either_gradient_is_had_alone(backend, device):
    program = program_of("contrast")
    x, delta = leaves(without_ties((2, 3, 4, 3)), torch.full((1, 2, 1), 0.2), device)
    whole = gradients(backend, program, x, delta, torch.ones(1, 2, 3, 4, 3, dtype=torch.float64, device=device))
    nuisance(x.detach(), delta, program, backend=backend).sum().backward()
    nuisance(x, delta.detach(), program, backend=backend).sum().backward()
    assert torch.equal(x.grad, whole[0]) and torch.equal(delta.grad, whole[1])
    assert not nuisance(x.detach(), delta.detach(), program, backend=backend).requires_grad


@both_dtypes
def test_a_gradient_of_any_layout(backend, device, dtype):
    program, x, delta, _ = case("of much", 3, 7, 5, 1)
    x, delta = leaves(x, delta, device, dtype)
    weights = torch.randn(1, 2, 3, 7, 5, generator=torch.Generator().manual_seed(4)).to(device, dtype)
    want = gradients(backend, program, x, delta, weights)
    strange = torch.stack([weights, weights], -1)[..., 0]
    for mine, same in zip(gradients(backend, program, x, delta, strange), want, strict=True):
        assert torch.equal(mine, same)
    view = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    for mine, same in zip(gradients(backend, program, view, delta, weights), want, strict=True):
        assert torch.equal(mine, same)
    out = nuisance(x, delta, program, backend=backend)
    out.sum().backward()  # a gradient of ones that takes no memory
    ones = gradients(backend, program, x, delta, torch.ones_like(out))
    assert torch.equal(x.grad, ones[0]) and torch.equal(delta.grad, ones[1])


def test_there_is_no_gradient_of_the_gradient(backend, device):
    x, delta = leaves(without_ties((1, 3, 4, 3)), torch.full((1, 1, 1), 0.2), device)
    out = nuisance(x, delta, program_of("hue"), backend=backend)
    with pytest.raises(NotImplementedError, match="nuisance: has no gradient of its gradient"):
        torch.autograd.grad(out.sum(), x, create_graph=True)
