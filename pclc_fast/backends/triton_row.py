"""The mathematics of one row in Triton: csrc/pclc_row.h name for name.

Every quantity of a row has the shape [R, 1, 1] for the R rows of a program, or none for one row; so
it broadcasts with every block of rows, and the same code serves one long row and many short ones.
The arithmetic is in the type of what comes in, float32 or float64.
"""

# Compile-time parameters are capitals.
# ruff: noqa: N803
# mypy: allow-untyped-decorators, disable-error-code="no-untyped-def,import-untyped"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Terms(NamedTuple):
    """The coefficients as the row arithmetic uses them."""

    one_minus_margin: Any  # rounded once, so that f_y - xi = (1 - xi) - (1 - f_y) keeps its digits
    pc_weight: Any  # divided by K - 1 where pc_mean
    lc_weight: Any
    lc_cap: Any
    ce_weight: Any
    false_classes: Any  # K - 1


class RowStats(NamedTuple):
    """What one pass over the false classes leaves, with e_k = exp(a_k - a_j), g_k = a_y - a_k.

    A false logit of -inf has e_k = 0 and no part in the logit constraint.
    """

    top: Any  # a_j, -inf where no false logit is finite
    exp_sum: Any  # sum of e_k: at least 1, or 0 where no false logit is finite, NaN in a bad row
    lc_sum: Any  # soft: sum of e_k max(0, g_k);  all: sum of max(0, g_k - cap)
    lc_count: Any  # soft: sum of e_k [g_k > 0];    all: number of g_k > cap
    active: Any  # number of active hinges, where they are mixed
    active_sum: Any  # sum of f_k over those
    runner_up: Any  # j


class RowProbs(NamedTuple):
    """The scalars that loss and gradient share."""

    true_prob: Any  # f_y
    false_mass: Any  # 1 - f_y, never a subtraction
    top_prob: Any  # f_j: also the factor from e_k to f_k
    excess: Any  # f_y - xi
    logit_gap: Any  # a_y - a_j
    odds: Any  # exp(-|logit_gap|)
    all_active: Any  # Eq. 6 has three cases, one for a row: every hinge active,
    mixed: Any  # some of them, or none
    threshold: Any  # f_k above it is active and counted; elsewhere than in a mixed row none is
    defined: Any  # false: NaN or +inf in the row, all of it -inf, or a target that is no class


class RowGrad(NamedTuple):
    """The gradient of a row as numbers to multiply e_k with.

    At a false k it is e_k * (active or inactive, as the hinge of k is) + the logit constraint, at
    the true y true_grad. In a row that nothing moves all of them are 0, in an undefined one NaN.
    """

    inactive: Any
    active: Any  # differs from `inactive` in the mixed case only
    true_grad: Any
    top_extra: Any  # hard: added at j
    soft_scale: Any  # soft: e_k * soft_scale * (g_k - soft_mean - [g_k > 0])
    soft_mean: Any  # soft: D
    all_step: Any  # all: added where g_k > cap


@triton.jit
def shift_of(top):
    return tl.where(top == -float("inf"), 0.0, top)


@triton.jit
def exp_from(a, shift):
    """exp(a - shift). In float32 one multiplication and one instruction, 0 below 2^-126."""
    if a.dtype == tl.float64:
        return tl.exp(a - shift)
    else:
        return tl.exp2((a - shift) * 1.4426950408889634)


@triton.jit
def log1p_of_small(x):
    """log(1 + x) for 0 <= x < 1/4, with the relative accuracy that 1 + x has lost.

    2 artanh(x / (2 + x)) as a series, whose first missing term is below 2^-60.
    """
    s = x / (2.0 + x)
    square = s * s
    series = square * (1.0 / 17.0)
    for n in tl.static_range(7, 0, -1):
        series = (series + 1.0 / (2 * n + 1)) * square
    series += 1.0
    return 2.0 * s * series


@triton.jit
def cross_entropy(p, s):
    """log(1 + sum of exp(a_k - a_y)), relative to the larger of a_y and a_j."""
    ahead = p.logit_gap > 0
    others = tl.where(ahead, p.odds * s.exp_sum, 0.0)
    log = tl.log(tl.where(ahead, 1.0 + others, s.exp_sum + p.odds))
    log = tl.where(ahead & (others < 0.25), log1p_of_small(others), log)
    return tl.where(ahead, log, log - p.logit_gap)


