"""t-SNE of the penultimate layer, of clean and of fooled images: Figures 1 and 3 of the paper."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.manifold import TSNE  # type: ignore[import-untyped]
from torch import Tensor

_BATCH = 256
_PERPLEXITY = 30.0
_FEWEST = 5  # images
_DIGITS = 2  # of a position, whose unit means nothing


def embedding(
    network: Any,  # has features(images) -> [N, F]
    clean: Tensor,  # [N, C, H, W]
    labels: Tensor,  # [N]
    fooled: Tensor,  # [M, C, H, W]
    fooled_labels: Tensor,  # [M], the true classes
    epsilon: float,
) -> dict[str, Any] | None:
    """Place all images in one plane, so that both figures show the same one.

    None where there is nothing to place: too few images, features that do not differ, or maps of
    them, as where ``features`` is not the last layer but one.
    """
    with torch.no_grad():
        shown = torch.cat([clean, fooled])
        features = torch.cat([network.features(batch) for batch in torch.split(shown, _BATCH)])
    if (
        len(features) < _FEWEST
        or features.ndim != 2
        or features.shape[1] < 2
        or not features.std(dim=0).sum() > 0
    ):
        return None
    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    plane = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(
        features.float().cpu().numpy()
    )
    points = [
        {
            "x": round(float(x), _DIGITS),
            "y": round(float(y), _DIGITS),
            "label": label,
            "attacked": place >= len(clean),
        }
        for place, ((x, y), label) in enumerate(
            zip(plane, torch.cat([labels, fooled_labels]).tolist(), strict=True)
        )
    ]
    facts = {"images": len(clean), "epsilon": epsilon, "fooled": len(fooled)}
    return {"facts": facts, "points": points}
