"""Progress of a long run: finished parts as lines, and on a terminal a bar below them."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Counts images that went through a network, out of ``total``."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advance(self, images: int, doing: str) -> None:
        """Show what is being done, ``images`` further on."""
        self._bar.update(self._task, advance=images, description=doing)

    def finished(self, line: str) -> None:
        """Print a line about a part that is finished."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
