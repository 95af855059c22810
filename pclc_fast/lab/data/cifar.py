"""CIFAR-10 and CIFAR-100 as published: www.cs.toronto.edu/~kriz/cifar.html, Python or binary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .arrays import read_arrays
from .errors import damaged, missing
from .images import Raw
from .source import Report, Source, read_lines

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


class _Version(NamedTuple):
    """The names in one of the published archives."""

    folder: str
    train: tuple[str, ...]
    test: str
    class_names: str


class Cifar(NamedTuple):
    """One of the two data sets."""

    name: str
    python: _Version
    binary: _Version
    labels: str  # of the Python version
    names: str
    label_bytes: int  # before the pixels of the binary version; the last one is the label


CIFAR10 = Cifar(
    "cifar10",
    _Version(
        "cifar-10-batches-py",
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test_batch",
        "batches.meta",
    ),
    _Version(
        "cifar-10-batches-bin",
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        "test_batch.bin",
        "batches.meta.txt",
    ),
    labels="labels",
    names="label_names",
    label_bytes=1,
)
CIFAR100 = Cifar(
    "cifar100",
    _Version("cifar-100-python", ("train",), "test", "meta"),
    _Version("cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt"),
    labels="fine_labels",
    names="fine_label_names",
    label_bytes=2,
)


def find_cifar(cifar: Cifar, root: Path) -> Source:
    """Find the files below ``root``, of the Python version where both are there.

    Raises:
        DataError: one is missing.
    """
    is_binary = not (root / cifar.python.folder).is_dir() and (root / cifar.binary.folder).is_dir()
    version = cifar.binary if is_binary else cifar.python
    folder = root / version.folder
    if not folder.is_dir():
        raise missing(folder, f"and so is {root / cifar.binary.folder}")
    train, test, meta = [folder / name for name in version.train], folder / version.test, folder
    meta /= version.class_names
    for file in (*train, test, meta):
        if not file.is_file():
            raise missing(file)

    def read(_: Report) -> Raw:
        batch: Callable[[Cifar, Path], tuple[Tensor, Tensor]]
        if is_binary:
            batch, names = _binary_batch, tuple(read_lines(meta))
        else:
            batch, names = _python_batch, _python_names(cifar, meta)
        images, labels = zip(*(batch(cifar, file) for file in train), strict=True)
        return Raw(torch.cat(images), torch.cat(labels), *batch(cifar, test), names)

    return Source(cifar.name, [*train, test, meta], None, read)


def _python_batch(cifar: Cifar, path: Path) -> tuple[Tensor, Tensor]:
    content = read_arrays(path)
    data, labels = content.get("data"), content.get(cifar.labels)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (_PIXELS,):
        raise damaged(path, f"it has no array of bytes named data, with {_PIXELS} in a row")
    return torch.from_numpy(data).reshape(-1, *_SHAPE), _labels(labels, len(data), path)


def _labels(labels: Any, count: int, path: Path) -> Tensor:
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise damaged(path, "it has no list of labels")
    if len(labels) != count:
        raise damaged(path, f"{count} images, but {len(labels)} labels")
    return torch.tensor(labels, dtype=torch.int64)


def _python_names(cifar: Cifar, path: Path) -> tuple[str, ...]:
    names = read_arrays(path).get(cifar.names)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise damaged(path, f"it has no list of names, {cifar.names}")
    return tuple(names)


def _binary_batch(cifar: Cifar, path: Path) -> tuple[Tensor, Tensor]:
    content = bytearray(path.read_bytes())
    record = cifar.label_bytes + _PIXELS
    if len(content) % record:
        raise damaged(path, f"{len(content)} bytes are not a number of images of {record} bytes")
    rows = torch.from_numpy(np.frombuffer(content, dtype=np.uint8).reshape(-1, record))
    images = rows[:, cifar.label_bytes :].reshape(-1, *_SHAPE)
    return images, rows[:, cifar.label_bytes - 1].long()
