"""What stops a command."""

from __future__ import annotations


class RunError(Exception):
    """A command cannot go on; the message says to its user why and what to do.

    ``code`` is the exit code of the process.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
