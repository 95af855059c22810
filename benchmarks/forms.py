"""PC-LC as one would write it in plain PyTorch, as fast as we know how.

Every form is Eq. 6 plus the hard logit constraint of Eq. 16, mean reduction, with the default
margin and lc_weight. They share what is fastest everywhere: an in-place relu, and a runner-up whose
index comes from detached logits, so that one gather, not a masked copy, carries its gradient. They
differ in how they keep the true class out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]

MARGIN = 0.995
LC_WEIGHT = 0.05


def mask_form(logits: Tensor, target: Tensor) -> Tensor:
    """The true class is masked out by comparing an arange with the targets."""
    is_true = torch.arange(logits.shape[1], device=logits.device) == target[:, None]
    runner_up = logits.detach().masked_fill(is_true, -math.inf).argmax(1)
    hinge = _hinge(logits, target).masked_fill(is_true, 0.0)
    gap = _gap(logits, target, runner_up)
    return (hinge.sum(1) + LC_WEIGHT * gap).mean()


def scatter_form(logits: Tensor, target: Tensor) -> Tensor:
    """The hinge of the true class is the constant MARGIN: no mask, it is subtracted at the end."""
    masked = logits.detach().scatter(1, target[:, None], -math.inf)
    return _without_mask(logits, target, masked.max(1).indices)


def topk_form(logits: Tensor, target: Tensor) -> Tensor:
    """As scatter_form, with the runner-up from the two largest logits: no copy of the logits."""
    first, second = logits.detach().topk(2, dim=1).indices.unbind(1)
    return _without_mask(logits, target, torch.where(first == target, second, first))


def _without_mask(logits: Tensor, target: Tensor, runner_up: Tensor) -> Tensor:
    pc = _hinge(logits, target).sum()
    lc = _gap(logits, target, runner_up).sum()
    return (pc + LC_WEIGHT * lc) / logits.shape[0] - MARGIN


def _hinge(logits: Tensor, target: Tensor) -> Tensor:
    """max(0, f_k + margin - f_y) of every class, [N, K]."""
    prob = logits.softmax(1)
    return (prob - (prob.gather(1, target[:, None]) - MARGIN)).relu_()


def _gap(logits: Tensor, target: Tensor, runner_up: Tensor) -> Tensor:
    """max(0, a_y - a_j), [N]."""
    true_logit, top_logit = logits.gather(1, torch.stack([target, runner_up], 1)).unbind(1)
    return (true_logit - top_logit).relu()


FORMS: dict[str, Loss] = {"mask": mask_form, "scatter": scatter_form, "topk": topk_form}
