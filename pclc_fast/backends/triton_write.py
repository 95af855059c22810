"""What a program of the Triton kernels writes: the gradient of its rows, and what it saved of them.

Shapes are those of triton_tile.py.
"""

# Compile-time parameters are capitals.
# ruff: noqa: N803, N806, SIM300
# mypy: allow-untyped-decorators, disable-error-code="no-untyped-def,import-untyped"

from __future__ import annotations

import triton
import triton.language as tl

from .triton_row import RowStats, exp_from, shift_of
from .triton_tile import load_block


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
    last = (classes - 1) // B * B
    for done in range(0, classes, B):  # from the end, which the caches still have
        k, a = load_block(row_ptr, last - done, limit, T, R, B, W)
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
