"""Where the finished pieces of an evaluation are kept until it is complete."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as safetensors_tensors
from safetensors.torch import save as safetensors_bytes

from ..files import atomic_file, write_atomically
from .piece import Piece

_FOLDER, _MANIFEST = "attacks.parts", "manifest.json"


class Pieces:
    """Keeps nothing: for an evaluation that does not go on after it was killed."""

    def open(self, manifest: dict[str, Any]) -> None:
        """Say what is evaluated, before the first piece."""

    def get(self, name: str) -> Piece | None:  # noqa: ARG002
        """A finished piece; None where it is not there."""
        return None

    def put(self, name: str, piece: Piece) -> None:
        """Keep a finished piece."""

    def remove(self) -> None:
        """Forget them all: the result is complete."""


class PiecesInFolder(Pieces):
    """One file a piece, whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / _FOLDER

    def open(self, manifest: dict[str, Any]) -> None:
        """Begin, or go on where everything that decides about the result is as it was.

        Raises:
            ValueError: what is there belongs to another evaluation.
        """
        path = self.path / _MANIFEST
        if not path.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(manifest, indent=2) + "\n")
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be used: {error}. Remove {self.path}") from error
        known = before if isinstance(before, dict) else {}
        wanted = json.loads(json.dumps(manifest))
        changed = [name for name in wanted if known.get(name) != wanted[name]]
        if changed:
            raise ValueError(
                f"{self.path} holds the beginning of another evaluation: {', '.join(changed)} "
                "differ. Finish that one with its own options, remove the folder, or choose another"
            )

    def get(self, name: str) -> Piece | None:
        path = self._file(name)
        try:
            return Piece(**safetensors_tensors(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, TypeError) as error:
            raise ValueError(
                f"{path} cannot be used: {error}. Remove it to compute that part again"
            ) from error

    def count(self) -> int:
        """How many there are."""
        return len(list(self.path.glob("*.safetensors")))

    def put(self, name: str, piece: Piece) -> None:
        tensors = {field: tensor.contiguous() for field, tensor in piece._asdict().items()}
        with atomic_file(self._file(name)) as file:
            file.write(safetensors_bytes(tensors))

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"
