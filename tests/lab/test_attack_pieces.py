"""Pieces in a folder: one file for each, whatever its name."""

from __future__ import annotations

from pathlib import Path

import torch

from pclc_fast.lab.attacks.piece import Piece
from pclc_fast.lab.attacks.pieces import PiecesInFolder


def piece(position: int) -> Piece:
    def whole() -> torch.Tensor:
        return torch.tensor([position])

    def real(count: int) -> torch.Tensor:
        return torch.zeros(count, dtype=torch.float64)

    image = torch.zeros(1, 1, 2, 2)
    return Piece(whole(), whole(), image, whole(), whole(), real(1), real(6), real(6))


def test_names_with_slashes_are_different_files(tmp_path: Path) -> None:
    pieces = PiecesInFolder(tmp_path)
    pieces.open({})
    names = ("bim-eps/10", "bim-eps_10", "bim-eps%2F10", "../bim-eps/10")
    for place, name in enumerate(names):
        assert pieces.get(name) is None
        pieces.put(name, piece(place))
    found = [pieces.get(name) for name in names]
    assert [int(p.fooled) for p in found if p is not None] == [0, 1, 2, 3]
    assert pieces.count() == len(names)
    assert {path.parent for path in tmp_path.rglob("*.safetensors")} == {pieces.path}
