"""From the name of a data set to the data set."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from ..progress import Progress
from .cache import key_of, read_cache, write_cache
from .cifar import CIFAR10, CIFAR100, find_cifar
from .download import fetch, how_to_get
from .errors import DataError, MissingError
from .folders import TINY, find_folder, find_tiny_imagenet, is_tiny_imagenet
from .idx import find_idx
from .images import ImageData, Raw, describe
from .source import Source
from .svhn import find_svhn

_DIGITS = tuple("0123456789")
_HIRAGANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_FIND: dict[str, Callable[[Path], Source]] = {
    "mnist": lambda root: find_idx("mnist", root / "MNIST" / "raw", _DIGITS),
    "kmnist": lambda root: find_idx("kmnist", root / "KMNIST" / "raw", _HIRAGANA),
    "fashion-mnist": lambda root: find_idx(
        "fashion-mnist", root / "FashionMNIST" / "raw", _CLOTHES
    ),
    "cifar10": partial(find_cifar, CIFAR10),
    "cifar100": partial(find_cifar, CIFAR100),
    "svhn": find_svhn,
}
DATASETS = ("digits", *_FIND, TINY)


def load_dataset(
    name_or_path: str,
    *,
    root: Path = Path("data"),
    download: bool = False,
    image_size: int | None = None,
) -> ImageData:
    """Return a data set by its name, its files being in ``root``, or a folder of images.

    Decoded images are kept in ``root``/cache. ``download`` fetches what is missing; ``image_size``
    is the height and width that image files are brought to.

    Raises:
        DataError: there is no such data set, or a file is missing or damaged.
        OSError: a file cannot be read.
    """
    if image_size is not None and (name_or_path == "digits" or name_or_path in _FIND):
        raise DataError(f"--image-size is for image files; those of {name_or_path} have one size")
    if name_or_path == "digits":
        return describe(name_or_path, _digits())
    source = _find(name_or_path, root, download, image_size)
    if source.steps is None:
        return _described(source, source.read(lambda _: None))
    return _decoded_once(source, _cache_path(name_or_path, root, image_size), image_size)


def is_folder(name_or_path: str) -> bool:
    """Whether ``load_dataset`` takes this for a folder of images: it is no data set's name."""
    return name_or_path not in DATASETS


def _find(name: str, root: Path, download: bool, image_size: int | None) -> Source:
    if is_folder(name):
        if not Path(name).is_dir():
            raise DataError(
                f"--data must be one of {', '.join(DATASETS)}, or a folder with train/ and test/ "
                f"or val/; got {name}"
            )
        find_images = find_tiny_imagenet if is_tiny_imagenet(Path(name)) else find_folder
        return find_images(Path(name), image_size)

    def find() -> Source:
        return find_tiny_imagenet(root / TINY, image_size) if name == TINY else _FIND[name](root)

    try:
        return find()
    except MissingError as error:
        if not download:
            raise MissingError(
                f"{error}. --root, now {root}, must be the folder that holds it; {how_to_get(name)}"
            ) from error
    fetch(name, root)
    return find()


def _cache_path(name: str, root: Path, image_size: int | None) -> Path:
    """Where a data set is kept: one file, which a change of its files has written anew."""
    if is_folder(name):  # there may be several folders of one name
        full = Path(name).resolve()
        name = f"{full.name}-{hashlib.sha256(str(full).encode()).hexdigest()[:8]}"
    size = "" if image_size is None else f"-{image_size}"
    return root / "cache" / f"{name}{size}.safetensors"


def _decoded_once(source: Source, cache: Path, image_size: int | None) -> ImageData:
    """Read the cache or else the files, and leave a cache; without one where that fails."""
    assert source.steps is not None
    with Progress(Console(stderr=True, emoji=False), total=source.steps) as progress:
        key = key_of(source, image_size)
        try:
            if kept := read_cache(cache, key):
                return kept
        except ValueError as error:
            progress.finished(f"{cache} is damaged ({error}), so the files are read again")
        start = time.perf_counter()
        doing = f"reading {source.name}"
        progress.advance(0, doing)
        raw = source.read(lambda steps: progress.advance(steps, doing))
        data = _described(source, raw)
        seconds = time.perf_counter() - start
        read = f"{source.name} decoded in {seconds:.1f} s"
        try:
            write_cache(cache, key, data)
        except OSError as error:
            progress.finished(f"{read}, but not kept for the next time: {error}")
        else:
            progress.finished(f"{read}, kept in {cache}")
        return data


def _described(source: Source, raw: Raw) -> ImageData:
    """``describe``, whose errors here say where the files are and what to do."""
    try:
        return describe(source.name, raw)
    except DataError as error:
        folder = os.path.commonpath([file.parent for file in source.files])
        raise DataError(
            f"{error}. The files of {source.name} in {folder} do not fit together: "
            "remove them and get them again"
        ) from error


def _digits() -> Raw:
    from ..digits import BRIGHTEST, digits_data  # scikit-learn takes a second to import

    data = digits_data()
    train, test = (
        images.mul(BRIGHTEST).round_().to(torch.uint8)
        for images in (data.train_images, data.test_images)
    )
    return Raw(train, data.train_labels, test, data.test_labels, _DIGITS, BRIGHTEST)
