"""Data sets that are folders of image files: Tiny ImageNet as published, and anybody's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from .decode import SUFFIXES, decode
from .errors import DataError, damaged, missing
from .images import Raw
from .source import Report, Source, read_lines

TINY = "tiny-imagenet-200"
_LISTED, _ANNOTATIONS = "wnids.txt", "val/val_annotations.txt"
_TRAIN, _TESTS = "train", ("test", "val")
Part = tuple[list[Path], list[int]]  # images and their labels


def is_tiny_imagenet(folder: Path) -> bool:
    """Whether a folder is laid out as Tiny ImageNet is, not with a folder for each class."""
    return (folder / _LISTED).is_file() and (folder / _ANNOTATIONS).is_file()


def find_tiny_imagenet(folder: Path, image_size: int | None) -> Source:
    """Find the files of the published folder; its validation images are the test images.

    The classes have the names of their folders, in ascending order.

    Raises:
        DataError: a file or folder is missing, or what is listed and what is there differ.
    """
    listed, annotations = folder / _LISTED, folder / _ANNOTATIONS
    for file in (listed, annotations):
        if not file.is_file():
            raise missing(file)
    names = tuple(sorted({line.strip() for line in read_lines(listed)}))
    train, train_labels = [], []
    for label, name in enumerate(names):
        found = _images(folder / _TRAIN / name / "images")
        train += found
        train_labels += [label] * len(found)
    test, test_labels = _annotated(annotations, names)
    return Source(
        TINY,
        [listed, annotations, *train, *test],
        len(train) + len(test),
        _reader((train, train_labels), (test, test_labels), names, image_size, may_be_grey=False),
    )


def _annotated(annotations: Path, names: Sequence[str]) -> Part:
    """The validation images and their labels, in the order of the annotations."""
    numbers = {name: label for label, name in enumerate(names)}
    folder = annotations.parent / "images"
    paths, labels = [], []
    for number, line in enumerate(read_lines(annotations), start=1):
        file, name, *_ = [*line.split("\t"), ""]
        if name not in numbers:
            raise damaged(annotations, f"line {number} names no class of wnids.txt: {line!r}")
        paths.append(folder / file)
        labels.append(numbers[name])
    there = set(_images(folder))
    for path in paths:
        if path not in there:
            raise missing(path, f"but {annotations} lists it")
    if len(set(paths)) < len(paths):
        raise damaged(annotations, "it lists an image twice")
    if forgotten := sorted(there - set(paths)):
        raise damaged(annotations, f"{len(forgotten)} images have no line, one is {forgotten[0]}")
    return paths, labels


def find_folder(folder: Path, image_size: int | None) -> Source:
    """Find the images in train/ and in test/ or val/, each of which has a folder for every class.

    Images may lie deeper in the folder of a class. Hidden files and other kinds of files are left
    out.

    Raises:
        DataError: a folder is missing or has no image, or the classes differ.
    """
    tests = [folder / name for name in _TESTS if (folder / name).is_dir()]
    if not (folder / _TRAIN).is_dir():
        raise missing(folder / _TRAIN, "the folder with a folder of training images for each class")
    if not tests:
        raise missing(folder / _TESTS[0], f"and so is {folder / _TESTS[1]}: test images are needed")
    train, test = _classes(folder / _TRAIN), _classes(tests[0])
    if train.keys() != test.keys():
        name = sorted(train.keys() ^ test.keys())[0]
        here, there = folder / _TRAIN, tests[0]
        if name in test:
            here, there = there, here
        raise DataError(f"{here / name} is there, but {there / name} is not: a class has both")
    parts = _labelled(train), _labelled(test)
    files = [path for paths, _ in parts for path in paths]
    read = _reader(parts[0], parts[1], tuple(train), image_size, may_be_grey=True)
    return Source(folder.resolve().name, files, len(files), read)


def _labelled(classes: dict[str, list[Path]]) -> Part:
    paths = [path for found in classes.values() for path in found]
    return paths, [label for label, found in enumerate(classes.values()) for _ in found]


def _classes(folder: Path) -> dict[str, list[Path]]:
    """The images of every class, by its name, in ascending order."""
    names = sorted(e.name for e in os.scandir(folder) if e.is_dir() and e.name[0] != ".")
    if not names:
        raise DataError(f"{folder} has no folders: it must have one for each class")
    return {name: _images(folder / name) for name in names}


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise missing(folder)
    found = [Path(name) for name in sorted(_walk(folder))]
    if not found:
        raise DataError(f"{folder} has no images, which are {', '.join(SUFFIXES)}")
    return found


def _walk(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name[0] != "."]
        for name in files:
            if name[0] != "." and name.lower().endswith(SUFFIXES):
                yield os.path.join(parent, name)


def _reader(
    train: Part, test: Part, names: tuple[str, ...], image_size: int | None, *, may_be_grey: bool
) -> Callable[[Report], Raw]:
    def read(report: Report) -> Raw:
        like = train[0][0]
        decoded = [decode(paths, like, image_size, report) for paths, _ in (train, test)]
        grey = may_be_grey and all(part.are_grey for part in decoded)
        images = [part.channels(grey) for part in decoded]
        labels = [torch.tensor(part[1], dtype=torch.int64) for part in (train, test)]
        return Raw(images[0], labels[0], images[1], labels[1], names)

    return read
