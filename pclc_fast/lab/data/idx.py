"""MNIST's file format, which Fashion-MNIST and KMNIST share: yann.lecun.com/exdb/mnist."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import DataError, damaged
from .images import Raw

_UNSIGNED_BYTE = 8  # the third byte: what the numbers are
_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def find_idx(folder: Path, hint: str) -> list[Path]:
    """The four files in torchvision's folder, each as it is or with .gz; raises DataError."""
    return [_find(folder / name, hint) for name in _FILES]


def _find(path: Path, hint: str) -> Path:
    for candidate in (path, path.with_name(f"{path.name}.gz")):
        if candidate.is_file():
            return candidate
    raise DataError(f"{path} is missing, with and without .gz: {hint}")


def read_idx(files: list[Path], class_names: tuple[str, ...]) -> Raw:
    """Read what ``find_idx`` found."""
    train_images, train_labels, test_images, test_labels = map(_read, files, (3, 1, 3, 1))
    return Raw(
        train_images[:, None],
        train_labels.long(),
        test_images[:, None],
        test_labels.long(),
        class_names,
    )


def _read(path: Path, dimensions: int) -> Tensor:
    content = _unpacked(path)
    header = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        raise damaged(path, f"it begins with {content[:4].hex()}, not 000008{dimensions:02x}")
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4)]
    if len(content) != header + math.prod(shape):
        promised = " x ".join(map(str, shape))
        raise damaged(path, f"{len(content)} bytes, where {promised} of data need another number")
    values = np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
    return torch.from_numpy(values)


def _unpacked(path: Path) -> bytearray:
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise damaged(path, str(error)) from error
    return bytearray(content)  # tensors want memory that can be written to
