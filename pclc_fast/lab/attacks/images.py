"""One attack on images of one's own, without the account that an evaluation keeps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import checks
from .balls import BALLS
from .engine import Found, Task
from .network import Model, Network
from .noise import Noise
from .preset import Spec
from .registry import ATTACKS, check, unfit
from .result import Norm


def attack_images(
    model: Model,
    images: Tensor,  # [N, ...], float32, in [0, 1]
    labels: Tensor,  # [N], int64, on the same device
    attack: str,
    *,
    epsilon: float | Tensor,  # or [N]: one for each image
    norm: Norm = "Linf",
    seed: int = 0,
    batch_size: int = 256,
    substitute: Model | None = None,
    **settings: Any,
) -> Found:
    """Run an attack of ``registry.ATTACKS``, say "pgd", with its settings; return what it found.

    ``images`` of the result are the fooling ones, and the last ones tried where none fooled; all
    within the budget and [0, 1] exactly.

    Raises:
        TypeError, ValueError: as ``evaluate``; there is no such attack; a setting is missing or
            makes no sense.
    """
    spec = Spec(attack, attack, attack, settings)
    check(spec)
    checks.check_images(images, labels)
    checks.check_seed(seed, batch_size)
    for each in (model, substitute):
        checks.check_mode(each)
    labels = labels.long()
    sizes = torch.as_tensor(epsilon, dtype=torch.float64, device=images.device)
    checks.check_epsilons(sorted(set(sizes.reshape(-1).tolist())), norm)
    if sizes.ndim and sizes.shape != labels.shape:
        raise ValueError(
            f"epsilon must be one number, or one for each of {len(labels)} images; got "
            f"{list(sizes.shape)}"
        )
    network = Network(model, batch_size)
    logits = checks.clean_logits(network, images)
    checks.check_logits(logits, labels)
    if reason := unfit(spec, norm, logits.shape[1], has_substitute=substitute is not None):
        raise ValueError(f"{attack} cannot be run: {reason}")
    other = None if substitute is None else Network(substitute, batch_size)
    if other is not None:
        checks.check_substitute(other.logits(images[:batch_size]), logits)
    task = Task(
        network=network,
        labels=labels,
        logits=logits,
        ball=BALLS[norm].around(images.detach(), sizes.expand(len(labels))),
        positions=torch.arange(len(labels), device=images.device),
        noise=Noise(int(seed)).child(attack),  # or seeds would be shifted images
        substitute=other,
    )
    return ATTACKS[attack].run(task, **settings)
