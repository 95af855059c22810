"""Images in folders, written for tests of what reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

RNG = np.random.default_rng(0)


def picture(path: Path, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> None:
    """Write an image of (height, width) that compresses as photographs do."""
    coarse = RNG.integers(0, 256, (3, 3, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert(mode).save(path)


def decoded(path: Path) -> torch.Tensor:
    """One image, [3, H, W], by itself."""
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


def shapes(folder: Path, mode: str = "RGB", test: str = "test") -> Path:
    for part, many in (("train", 3), (test, 2)):
        for name in ("square", "circle"):
            for i in range(many):
                picture(folder / part / name / f"{i}.png", mode=mode)
    return folder
