"""Networks of the timm library, where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .classifier import Network, Shape


class TimmNetwork(Network):
    """timm's network of a name, without pretrained weights.

    Raises:
        ValueError: timm is not installed, or has no such network for images of this shape.
    """

    def __init__(
        self, name: str, shape: Shape, classes: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__(mean, std)
        self.network = _create(name, shape, classes)

    def features(self, images: Tensor) -> Tensor:
        maps = self.network.forward_features(self.normalised(images))
        features: Tensor = self.network.forward_head(maps, pre_logits=True)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, [N, K]."""
        logits: Tensor = self.network(self.normalised(images))
        return logits


def _create(name: str, shape: Shape, classes: int) -> Any:
    try:
        import timm  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise ValueError(f"the model timm:{name} needs timm: pip install timm") from error
    if not timm.is_model(name):
        similar = ", ".join(timm.list_models(f"*{name}*")[:5])
        hint = f"similar ones: {similar}" if similar else "timm.list_models() has the names"
        raise ValueError(f"timm {timm.__version__} has no model {name}; {hint}")
    options: dict[str, Any] = {"num_classes": classes, "in_chans": shape[0]}
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        options["img_size"] = shape[1:]
    try:
        network = timm.create_model(name, pretrained=False, **options)
        with torch.no_grad():
            network.eval()(torch.zeros(1, *shape))
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        size = "x".join(map(str, shape))
        raise ValueError(f"timm:{name} does not take images of {size}: {error}") from error
    return network.train()
