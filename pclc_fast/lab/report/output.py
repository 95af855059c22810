"""The three files of a report."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import RunError
from ..files import write_atomically
from .page import render
from .rows import Document

NAMES = ("report.html", "report.csv", "report.json")


def write(folder: Path, content: Document) -> list[Path]:
    """Write the document, and the page and the CSV that follow from it; return their paths.

    Raises:
        RunError: one cannot be written.
    """
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    page, table = render(json.loads(text))
    for name, written in zip(NAMES, (page, table, text), strict=True):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / name, written)
        except OSError as error:
            raise RunError(f"{folder / name} cannot be written: {error.strerror}") from error
    return [folder / name for name in NAMES]
