"""Blocks of logits in Triton: what csrc/pclc_cpu_row.h does block by block.

A program has R rows and takes B classes of each at a time. Where R is 1 a block is [B], and a
quantity of a row is a scalar. Else a block is [R, B / W, W], and a quantity of rows [R, 1, 1]:
threads are laid along W, then along R, and what is left, B / W, are registers of a thread. So W
says how many threads share a row. Both kinds broadcast alike.
"""

# Compile-time parameters are capitals.
# ruff: noqa: N803, N806
# mypy: allow-untyped-decorators, disable-error-code="no-untyped-def,import-untyped"

from __future__ import annotations

import triton
import triton.language as tl

from .triton_row import RowStats, exp_from, shift_of

NOWHERE = tl.constexpr(2**31 - 2**16)  # no class; blocks of classes may start there


@triton.jit
def row_sum(block):
    if len(block.shape) == 1:
        return tl.sum(block, axis=0)
    else:
        return tl.sum(tl.sum(block, axis=1, keep_dims=True), axis=2, keep_dims=True)


@triton.jit
def row_max(block):
    if len(block.shape) == 1:
        return tl.max(block, axis=0)
    else:
        return tl.max(tl.max(block, axis=1, keep_dims=True), axis=2, keep_dims=True)


@triton.jit
def row_min(block):
    if len(block.shape) == 1:
        return tl.min(block, axis=0)
    else:
        return tl.min(tl.min(block, axis=1, keep_dims=True), axis=2, keep_dims=True)


@triton.jit
def over_rows(values, R: tl.constexpr):
    """The sum of a quantity over the rows of a program."""
    if R > 1:
        return tl.sum(tl.reshape(values, [R]), axis=0)
    else:
        return values


@triton.jit
def rows_of(group, R: tl.constexpr):
    """The rows of a group, whose number has 64 bits."""
    row = group * R
    if R > 1:
        row += tl.arange(0, R)[:, None, None]
    return row


