"""The data cases of the loss: which false classes are active decides what a kernel must do."""

from __future__ import annotations

import torch
from torch import Tensor

from .forms import MARGIN

# all: every false class is active, the common case in training, one look at the row.
# few, many: f_y passes the margin and some false classes are active, which takes a second look;
#     three of them, or about half, where no branch can be predicted and none can be skipped.
# saturated: no false class is active.
CASES = ("all", "few", "many", "saturated")


def make_case(case: str, rows: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return float32 logits [N, K] and targets [N] of the case, the same ones every time."""
    generator = torch.Generator().manual_seed(rows + classes)
    target = torch.randint(classes, (rows,), generator=generator)
    logits = torch.randn(rows, classes, generator=generator)
    if case == "saturated":
        logits.scatter_(1, target[:, None], 30.0)
    elif case == "few":
        logits = _few_active(logits.double(), target[:, None])
    elif case == "many":
        logits = _many_active(logits.double(), target[:, None])
    check_case(case, logits, target)
    return logits, target


def _few_active(noise: Tensor, label: Tensor) -> Tensor:
    """Three false classes share nearly all of 1 - f_y."""
    rows, classes = noise.shape
    step = torch.arange(3) * (classes // 4) + 1
    large = torch.tensor([[0.31, 0.32, 0.33]], dtype=noise.dtype).expand(rows, 3)
    share = (0.04 * noise.softmax(1)).scatter_(1, (label + step) % classes, large)
    return _logits(share.scatter_(1, label, 0.0), label, 0.2 * (1 - MARGIN))


def _many_active(noise: Tensor, label: Tensor) -> Tensor:
    """The hinges split the false classes at the geometric mean of their probabilities, which is as
    good as the median and never itself one of them.
    """
    share = noise.softmax(1).scatter_(1, label, 1.0)
    middle = (share.log().sum(1, keepdim=True) / (noise.shape[1] - 1)).exp()
    share.scatter_(1, label, 0.0)
    middle /= share.sum(1, keepdim=True)
    return _logits(share, label, (1 - MARGIN) * middle / (1 + middle))


def _logits(share: Tensor, label: Tensor, passes_by: Tensor | float) -> Tensor:
    """Logits with f_y = MARGIN + passes_by and these shares of the false classes in the rest.

    The true logit is 0, so rounding to float32 does not move f_y: with many classes f_y passes the
    margin by no more than 1e-8.
    """
    true_prob = MARGIN + passes_by
    share = share / share.sum(1, keepdim=True)
    return (share * (1 - true_prob) / true_prob).log().scatter_(1, label, 0.0).float()


def active_classes(logits: Tensor, target: Tensor) -> Tensor:
    """Count the active false classes of every row by the definition, in float64; [N]."""
    prob = logits.double().softmax(1)
    hinge = prob + (MARGIN - prob.gather(1, target[:, None]))
    return (hinge.scatter_(1, target[:, None], 0.0) > 0).sum(1)


def check_case(case: str, logits: Tensor, target: Tensor) -> None:
    """Raise where the logits are not what the case says."""
    false_classes = logits.shape[1] - 1
    active = active_classes(logits, target)
    share = active.double().mean().item() / false_classes
    right = {
        "all": (active == false_classes).all(),
        "few": (active == 3).all(),
        "many": ((active > 0) & (active < false_classes)).all() and 0.3 < share < 0.7,
        "saturated": (active == 0).all(),
    }
    if not right[case]:
        counts = f"{active.min().item()} to {active.max().item()} of {false_classes}"
        raise ValueError(f"these rows are not of the case {case!r}: {counts} classes are active")
