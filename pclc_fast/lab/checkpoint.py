"""The state of a run in one file: everything that going on needs, so nothing can come apart."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .files import atomic_file

_FORMAT = 1


class DamagedError(Exception):
    """A file is not what was written."""


@dataclass
class State:
    """Where a run stands: after ``epoch`` epochs and ``batch`` batches of the next one."""

    belongs_to: str  # fingerprint of the configuration and the data
    epoch: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Any] = field(default_factory=dict)  # empty: a phase begins
    metrics: list[dict[str, Any]] = field(default_factory=list)  # a row for each finished epoch
    batch: int = 0
    # Within an epoch only: each epoch begins with generators seeded by its number.
    rng: dict[str, Tensor] = field(default_factory=dict)
    seen: dict[str, Tensor] = field(default_factory=dict)  # statistics of the batches so far


def write_state(path: Path, state: State, *, keep: Path | None = None) -> None:
    """Write atomically; raises OSError where that fails, and ``path`` is then what it was.

    What was there before becomes ``keep``.
    """
    content = {f.name: getattr(state, f.name) for f in dataclasses.fields(State)}
    memory = io.BytesIO()  # given a file, torch.save may report a full disk as a broken archive
    torch.save({"format": _FORMAT, **content}, memory)
    with atomic_file(path) as file:
        file.write(memory.getbuffer())
        if keep is not None:
            _keep(path, keep)


def _keep(path: Path, keep: Path) -> None:
    """Give ``path`` a second name, so that there is no moment without a good state."""
    with suppress(OSError):  # nothing there yet, or a file system without links
        link = keep.with_name(f".{keep.name}.tmp")
        link.unlink(missing_ok=True)
        os.link(path, link)
        os.replace(link, keep)


def read_state(content: bytes) -> State:
    """Return what ``write_state`` wrote, on the CPU. Nothing is unpickled but tensors and numbers.

    Raises:
        DamagedError: it is cut short or altered, or something else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            damaged = archive.testzip()  # torch.load does not look at the checksums
        if damaged is not None:
            raise DamagedError(f"the checksum of {damaged} is wrong")
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except DamagedError:
        raise
    except pickle.UnpicklingError as error:  # whose own words advise to load it all the same
        raise DamagedError("it holds something else than tensors and numbers") from error
    except Exception as error:  # zipfile and torch.load raise nearly anything for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedError(reason) from error
    names = {"format", *(f.name for f in dataclasses.fields(State))}
    if not isinstance(loaded, dict) or set(loaded) != names or loaded.pop("format") != _FORMAT:
        raise DamagedError("it holds something else than the state of a run")
    return State(**loaded)
