"""The paper's training recipe: phases, learning rates, and what a warm-up depends on.

Li et al., AAAI 2021: Adam with an initial learning rate of 0.01, batches of 256, cross-entropy for
T epochs, then PC-LC for T; T is 50 for grey and 150 for colour images. The milestones and their
factor are those of the authors' released code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from .losses import LossName
from .train_config import TrainConfig

WARM_UP = "warm-up"
_GAMMA = 0.2
_GREY_EPOCHS, _COLOUR_EPOCHS = 50, 150
# What a warm-up does not depend on: what comes after it, and where things are.
_AFTER_WARM_UP = ("loss", "schedule", "margin", "lc_weight", "lc_cap", "pc_mean")


class Phase(NamedTuple):
    """One loss, a fresh optimizer and a number of epochs."""

    name: str
    loss: LossName
    epochs: int

    def lr(self, epoch: int, initial: float) -> float:
        """The learning rate of ``epoch`` (from 0): a fifth once a third is over, and two thirds."""
        return initial * _GAMMA ** sum(3 * epoch >= part * self.epochs for part in (1, 2))


def phases(config: TrainConfig) -> tuple[Phase, ...]:
    """The phases of a configuration in which the epochs are filled in."""
    epochs = config.epochs
    if epochs is None:
        raise ValueError("epochs must be filled in")
    if config.schedule == "direct":
        return (Phase(config.loss, config.loss, 2 * epochs),)
    return (Phase(WARM_UP, "ce", epochs), Phase(config.loss, config.loss, epochs))


def locate(plan: tuple[Phase, ...], epoch: int) -> tuple[Phase, int]:
    """The phase in which an epoch of the run lies, and which epoch of it that is; both from 0."""
    for phase in plan:
        if epoch < phase.epochs:
            return phase, epoch
        epoch -= phase.epochs
    raise ValueError("the epoch lies after the last phase")


def fill_in(config: TrainConfig, channels: int) -> TrainConfig:
    """Replace the None of model and epochs by what suits images with so many channels."""
    grey = channels == 1
    model = "small-cnn" if config.data == "digits" else "lenet5" if grey else "vgg13"
    epochs = _GREY_EPOCHS if grey else _COLOUR_EPOCHS
    return dataclasses.replace(
        config,
        model=model if config.model is None else config.model,
        epochs=epochs if config.epochs is None else config.epochs,
    )


def warm_up_facts(config: TrainConfig, where: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the weights after the warm-up depend on.

    ``where`` adds to the configuration what the data, the software and the hardware are.
    """
    own = {n: v for n, v in config.identity().items() if n not in _AFTER_WARM_UP}
    return {**own, **where}


def fingerprint(facts: Mapping[str, Any]) -> str:
    """A short name that differs where the facts differ."""
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
