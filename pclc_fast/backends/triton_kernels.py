"""The Triton kernels: rows of logits in, loss and gradient out.

A program takes B classes of R rows. Where a row has at most B classes they stay in registers: one
read and, with the gradient, one write. A longer row is one program's, block by block: an online
pass and a write pass. Where the hinges of Eq. 6 are mixed, rows are read again to count them, and
once more to write.
Forward and backward write the gradient by one function of the same numbers, and no multiplication
is fused into an addition (LAUNCH): the gradients are the same to the last bit.

The coefficients come as float64 and so are exact for float64 logits; they and the number of rows
are no part of what a kernel is compiled for.
"""

# Compile-time parameters are capitals, and a tensor cannot stand beside one in an `and`.
# ruff: noqa: N803, N806, SIM102
# mypy: allow-untyped-decorators, disable-error-code="no-untyped-def,import-untyped"

from __future__ import annotations

import triton
import triton.language as tl

from .triton_row import (
    RowStats,
    Terms,
    row_grad,
    row_loss,
    row_probs,
)
from .triton_tile import (
    classes_from,
    count_row,
    load_block,
    load_false,
    over_rows,
    reduce_row,
    reduce_row_in_chunks,
    reduce_tile,
    reduce_tile_in_chunks,
    rows_of,
)
from .triton_write import load_stats, patch_grad, save_stats, store_grad, write_row

TARGETS = tl.constexpr(256)  # as few as every program can count, all of them together
SHARE = tl.constexpr(4096)  # targets that prepare_kernel looks at together
PARTS = tl.constexpr(64)  # programs, and so partial sums, that prepare_kernel has at the most
LANES = tl.constexpr(32)  # of a warp: as many partial sums are added at once
LOSSES = tl.constexpr(8192)  # partial losses that finish_kernel looks at together
KEPT = tl.constexpr(1024)  # the largest tile that keeps logits and exponentials in registers


