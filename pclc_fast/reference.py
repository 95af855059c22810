"""The PC-LC loss in plain PyTorch: the specification that every kernel is checked against.

Notation, for one row of logits ``a[K]`` with true class ``y`` (Li et al., "Improving Adversarial
Robustness via Probabilistically Compact Loss with Logit Constraints", AAAI 2021)::

    f    = softmax(a)                                             Eq. 1
    CE   = -log f_y                                               Eq. 2
    PC   = sum_{k != y} max(0, f_k + margin - f_y)                Eq. 6
    LC   = max(0, a_y - a_j - cap),  j = argmax_{k != y} a_k      Eqs. 15, 16
    loss = ce_weight * CE + pc_weight * PC + lc_weight * LC

Everything here is an ordinary differentiable expression, so autograd supplies first and second
derivatives; it runs in float64 for float64 input and in float32 otherwise. It checks no arguments
(``pc_lc_loss(..., backend="reference")`` does) and imports nothing else of this package.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class LossStats(NamedTuple):
    """Detached statistics of every row, in the shape of ``target``.

    A row that is ignored, has a single class or holds NaN or +inf has the statistics
    NaN, NaN, -1, False.
    """

    prob_gap: Tensor  # f_y - f_j, float32 or float64
    logit_gap: Tensor  # a_y - a_j, float32 or float64
    runner_up: Tensor  # j: the false class with the largest logit, the lowest index of a tie; int64
    correct: Tensor  # whether argmax(a) is y, bool


class _Rows(NamedTuple):
    """The quantities of every row that the terms of the loss share; N rows of K classes."""

    logits: Tensor  # a, [N, K]
    label: Tensor  # y, [N], 0 where there is none
    is_false: Tensor  # k != y, [N, K]
    false_logits: Tensor  # a with -inf at y, [N, K]
    true_logit: Tensor  # a_y, [N]
    top_logit: Tensor  # a_j, [N], -inf where no false logit is finite
    runner_up: Tensor  # j, [N]
    prob: Tensor  # f, [N, K]
    true_prob: Tensor  # f_y, [N]
    false_mass: Tensor  # 1 - f_y as the sum of the false probabilities: nothing cancels, [N]


def reference_loss(
    input: Tensor,  # (K,), (N, K) or (N, K, d1, ...)
    target: Tensor,  # (), (N,) or (N, d1, ...)
    weight: Tensor | None = None,  # (K,)
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    margin: float = 0.995,
    pc_weight: float = 1.0,
    lc_weight: float = 0.05,
    lc_cap: float = 0.0,
    lc_mode: str = "hard",
    pc_mean: bool = False,
    ce_weight: float = 0.0,
) -> tuple[Tensor, LossStats]:
    """Return the loss and the statistics of every row; the arguments are ``pc_lc_loss``'s."""
    logits, target, weight = _as_rows(input, target, weight)
    shape, target = target.shape, target.reshape(-1)
    kept = target != ignore_index
    in_range = (target >= 0) & (target < logits.shape[1])
    label = torch.where(kept & in_range, target, 0)
    if logits.shape[1] == 0:  # a class nobody can name, so that there is a column to gather from
        logits, weight = torch.nn.functional.pad(logits, (0, 1), value=-math.inf), None

    logits = torch.where(kept[:, None], logits, 0.0)  # an ignored row is not even read
    logits, defined = _settle_edges(logits, label, kept & ~in_range)
    rows = _shared_quantities(logits, label)

    loss = 0.0 * rows.true_prob  # NaN where the row is, whichever terms follow
    if ce_weight:
        loss = loss + ce_weight * _cross_entropy(rows)
    if pc_weight:
        classes = max(logits.shape[1] - 1, 1) if pc_mean else 1
        loss = loss + pc_weight / classes * _probabilistically_compact(rows, margin)
    if lc_weight:
        loss = loss + lc_weight * _LOGIT_CONSTRAINTS[lc_mode](rows, lc_cap)
    row_weight = kept.to(loss.dtype) if weight is None else weight[label] * kept
    loss = torch.where(kept, loss * row_weight, 0.0)
    return _reduce(loss, row_weight, reduction, shape), _statistics(rows, kept & defined, shape)


