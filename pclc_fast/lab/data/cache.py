"""Decoded images on the disk, so that they are decoded once."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..files import atomic_path
from .errors import DataError
from .images import ImageData, Raw, describe
from .source import Source

_FORMAT = 1
_TENSORS = Raw._fields[:4]


def key_of(source: Source, image_size: int | None) -> str:
    """What names the state of a data set's files: their paths, sizes and times of change.

    Raises:
        DataError: one is a link to nothing.
        OSError: one cannot be looked at.
    """
    digest = hashlib.sha256(json.dumps([_FORMAT, source.name, image_size]).encode())
    names = [str(file) for file in source.files]
    common = len(os.path.commonpath({os.path.dirname(name) for name in names}))
    for name in names:
        state = _state(name)
        digest.update(json.dumps([name[common:], state.st_size, state.st_mtime_ns]).encode())
    return digest.hexdigest()


def _state(name: str) -> os.stat_result:
    try:
        return os.stat(name)
    except FileNotFoundError as error:
        if not os.path.islink(name):
            raise
        raise DataError(
            f"{name} links to {os.readlink(name)}, which is not there: mend or remove the link"
        ) from error


def read_cache(path: Path, key: str) -> ImageData | None:
    """Return the data set kept at ``path``; None where there is none, or of other files.

    Raises:
        ValueError: it is damaged.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("key") != key:
                return None
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
        names = tuple(json.loads(about["class_names"]))
        data = describe(about["name"], Raw(**tensors, class_names=names))
    except (OSError, SafetensorError, KeyError) as error:
        raise ValueError(str(error)) from error
    if data.sha256 != about.get("sha256"):
        raise ValueError("its content is not what was written")
    return data


def write_cache(path: Path, key: str, data: ImageData) -> None:
    """Keep ``data`` at ``path``; raises OSError."""
    about = {
        "key": key,
        "name": data.name,
        "class_names": json.dumps(data.class_names),
        "sha256": data.sha256,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_path(path) as temporary:
            save_file({name: getattr(data, name) for name in _TENSORS}, temporary, about)
    except SafetensorError as error:  # what the system said is in its text
        raise OSError(str(error)) from error
