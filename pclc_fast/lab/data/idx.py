"""MNIST's file format, which Fashion-MNIST and KMNIST share: yann.lecun.com/exdb/mnist."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import damaged, missing
from .images import Raw
from .source import Report, Source

_UNSIGNED_BYTE = 8  # the third byte: what the numbers are
_FILES = {  # and their number of dimensions
    "train-images-idx3-ubyte": 3,
    "train-labels-idx1-ubyte": 1,
    "t10k-images-idx3-ubyte": 3,
    "t10k-labels-idx1-ubyte": 1,
}


def find_idx(name: str, folder: Path, class_names: tuple[str, ...]) -> Source:
    """Find the four files, each as it is or with .gz; raises DataError."""
    files = [_find(folder / file) for file in _FILES]

    def read(_: Report) -> Raw:
        train_images, train_labels, test_images, test_labels = map(_read, files, _FILES.values())
        return Raw(
            train_images[:, None],
            train_labels.long(),
            test_images[:, None],
            test_labels.long(),
            class_names,
        )

    return Source(name, files, None, read)


def _find(path: Path) -> Path:
    for candidate in (path, path.with_name(f"{path.name}.gz")):
        if candidate.is_file():
            return candidate
    raise missing(path, "and so is the same with .gz")


def _read(path: Path, dimensions: int) -> Tensor:
    content = _unpacked(path)
    header = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        found = content[:4].hex() or "nothing"
        raise damaged(path, f"it begins with {found}, not 000008{dimensions:02x}")
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4)]
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise damaged(path, f"{len(content)} bytes, where its beginning promises {expected}")
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
