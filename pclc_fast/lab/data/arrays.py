"""Dictionaries of arrays in Python's pickle format, without what makes that format dangerous.

A pickle names functions and has them called. Here it can name only the five that numpy's arrays are
written with, and gets functions of this file in their place, which do nothing but look at bytes.
Any other name is an error, before anything is called.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from .errors import damaged


def read_arrays(path: Path) -> dict[str, Any]:
    """Return the dictionary in a file; its keys and texts are str, its arrays hold bytes.

    Raises:
        DataError: it is none, or holds anything but numbers, texts, lists and arrays of bytes.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        try:
            content = _plain(_Reader(file, encoding="latin-1").load())
        except Exception as error:  # a damaged file can lead it anywhere
            raise damaged(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise damaged(path, f"it holds a {type(content).__name__}, not a dict")
    return content


class _Array:
    """What stands for an array: filled as numpy's __setstate__ is, or by its buffer."""

    def __init__(self) -> None:
        self.values = np.zeros(0, dtype=np.uint8)

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Bytes, bool, Any]) -> None:
        _, shape, _, is_fortran, content = state
        self.fill(content, shape, "F" if is_fortran else "C")

    def fill(self, content: Any, shape: tuple[int, ...], order: Any) -> None:
        content = content.encode("latin-1") if isinstance(content, str) else content
        if math.prod(shape) != len(content):
            raise ValueError(f"{len(content)} bytes in an array of {shape}")
        values = np.frombuffer(bytearray(content), dtype=np.uint8)
        self.values = np.ascontiguousarray(values.reshape(shape, order=order))


class _Bytes:
    """What stands for the one dtype that arrays may have."""

    def __setstate__(self, _: Any) -> None:
        pass


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _frombuffer(content: Any, _: _Bytes, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.fill(content, shape, order)
    return array


def _dtype(code: str, *_: Any) -> _Bytes:
    if code != "u1":
        raise ValueError(f"an array of {code}, not of bytes")
    return _Bytes()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"bytes in the encoding {encoding}")
    return text.encode("latin-1")


_ALLOWED = {
    "multiarray._reconstruct": _reconstruct,
    "numeric._frombuffer": _frombuffer,
    "numpy.dtype": _dtype,
    "numpy.ndarray": "ndarray",  # only ever handed to _reconstruct
    "_codecs.encode": _encode,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # numpy 2 calls the module numpy._core, numpy 1 numpy.core.
        wanted = f"{module}.{name}"
        wanted = wanted.removeprefix("numpy._core.").removeprefix("numpy.core.")
        if wanted not in _ALLOWED:
            raise ValueError(f"it wants to call {module}.{name}, which no data set needs")
        return _ALLOWED[wanted]


def _plain(value: Any) -> Any:
    """Put arrays in the place of what stands for them, and str in that of bytes."""
    match value:
        case _Array():
            return value.values
        case bytes():
            return value.decode("utf-8")
        case dict():
            return {_plain(key): _plain(each) for key, each in value.items()}
        case list():
            return [_plain(each) for each in value]
    return value