@triton.jit
def classes_from(begin, R: tl.constexpr, B: tl.constexpr, W: tl.constexpr):
    """The B classes of a block that starts at `begin`."""
    if R > 1:
        k = tl.arange(0, B // W)[None, :, None] * W + tl.arange(0, W)[None, None, :]
    else:
        k = tl.arange(0, B)
    return begin + k


@triton.jit
def load_block(
    row_ptr, begin, limit,
    T: tl.constexpr, R: tl.constexpr, B: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Classes and their logits up to `limit`; -inf beyond."""
    k = classes_from(begin, R, B, W)
    return k, tl.load(row_ptr + k, mask=k < limit, other=-float("inf")).to(T)


@triton.jit
def load_false(
    row_ptr, begin, limit, label,
    T: tl.constexpr, R: tl.constexpr, B: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Classes and their logits up to `limit`; -inf at the true class and beyond the limit."""
    k, a = load_block(row_ptr, begin, limit, T, R, B, W)
    return k, tl.where(k == label, -float("inf"), a)


@triton.jit
def lc_terms(a, e, true_logit, cap, LC_MODE: tl.constexpr):
    """What every false class adds to lc_sum and lc_count."""
    if LC_MODE == "soft":
        gap = true_logit - a
        counts = (gap > 0) & (e > 0)
        return tl.where(counts, e * gap, 0.0), tl.where(counts, e, 0.0)
    else:
        gap = true_logit - a - cap
        counts = (gap > 0) & (a > -float("inf"))
        return tl.where(counts, gap, 0.0), tl.where(counts, 1.0, 0.0).to(a.dtype)


@triton.jit
def or_lowest(found, top, label):
    """What was found with the largest false logit, or the lowest false class where all are -inf."""
    return tl.where(top == -float("inf"), tl.where(label == 0, 1, 0), found)


@triton.jit
def first_of(top, k, a, label):
    """j, the lowest class of those that share the largest false logit."""
    return or_lowest(row_min(tl.where(a == top, k, NOWHERE)), top, label)


@triton.jit
def reduce_tile(k, a, label, true_logit, cap, LC_MODE: tl.constexpr):
    """e_k and RowStats of rows of false logits in registers. A NaN travels through the sum."""
    top = row_max(a)
    runner_up = first_of(top, k, a, label)  # before e_k takes the registers of a_k
    e = exp_from(a, shift_of(top))
    exp_sum = row_sum(e)
    zero = tl.zeros_like(exp_sum)
    lc_sum, lc_count = zero, zero
    if LC_MODE != "hard":
        sums, counts = lc_terms(a, e, true_logit, cap, LC_MODE)
        lc_sum = row_sum(sums)
        lc_count = row_sum(counts)
    return e, RowStats(top, exp_sum, lc_sum, lc_count, zero, zero, runner_up)


@triton.jit
def chunk_of(label, C: tl.constexpr):
    """Where the chunk of C classes starts that the true class lies in; 0 where there is none."""
    return tl.multiple_of(tl.maximum(label, 0) & -C, C)


@triton.jit
def in_chunks(block, C: tl.constexpr):
    """[B] as [B / C, C]: a thread holds C neighbours, and so reduces them on its own."""
    return tl.reshape(block, [block.shape[0] // C, C])


@triton.jit
def first_in_chunks(
    row_ptr, far, near_k, near, limit, label, top, T: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    """The runner-up: in the lowest other chunk with the largest false logit, or in that of y.

    Reading C logits again is less than to compare all the others with the largest one.
    """
    k, a = load_false(row_ptr, tl.multiple_of(far, C), limit, label, T, 1, C, C)
    found = tl.minimum(tl.where(a == top, k, NOWHERE), tl.where(near == top, near_k, NOWHERE))
    return or_lowest(row_min(found), top, label)


@triton.jit
def reduce_tile_in_chunks(row_ptr, a, limit, label, T: tl.constexpr, C: tl.constexpr):
    """What reduce_tile returns, of one row with its true logit in it, for the hard constraint.

    The true class is hidden with all of its chunk, which is read a second time instead: one
    comparison for C logits. e_k at the true class is anything.
    """
    first = tl.arange(0, a.shape[0] // C) * C
    near_first = chunk_of(label, C)
    near_k, near = load_false(row_ptr, near_first, limit, label, T, 1, C, C)
    tops = tl.where(first == near_first, -float("inf"), tl.max(in_chunks(a, C), axis=1))
    top = tl.maximum(row_max(tops), row_max(near))
    far = row_min(tl.where(tops == top, first, NOWHERE))
    runner_up = first_in_chunks(row_ptr, far, near_k, near, limit, label, top, T, C)
    shift = shift_of(top)
    e = exp_from(a, shift)
    sums = tl.where(first == near_first, 0.0, tl.sum(in_chunks(e, C), axis=1))
    exp_sum = row_sum(sums) + row_sum(exp_from(near, shift))
    zero = tl.zeros_like(exp_sum)
    return e, RowStats(top, exp_sum, zero, zero, zero, zero, runner_up)


@triton.jit
def reduce_row(
    row_ptr, limit, label, true_logit, cap,
    T: tl.constexpr, LC_MODE: tl.constexpr, R: tl.constexpr, B: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """RowStats of one long row in one pass.

    Every lane keeps the largest logit that it has seen and its sums relative to that one, so that
    lanes meet once, at the end. A NaN is never the largest; it travels through the sums.
    """
    zeros = tl.zeros([B], T)
    lane_top = zeros - float("inf")
    lane_first = tl.zeros([B], tl.int32)
    exp_sum, lc_sum, lc_count = zeros, zeros, zeros
    for begin in range(0, limit, B):
        k, a = load_false(row_ptr, begin, limit, label, T, R, B, W)
        above = a > lane_top
        new_top = tl.where(above, a, lane_top)
        lane_first = tl.where(above, k, lane_first)
        shift = shift_of(new_top)
        factor = exp_from(lane_top, shift)
        lane_top = new_top
        e = exp_from(a, shift)
        exp_sum = exp_sum * factor + e
        if LC_MODE != "hard":
            sums, counts = lc_terms(a, e, true_logit, cap, LC_MODE)
            if LC_MODE == "soft":
                lc_sum *= factor
                lc_count *= factor
            lc_sum += sums
            lc_count += counts
    top = row_max(lane_top)
    factor = exp_from(lane_top, shift_of(top))
    if LC_MODE == "soft":
        lc_sum *= factor
        lc_count *= factor
    exp_sum = row_sum(exp_sum * factor)
    zero = tl.zeros_like(exp_sum)
    return RowStats(
        top,
        exp_sum,
        row_sum(lc_sum),
        row_sum(lc_count),
        zero,
        zero,
        first_of(top, lane_first, lane_top, label),
    )


@triton.jit
def reduce_row_in_chunks(
    row_ptr, limit, label,
    T: tl.constexpr, B: tl.constexpr, W: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """What reduce_row returns, for the hard constraint, with a lane for each chunk of a block.

    A chunk is what a thread holds anyway: C neighbours, or, where C is 1, every W-th class.
    """
    AXIS: tl.constexpr = 1 if C > 1 else 0
    SHAPE: tl.constexpr = (B // C, C) if C > 1 else (B // W, W)
    first = tl.arange(0, SHAPE[1 - AXIS]) * C
    y = tl.maximum(label, 0)
    near_first = y & -C if C > 1 else (y & -B) + (y & (W - 1))
    near_k = near_first + tl.arange(0, SHAPE[AXIS]) * (1 if C > 1 else W)
    near = tl.load(row_ptr + near_k, mask=near_k < limit, other=-float("inf")).to(T)
    near = tl.where(near_k == label, -float("inf"), near)
    lane_top = tl.full([SHAPE[1 - AXIS]], -float("inf"), T)
    lane_first = tl.zeros([SHAPE[1 - AXIS]], tl.int32)
    exp_sum = tl.zeros([SHAPE[1 - AXIS]], T)
    for begin in range(0, limit, B):
        _, a = load_block(row_ptr, begin, limit, T, 1, B, W)
        a = tl.reshape(a, SHAPE)
        is_near = begin + first == near_first
        tops = tl.where(is_near, -float("inf"), tl.max(a, axis=AXIS))
        above = tops > lane_top
        new_top = tl.where(above, tops, lane_top)
        lane_first = tl.where(above, begin + first, lane_first)
        shift = shift_of(new_top)
        sums = tl.sum(exp_from(a, tl.expand_dims(shift, AXIS)), axis=AXIS)
        exp_sum = exp_sum * exp_from(lane_top, shift) + tl.where(is_near, 0.0, sums)
        lane_top = new_top
    top = tl.maximum(row_max(lane_top), row_max(near))
    far = row_min(tl.where(lane_top == top, lane_first, NOWHERE))
    if C > 1:
        runner_up = first_in_chunks(row_ptr, far, near_k, near, limit, label, top, T, C)
    else:  # in the whole block, the lowest of those with such a chunk
        k, a = load_false(row_ptr, far & -B, limit, label, T, 1, B, W)
        found = tl.minimum(
            row_min(tl.where(a == top, k, NOWHERE)),
            row_min(tl.where(near == top, near_k, NOWHERE)),
        )
        runner_up = or_lowest(found, top, label)
    shift = shift_of(top)
    exp_sum = row_sum(exp_sum * exp_from(lane_top, shift)) + row_sum(exp_from(near, shift))
    zero = tl.zeros_like(exp_sum)
    return RowStats(top, exp_sum, zero, zero, zero, zero, runner_up)


@triton.jit
def count_row(
    row_ptr, classes, limit, label, top, p,
    T: tl.constexpr, R: tl.constexpr, B: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """The active hinges of R rows and the sum of f_k over them, from another pass over the rows."""
    shape: tl.constexpr = (R, B // W, W) if R > 1 else (B,)
    active = tl.zeros(shape, T)
    active_sum = tl.zeros(shape, T)
    shift = shift_of(top)
    for begin in range(0, classes, B):
        k, a = load_block(row_ptr, begin, limit, T, R, B, W)
        f = exp_from(a, shift) * p.top_prob
        is_active = (f > p.threshold) & (k != label)
        active += tl.where(is_active, 1.0, 0.0).to(T)
        active_sum += tl.where(is_active, f, 0.0)
    return row_sum(active), row_sum(active_sum)
