"""``pclc train`` as a process: killed, stopped, and as several at once."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_train_run import assert_same_result, rows

from pclc_fast.lab import cli

Process = subprocess.Popen[str]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def start(*options: str, **variables: str) -> Process:
    """Start ``pclc train`` with one thread, as the tests in this process have it."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "pclc_fast.lab", "train", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, process: Process) -> None:
    """Return once a file is there or the process has ended."""
    deadline = time.monotonic() + 60
    while not path.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_killed_at_random_moments_it_ends_the_same() -> None:
    """SIGKILL leaves no time for anything: what is on the disk must be enough."""
    options = ["--epochs", "8", "--augmentation", "flip-crop"]
    assert cli.run(["train", *options, "--out", "undisturbed", "--warm-ups", "one"]) == 0
    seconds = random.Random(time.time_ns())
    first = ["--out", "killed", "--warm-ups", "other", *options]
    saved = []
    for options in (first, ["--resume", "killed"], ["--resume", "killed"]):
        process = start(*options)
        if options is first:
            wait_for(Path("killed/state.pt"), process)
        else:
            before = Path("killed/state.pt").stat().st_mtime_ns
            while process.poll() is None and Path("killed/state.pt").stat().st_mtime_ns == before:
                time.sleep(0.002)
        time.sleep(seconds.uniform(0, 0.15))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        saved.append(len(rows(Path("killed"))))
    assert saved == sorted(saved)
    assert 0 < saved[-1] < 16
    assert cli.run(["train", "--resume", "killed"]) == 0
    assert_same_result(Path("killed"), Path("undisturbed"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(number: signal.Signals) -> None:
    process = start("--epochs", "200", "--out", "run")
    wait_for(Path("run/state.pt"), process)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    last = said.splitlines()[-1]
    assert last.startswith("pclc: stopped after ")
    assert last.endswith(", saved. Go on by pclc train --resume run")
    assert "Traceback" not in said


def processes(count: int, *options: str) -> list[tuple[int, str, str]]:
    """Run ``pclc train`` in as many processes as torchrun would start, and as it does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    group = [start(*options, RANK=str(r), LOCAL_RANK=str(r), **world) for r in range(count)]
    ended = [process.communicate(timeout=120) for process in group]
    return [(p.returncode, *said) for p, said in zip(group, ended, strict=True)]


def test_two_processes_train_as_one() -> None:
    """The same global batches, of which the last of an epoch, 67 images, cannot be halved."""
    options = ["--epochs", "2", "--lr", "0.001", "--loss", "pclc"]
    (first, second) = processes(2, *options, "--out", "two", "--warm-ups", "one")
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert len(first[2].splitlines()) == 5
    assert second[1:] == ("", "")  # only the first speaks
    assert cli.run(["train", *options, "--out", "one", "--warm-ups", "other"]) == 0
    two, one = (load_file(Path(name, "model.safetensors")) for name in ("two", "one"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4)
        assert not two[name].equal(torch.zeros_like(two[name]))
    for found, expected in zip(rows(Path("two")), rows(Path("one")), strict=True):
        assert found.keys() == expected.keys()
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert found["test_accuracy"] == pytest.approx(expected["test_accuracy"], abs=0.005)


def test_two_processes_go_on_where_one_was(tmp_path: Path) -> None:
    options = ["--epochs", "1", "--lr", "0.001"]
    assert cli.run(["train", *options, "--out", "whole"]) == 0
    shutil.copytree("whole", "part")
    Path("part/state.pt").unlink()  # leaves the state after the first epoch
    Path("part/model.safetensors").unlink()
    ended = processes(2, "--resume", "part")
    assert [code for code, *_ in ended] == [0, 0], ended
    assert "part began with processes 1, now it is 2" in ended[0][2]
    part, whole = (load_file(Path(name, "model.safetensors")) for name in ("part", "whole"))
    for name in whole:
        torch.testing.assert_close(part[name], whole[name], rtol=1e-3, atol=1e-4)
    assert tmp_path == Path.cwd()


def test_a_full_file_system(tmp_path: Path) -> None:
    """A real one: a file system in memory that is too small for two states."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=900k", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    try:
        options = ["--epochs", "2", "--out", "small/run"]
        assert cli.run(["train", *options]) == 1
        assert Path("small/run/state.pt").exists()
        shutil.copytree("small/run", "run")
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert cli.run(["train", "--resume", "run"]) == 0
    assert cli.run(["train", "--epochs", "2", "--out", "undisturbed"]) == 0
    assert_same_result(Path("run"), Path("undisturbed"))
