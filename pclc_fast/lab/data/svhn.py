"""Street View House Numbers, cropped digits as published: ufldl.stanford.edu/housenumbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import damaged, missing
from .images import Raw
from .source import Report, Source

_FILES = ("train_32x32.mat", "test_32x32.mat")
_IMAGES, _LABELS = "X", "y"
_ZERO = 10  # the label that the digit 0 has in the files
_DIGITS = tuple("0123456789")


def find_svhn(root: Path) -> Source:
    """Find the two files; raises DataError where one is missing."""
    files = [root / name for name in _FILES]
    for file in files:
        if not file.is_file():
            raise missing(file)

    def read(report: Report) -> Raw:
        train = _read(files[0])
        report(1)
        test = _read(files[1])
        report(1)
        return Raw(*train, *test, _DIGITS)

    return Source("svhn", files, len(files), read)


def _read(path: Path) -> tuple[Tensor, Tensor]:
    from scipy.io import loadmat  # type: ignore[import-untyped]  # takes a while to import

    try:
        content = loadmat(path, variable_names=[_IMAGES, _LABELS])
    except Exception as error:  # a damaged file can lead it anywhere
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    for name in (_IMAGES, _LABELS):
        if name not in content:
            raise damaged(path, f"it has no array {name}")
    pixels, labels = content[_IMAGES], content[_LABELS].reshape(-1)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[2] != 3:
        raise damaged(path, f"X holds {pixels.dtype} of {pixels.shape}, not bytes of (H, W, 3, N)")
    if labels.dtype.kind not in "iu":
        raise damaged(path, f"y holds {labels.dtype}, not integers")
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)))
    labels = torch.from_numpy(labels.astype(np.int64))
    return images, labels.where(labels != _ZERO, 0)
