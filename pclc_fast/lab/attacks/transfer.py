"""Attacks that never look at the model: they are crafted on another one."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from .engine import Found, Iterate, Lanes, Task, ascend, at_clean, at_random
from .gradient import Steps, constant
from .network import Looked
from .objectives import objective


def transfer(
    task: Task,
    *,
    method: Literal["pgd", "mim"],
    steps: int,
    step_size: float,
    per_epsilon: bool = False,
    decay: float = 1.0,
    loss: str = "ce",
    iterate: Iterate = "last",
) -> Found:
    """PGD or MIM on a substitute model.

    Papernot et al., "Practical Black-Box Attacks against Machine Learning", 2017. ``iterate``
    "last": the model under attack sees the last image only, as it should of an attacker who may not
    ask it. ``decay`` is MIM's.
    """
    assert task.substitute is not None
    substitute, climbed = task.substitute, objective(loss)

    def look(task: Task, lanes: Lanes, images: Tensor, step: int) -> Looked:  # noqa: ARG001
        looked = substitute.look(images, lambda logits: climbed(logits, lanes.labels, None))
        return looked if iterate == "last" else looked._replace(logits=task.network.logits(images))

    size = constant(step_size, per_epsilon=per_epsilon)
    return ascend(
        task,
        look,
        lambda lanes: Steps(size, lanes, decay if method == "mim" else None),
        at_random if method == "pgd" else at_clean,
        steps=steps,
        iterate=iterate,
    )
