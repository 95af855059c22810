"""Attacks written down as in the papers, one loop each: nobody leaves the batch, nothing is shared.

They share no line with the engine. An iterate that fools the model counts, whichever it is.
Images [N, C, H, W] float32 in [0, 1], labels [N] int64; what was never fooled comes back clean.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Objective = Callable[[Tensor, Tensor], Tensor]  # logits [N, K], classes [N] -> [N], to climb


def ce(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def scaled_ce(logits: Tensor, labels: Tensor) -> Tensor:
    """On logits whose largest and smallest are 10 apart, whatever the model's scale."""
    span = (logits.amax(dim=1, keepdim=True) - logits.amin(dim=1, keepdim=True)).detach()
    return ce(10 * logits / span.clamp(min=1e-12), labels)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    is_true = F.one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(is_true, -torch.inf).amax(dim=1) - logits[is_true]


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    ranked = logits.topk(3, dim=1).values
    return margin(logits, labels) / (ranked[:, 0] - ranked[:, 2] + 1e-12)


def gradient_ascent(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
    objective: Objective = ce,
    random_start: bool = True,
    decay: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """FGSM, BIM, PGD; MIM where ``decay`` is not 0."""
    low, high = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    attacked, found, velocity = images.clone(), images.clone(), torch.zeros_like(images)
    if random_start:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(images.shape, generator=generator).to(images.device)
        attacked = torch.clamp(images + epsilon * (2 * noise - 1), low, high)
    for _ in range(steps):
        attacked.requires_grad_()
        logits = model(attacked)
        (gradient,) = torch.autograd.grad(objective(logits, labels).sum(), attacked)
        attacked = attacked.detach()
        found = _kept(logits, labels, attacked, found)
        if decay:
            size = gradient.abs().sum(dim=(1, 2, 3), keepdim=True)
            gradient = velocity = decay * velocity + gradient / size.where(size > 0, 1.0)
        attacked = torch.clamp(attacked + step_size * gradient.sign(), low, high)
    with torch.no_grad():
        return _kept(model(attacked), labels, attacked, found)


def tutorial_pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
    random_start: bool = True,
) -> Tensor:
    """PGD as tutorials write it: gradients of the weights come too, and the last iterate counts."""
    attacked = images + random_start * torch.empty_like(images).uniform_(-epsilon, epsilon)
    for _ in range(steps):
        attacked = attacked.clamp(0, 1).detach().requires_grad_()
        model.zero_grad()
        F.cross_entropy(model(attacked), labels).backward()
        assert attacked.grad is not None
        change = (attacked + step_size * attacked.grad.sign() - images).clamp(-epsilon, epsilon)
        attacked = images + change
    return attacked.clamp(0, 1).detach()


def towards_each_class(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
    objective: Objective | None = None,
    seed: int = 0,
) -> Tensor:
    """PGD towards each false class in turn: along a_t - a_y, or down ``objective`` of the class.

    What one class fools is left out of the next.
    """
    found, left = images.clone(), torch.arange(len(labels), device=images.device)
    with torch.no_grad():
        classes = model(images[:1]).shape[1]
    for shift in range(1, classes):
        targets = (labels[left] + shift) % classes

        def climb(logits: Tensor, labels: Tensor, targets: Tensor = targets) -> Tensor:
            if objective is not None:
                return -objective(logits, targets)
            pair = logits.gather(1, torch.stack([targets, labels], dim=1))
            return pair[:, 0] - pair[:, 1]

        found[left] = gradient_ascent(
            model,
            images[left],
            labels[left],
            epsilon=epsilon,
            steps=steps,
            step_size=step_size,
            objective=climb,
            seed=1000 * seed + shift,
        )
        with torch.no_grad():
            left = left[model(found[left]).argmax(dim=1) == labels[left]]
        if not len(left):
            break
    return found


@torch.no_grad()
def square(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    queries: int,
    p_init: float = 0.8,
    seed: int = 0,
) -> Tensor:
    """Random squares, kept where the margin grows: Andriushchenko et al., ECCV 2020."""
    generator = torch.Generator().manual_seed(seed)
    low, high = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    count, channels, height, width = images.shape

    def signs(*shape: int) -> Tensor:
        drawn = torch.randint(2, shape, generator=generator).to(images)
        return epsilon * (2 * drawn - 1)

    best = torch.clamp(images + signs(count, channels, 1, width), low, high)
    value = margin(model(best), labels)
    rows = torch.arange(height, device=images.device).reshape(1, 1, height, 1)
    columns = torch.arange(width, device=images.device).reshape(1, 1, 1, width)
    for query in range(1, queries):
        side = max(1, round((_share((query - 1) / queries, p_init) * height * width) ** 0.5))
        side = min(side, height, width)
        top = torch.randint(height - side + 1, (count, 1, 1, 1), generator=generator).to(rows)
        left = torch.randint(width - side + 1, (count, 1, 1, 1), generator=generator).to(rows)
        inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
        tried = torch.where(inside, images + signs(count, channels, 1, 1), best)
        tried = torch.clamp(tried, low, high)
        new = margin(model(tried), labels)
        better = (new > value) & (value <= 0)  # a fooled image is left alone
        best = torch.where(better.reshape(-1, 1, 1, 1), tried, best)
        value = torch.where(better, new, value)
    return torch.where((value > 0).reshape(-1, 1, 1, 1), best, images)


def _share(done: float, p_init: float) -> float:
    """Of the pixels in a square: halved after these parts of the queries, as the paper says.

    Its code, and so others, halve it once more at 0.05.
    """
    halvings = sum(done > at for at in (0.001, 0.005, 0.02, 0.1, 0.2, 0.4, 0.6, 0.8))
    return p_init / 2**halvings


def _kept(logits: Tensor, labels: Tensor, attacked: Tensor, found: Tensor) -> Tensor:
    """``attacked`` where it fools the model, else ``found``."""
    fooled = (logits.argmax(dim=1) != labels).reshape(-1, 1, 1, 1)
    return torch.where(fooled, attacked, found)
