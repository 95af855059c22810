"""Damaged states and full disks: what is said, and that the last good state is still there."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from train_command import RUN, assert_same_result, train

from pclc_fast.lab import files
from pclc_fast.lab.checkpoint import DamagedError, State, read_state, write_state

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty"])
def test_a_damaged_state_is_named_and_the_one_before_is_there(
    damage: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, "run")
    state = Path("run/state.pt")
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    content = {
        "cut": content[: len(content) // 2],
        "flipped": content,
        "text": bytearray(b"weights"),
        "empty": bytearray(),
    }[damage]
    state.write_bytes(content)
    assert train("--resume", "run") == 1
    said = capsys.readouterr().err
    assert "pclc: run/state.pt is damaged (" in said
    assert "after epoch 3, is good: remove state.pt to go on from there" in said
    assert state.read_bytes() == content
    state.unlink()
    assert train("--resume", "run") == 0
    assert_same_result(Path("run"), finished)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save({"format": 1, "weights": Evil()}, path)
    with pytest.raises(DamagedError) as caught:
        read_state(path.read_bytes())
    assert str(caught.value) == "it holds something else than tensors and numbers"
    assert not Evil.woken
    write_state(path, State("x", epoch=1, weights={"a": torch.ones(2)}))
    assert read_state(path.read_bytes()).epoch == 1


class Evil:
    woken = False

    def __reduce__(self) -> Any:
        return (setattr, (Evil, "woken", True))


def full_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let the disk be full from the ``after``-th synchronised file on."""
    original = os.fsync
    left = [after]

    def fsync(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)


@pytest.mark.parametrize("after", [9, 11])  # within the second epoch's files and the third's
def test_a_full_disk(
    after: int,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        full_disk(patch, after)
        assert train("--epochs", "2") == 1
    said = capsys.readouterr().err
    assert "cannot be written: No space left on device. The last saved state is intact: " in said
    assert f"go on by pclc train --resume {RUN}" in said
    assert read_state((RUN / "state.pt").read_bytes()).epoch >= 1
    assert not list(RUN.glob(".*"))
    assert train("--resume", str(RUN)) == 0
    assert_same_result(RUN, finished)


@pytest.mark.parametrize("after", [2, 6, 14])  # making the first seed's folder, the second's, later
def test_a_full_disk_stops_all_seeds(
    after: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        full_disk(patch, after)
        assert train("--epochs", "1", "--seeds", "0", "1") == 1
    assert f" by pclc train --resume {RUN} once that is settled" in capsys.readouterr().err
    assert train("--resume", str(RUN)) == 0
    assert len(list(RUN.glob("*/model.safetensors"))) == 2


def test_a_file_that_the_system_cuts_short(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files fails in the middle of a write, as a full disk does."""
    shutil.copytree(finished, "run")
    before = Path("run/state.previous.pt").read_bytes()
    Path("run/state.pt").unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        assert train("--resume", "run") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "run/state.pt cannot be written: File too large" in capsys.readouterr().err
    assert Path("run/state.previous.pt").read_bytes() == before
    assert train("--resume", "run") == 0
    assert_same_result(Path("run"), finished)
