"""adv-lib: any iterate but the last counts, so ``steps`` here are one less than its own.

An image that was never fooled comes back as it was.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from . import load, seeded


def fgsm(model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float) -> Tensor:
    return pgd(
        model, images, labels, epsilon=epsilon, steps=1, step_size=epsilon, random_start=False
    )


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
    random_start: bool,
    loss: str = "ce",
    restarts: int = 1,
    seed: int = 0,
) -> Tensor:
    """BIM without a random start. ``loss``: ce, dl (the margin) or dlr."""
    with seeded(seed):
        return load("adv_lib.attacks").pgd_linf(
            model,
            images,
            labels,
            epsilon,
            steps=steps + 1,
            absolute_step_size=step_size,
            random_init=random_start,
            loss_function=loss,
            restarts=restarts,
        )


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
    """Minimise the L2 distance."""
    return load("adv_lib.attacks").carlini_wagner_l2(
        model,
        images,
        labels,
        max_iterations=steps,
        learning_rate=step_size,
        binary_search_steps=search_steps,
        initial_const=initial_const,
        abort_early=abort_early,
    )


def apgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int,
    loss: str,
    restarts: int = 1,
    seed: int = 0,
) -> Tensor:
    """``loss``: ce or dlr."""
    with seeded(seed):
        return load("adv_lib.attacks").apgd(
            model,
            images,
            labels,
            epsilon,
            norm=math.inf,
            n_iter=steps,
            loss_function=loss,
            n_restarts=restarts,
        )


def apgd_targeted(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int,
    seed: int = 0,
) -> Tensor:
    """DLR towards each class but the predicted one, which has to be the label."""
    with seeded(seed):
        return load("adv_lib.attacks").apgd_targeted(
            model, images, labels, epsilon, norm=math.inf, n_iter=steps
        )


def fab(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int,
    targeted: bool,
    seed: int = 0,
) -> Tensor:
    """Minimise the L_inf distance, towards the nearest or each of the false classes."""
    with seeded(seed):
        return load("adv_lib.attacks").fab(
            model,
            images,
            labels,
            norm=math.inf,
            n_iter=steps,
            ε=epsilon,
            targeted_restarts=targeted,
        )


def fmn(model: nn.Module, images: Tensor, labels: Tensor, *, steps: int) -> Tensor:
    """Minimise the L_inf distance."""
    return load("adv_lib.attacks").fmn(model, images, labels, norm=math.inf, steps=steps)


def pdpgd(model: nn.Module, images: Tensor, labels: Tensor, *, steps: int) -> Tensor:
    """Minimise the L_inf distance by primal and dual proximal gradient descent."""
    return load("adv_lib.attacks").pdpgd(model, images, labels, norm=math.inf, num_steps=steps)
