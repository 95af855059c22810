"""From the name of a network to the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import nn

from .classifier import Classifier, Network, Shape, seeded
from .deep import resnet56_layers, vgg13_layers
from .plain import cnn3_layers, lenet5_layers, small_cnn_layers
from .timm_models import TimmNetwork

_TIMM = "timm:"


class _Model(NamedTuple):
    layers: Callable[[Shape, int], nn.Sequential]  # the last one gives the logits
    smallest: int  # height and width


_MODELS = {
    "small-cnn": _Model(small_cnn_layers, 1),
    "lenet5": _Model(lenet5_layers, 12),
    "vgg13": _Model(vgg13_layers, 32),
    "resnet56": _Model(resnet56_layers, 1),
    "cnn3": _Model(cnn3_layers, 20),
}
MODELS = (*_MODELS, f"{_TIMM}NAME")


def build_model(
    name: str,
    shape: Shape,
    classes: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
) -> Network:
    """Return the network for images of ``shape`` in [0, 1], with a weight for each of ``classes``.

    Its weights depend on ``seed`` alone; the global random state is left as it was. ``mean`` and
    ``std`` are of each channel.

    Raises:
        ValueError: there is no such network, or the images are too small for it.
    """
    with seeded(seed):
        if name.startswith(_TIMM):
            return TimmNetwork(name.removeprefix(_TIMM), shape, classes, mean, std)
        if name not in _MODELS:
            raise ValueError(f"it must be one of {', '.join(MODELS)}; got {name}")
        model = _MODELS[name]
        if min(shape[1:]) < model.smallest:
            raise ValueError(
                f"{name} needs images of at least {model.smallest} x {model.smallest}; "
                f"these are {shape[1]} x {shape[2]}"
            )
        layers = model.layers(shape, classes)
        return Classifier(layers[:-1], layers[-1], mean, std)
