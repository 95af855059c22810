"""What every test compares with: the reference in float64, and how far rounding may lead from it.

Tolerances follow from the arithmetic and not from what passes. A gradient entry is a sum of terms,
each computed with a relative error of a few units of the arithmetic's precision, so its error is
bounded by that precision times the size of the terms before they cancel (``_term_sizes``); rounding
to the dtype of the logits comes on top. At a kink of the loss the gradient jumps: rows that are
within rounding of one are left out here and belong to test_kink.py.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pclc_fast import LossStats, backends, pc_lc_loss, reference_pc_lc_loss

# Every backend that can be tested on CPU tensors takes the whole suite. Triton's interpreter, which
# takes a thousand times longer, is a run of its own.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ON_CPU = ["triton"] if INTERPRETED else ["native"]
KERNELS = [name for name in ON_CPU if backends()[name].usable]

DEFAULTS: dict[str, Any] = {
    "margin": 0.995,
    "pc_weight": 1.0,
    "lc_weight": 0.05,
    "lc_cap": 0.0,
    "ce_weight": 0.0,
    "lc_mode": "hard",
    "pc_mean": False,
    "ignore_index": -100,
}
UNITS = 64  # of the arithmetic's precision: the tolerance, for sums over up to some 1e5 terms


@dataclass
class Case:
    """One call of the loss on rows [N, K]."""

    logits: Tensor
    target: Tensor
    weight: Tensor | None = None
    reduction: str = "mean"
    options: dict[str, Any] = field(default_factory=dict)
    backend: str = "native"

    def ours(self, grad_output: Tensor | float = 1.0) -> tuple[Tensor, Tensor, LossStats]:
        """The loss, the gradient and the statistics of the backend under test."""
        keywords = {**self.options, "backend": self.backend}
        return _run(pc_lc_loss, self.logits, self.weight, self, grad_output, keywords)

    def oracle(self, grad_output: Tensor | float = 1.0) -> tuple[Tensor, Tensor, LossStats]:
        """The same of the reference, on the same logits in float64."""
        weight = None if self.weight is None else self.weight.double()
        return _run(
            reference_pc_lc_loss, self.logits.double(), weight, self, grad_output, self.options
        )

    def check(self, grad_output: Tensor | float = 1.0) -> None:
        """Assert that loss, gradient and statistics agree with the oracle."""
        loss, grad, stats = self.ours(grad_output)
        true_loss, true_grad, true_stats = self.oracle(grad_output)
        eps = torch.finfo(loss.dtype).eps * UNITS
        loss_size, grad_size, oracle_size = _term_sizes(self, grad_output)
        reduced = self.reduction != "none"
        loss_size = loss_size.sum() if reduced else loss_size.reshape(loss.shape)
        assert_close("loss", loss, true_loss, eps * (loss_size + true_loss.abs()))

        storage = torch.finfo(self.logits.dtype)
        rounding = storage.eps * true_grad.abs() + storage.smallest_normal * storage.eps
        keep = ~near_kink(self)
        # A sum of K numbers, of which each may lose half a bit of the total.
        oracle_rounding = 2.0**-52 * self.logits.shape[1] * oracle_size
        bound = eps * grad_size + rounding + oracle_rounding
        overflow = true_grad.abs() + bound > storage.max  # float16: rounds to infinity
        compare = keep[:, None] & ~overflow
        assert_close("grad", grad[compare], true_grad[compare], bound[compare])

        assert stats.runner_up.equal(true_stats.runner_up)
        assert stats.correct.equal(true_stats.correct)
        # The oracle's softmax adds K small numbers to one that is near 1.
        gap_rounding = torch.tensor(eps + 2.0**-52 * self.logits.shape[1])
        assert_close("prob_gap", stats.prob_gap, true_stats.prob_gap, gap_rounding)
        gap_bound = eps * (1 + true_stats.logit_gap.abs())
        assert_close("logit_gap", stats.logit_gap, true_stats.logit_gap, gap_bound)


def _run(
    function: Any,
    logits: Tensor,
    weight: Tensor | None,
    case: Case,
    grad_output: Tensor | float,
    keywords: dict[str, Any],
) -> tuple[Tensor, Tensor, LossStats]:
    leaf = logits.detach().requires_grad_()
    loss, stats = function(
        leaf, case.target, weight, reduction=case.reduction, return_stats=True, **keywords
    )
    upstream = torch.as_tensor(grad_output, dtype=loss.dtype).expand(loss.shape)
    (grad,) = torch.autograd.grad(loss, leaf, upstream)
    return loss.detach(), grad, stats


def assert_close(name: str, got: Tensor, expected: Tensor, bound: Tensor) -> None:
    """Assert that NaN and infinities are at the same places and the rest within the bound."""
    got = got.double()
    same = (got == expected) | (got.isnan() & expected.isnan())
    wrong = ~same & ~((got - expected).abs() <= bound)
    if wrong.any():
        i = tuple(wrong.nonzero()[0].tolist())
        allowed = bound.expand(wrong.shape)[i].item()
        raise AssertionError(
            f"{name}{list(i)} is {got[i].item()!r}, expected {expected[i].item()!r} "
            f"within {allowed:.3g}; {int(wrong.sum())} of {wrong.numel()} are wrong"
        )


@dataclass
class _Rows:
    """Quantities of the definition, in float64, with zeros where a row is ignored."""

    case: Case

    def __post_init__(self) -> None:
        options = {**DEFAULTS, **self.case.options}
        self.__dict__.update(options)
        self.kept = self.case.target.long().reshape(-1) != self.ignore_index
        logits = torch.where(self.kept[:, None], self.case.logits.double(), 0.0)
        self.label = torch.where(self.kept, self.case.target.long().reshape(-1), 0)
        self.classes = logits.shape[1]
        self.prob = logits.softmax(dim=1)
        self.true_logit = logits.gather(1, self.label[:, None]).squeeze(1)
        self.true_prob = self.prob.gather(1, self.label[:, None]).squeeze(1)
        false = torch.ones_like(logits, dtype=torch.bool)
        self.is_false = false.scatter(1, self.label[:, None], False)
        self.finite = self.is_false & logits.isfinite()
        self.gaps = (self.true_logit[:, None] - logits).masked_fill(~self.finite, 0.0)
        self.gaps = self.gaps.nan_to_num(0.0, 0.0, 0.0)


def _term_sizes(case: Case, grad_output: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """Bounds of the absolute values that a row's loss, [N], and gradient, [N, K], are sums of.

    The last is the gradient's in the oracle, where autograd forms f_k (K - sum of K f_j), which
    cancels where f_y is small.
    """
    rows = _Rows(case)
    pc = rows.pc_weight / (max(rows.classes - 1, 1) if rows.pc_mean else 1)
    widest = rows.gaps.abs().amax(dim=1) if rows.classes else torch.zeros(len(rows.kept))
    row_loss = rows.ce_weight * (1 + widest) + rows.lc_weight * (1 + widest + rows.lc_cap)
    row_loss = row_loss + pc * (rows.classes * (1 + rows.margin))
    row_grad = rows.ce_weight + pc * (1 + rows.classes * rows.true_prob)
    grad = row_grad[:, None] + rows.lc_weight * _constraint_sizes(rows)
    weight = rows.kept.double()
    if case.weight is not None:
        weight = weight * case.weight.double()[rows.label]
    scale = weight
    if case.reduction == "mean" and weight.sum() > 0:
        scale = weight / weight.sum()
    upstream = torch.as_tensor(grad_output, dtype=torch.float64).abs().reshape(-1)
    oracle_grad = grad + pc * rows.classes * rows.prob
    grads = (g.nan_to_num(1.0) * (scale * upstream)[:, None] for g in (grad, oracle_grad))
    return row_loss.nan_to_num(1.0) * scale, *grads


def _constraint_sizes(rows: _Rows) -> Tensor:
    """The same of the constraint's gradient: gaps themselves are in it with mode soft alone.

    There it is q_k (gap_k - sum_i q_i gap_i) - q_k for a false class, q their softmax.
    """
    sizes = torch.ones_like(rows.prob)
    if rows.lc_mode == "soft":
        logits = rows.case.logits.double()
        q = logits.masked_fill(~rows.finite, -torch.inf).softmax(dim=1).nan_to_num(0.0)
        gaps = rows.gaps.relu()
        sizes += q * (gaps + (q * gaps).sum(dim=1, keepdim=True))
    return sizes


def near_kink(case: Case) -> Tensor:
    """Rows where rounding may decide whether a hinge is active, [N] of bool."""
    rows = _Rows(case)
    if rows.classes < 2:
        return torch.zeros(len(rows.kept), dtype=torch.bool)
    eps = 1e-13 if case.logits.dtype == torch.float64 else UNITS * 2.0**-24
    distance = rows.prob - (rows.true_prob[:, None] - rows.margin)
    near = ((distance.abs() < eps) & rows.is_false).any(dim=1)
    if rows.lc_mode != "soft":
        size = rows.gaps.abs() + rows.lc_cap
        over = (rows.gaps - rows.lc_cap).abs()
        # Without a cap the difference of two numbers has the right sign, or is 0 as it should.
        kink = (over < eps * size) & rows.finite & ((over > 0) | (rows.lc_cap > 0))
        near |= kink.any(dim=1)
    return near
