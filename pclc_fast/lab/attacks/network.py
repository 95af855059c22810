"""The model under attack: forwards, backwards, and how many images went through."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Model = Callable[[Tensor], Tensor]  # images [B, ...] -> logits [B, K]

# Kernels for small batches add in another order, so what an image gets would depend on how many
# others are left. As far as known it does not from 16 images on (up to 12 were seen to differ) and,
# with one or two threads, for 4, 8 and 12.
_SMALLEST = 16
_SAFE_STEP, _SAFE_THREADS = 4, 2
_TOGETHER = 4  # batches, attacked side by side: the few left of them are one small batch, not four


class Looked(NamedTuple):
    """One look at a batch."""

    logits: Tensor  # [B, K]
    value: Tensor  # [B], of the objective
    gradient: Tensor | None  # [B, ...]

    @staticmethod
    def joined(parts: list[Looked]) -> Looked:
        """The looks at the parts of a batch as one."""
        logits, value, gradient = zip(*parts, strict=True)
        whole = None if gradient[0] is None else torch.cat(gradient)
        return Looked(torch.cat(logits), torch.cat(value), whole)


class Network:
    """Calls a model and counts. Leaves the gradients of its parameters alone."""

    def __init__(self, model: Model, batch_size: int) -> None:
        self._model = model
        self.batch_size = batch_size
        self.forwards = 0
        self.backwards = 0

    @property
    def together(self) -> int:
        """How many attempts are attacked side by side; more than go through the model at once."""
        return _TOGETHER * self.batch_size

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits of any number of images, in batches, without a graph."""
        self.forwards += len(images)
        with torch.no_grad():
            parts = [self._call(part) for part in torch.split(images, self.batch_size)]
        return torch.cat(parts) if len(parts) != 1 else parts[0]

    def look(self, images: Tensor, objective: Callable[[Tensor], Tensor]) -> Looked:
        """Return logits, objective and its gradient for no more than a batch."""
        self.forwards += len(images)
        self.backwards += len(images)
        images = images.detach().requires_grad_()
        with torch.enable_grad():
            logits = self._call(images)
            value = objective(logits)
            (gradient,) = torch.autograd.grad(value.sum(), images)
        return Looked(logits.detach(), value.detach(), gradient)

    def _call(self, images: Tensor) -> Tensor:
        count = len(images)
        padding = min(_padding(images), self.batch_size - count)
        if padding > 0:
            shown = torch.cat([images, images[:1].expand(padding, *images.shape[1:])])
        else:
            shown = images.clone()  # for models that normalise in place
        logits = self._model(shown)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(shown):
            got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(
                f"the model must give logits [B, classes] for B images; got {got} for {len(shown)}"
            )
        return logits[:count]


def _padding(images: Tensor) -> int:
    """How many a batch lacks for what each image gets not to depend on the others."""
    if not 0 < len(images) < _SMALLEST:
        return 0
    few = images.device.type == "cpu" and torch.get_num_threads() <= _SAFE_THREADS
    return -len(images) % (_SAFE_STEP if few else _SMALLEST)


def equal_parts(lines: Tensor, size: int) -> tuple[Tensor, ...]:
    """The fewest parts of at most ``size``, as long as each other: small batches cost more."""
    return torch.tensor_split(lines, -(-len(lines) // size) or 1)


def misclassified(logits: Tensor, labels: Tensor) -> Tensor:
    """Which rows have another largest logit than their label's; never one with a NaN."""
    return (logits.argmax(dim=1) != labels) & ~is_nan(logits)


def is_nan(logits: Tensor) -> Tensor:
    """Which rows have a NaN."""
    return logits.isnan().any(dim=1)
