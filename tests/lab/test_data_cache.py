"""The cache of decoded images."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from written_images import decoded, picture, shapes

from pclc_fast.lab import files
from pclc_fast.lab.data import load_dataset


def keep(folder: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    data = load_dataset(str(folder), root=root)
    return data, capsys.readouterr().err


def test_the_cache_follows_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shapes(tmp_path / "shapes")
    first, said = keep(folder, tmp_path, capsys)
    assert "kept in" in said
    again, said = keep(folder, tmp_path, capsys)
    assert said == ""
    assert again.sha256 == first.sha256
    assert again.train_images.equal(first.train_images)
    assert (again.name, again.class_names, again.mean) == (
        first.name,
        first.class_names,
        first.mean,
    )
    path = folder / "train" / "circle" / "0.png"
    state = path.stat()
    picture(path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    changed, said = keep(folder, tmp_path, capsys)
    assert "kept in" in said
    assert changed.train_images[0].equal(decoded(path))
    (folder / "train" / "circle" / "2.png").unlink()
    fewer, said = keep(folder, tmp_path, capsys)
    assert "kept in" in said
    assert len(fewer.train_labels) == 5
    (folder / "train" / "circle" / "1.png").rename(folder / "train" / "square" / "7.png")
    moved, said = keep(folder, tmp_path, capsys)
    assert moved.train_labels.tolist() == [0, 1, 1, 1, 1]
    assert len(list((tmp_path / "cache").iterdir())) == 1  # written anew each time


def test_a_file_of_the_same_size_is_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shapes(tmp_path / "shapes")
    path = folder / "train" / "circle" / "0.bmp"  # not compressed
    picture(path)
    before = path.stat()
    keep(folder, tmp_path, capsys)
    picture(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert path.stat().st_size == before.st_size
    changed, said = keep(folder, tmp_path, capsys)
    assert "kept in" in said
    assert changed.train_images[0].equal(decoded(path))


def test_two_folders_of_one_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = shapes(tmp_path / "1" / "shapes"), shapes(tmp_path / "2" / "shapes")
    for folder in (one, other, one):
        data, said = keep(folder, tmp_path, capsys)
        assert data.train_images[0].equal(decoded(folder / "train" / "circle" / "0.png"))
    assert said == ""


@pytest.mark.parametrize("damage", ["cut", "pixel", "text", "empty", "no tensor", "folder"])
def test_a_damaged_cache_is_written_anew(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shapes(tmp_path / "shapes")
    first, _ = keep(folder, tmp_path, capsys)
    (cache,) = (tmp_path / "cache").iterdir()
    content = bytearray(cache.read_bytes())
    if damage == "pixel":
        tensors = load_file(cache)
        at = content.index(tensors["train_images"].numpy().tobytes())
        content[at + 5] ^= 1
    if damage == "no tensor":
        metadata = _metadata(cache)
        tensors = load_file(cache)
        del tensors["test_labels"]
        save_file(tensors, cache, metadata)
    elif damage == "folder":
        cache.unlink()
        cache.mkdir()
    else:
        new = {"cut": content[:-50], "pixel": content, "text": b"0123456789", "empty": b""}[damage]
        cache.write_bytes(new)
    data, said = keep(folder, tmp_path, capsys)
    assert said.startswith(f"{cache} is damaged (")
    assert data.sha256 == first.sha256
    if damage == "folder":
        assert "but not kept for the next time: " in said
    else:
        assert keep(folder, tmp_path, capsys)[1] == ""


def _metadata(path: Path) -> Any:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata()


def test_without_a_place_for_the_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shapes(tmp_path / "shapes")
    (tmp_path / "root").write_text("a file")
    data, said = keep(folder, tmp_path / "root", capsys)
    assert len(data.train_labels) == 6
    assert said.splitlines()[-1].startswith("shapes decoded in ")
    assert "but not kept for the next time: " in said
    assert "Not a directory" in said


def test_a_full_disk_leaves_no_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", fsync)
    _, said = keep(shapes(tmp_path / "shapes"), tmp_path, capsys)
    assert "not kept for the next time: [Errno 28] No space left on device" in said
    assert list((tmp_path / "cache").iterdir()) == []
