"""Blocks of logits in Triton: what csrc/pclc_cpu_row.h does block by block.

A program has R rows and takes B classes of each at a time. A quantity of a row is [R, 1], or a
scalar where R is 1; a block is [R, B], or [B]. The two broadcast alike.
"""

# Compile-time parameters are capitals.
# ruff: noqa: N803, N806, SIM300
# mypy: allow-untyped-decorators, disable-error-code="no-untyped-def,import-untyped"

from __future__ import annotations

import triton
import triton.language as tl

from .triton_row import RowStats, shift_of


@triton.jit
def row_sum(block):
    if len(block.shape) == 1:
        return tl.sum(block, axis=0)
    else:
        return tl.sum(block, axis=1, keep_dims=True)


@triton.jit
def row_max(block):
    if len(block.shape) == 1:
        return tl.max(block, axis=0)
    else:
        return tl.max(block, axis=1, keep_dims=True)


@triton.jit
def row_min(block):
    if len(block.shape) == 1:
        return tl.min(block, axis=0)
    else:
        return tl.min(block, axis=1, keep_dims=True)


@triton.jit
def over_rows(values, R: tl.constexpr):
    """The sum of a quantity over the rows of a program."""
    if R > 1:
        return tl.sum(tl.sum(values, axis=1), axis=0)
    else:
        return values


@triton.jit
def rows_of(group, R: tl.constexpr):
    """The rows of a group, whose number has 64 bits."""
    row = group * R
    if R > 1:
        row += tl.arange(0, R)[:, None]
    return row


@triton.jit
def classes_from(begin, R: tl.constexpr, B: tl.constexpr):
    """The B classes of a block that starts at `begin`."""
    k = begin + tl.arange(0, B)
    if R > 1:
        k = k[None, :]
    return k


@triton.jit
def load_false(row_ptr, begin, limit, label, T: tl.constexpr, R: tl.constexpr, B: tl.constexpr):
    """Classes and their logits up to `limit`; -inf at the true class and beyond the limit."""
    k = classes_from(begin, R, B)
    a = tl.load(row_ptr + k, mask=k < limit, other=-float("inf")).to(T)
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
    first = row_min(tl.where(a == top, k, 2147483647))
    return tl.where(top == -float("inf"), tl.where(label == 0, 1, 0), first)


@triton.jit
def reduce_tile(k, a, label, true_logit, cap, LC_MODE: tl.constexpr):
    """e_k and RowStats of rows that are in registers. A NaN travels through the sum."""
    top = row_max(a)
    runner_up = first_of(top, k, a, label)  # before e_k takes the registers of a_k
    e = tl.exp(a - shift_of(top))
    exp_sum = row_sum(e)
    zero = tl.zeros_like(exp_sum)
    lc_sum, lc_count = zero, zero
    if LC_MODE != "hard":
        sums, counts = lc_terms(a, e, true_logit, cap, LC_MODE)
        lc_sum = row_sum(sums)
        lc_count = row_sum(counts)
    return e, RowStats(top, exp_sum, lc_sum, lc_count, zero, zero, runner_up)


@triton.jit
def reduce_row(
    row_ptr, limit, label, true_logit, cap,
    T: tl.constexpr, LC_MODE: tl.constexpr, R: tl.constexpr, B: tl.constexpr,
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
        k, a = load_false(row_ptr, begin, limit, label, T, R, B)
        above = a > lane_top
        new_top = tl.where(above, a, lane_top)
        lane_first = tl.where(above, k, lane_first)
        shift = shift_of(new_top)
        factor = tl.exp(lane_top - shift)
        lane_top = new_top
        e = tl.exp(a - shift)
        exp_sum = exp_sum * factor + e
        if LC_MODE != "hard":
            sums, counts = lc_terms(a, e, true_logit, cap, LC_MODE)
            if LC_MODE == "soft":
                lc_sum *= factor
                lc_count *= factor
            lc_sum += sums
            lc_count += counts
    top = row_max(lane_top)
    factor = tl.exp(lane_top - shift_of(top))
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
def hinges(e, p):
    """What every false class adds to active and active_sum."""
    f = e * p.top_prob
    is_active = f > p.threshold
    return tl.where(is_active, 1.0, 0.0).to(e.dtype), tl.where(is_active, f, 0.0)


@triton.jit
def count_tile(e, p):
    """The active hinges of rows that are in registers."""
    actives, sums = hinges(e, p)
    return row_sum(actives), row_sum(sums)


@triton.jit
def count_row(
    row_ptr, limit, label, top, p,
    T: tl.constexpr, R: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """The active hinges of one long row, from another pass over it."""
    active = tl.zeros([B], T)
    active_sum = tl.zeros([B], T)
    for begin in range(0, limit, B):
        _, a = load_false(row_ptr, begin, limit, label, T, R, B)
        actives, sums = hinges(tl.exp(a - shift_of(top)), p)
        active += actives
        active_sum += sums
    return row_sum(active), row_sum(active_sum)


@triton.jit
def element_grad(k, a, e, label, true_logit, s, p, g, cap, LC_MODE: tl.constexpr):
    """The gradient of a tile of logits from RowGrad."""
    is_active = e * p.top_prob > p.threshold
    grad = e * tl.where(is_active, g.active, g.inactive)
    if LC_MODE == "hard":
        grad = tl.where(k == s.runner_up, grad + g.top_extra, grad)
    elif LC_MODE == "soft":
        gap = true_logit - a
        pull = tl.where(gap > 0, gap - g.soft_mean - 1.0, -g.soft_mean)
        grad += tl.where(e > 0, e * g.soft_scale * pull, 0.0)
    else:
        counts = (true_logit - a - cap > 0) & (a > -float("inf"))
        grad += tl.where(counts, g.all_step, 0.0)
    return tl.where(k == label, g.true_grad, grad)


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
