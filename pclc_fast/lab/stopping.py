"""Ctrl-C and SIGTERM as a request that the training loop looks at between batches."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While this is entered, the first signal is only noted; a second one acts at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._former: list[object] = []

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal, as shells have it."""
        return 128 + (self.signal or 0)

    def __enter__(self) -> StopRequest:
        self._former = [signal.signal(number, self._note) for number in _SIGNALS]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, former in zip(_SIGNALS, self._former, strict=False):
            signal.signal(number, former)  # type: ignore[arg-type]