@triton.jit
def row_probs(true_logit, top, exp_sum, in_range, terms):
    logit_gap = true_logit - top
    odds = exp_from(-tl.abs(logit_gap), 0.0)
    # Relative to the larger of a_y and a_j.
    true_exp = tl.where(logit_gap > 0, 1.0, odds)
    top_exp = tl.where(logit_gap > 0, odds, 1.0)
    false_exp = top_exp * exp_sum
    inverse = 1.0 / (true_exp + false_exp)
    top_prob = top_exp * inverse
    false_mass = false_exp * inverse
    excess = terms.one_minus_margin - false_mass
    all_active = excess < 0
    mixed = (excess >= 0) & (top_prob > excess)
    minus_inf = -float("inf")
    defined = in_range & (exp_sum == exp_sum) & (true_logit == true_logit)
    defined &= (true_logit < float("inf")) & ((true_logit > minus_inf) | (top > minus_inf))
    return RowProbs(
        true_exp * inverse,
        false_mass,
        top_prob,
        excess,
        logit_gap,
        odds,
        all_active,
        mixed,
        tl.where(mixed, excess, 2.0),
        defined,
    )


@triton.jit
def row_loss(p, s, terms, has_ce, LC_MODE: tl.constexpr):
    """The loss of a row (Eqs. 2, 6 and 16, before its class weight).

    A term whose coefficient is 0 is skipped: 0 * inf is no number.
    """
    loss = tl.zeros_like(p.false_mass)
    if has_ce:
        loss = terms.ce_weight * cross_entropy(p, s)
    every = p.false_mass - terms.false_classes * p.excess
    some = tl.where(p.mixed, s.active_sum - s.active * p.excess, 0.0)
    loss += terms.pc_weight * tl.where(p.all_active, every, some)
    if LC_MODE == "hard":
        constraint = tl.maximum(p.logit_gap - terms.lc_cap, 0.0)
    elif LC_MODE == "soft":
        constraint = s.lc_sum / s.exp_sum
    else:
        constraint = s.lc_sum / terms.false_classes
    pulls = (terms.lc_weight != 0) & (s.top > -float("inf"))
    loss += tl.where(pulls, terms.lc_weight * constraint, 0.0)
    loss = tl.where(terms.false_classes > 0, loss, 0.0)
    return tl.where(p.defined, loss, float("nan"))


@triton.jit
def row_grad(true_logit, p, s, terms, scale, LC_MODE: tl.constexpr):
    """`scale` is grad_output * class weight / denominator, 0 in an ignored row."""
    # A true logit of -inf cannot move: CE is +inf and f_y is 0 whatever the others do.
    moves = (terms.false_classes > 0) & (true_logit > -float("inf"))
    classes_prob = (terms.false_classes + 1.0) * p.true_prob
    mixed_prob = s.active * p.true_prob - s.active_sum
    mixed_true = p.true_prob * (s.active * p.false_mass + s.active_sum)
    pc_prob = tl.where(p.all_active, classes_prob, tl.where(p.mixed, mixed_prob, 0.0))
    pc_true = tl.where(p.all_active, classes_prob * p.false_mass, 0.0)
    pc_true = tl.where(p.mixed, mixed_true, pc_true)
    per_prob = terms.ce_weight + terms.pc_weight * pc_prob  # factor of f_k at an inactive class
    at_true = -terms.ce_weight * p.false_mass - terms.pc_weight * pc_true
    hinge = tl.where(p.mixed, terms.pc_weight, 0.0)
    inactive = scale * per_prob * p.top_prob
    active = scale * (per_prob + hinge) * p.top_prob

    zero = tl.zeros_like(per_prob)
    top_extra, soft_scale, soft_mean, all_step = zero, zero, zero, zero
    pulls = (terms.lc_weight != 0) & (s.top > -float("inf"))
    if LC_MODE == "hard":
        pull = tl.where(pulls & (p.logit_gap > terms.lc_cap), terms.lc_weight, 0.0)
        top_extra = -scale * pull
    elif LC_MODE == "soft":
        pull = tl.where(pulls, terms.lc_weight * (s.lc_count / s.exp_sum), 0.0)
        soft_scale = tl.where(pulls, scale * terms.lc_weight / s.exp_sum, 0.0)
        soft_mean = tl.where(pulls, s.lc_sum / s.exp_sum, 0.0)
    else:
        pull = tl.where(pulls, terms.lc_weight * (s.lc_count / terms.false_classes), 0.0)
        all_step = tl.where(pulls, -scale * terms.lc_weight / terms.false_classes, 0.0)
    constant = tl.where(p.defined, 0.0, float("nan"))
    moves &= p.defined
    return RowGrad(
        tl.where(moves, inactive, constant),
        tl.where(moves, active, constant),
        tl.where(moves, scale * (at_true + pull), constant),
        tl.where(moves, top_extra, 0.0),
        tl.where(moves, soft_scale, 0.0),
        tl.where(moves, soft_mean, 0.0),
        tl.where(moves, all_step, 0.0),
    )