@triton.jit
def make_terms(
    one_minus_margin, pc_weight, lc_weight, lc_cap, ce_weight, classes,
    T: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    shape: tl.constexpr = (1, 1, 1) if R > 1 else ()
    return Terms(
        tl.full(shape, one_minus_margin, T),
        tl.full(shape, pc_weight, T),
        tl.full(shape, lc_weight, T),
        tl.full(shape, lc_cap, T),
        tl.full(shape, ce_weight, T),
        tl.full(shape, classes - 1, T),
    )


@triton.jit
def class_weight(weight_ptr, y, kept, in_range, T: tl.constexpr):
    """0 where the row is ignored, 1 where y is no class."""
    weight = tl.where(kept, 1.0, 0.0).to(T)
    if weight_ptr is not None:
        read = kept & in_range
        weight = tl.where(read, tl.load(weight_ptr + y, mask=read, other=0.0), weight)
    return weight


@triton.jit
def sum_weights(
    target_ptr, weight_ptr, begin, end, classes, ignore_index, T: tl.constexpr, B: tl.constexpr
):  # fmt: skip
    """The weights of targets begin to end, B at once and always added in one order."""
    total = tl.zeros([B], T)
    for start in range(begin, end, B):
        i = start + tl.arange(0, B)
        y = tl.load(target_ptr + i, mask=i < end, other=ignore_index)
        in_range = (y >= 0) & (y < classes)
        total += class_weight(weight_ptr, y, y != ignore_index, in_range, T)
    return tl.sum(total, axis=0)


@triton.jit
def denominator(
    target_ptr, weight_ptr, parts_ptr, parts, rows, classes, ignore_index, T: tl.constexpr
):  # fmt: skip
    """The summed weights of all rows, from prepare_kernel's parts where it has run.

    The same bits for any number of warps, in which forward and backward may differ: LANES numbers
    have a lane each in every warp alike, and without weights every order gives one whole number.
    """
    if parts_ptr is not None:
        lanes = tl.zeros([LANES], T)
        for i in tl.static_range(PARTS // LANES):
            part = i * LANES + tl.arange(0, LANES)
            lanes += tl.load(parts_ptr + part, mask=part < parts, other=0.0)
        total = tl.sum(lanes, axis=0)
    else:
        tl.static_assert(weight_ptr is None)
        total = sum_weights(target_ptr, weight_ptr, 0, rows, classes, ignore_index, T, TARGETS)
    return total


@triton.jit(do_not_specialize=["rows", "share", "classes", "ignore_index"])
def prepare_kernel(
    target_ptr, weight_ptr, grad_output_ptr, parts_ptr,
    rows: tl.int64, share: tl.int64, classes: tl.int32, ignore_index: tl.int64,
    T: tl.constexpr,
):  # fmt: skip
    """Sum the weights of one share of the rows; not where grad_output is there and 1."""
    if grad_output_ptr is not None:
        if tl.load(grad_output_ptr) == 1.0:
            return
    part = tl.program_id(0).to(tl.int64)
    begin = part * share
    end = tl.minimum(begin + share, rows)
    total = sum_weights(target_ptr, weight_ptr, begin, end, classes, ignore_index, T, SHARE)
    tl.store(parts_ptr + part, total)


@triton.jit(do_not_specialize=["programs", "rows", "parts", "classes", "ignore_index"])
def finish_kernel(
    program_loss_ptr, target_ptr, weight_ptr, parts_ptr, loss_ptr,
    programs: tl.int64, rows: tl.int64, parts: tl.int32, classes: tl.int32,
    ignore_index: tl.int64,
    T: tl.constexpr, REDUCTION: tl.constexpr,
):  # fmt: skip
    """Reduce what the programs of forward_kernel have left, always in one order."""
    losses = tl.zeros([LOSSES], tl.float64)
    for start in range(0, programs, LOSSES):
        i = start + tl.arange(0, LOSSES)
        losses += tl.load(program_loss_ptr + i, mask=i < programs, other=0.0).to(tl.float64)
    loss = tl.sum(losses, axis=0)
    if REDUCTION == "mean":
        total = denominator(
            target_ptr, weight_ptr, parts_ptr, parts, rows, classes, ignore_index, T
        )
        loss = loss / total.to(tl.float64)
    tl.store(loss_ptr, loss.to(T))


@triton.jit(do_not_specialize=["rows", "parts", "classes", "row_stride", "ignore_index"])
def forward_kernel(
    logits_ptr, target_ptr, weight_ptr, parts_ptr,
    loss_ptr, stats_ptr, grad_ptr, prob_gap_ptr, logit_gap_ptr, runner_up_ptr, correct_ptr,
    rows: tl.int64, parts: tl.int32, classes: tl.int32, row_stride: tl.int64,
    ignore_index: tl.int64,
    one_minus_margin: tl.float64, pc_weight: tl.float64, lc_weight: tl.float64,
    lc_cap: tl.float64, ce_weight: tl.float64,
    T: tl.constexpr, REDUCTION: tl.constexpr, LC_MODE: tl.constexpr,
    R: tl.constexpr, B: tl.constexpr, W: tl.constexpr, IN_REGISTERS: tl.constexpr,
    ALIGNED: tl.constexpr,
):  # fmt: skip
    """The loss of R rows, and what else has a place to go to.

    loss: of every row where REDUCTION is "none", else the sum over this program's rows.
    ALIGNED: every row starts at a multiple of so many logits, and has a multiple of them.
    """
    C: tl.constexpr = ALIGNED if R == 1 and LC_MODE == "hard" else 1
    classes = classes // ALIGNED * ALIGNED  # says so to the compiler
    row_stride = row_stride // ALIGNED * ALIGNED
    inverse = tl.full((), 1.0, T)
    if REDUCTION == "mean" and grad_ptr is not None:  # before the registers are full of logits
        total = denominator(
            target_ptr, weight_ptr, parts_ptr, parts, rows, classes, ignore_index, T
        )
        inverse = tl.where(total == 0, 0.0, 1.0 / total)
    terms = make_terms(one_minus_margin, pc_weight, lc_weight, lc_cap, ce_weight, classes, T, R)
    row = rows_of(tl.program_id(0).to(tl.int64), R)
    exists = row < rows
    y = tl.load(target_ptr + row, mask=exists, other=ignore_index)
    kept = y != ignore_index
    in_range = (y >= 0) & (y < classes)
    read = kept & in_range
    label = tl.where(read, y, -1).to(tl.int32)
    row_ptr = logits_ptr + row * row_stride
    true_logit = tl.load(row_ptr + label, mask=read, other=0.0).to(T)
    weight = class_weight(weight_ptr, y, kept, in_range, T)
    limit = tl.where(read, classes, 0)  # nothing of an ignored row is read

    if IN_REGISTERS:
        if C > 1:
            k, a = load_block(row_ptr, 0, limit, T, R, B, W)
            e, s = reduce_tile_in_chunks(row_ptr, a, limit, label, T, C)
        else:
            k, a = load_false(row_ptr, 0, limit, label, T, R, B, W)
            e, s = reduce_tile(k, a, label, true_logit, terms.lc_cap, LC_MODE)
    elif LC_MODE == "hard":
        s = reduce_row_in_chunks(row_ptr, limit, label, T, B, W, C)
    else:
        s = reduce_row(row_ptr, limit, label, true_logit, terms.lc_cap, T, LC_MODE, R, B, W)
    p = row_probs(true_logit, s.top, s.exp_sum, in_range | (y == ignore_index), terms)
    mixed_rows = over_rows(tl.where(p.mixed & kept, 1, 0), R)
    scale = tl.where(kept, inverse * weight, 0.0)
    grad_row_ptr = grad_ptr
    end = tl.where(exists, classes, 0)
    KEEP: tl.constexpr = IN_REGISTERS and (LC_MODE == "hard" or B <= KEPT)
    if grad_ptr is not None:
        grad_row_ptr += row * classes
        if KEEP:
            if mixed_rows == 0:  # first of all: the registers of the tile are free then
                # Counted anew from a 0 that the compiler does not know: k above would take a
                # register for each element until here.
                k = classes_from(tl.multiple_of(tl.minimum(classes, 0), 16), R, B, W)
                g = row_grad(true_logit, p, s, terms, scale, LC_MODE)
                store_grad(
                    grad_row_ptr, k, a, e, end, true_logit, p, g, terms.lc_cap, False, LC_MODE
                )
    # In smaller blocks, so that this rare case needs no more registers than the others.
    FEWER: tl.constexpr = R > 1 or LC_MODE == "hard"
    SHORT: tl.constexpr = B // 4 if FEWER and B >= 4 * W else B
    active, active_sum = s.active, s.active_sum
    if mixed_rows > 0:
        active, active_sum = count_row(row_ptr, classes, limit, label, s.top, p, T, R, SHORT, W)
    s = RowStats(s.top, s.exp_sum, s.lc_sum, s.lc_count, active, active_sum, s.runner_up)

    loss = tl.where(kept, row_loss(p, s, terms, ce_weight != 0, LC_MODE) * weight, 0.0)
    if REDUCTION == "none":
        tl.store(loss_ptr + row, loss, mask=exists)
    else:
        tl.store(loss_ptr + tl.program_id(0), over_rows(loss, R))
    if stats_ptr is not None:
        save_stats(row, exists, s, stats_ptr, T)
    if correct_ptr is not None:
        valid = kept & p.defined & (classes > 1)
        nan = float("nan")
        tl.store(prob_gap_ptr + row, tl.where(valid, p.true_prob - p.top_prob, nan), mask=exists)
        tl.store(logit_gap_ptr + row, tl.where(valid, p.logit_gap, nan), mask=exists)
        tl.store(runner_up_ptr + row, tl.where(valid, s.runner_up, -1).to(tl.int64), mask=exists)
        tie_won = (p.logit_gap == 0) & (label < s.runner_up)
        tl.store(correct_ptr + row, valid & ((p.logit_gap > 0) | tie_won), mask=exists)

    if grad_ptr is not None:
        g = row_grad(true_logit, p, s, terms, scale, LC_MODE)
        if mixed_rows > 0:
            write_row(
                row_ptr, grad_row_ptr, classes, limit, end, true_logit, s, p, g, terms.lc_cap,
                True, T, LC_MODE, R, SHORT, W,
            )  # fmt: skip
        elif not KEEP:
            write_row(
                row_ptr, grad_row_ptr, classes, limit, end, true_logit, s, p, g, terms.lc_cap,
                False, T, LC_MODE, R, B, W,
            )  # fmt: skip
        patch_grad(grad_row_ptr, label, s, p, g, LC_MODE)


@triton.jit(
    do_not_specialize=[
        "rows", "parts", "classes", "row_stride", "ignore_index", "grad_output_stride",
    ]
)  # fmt: skip
def backward_kernel(
    logits_ptr, target_ptr, weight_ptr, parts_ptr, stats_ptr, grad_output_ptr, grad_ptr,
    rows: tl.int64, parts: tl.int32, classes: tl.int32, row_stride: tl.int64,
    ignore_index: tl.int64, grad_output_stride: tl.int64,
    one_minus_margin: tl.float64, pc_weight: tl.float64, lc_weight: tl.float64,
    lc_cap: tl.float64, ce_weight: tl.float64,
    T: tl.constexpr, REDUCTION: tl.constexpr, LC_MODE: tl.constexpr,
    HAS_UNIT_GRAD: tl.constexpr, R: tl.constexpr, B: tl.constexpr, W: tl.constexpr,
    ALIGNED: tl.constexpr,
):  # fmt: skip
    """Write the gradient from what forward saved of each row.

    The programs share the rows in turns: few of them start where grad_output is 1 and the gradient
    is there already.
    """
    classes = classes // ALIGNED * ALIGNED  # says so to the compiler
    row_stride = row_stride // ALIGNED * ALIGNED
    inverse = tl.full((), 1.0, T)
    if REDUCTION != "none":
        inverse = tl.load(grad_output_ptr)
        if HAS_UNIT_GRAD:
            if inverse == 1.0:
                return
    if REDUCTION == "mean":
        total = denominator(
            target_ptr, weight_ptr, parts_ptr, parts, rows, classes, ignore_index, T
        )
        inverse *= tl.where(total == 0, 0.0, 1.0 / total)
    terms = make_terms(one_minus_margin, pc_weight, lc_weight, lc_cap, ce_weight, classes, T, R)
    for group in range(tl.program_id(0).to(tl.int64), tl.cdiv(rows, R), tl.num_programs(0)):
        row = rows_of(group, R)
        exists = row < rows
        y = tl.load(target_ptr + row, mask=exists, other=ignore_index)
        kept = y != ignore_index
        in_range = (y >= 0) & (y < classes)
        read = kept & in_range
        label = tl.where(read, y, -1).to(tl.int32)
        row_ptr = logits_ptr + row * row_stride
        true_logit = tl.load(row_ptr + label, mask=read, other=0.0).to(T)
        limit = tl.where(read, classes, 0)
        s = load_stats(row, exists, stats_ptr, T)
        p = row_probs(true_logit, s.top, s.exp_sum, in_range | (y == ignore_index), terms)
        scale = inverse * class_weight(weight_ptr, y, kept, in_range, T)
        if REDUCTION == "none":
            scale *= tl.load(grad_output_ptr + row * grad_output_stride, mask=exists, other=0.0)
        scale = tl.where(kept, scale, 0.0)
        g = row_grad(true_logit, p, s, terms, scale, LC_MODE)
        grad_row_ptr = grad_ptr + row * classes
        end = tl.where(exists, classes, 0)
        SHORT: tl.constexpr = B // 4 if R == 1 else B  # as in forward_kernel
        if over_rows(tl.where(p.mixed & kept, 1, 0), R) > 0:
            write_row(
                row_ptr, grad_row_ptr, classes, limit, end, true_logit, s, p, g, terms.lc_cap,
                True, T, LC_MODE, R, SHORT, W,
            )  # fmt: skip
        else:
            write_row(
                row_ptr, grad_row_ptr, classes, limit, end, true_logit, s, p, g, terms.lc_cap,
                False, T, LC_MODE, R, B, W,
            )  # fmt: skip
        patch_grad(grad_row_ptr, label, s, p, g, LC_MODE)
