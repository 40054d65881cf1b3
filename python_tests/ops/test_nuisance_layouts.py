"""Layouts and sizes of the images: every one gives the same result."""

import pytest
import torch

from python_tests.support.nuisance import (
    BRIGHTER,
    COMPOSITIONS,
    STEPS,
    T,
    both_dtypes,
    case,
    channels_of,
    deltas,
    fitted,
    images,
    program_of,
    run,
)
from robustperf.ops import nuisance

OP = "nuisance"

# ---- layouts and sizes


@both_dtypes
@pytest.mark.parametrize("name", ["brightness", "hue", "affine in zeros", "impulse", "blur", "fog", "of much"])
def test_layout_does_not_matter(backend, device, name, dtype):
    program, x, delta, _ = case(name, 3, 7, 5, 3, 2)
    x, delta = x.to(device, dtype), delta.to(device, dtype)
    want = nuisance(x, delta, program, backend=backend)
    strided, turned = torch.stack([delta, delta], -1)[..., 1], delta.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    for view in (x.contiguous(memory_format=torch.channels_last), torch.stack([x, x], -1)[..., 0],
                 x.transpose(2, 3).contiguous().transpose(2, 3)):  # fmt: skip
        for part in (delta, strided, turned):
            out = nuisance(view, part, program, backend=backend)
            assert torch.equal(out, want) and out.is_contiguous()
        for draws in (slice(1), slice(1, 3)):
            out = nuisance(view, delta[draws], program, backend=backend)
            assert torch.equal(out, want[draws]) and out.is_contiguous()
    one, same = x[:1].expand_as(x), delta[:1, :1].expand_as(delta)
    assert torch.equal(nuisance(one, same, program, backend=backend), want[:1, :1].expand_as(want))


def test_a_negated_view_counts_as_its_values(backend, device):
    x = torch.zeros(2, 1, 3, 4, dtype=torch.complex64) - 0.5j
    negated = x.conj().imag
    assert negated.is_neg() and negated.eq(0.5).all()
    out = run(backend, device, program_of("brightness"), negated, torch.full((1, 2, 1), 0.5), torch.float32)
    assert out.eq(0.75).all()


@both_dtypes
@pytest.mark.parametrize("name", [*STEPS, "of much", "from grey"])
def test_empty_batches_and_no_draws(backend, device, name, dtype):
    channels, program = channels_of(name)[-1], program_of(name)
    layout = program.layout((channels, 7, 6))
    after = 3 if any(one.transform == T.BACKGROUND for one in program.steps) else channels
    for batch, draws in ((0, 2), (2, 0), (0, 0)):
        x = torch.zeros(batch, channels, 7, 6)
        out = run(backend, device, program, x, torch.zeros(draws, batch, layout.dim), dtype)
        assert out.shape == (draws, batch, after, 7, 6)


@both_dtypes
@pytest.mark.parametrize("name", [*STEPS, *COMPOSITIONS])
def test_an_image_and_a_draw_do_not_depend_on_their_neighbours(backend, device, name, dtype):
    channels = channels_of(name)[-1]
    program, x = fitted(program_of(name), 9, 7), images((3, channels, 9, 7))
    delta = deltas(program, 2, 3, (channels, 9, 7))
    whole = run(backend, device, program, x, delta, dtype)
    for i in range(3):
        for k in range(2):
            alone = run(backend, device, program, x[i : i + 1], delta[k : k + 1, i : i + 1], dtype)
            assert torch.equal(alone[0, 0], whole[k, i])


def test_inputs_are_left_as_they_were(backend, device):
    for name in [*STEPS, *COMPOSITIONS]:
        program, x, delta, _ = case(name, channels_of(name)[-1], 7, 5, 1)
        x, delta = x.to(device), delta.to(device)
        before = x.clone(), delta.clone()
        out = nuisance(x, delta, program, backend=backend)
        assert torch.equal(x, before[0]) and torch.equal(delta, before[1])
        out.fill_(9)
        assert torch.equal(x, before[0]), "the result shares no memory with the images"


def test_a_result_of_many_megabytes(backend, device):
    """For which the system is asked for large pages."""
    x, delta = torch.rand(3, 1, 1023, 1021, generator=torch.Generator().manual_seed(0)), torch.linspace(-1, 1, 9)
    out = run(backend, device, BRIGHTER, x, delta.view(3, 3, 1), torch.float32)
    assert out.numel() * 4 > 2**25 and torch.equal(out, ((1 + delta.view(3, 3, 1, 1, 1)) * x).clamp(0, 1))
