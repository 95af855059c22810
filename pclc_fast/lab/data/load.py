"""From the name of a data set to the data set."""

from __future__ import annotations

from pathlib import Path

import torch

from .errors import DataError
from .idx import find_idx, read_idx
from .images import ImageData, Raw, describe

_DIGITS = tuple("0123456789")
DATASETS = ("digits", "mnist")


def load_dataset(
    name_or_path: str,
    *,
    root: Path = Path("data"),
    download: bool = False,
    image_size: int | None = None,
) -> ImageData:
    """Return a data set by its name, its files being in ``root``, or a folder of images.

    Raises:
        DataError: there is no such data set, or a file is missing or damaged.
        OSError: a file cannot be read.
    """
    if name_or_path == "digits":
        return describe(name_or_path, _digits())
    if name_or_path == "mnist":
        files = find_idx(root / "MNIST" / "raw", "--root must name the folder that holds MNIST/raw")
        return describe(name_or_path, read_idx(files, _DIGITS))
    raise DataError(f"--data must be one of {', '.join(DATASETS)}; got {name_or_path}")


def _digits() -> Raw:
    from ..digits import BRIGHTEST, digits_data  # scikit-learn takes a second to import

    data = digits_data()
    train, test = (
        images.mul(BRIGHTEST).round_().to(torch.uint8)
        for images in (data.train_images, data.test_images)
    )
    return Raw(train, data.train_labels, test, data.test_labels, _DIGITS, BRIGHTEST)