def _as_rows(
    input: Tensor, target: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Bring the class dimension last and the arithmetic to float32 or float64."""
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    classes_last = input if input.dim() == 1 else input.movedim(1, -1)
    logits = classes_last.reshape(target.numel(), classes_last.shape[-1]).to(dtype)
    return logits, target.to(torch.int64), None if weight is None else weight.detach().to(dtype)


def _settle_edges(logits: Tensor, label: Tensor, out_of_range: Tensor) -> tuple[Tensor, Tensor]:
    """Make undefined rows NaN, gradient and all, and rows with a true logit of -inf constant."""
    with torch.no_grad():
        unusable = torch.isnan(logits) | (logits == math.inf)
        undefined = out_of_range | unusable.any(dim=1) | (logits == -math.inf).all(dim=1)
        never_true = (logits.gather(1, label[:, None]) == -math.inf) & ~undefined[:, None]
        poison = torch.where(undefined, math.nan, 1.0).to(logits.dtype)
    return torch.where(never_true, logits.detach(), logits) * poison[:, None], ~undefined


def _shared_quantities(logits: Tensor, label: Tensor) -> _Rows:
    is_false = torch.arange(logits.shape[1], device=logits.device) != label[:, None]
    false_logits = logits.masked_fill(~is_false, -math.inf)
    top_logit, runner_up = false_logits.max(dim=1)  # not amax: one winner takes the subgradient
    first_false = (label == 0).to(torch.int64)
    prob = logits.softmax(dim=1)
    return _Rows(
        logits=logits,
        label=label,
        is_false=is_false,
        false_logits=false_logits,
        true_logit=logits.gather(1, label[:, None]).squeeze(1),
        top_logit=top_logit,
        runner_up=torch.where(top_logit == -math.inf, first_false, runner_up),
        prob=prob,
        true_prob=prob.gather(1, label[:, None]).squeeze(1),
        false_mass=prob.masked_fill(~is_false, 0.0).sum(dim=1),
    )


def _cross_entropy(rows: _Rows) -> Tensor:
    """Eq. 2, from 1 - f_y where f_y is near 1 and its logarithm would cancel."""
    confident = rows.false_mass < 0.5
    near_one = -torch.log1p(-torch.where(confident, rows.false_mass, 0.0))
    log_prob = rows.logits.log_softmax(dim=1).gather(1, rows.label[:, None]).squeeze(1)
    return torch.where(confident, near_one, -log_prob)


def _probabilistically_compact(rows: _Rows, margin: float) -> Tensor:
    """Eq. 6. relu, not clamp: the gradient at the kink is 0."""
    excess = (1.0 - margin) - rows.false_mass  # f_y - margin
    hinge = torch.relu(rows.prob - excess[:, None])
    return hinge.masked_fill(~rows.is_false, 0.0).sum(dim=1)


def _hard_constraint(rows: _Rows, cap: float) -> Tensor:
    """Eq. 16: the gap to the largest false logit alone."""
    gap = torch.relu(rows.true_logit - rows.top_logit - cap)
    return torch.where(rows.top_logit > -math.inf, gap, 0.0)


def _soft_constraint(rows: _Rows, _cap: float) -> Tensor:
    """The released code: the gaps weighted by a softmax over the false classes. It has no cap."""
    exists = rows.top_logit > -math.inf
    q = torch.where(exists[:, None], rows.false_logits, 0.0).softmax(dim=1)
    return torch.where(exists, (q * torch.relu(_false_gaps(rows))).sum(dim=1), 0.0)


def _all_constraint(rows: _Rows, cap: float) -> Tensor:
    """The mean over all false classes: no single class can serve as a decoy."""
    return torch.relu(_false_gaps(rows) - cap).sum(dim=1) / max(rows.logits.shape[1] - 1, 1)


def _false_gaps(rows: _Rows) -> Tensor:
    """a_y - a_k for every false class with a finite logit; -inf, which relu drops, elsewhere."""
    gaps = rows.true_logit[:, None] - rows.logits
    return torch.where(rows.is_false & (rows.logits > -math.inf), gaps, -math.inf)


_LOGIT_CONSTRAINTS = {"hard": _hard_constraint, "soft": _soft_constraint, "all": _all_constraint}


def _reduce(loss: Tensor, row_weight: Tensor, reduction: str, shape: torch.Size) -> Tensor:
    if reduction == "none":
        return loss.reshape(shape)
    if reduction == "sum":
        return loss.sum()
    total = row_weight.sum()
    empty = total == 0  # the value is NaN, as F.cross_entropy's, and the gradient is zero
    inverse = torch.where(empty, 0.0, 1.0 / torch.where(empty, 1.0, total))
    return loss.sum() * inverse + torch.where(empty, math.nan, 0.0).to(loss.dtype)


def _statistics(rows: _Rows, valid: Tensor, shape: torch.Size) -> LossStats:
    with torch.no_grad():
        valid = valid & (rows.logits.shape[1] > 1)
        top_prob = rows.prob.gather(1, rows.runner_up.clamp(max=rows.prob.shape[1] - 1)[:, None])
        logit_gap = rows.true_logit - rows.top_logit
        correct = (logit_gap > 0) | ((logit_gap == 0) & (rows.label < rows.runner_up))
        stats = LossStats(
            prob_gap=torch.where(valid, rows.true_prob - top_prob.squeeze(1), math.nan),
            logit_gap=torch.where(valid, logit_gap, math.nan),
            runner_up=torch.where(valid, rows.runner_up, -1),
            correct=valid & correct,
        )
        return LossStats(*(s.detach().reshape(shape) for s in stats))
