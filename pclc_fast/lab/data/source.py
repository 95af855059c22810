"""What the data sets are read from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from .errors import damaged
from .images import Raw

# Called from time to time with how many steps more are done.
Report = Callable[[int], None]


class Source(NamedTuple):
    """The files of a data set, which are all there, and how they are read."""

    name: str
    files: Sequence[Path]
    steps: int | None  # of decoding; None where nothing has to be decoded
    read: Callable[[Report], Raw]  # raises DataError for a damaged file


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text but the blank ones; raises DataError where there are none."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, f"it is no text in UTF-8: {error}") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise damaged(path, "it is empty")
    return lines
