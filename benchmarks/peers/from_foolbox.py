"""foolbox: its attacks return the last iterate, whether it fools the model or not."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from . import load, seeded


def fgsm(model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float) -> Tensor:
    attack = load("foolbox.attacks").LinfFastGradientAttack(random_start=False)
    return _run(attack, model, images, labels, epsilon=epsilon)


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
    random_start: bool,
    seed: int = 0,
) -> Tensor:
    """BIM without a random start."""
    attack = load("foolbox.attacks").LinfPGD(
        abs_stepsize=step_size, steps=steps, random_start=random_start
    )
    with seeded(seed):
        return _run(attack, model, images, labels, epsilon=epsilon)


def cw_l2(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    step_size: float,
    search_steps: int,
    initial_const: float,
    abort_early: bool,
) -> Tensor:
    """Minimise the L2 distance; an image that was never fooled comes back black."""
    attack = load("foolbox.attacks").L2CarliniWagnerAttack(
        binary_search_steps=search_steps,
        steps=steps,
        stepsize=step_size,
        initial_const=initial_const,
        abort_early=abort_early,
    )
    return _run(attack, model, images, labels)


def deepfool(model: nn.Module, images: Tensor, labels: Tensor, *, steps: int) -> Tensor:
    """Minimise the L_inf distance along linear models of the classifier."""
    attack = load("foolbox.attacks").LinfDeepFoolAttack(steps=steps, candidates=10)
    return _run(attack, model, images, labels)


def _run(attack: Any, model: nn.Module, images: Tensor, labels: Tensor, **budget: float) -> Tensor:
    foolbox = load("foolbox")
    peer = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
    attacked: Tensor = attack.run(
        peer, images, foolbox.criteria.Misclassification(labels), **budget
    )
    return attacked.detach()
