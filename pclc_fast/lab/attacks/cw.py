"""The nearest image that fools, by optimisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .balls import column, norms
from .engine import Found, Task
from .network import Looked, is_nan
from .objectives import margin
from .tracing import Tally

_NEVER = 1e10  # no c was large enough so far
_CHECKS = 10  # times that progress is looked at in a search step
_PROGRESS = 0.9999
_PATIENCE = 2  # checks in a row without progress: Adam overshoots and comes back


@dataclass
class _Search:
    """For each image: the weight c of being fooled against distance, and the best so far."""

    c: Tensor  # [B], float64
    low: Tensor  # [B], float64: too small
    high: Tensor  # [B], float64: large enough
    distance: Tensor  # [B], float64
    images: Tensor  # [B, ...]
    step: Tensor  # [B], int64

    def narrow(self, fooled: Tensor) -> None:
        """Halve the bracket of c by whether this one fooled; tenfold until one does."""
        self.high = torch.where(fooled, torch.minimum(self.high, self.c), self.high)
        self.low = torch.where(fooled, self.low, torch.maximum(self.low, self.c))
        is_open = self.high >= _NEVER
        self.c = torch.where(is_open, self.c * 10, (self.low + self.high) / 2)

    def take(self, lines: Tensor, fooled: Tensor, images: Tensor, size: Tensor, step: int) -> None:
        """Keep what fools nearer than before."""
        better = fooled & (size < self.distance[lines])
        hits = lines[better]
        self.distance[hits] = size[better]
        self.images[hits] = images[better]
        self.step[hits] = step


def carlini_wagner(
    task: Task,
    *,
    steps: int,
    lr: float,
    search_steps: int,
    first_c: float = 1e-3,
    confidence: float = 0.0,
) -> Found:
    """Minimise distance^2 + c * max(margin, -confidence), with a binary search for c.

    Carlini and Wagner, "Towards Evaluating the Robustness of Neural Networks", S&P 2017, in L2. The
    pixels are (tanh(w) + 1) / 2, so they stay in [0, 1]; Adam moves w. The nearest image of all
    steps is kept. An image whose least sum stalls leaves the batch until the next c.
    """
    parts = task.split(task.network.batch_size)
    return Found.joined(
        [_attack(part, steps, lr, search_steps, first_c, confidence) for part in parts]
    )


def _attack(
    task: Task, steps: int, lr: float, search_steps: int, first_c: float, confidence: float
) -> Found:
    count, tally = task.labels, Tally(steps)
    like = torch.zeros_like(count, dtype=torch.float64)
    search = _Search(
        like + first_c,
        like.clone(),
        like + _NEVER,
        like + torch.inf,
        task.images.clone(),
        torch.full_like(count, -1),
    )
    for number in range(search_steps):
        fooled = _descend(task, search, tally, steps, lr, confidence, number * steps)
        search.narrow(fooled)
    looks = len(count) * steps * search_steps
    is_found = search.distance.isfinite() & (search.distance <= task.ball.epsilon)
    return Found(
        is_found,
        torch.where(column(is_found, task.images), search.images, task.images),
        search.step,
        tally.sums,
        looks,
        looks,
    )


def _descend(
    task: Task,
    search: _Search,
    tally: Tally,
    steps: int,
    lr: float,
    confidence: float,
    taken: int,
) -> Tensor:
    """One run of Adam for the present c; return which images it fooled: [B], bool."""
    lines = torch.arange(len(task.labels), device=task.labels.device)
    w = torch.atanh((2 * task.images - 1) * (1 - 1e-6))
    first, second = torch.zeros_like(w), torch.zeros_like(w)
    fooled_ever = torch.zeros_like(task.labels, dtype=torch.bool)
    least = torch.full_like(search.c, torch.inf)
    before, stalls = least.clone(), torch.zeros_like(lines)
    for step in range(steps):
        part = task.select(lines)
        images = (torch.tanh(w) + 1) / 2
        looked, total, size = _look(part, search.c[lines], images, confidence)
        apart = margin(looked.logits, part.labels, None)
        fooled = (apart > 0 if confidence == 0 else apart >= confidence) & apart.isfinite()
        tally.look(step, fooled, is_nan(looked.logits), looked)
        search.take(lines, fooled, images, size, taken + step)
        fooled_ever[lines[fooled]] = True
        assert looked.gradient is not None
        slope = looked.gradient.nan_to_num(0.0, 0.0, 0.0)
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope.square()
        unbiased = (second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
        w = w - lr * (first / (1 - 0.9 ** (step + 1))) / unbiased
        least[lines] = torch.minimum(least[lines], total)
        if (step + 1) % max(1, steps // _CHECKS) == 0:
            stalls = torch.where(least <= before * _PROGRESS, 0, stalls + 1)
            before = least.clone()
            goes_on = stalls[lines] < _PATIENCE
            lines, w, first, second = (t[goes_on] for t in (lines, w, first, second))
            if not len(lines):
                break
    return fooled_ever


def _look(
    task: Task, c: Tensor, images: Tensor, confidence: float
) -> tuple[Looked, Tensor, Tensor]:
    """The look, with the gradient of the sum for w; the sum [L]; the distances [L]."""
    dtype = images.dtype

    def weighed(logits: Tensor) -> Tensor:
        lacking = -margin(logits, task.labels, None)
        return c.to(logits.dtype) * lacking.clamp(min=-confidence)

    looked = task.network.look(images, weighed)
    assert looked.gradient is not None
    change = images - task.images
    size = norms(change)
    total = size.square() + looked.value.double()
    by_pixel = looked.gradient + 2 * change
    by_w = by_pixel * (1 - (2 * images - 1).square()) / 2
    return looked._replace(value=total.to(dtype), gradient=by_w), total, size
