"""ART: the last iterate counts. Its losses are means, its random numbers NumPy's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from . import load, seeded


def fgsm(model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float) -> Tensor:
    return _run("FastGradientMethod", model, images, labels, eps=epsilon)


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
    return _run(
        "ProjectedGradientDescentPyTorch",
        model,
        images,
        labels,
        seed=seed,
        eps=epsilon,
        eps_step=step_size,
        max_iter=steps,
        num_random_init=int(random_start),
        verbose=False,
    )


def mim(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
    decay: float,
) -> Tensor:
    return _run(
        "MomentumIterativeMethod",
        model,
        images,
        labels,
        eps=epsilon,
        eps_step=step_size,
        max_iter=steps,
        decay=decay,
        verbose=False,
    )


def square(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    queries: int,
    p_init: float,
    restarts: int = 1,
    seed: int = 0,
) -> Tensor:
    """One square for all images of the batch, and a start that counts only where it helps."""
    return _run(
        "SquareAttack",
        model,
        images,
        labels,
        seed=seed,
        eps=epsilon,
        max_iter=queries,
        p_init=p_init,
        nb_restarts=restarts,
        verbose=False,
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
    """``loss``: ce or dlr. The first step is 2 epsilon, as in the paper."""
    names = {"ce": "cross_entropy", "dlr": "difference_logits_ratio"}
    return _run(
        "AutoProjectedGradientDescent",
        model,
        images,
        labels,
        seed=seed,
        eps=epsilon,
        eps_step=2 * epsilon,
        max_iter=steps,
        loss_type=names[loss],
        nb_random_init=restarts,
        verbose=False,
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
) -> Tensor:
    """Steps of a searched length, not Adam's; the clean image where none is found."""
    return _run(
        "CarliniL2Method",
        model,
        images,
        labels,
        learning_rate=step_size,
        max_iter=steps,
        binary_search_steps=search_steps,
        initial_const=initial_const,
        verbose=False,
    )


def _run(
    name: str, model: nn.Module, images: Tensor, labels: Tensor, *, seed: int = 0, **options: Any
) -> Tensor:
    with torch.no_grad():
        classes = model(images[:1]).shape[1]
    estimator = load("art.estimators.classification").PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(images.shape[1:]),
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type="cpu" if images.device.type == "cpu" else "gpu",
    )
    attack = getattr(load("art.attacks.evasion"), name)(
        estimator, batch_size=len(images), **options
    )
    with seeded(seed):
        attacked = attack.generate(images.cpu().numpy(), labels.cpu().numpy())
    return torch.from_numpy(attacked).to(images.device)
