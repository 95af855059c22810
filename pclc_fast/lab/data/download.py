"""Fetching the data sets that torchvision can fetch, to where it puts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import DataError

_CLASSES = {  # in torchvision.datasets
    "mnist": "MNIST",
    "kmnist": "KMNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
}
_TINY_IMAGENET = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


def how_to_get(name: str) -> str:
    """Say how the files of a data set come into ``root``."""
    if name in _CLASSES:
        return "pclc train --download fetches what is missing"
    return f"get {_TINY_IMAGENET} and unpack it there"


def fetch(name: str, root: Path) -> None:
    """Download a data set into ``root``, its checksums compared.

    Raises:
        DataError: it cannot be fetched; the message says what to do.
    """
    if name not in _CLASSES:
        raise DataError(
            f"{name} is not complete in {root}, and --download cannot fetch it: {how_to_get(name)}"
        )
    try:
        from torchvision import datasets  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise DataError("--download needs torchvision: pip install torchvision") from error
    try:
        root.mkdir(parents=True, exist_ok=True)
        _fetch(getattr(datasets, _CLASSES[name]), datasets.utils, root)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{name} could not be downloaded to {root}: {str(error).strip()}"
        ) from error


def _fetch(dataset: Any, utils: Any, root: Path) -> None:
    """Not by making the data set: that would open CIFAR's files in ways that we do not."""
    if hasattr(dataset, "tgz_md5"):
        utils.download_and_extract_archive(
            dataset.url, root, filename=dataset.filename, md5=dataset.tgz_md5
        )
    elif hasattr(dataset, "split_list"):
        for split in ("train", "test"):
            url, filename, md5 = dataset.split_list[split]
            utils.download_url(url, root, filename, md5)
    else:
        dataset(root, download=True)
