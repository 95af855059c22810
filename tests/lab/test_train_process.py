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
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_train_run import Stopper
from train_command import assert_same_result, rows

from pclc_fast.lab import cli

Process = subprocess.Popen[str]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def start(*options: str, **variables: str) -> Process:
    """Start ``pclc train`` with one thread, as the tests in this process have it."""
    return python("-m", "pclc_fast.lab", "train", *options, **variables)


def python(*words: str, **variables: str) -> Process:
    return subprocess.Popen(
        [sys.executable, "-W", "error", *words],
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
    for options in (first, ["--resume", "killed"]):
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


def test_a_signal_saves_and_says_how_to_go_on() -> None:
    number = signal.SIGTERM  # SIGINT, in this process: test_train_run.py
    process = start("--epochs", "200", "--out", "run")
    wait_for(Path("run/state.pt"), process)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    last = said.splitlines()[-1]
    assert last.startswith("pclc: stopped after ")
    assert last.endswith(", saved. Go on by pclc train --resume run")
    assert "Traceback" not in said


def processes(
    count: int, *options: str, start: Callable[..., Process] = start
) -> list[tuple[int, str, str]]:
    """Run ``pclc train`` in as many processes as torchrun would start, and as it does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    group = [start(*options, RANK=str(r), LOCAL_RANK=str(r), **world) for r in range(count)]
    ended = [process.communicate(timeout=120) for process in group]
    return [
        (process.returncode, without_gloo(out), err)
        for process, (out, err) in zip(group, ended, strict=True)
    ]


def without_gloo(out: str) -> str:
    """PyTorch 2.8 says on stdout who is connected to whom."""
    return "".join(line for line in out.splitlines(True) if not line.startswith("[Gloo]"))


def test_two_processes_train_as_one() -> None:
    """The same global batches, of which the last of an epoch, 67 images, cannot be halved."""
    options = ["--epochs", "2", "--lr", "0.001", "--loss", "pclc"]
    (first, second) = processes(2, *options, "--out", "two", "--warm-ups", "one")
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert len(first[2].splitlines()) == 5
    assert second[1:] == ("", "")  # only the first speaks
    assert cli.run(["train", *options, "--out", "one", "--warm-ups", "other"]) == 0
    assert_close("two", "one")


def test_two_processes_go_on_where_one_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stopped after batch 3 of 6 of the second epoch."""
    options = ["--epochs", "1", "--lr", "0.001"]
    assert cli.run(["train", *options, "--out", "whole"]) == 0
    with monkeypatch.context() as patch:
        Stopper(patch, after=9)
        assert cli.run(["train", *options, "--out", "part", "--warm-ups", "x"]) == 130
    ended = processes(2, "--resume", "part")
    assert [code for code, *_ in ended] == [0, 0], ended
    assert "part began with processes 1, now it is 2" in ended[0][2]
    assert_close("part", "whole")


BATCH_NORM = """
import torch
from torch import nn
from pclc_fast.lab.distributed import join_world
from pclc_fast.lab.loop import Trainer
from pclc_fast.lab.losses import make_criterion

class Data:
    def batch(self, indices):
        return torch.ones(len(indices), 1, 2, 2), torch.zeros(len(indices), dtype=torch.int64)

with join_world("cpu") as world:
    layer = nn.BatchNorm2d(1)
    network = nn.Sequential(layer, nn.Flatten(), nn.Linear(4, 10))
    trainer = Trainer(network, world, seed=0, augment=None)
    layer.running_mean.fill_(world.rank + 3)
    trainer.test(Data(), 8, make_criterion("ce"))
    world.wait()
    print(layer.running_mean.item())
"""


def test_every_process_tests_with_the_statistics_of_the_first() -> None:
    ended = processes(2, "-c", BATCH_NORM, start=python)
    assert [(code, out) for code, out, _ in ended] == 2 * [(0, "3.0\n")], ended


def test_only_the_first_process_says_what_all_find() -> None:
    """Where only the first can find it, the others say that it has gone, and stop."""
    assert cli.run(["train", "--epochs", "1", "--out", "run"]) == 0
    (first, second) = processes(2, "--epochs", "1", "--out", "run")
    assert first[0] == 2
    assert "run holds a run already" in first[2]
    assert second == (1, "", "pclc: another process of this run has ended\n")


def assert_close(one: str, other: str) -> None:
    """Two runs came to the same within rounding."""
    found, expected = (load_file(Path(name, "model.safetensors")) for name in (one, other))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)
        assert not found[name].equal(torch.zeros_like(found[name]))
    for row, other_row in zip(rows(Path(one)), rows(Path(other)), strict=True):
        assert row.keys() == other_row.keys()
        assert row["loss"] == pytest.approx(other_row["loss"], rel=1e-4)
        assert row["test_accuracy"] == pytest.approx(other_row["test_accuracy"], abs=0.005)


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
