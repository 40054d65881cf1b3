import torch
import triton
import triton.language as tl

from robustperf.ops.triton.elementary import log_of, widened
from robustperf.ops.triton.launch import launch

BLOCK = 1024  # rows


def best_of_k(logits, target, loss, index, first, first_chunk, whole_batch, label_smoothing, ignore_index):
    draws, batch, classes = logits.shape
    logits, target = aligned(logits.contiguous()), target.contiguous()
    # of the classes alone: the sums of a row are added up in one order, whatever the number of draws
    class_block = min(triton.next_power_of_2(classes), 1024)
    draw_block = min(2048 // class_block, 16)
    warps = 1 if class_block <= 32 else 4
    of_a_row = batch, classes, label_smoothing, label_smoothing / classes
    settings = {"SMOOTH": label_smoothing > 0, "CLASSES": class_block, "DRAWS": draw_block, "num_warps": warps}
    if not whole_batch:
        launch(
            best_of_k_sample_kernel,
            batch,
            logits,
            logits,
            target,
            loss,
            index,
            draws,
            *of_a_row,
            ignore_index,
            first,
            FIRST_CHUNK=first_chunk,
            **settings,
        )
        return
    losses, totals = loss.new_empty(draws, batch), loss.new_empty(draws + 1, dtype=torch.float64)
    launch(
        best_of_k_losses_kernel,
        batch * triton.cdiv(draws, draw_block),
        logits,
        logits,
        target,
        losses,
        draws,
        *of_a_row,
        ignore_index,
        **settings,
    )
    launch(
        best_of_k_totals_kernel,
        draws + 1,
        logits,
        losses,
        loss,
        target,
        totals,
        draws,
        batch,
        ignore_index,
        FIRST_CHUNK=first_chunk,
        BLOCK=BLOCK,
    )
    launch(
        best_of_k_batch_kernel,
        triton.cdiv(batch, BLOCK),
        logits,
        losses,
        totals,
        target,
        loss,
        index,
        draws,
        batch,
        ignore_index,
        first,
        FIRST_CHUNK=first_chunk,
        BLOCK=BLOCK,
    )


def aligned(logits):
    """The compiler reads, and adds, otherwise where it cannot count on 16 bytes."""
    return logits if logits.data_ptr() % 16 == 0 else logits.clone()


@triton.jit
def losses_of(logits, draw, draws, row, label, rows, classes, label_smoothing, per_class,
              SMOOTH: tl.constexpr, CLASSES: tl.constexpr, T: tl.constexpr):  # fmt: skip
    """The cross-entropy of some draws of a row, as in csrc/core/best_of_k.hpp; NaN for a label out of range."""
    there = (draw < draws)[:, None]
    start = logits + ((draw.to(tl.int64) * rows + row) * classes)[:, None]
    keep = tl.full((), 1.0 - label_smoothing, T)
    per_class = tl.full((), per_class, T)
    top = tl.full(draw.shape, float("-inf"), T)
    for first in range(0, classes, CLASSES):
        j = (first + tl.arange(0, CLASSES))[None, :]
        z = widened(tl.load(start + j, mask=there & (j < classes), other=float("-inf")))
        top = tl.maximum(top, tl.max(tl.where(z == z, z, float("-inf")), 1))
    powers, smoothing = tl.zeros(draw.shape, T), tl.zeros(draw.shape, T)
    for first in range(0, classes, CLASSES):
        j = (first + tl.arange(0, CLASSES))[None, :]
        z = widened(tl.load(start + j, mask=there & (j < classes), other=float("-inf")))
        powers += tl.sum(tl.exp(z - top[:, None]), 1)
        if SMOOTH:
            smoothing += tl.sum(tl.where(j < classes, (top[:, None] - z) * per_class, 0.0), 1)
    valid = (draw < draws) & (label >= 0) & (label < classes)
    at_label = widened(tl.load(logits + (draw.to(tl.int64) * rows + row) * classes + label, mask=valid,
                               other=float("nan")))  # fmt: skip
    log_sum = log_of(powers) + (powers - powers)  # log_of knows no NaN
    return log_sum + (keep * (top - at_label) + smoothing)


@triton.jit(do_not_specialize=["draws", "first"])
def best_of_k_sample_kernel(
    logits,  # [draws, rows, classes]
    target,  # [rows] int64
    loss,    # [rows] float32 or float64, the best so far; read unless FIRST_CHUNK
    index,   # [rows] int64, its draw
    draws, rows, classes, label_smoothing: tl.float64, per_class: tl.float64, ignore_index: tl.int64,
    first: tl.int64,  # the number of the first draw
    FIRST_CHUNK: tl.constexpr, SMOOTH: tl.constexpr, CLASSES: tl.constexpr, DRAWS: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = loss.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    label = tl.load(target + row)
    ignored = label == ignore_index
    best, best_draw = tl.where(ignored, 0.0, float("nan")).to(T), tl.zeros((), tl.int64)
    if not FIRST_CHUNK:
        best = tl.where(ignored, best, tl.load(loss + row))
        best_draw = tl.where(ignored, best_draw, tl.load(index + row))
    for start in range(0, tl.where(ignored, 0, draws), DRAWS):
        draw = start + tl.arange(0, DRAWS)
        losses = losses_of(
            logits, draw, draws, row, label, rows, classes, label_smoothing, per_class, SMOOTH, CLASSES, T
        )
        score = tl.where((draw < draws) & (losses == losses), losses, float("-inf"))
        worst = tl.max(score, 0)
        number = tl.min(tl.where(score == worst, draw, draws), 0)
        take = (worst > best) | ((best != best) & (worst > float("-inf")))
        best = tl.where(take, worst, best)
        best_draw = tl.where(take, first + number, best_draw)
    tl.store(loss + row, best)
    tl.store(index + row, best_draw)


@triton.jit(do_not_specialize=["draws"])
def best_of_k_losses_kernel(
    logits,  # [draws, rows, classes]
    target,  # [rows] int64
    losses,  # [draws, rows] float32 or float64
    draws, rows, classes, label_smoothing: tl.float64, per_class: tl.float64, ignore_index: tl.int64,
    SMOOTH: tl.constexpr, CLASSES: tl.constexpr, DRAWS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    row = program % rows
    label = tl.load(target + row)
    draw = (program // rows * DRAWS).to(tl.int32) + tl.arange(0, DRAWS)
    T: tl.constexpr = losses.dtype.element_ty
    found = losses_of(logits, draw, draws, row, label, rows, classes, label_smoothing, per_class, SMOOTH, CLASSES, T)
    tl.store(losses + draw.to(tl.int64) * rows + row, tl.where(label == ignore_index, 0.0, found), mask=draw < draws)


@triton.jit(do_not_specialize=["draws"])
def best_of_k_totals_kernel(
    losses,  # [draws, rows]
    loss,    # [rows], the best so far; read unless FIRST_CHUNK
    target,  # [rows] int64
    totals,  # [draws + 1] float64, the last one of the best so far
    draws, rows, ignore_index: tl.int64, FIRST_CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    draw = tl.program_id(0).to(tl.int64)
    total = tl.zeros((BLOCK,), tl.float64)
    for first in range(0, rows, BLOCK):
        row = first + tl.arange(0, BLOCK)
        there = row < rows
        if draw < draws:
            term = tl.load(losses + draw * rows + row, mask=there, other=0.0)
        else:
            ignored = tl.load(target + row, mask=there, other=0) == ignore_index
            so_far = float("nan") if FIRST_CHUNK else tl.load(loss + row, mask=there, other=0.0)
            term = tl.where(there & ~ignored, so_far, 0.0).to(losses.dtype.element_ty)
        total += term.to(tl.float64)
    tl.store(totals + draw, tl.sum(total, 0))


@triton.jit(do_not_specialize=["draws", "first"])
def best_of_k_batch_kernel(
    losses,  # [draws, rows]
    totals,  # [draws + 1] float64
    target,  # [rows] int64
    loss,    # [rows]
    index,   # [rows] int64
    draws, rows, ignore_index: tl.int64, first: tl.int64, FIRST_CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    best, winner = tl.load(totals + draws), tl.full((), -1, tl.int32)
    for draw in range(draws):
        total = tl.load(totals + draw)
        take = (total > best) | ((best != best) & (total == total))
        best, winner = tl.where(take, total, best), tl.where(take, draw, winner)
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = row < rows
    ignored = tl.load(target + row, mask=there, other=0) == ignore_index
    won = tl.load(losses + winner.to(tl.int64) * rows + row, mask=there & (winner >= 0), other=float("nan"))
    chosen = tl.where(winner >= 0, first + winner, 0)
    decided = ignored | (winner >= 0) | FIRST_CHUNK  # else they stay as they were
    tl.store(loss + row, tl.where(ignored, 0.0, won), mask=there & decided)
    tl.store(index + row, tl.where(ignored, 0, chosen), mask=there & decided)
