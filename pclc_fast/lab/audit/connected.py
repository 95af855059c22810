"""A model that autograd cannot differentiate, made so that it can be attacked and judged."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def connected(model: nn.Module, image: Tensor) -> nn.Module:
    """Return the model, with a gradient of 0 where its outputs do not depend on their images.

    Rounding to integers, comparisons and ``detach`` cut the graph: attacks refuse such a model,
    and an audit has to say what that is. ``image``: [1, C, H, W]; a model may write into its copy.
    """
    shown = image.detach().requires_grad_()
    try:
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(model(shown.clone()).sum(), shown, allow_unused=True)
    except RuntimeError:
        slope = None
    return _Connected(model).eval() if slope is None else model


class _Connected(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = self.model(images.clone())
        return logits + 0 * images.flatten(1).sum(dim=1, keepdim=True)
