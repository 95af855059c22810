"""Blocks of logits in Triton: what csrc/pclc_cpu_row.h does block by block.

A program has R rows and takes B classes of each at a time. Where R is 1 a block is [B], and a
quantity of a row is a scalar. Else a block is [R, B / W, W], and a quantity of rows [R, 1, 1]:
threads are laid along W, then along R, and what is left, B / W, are registers of a thread. So W
says how many threads share a row. Both kinds broadcast alike.
"""

# Compile-time parameters are capitals.
# ruff: noqa: N803, N806, SIM300
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
def first_of(top, k, a, label):
    """j, the lowest class of those that share the largest false logit."""
    first = row_min(tl.where(a == top, k, NOWHERE))
    return tl.where(top == -float("inf"), tl.where(label == 0, 1, 0), first)


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
    return tl.where(top == -float("inf"), tl.where(label == 0, 1, 0), row_min(found))


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
    row_ptr, limit, label, T: tl.constexpr, B: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    """What reduce_row returns, for the hard constraint: a lane has C neighbours of each block."""
    first = tl.arange(0, B // C) * C
    near_first = chunk_of(label, C)
    near_k, near = load_false(row_ptr, near_first, limit, label, T, 1, C, C)
    lane_top = tl.full([B // C], -float("inf"), T)
    lane_first = tl.zeros([B // C], tl.int32)
    exp_sum = tl.zeros([B // C], T)
    for begin in range(0, limit, B):
        _, a = load_block(row_ptr, begin, limit, T, 1, B, B)
        is_near = begin + first == near_first
        tops = tl.where(is_near, -float("inf"), tl.max(in_chunks(a, C), axis=1))
        above = tops > lane_top
        new_top = tl.where(above, tops, lane_top)
        lane_first = tl.where(above, begin + first, lane_first)
        shift = shift_of(new_top)
        sums = tl.sum(exp_from(in_chunks(a, C), shift[:, None]), axis=1)
        exp_sum = exp_sum * exp_from(lane_top, shift) + tl.where(is_near, 0.0, sums)
        lane_top = new_top
    top = tl.maximum(row_max(lane_top), row_max(near))
    far = row_min(tl.where(lane_top == top, lane_first, NOWHERE))
    runner_up = first_in_chunks(row_ptr, far, near_k, near, limit, label, top, T, C)
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


@triton.jit
def store_grad(
    row_ptr, k, a, e, limit, true_logit, p, g, cap, MIXED: tl.constexpr, LC_MODE: tl.constexpr
):  # fmt: skip
    """The gradient of a block of logits from RowGrad, but for what patch_grad has to store.

    Where no row is MIXED a factor is all that is left of Eq. 6.
    """
    if MIXED:
        grad = e * tl.where(e * p.top_prob > p.threshold, g.active, g.inactive)
    else:
        grad = e * g.inactive
    if LC_MODE == "soft":
        gap = true_logit - a
        pull = tl.where(gap > 0, gap - g.soft_mean - 1.0, -g.soft_mean)
        grad += tl.where(e > 0, e * g.soft_scale * pull, 0.0)
    elif LC_MODE == "all":
        counts = (true_logit - a - cap > 0) & (a > -float("inf"))
        grad += tl.where(counts, g.all_step, 0.0)
    tl.store(row_ptr + k, grad, mask=k < limit)


@triton.jit
def write_row(
    row_ptr, grad_row_ptr, classes, limit, end, true_logit, s, p, g, cap,
    MIXED: tl.constexpr, T: tl.constexpr, LC_MODE: tl.constexpr,
    R: tl.constexpr, B: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """The gradient of R rows from their logits and what is known of them, but for patch_grad."""
    shift = shift_of(s.top)
    for begin in range(0, classes, B):
        k, a = load_block(row_ptr, begin, limit, T, R, B, W)
        e = exp_from(a, shift)
        store_grad(grad_row_ptr, k, a, e, end, true_logit, p, g, cap, MIXED, LC_MODE)


@triton.jit
def patch_grad(row_ptr, label, s, p, g, LC_MODE: tl.constexpr):
    """The gradient at y, and what j has more than others, over what store_grad has stored there.

    One barrier, where two comparisons for every logit would do. e_j is 1.
    """
    tl.debug_barrier()
    tl.store(row_ptr + label, g.true_grad, mask=label >= 0)
    if LC_MODE == "hard":
        at_top = tl.where(p.top_prob > p.threshold, g.active, g.inactive) + g.top_extra
        pulls = (label >= 0) & (g.top_extra != 0)
        tl.store(row_ptr + s.runner_up, at_top, mask=pulls)


@triton.jit
def save_stats(row, exists, s, stats_ptr, T: tl.constexpr):
    """RowStats as 6 numbers and an int64 (ARITHMETIC in backends/__init__.py)."""
    WIDTH: tl.constexpr = 7 if T == tl.float64 else 8
    at = stats_ptr + row * WIDTH
    tl.store(at, s.top, mask=exists)
    tl.store(at + 1, s.exp_sum, mask=exists)
    tl.store(at + 2, s.lc_sum, mask=exists)
    tl.store(at + 3, s.lc_count, mask=exists)
    tl.store(at + 4, s.active, mask=exists)
    tl.store(at + 5, s.active_sum, mask=exists)
    last = (at + 6).to(tl.pointer_type(tl.int64), bitcast=True)
    tl.store(last, s.runner_up.to(tl.int64), mask=exists)


@triton.jit
def load_stats(row, exists, stats_ptr, T: tl.constexpr):
    """What save_stats saved."""
    WIDTH: tl.constexpr = 7 if T == tl.float64 else 8
    at = stats_ptr + row * WIDTH
    last = (at + 6).to(tl.pointer_type(tl.int64), bitcast=True)
    return RowStats(
        tl.load(at, mask=exists, other=0.0),
        tl.load(at + 1, mask=exists, other=0.0),
        tl.load(at + 2, mask=exists, other=0.0),
        tl.load(at + 3, mask=exists, other=0.0),
        tl.load(at + 4, mask=exists, other=0.0),
        tl.load(at + 5, mask=exists, other=0.0),
        tl.load(last, mask=exists, other=0).to(tl.int32),
    )
