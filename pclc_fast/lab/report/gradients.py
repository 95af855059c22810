"""How fast the lead of the true class can shrink: Eqs. 9 to 14 of the paper."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_BATCH = 256


class Slopes(NamedTuple):
    """Of a_y - a_j at each image, with j the largest false class."""

    lead: Tensor  # [N], a_y - a_j
    l2: Tensor  # [N], L2 norm of its gradient
    l1: Tensor  # [N], L1 norm of its gradient: how fast L_inf changes can lower it


def slopes(
    model: nn.Module,
    images: Tensor,  # [N, ...], in [0, 1]
    labels: Tensor,  # [N], int64
) -> Slopes:
    """Measure the gradient of the lead with respect to the pixels."""
    batches = zip(torch.split(images, _BATCH), torch.split(labels, _BATCH), strict=True)
    parts = [_batch(model, *batch) for batch in batches]
    return Slopes(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _batch(model: nn.Module, images: Tensor, labels: Tensor) -> Slopes:
    images = images.detach().requires_grad_()
    logits = model(images.clone())  # for models that normalise in place
    label = labels[:, None]
    true = logits.gather(1, label).squeeze(1)
    false = logits.scatter(1, label, -torch.inf).amax(dim=1)
    lead = true - false
    (gradient,) = torch.autograd.grad(lead.sum(), images)
    flat = gradient.flatten(1).double()
    return Slopes(lead.detach().double(), flat.norm(dim=1), flat.abs().sum(dim=1))


def summary(slopes: Slopes) -> dict[str, Any]:
    """Means and medians, as the report has them.

    ``margin`` is over the images that are right: how far L_inf would have to go if the lead were
    linear. An image without a slope has none.
    """
    right = (slopes.lead > 0) & (slopes.l1 > 0)
    margin = slopes.lead[right] / slopes.l1[right]
    return {
        "l2": _centre(slopes.l2),
        "l1": _centre(slopes.l1),
        "margin": {**_centre(margin), "images": len(slopes.lead)},
    }


def _centre(values: Tensor) -> dict[str, float | None]:
    found = values.tolist()
    if not found:
        return {"mean": None, "median": None}
    return {"mean": statistics.fmean(found), "median": statistics.median(found)}
