"""What is wrong with the files of a data set."""

from __future__ import annotations

from pathlib import Path


class DataError(ValueError):
    """A file is missing or damaged; the message names it and says what to do."""


class MissingError(DataError):
    """A file is not there."""


def missing(path: Path, besides: str = "") -> MissingError:
    """Return the error for a file that is not there."""
    return MissingError(f"{path} is missing{f', {besides}' if besides else ''}")


def damaged(path: Path, why: str) -> DataError:
    """Return the error for a file that is there but cannot be used."""
    return DataError(f"{path} is damaged: {why}. Remove it and get it again")
