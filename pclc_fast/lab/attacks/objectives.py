"""What attacks climb: a number for each image, larger the nearer it is to being misclassified.

``logits`` [B, K], ``labels`` [B], ``targets`` [B] or None: the class to reach. Returns [B].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pclc_fast import pc_lc_loss

Objective = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def ce(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """Cross-entropy as everybody computes it: its gradient loses a_y where f_y rounds to 1."""
    if targets is not None:
        return -F.cross_entropy(logits, targets, reduction="none")
    return F.cross_entropy(logits, labels, reduction="none")


def exact_ce(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """Cross-entropy with the gradient that pc_lc_loss gives it: 1 - f_y never rounds to 0."""
    if targets is not None:
        return -exact_ce(logits, targets, None)
    return pc_lc_loss(logits, labels, pc_weight=0.0, lc_weight=0.0, ce_weight=1.0, reduction="none")


def margin(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """a_j - a_y, with j the largest false class or the target. Carlini and Wagner 2017."""
    true = _at(logits, labels)
    return (_largest_false(logits, labels) if targets is None else _at(logits, targets)) - true


def prob_margin(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """f_j - f_y: the margin of the probabilities, the gap that PC widens."""
    return margin(logits.softmax(dim=1), labels, targets)


def dlr(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """Difference of logits ratio: the margin over a_1 - a_3, or a_1 - (a_3 + a_4) / 2.

    Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
    Parameter-free Attacks", ICML 2020. Needs 3 classes, targeted 4.
    """
    ranked = logits.sort(dim=1, descending=True).values
    low = ranked[:, 2] if targets is None else (ranked[:, 2] + ranked[:, 3]) / 2
    return margin(logits, labels, targets) / (ranked[:, 0] - low + 1e-12)


def pc_lc(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """The PC-LC loss of Eq. 16 itself, or minus that of the target."""
    if targets is not None:
        return -pc_lc(logits, targets, None)
    return pc_lc_loss(logits, labels, reduction="none")


OBJECTIVES: dict[str, Objective] = {
    "ce": ce,
    "exact-ce": exact_ce,
    "margin": margin,
    "prob-margin": prob_margin,
    "dlr": dlr,
    "pc-lc": pc_lc,
}
_CLASSES = {"dlr": (3, 4)}  # that an objective needs: untargeted, targeted
_SPREAD = 1.0  # between the largest and the mean of the other logits, after rescaling


def objective(name: str, *, rescaled: bool = False) -> Objective:
    """The objective of a name, on the logits as they are or rescaled.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"the loss must be one of {', '.join(OBJECTIVES)}; got {name}")
    plain = OBJECTIVES[name]
    if not rescaled:
        return plain
    return lambda logits, labels, targets: plain(rescale(logits), labels, targets)


def classes_needed(name: str, *, targeted: bool) -> int:
    """How many classes a model must have for an objective to be defined."""
    return _CLASSES.get(name, (2, 2))[targeted]


def rescale(logits: Tensor) -> Tensor:
    """Divide each row by its own spread, taken as a constant.

    So float32 softmax neither saturates nor leaves the classes behind the runner-up without weight;
    which class is largest stays.
    """
    fixed = logits.detach()
    is_finite = fixed.isfinite()
    mean = fixed.where(is_finite, 0.0).sum(dim=1) / is_finite.sum(dim=1)
    spread = fixed.amax(dim=1) - mean
    return logits * (_SPREAD / spread.clamp(min=1e-12)).unsqueeze(1)


def _at(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes.unsqueeze(1)).squeeze(1)


def _largest_false(logits: Tensor, labels: Tensor) -> Tensor:
    is_true = F.one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(is_true, -torch.inf).max(dim=1).values
