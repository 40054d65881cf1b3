import torch
import triton
import triton.language as tl

from robustperf.ops.triton.elementary import finite, widened
from robustperf.ops.triton.launch import launch


def logit_gap(logits, label, rounding_tolerance):
    rows, classes = logits.shape
    gap = torch.empty(rows, dtype=torch.float64, device=logits.device)
    launch(
        logit_gap_kernel,
        rows,
        gap,
        logits.contiguous(),
        label.contiguous(),
        gap,
        classes,
        rounding_tolerance,
        BLOCK=class_block(classes),
        num_warps=1,
    )
    return gap


def class_block(classes):
    """How many classes a program reads at a time."""
    return min(triton.next_power_of_2(classes), 512)


@triton.jit
def gap_of(logits, classes, label, rounding_tolerance, BLOCK: tl.constexpr):
    """z_label - max of the others + rounding_tolerance * the largest |z|, in float64; NaN for a label out of range."""
    other = tl.full((BLOCK,), float("-inf"), tl.float64)
    scale = tl.zeros((BLOCK,), tl.float64)
    for first in range(0, classes, BLOCK):
        j = first + tl.arange(0, BLOCK)
        z = widened(tl.load(logits + j, mask=j < classes, other=float("-inf"))).to(tl.float64)
        scale = tl.maximum(scale, tl.where(finite(z), tl.abs(z), 0.0))
        z = tl.where(j == label, float("-inf"), z)
        other = tl.where((z > other) | (z != z), z, other)  # NaN sticks: no comparison replaces it
    missing = tl.max((other != other).to(tl.int32), 0) > 0
    top = tl.max(tl.where(other != other, float("-inf"), other), 0)
    valid = (label >= 0) & (label < classes)
    at_label = widened(tl.load(logits + label, mask=valid, other=float("nan"))).to(tl.float64)
    gap = (at_label - top) + rounding_tolerance * tl.max(scale, 0)
    return tl.where(missing, float("nan"), gap)


@triton.jit
def logit_gap_kernel(
    logits,  # [rows, classes]
    label,   # [rows] int64
    gap,     # [rows] float64
    classes, rounding_tolerance: tl.float64, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    tl.store(gap + row, gap_of(logits + row * classes, classes, tl.load(label + row), rounding_tolerance, BLOCK))
