"""``pclc train`` on the digits, and what it leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pclc_fast.lab import cli, session

RUN = Path("runs/digits-small-cnn-pclc")


def train(*options: str) -> int:
    return cli.run(["train", *options])


def rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics without the seconds, which no two runs share."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{n: v for n, v in json.loads(line).items() if n != "seconds"} for line in lines]


def assert_same_result(one: Path, other: Path) -> None:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)
    assert rows(one) == rows(other)


class Stopper:
    """Asks to stop when a given batch of the command is under way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
        self.left = after
        original = session.Trainer._step

        def step(trainer: Any, *arguments: Any) -> None:
            original(trainer, *arguments)
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), 2)

        monkeypatch.setattr(session.Trainer, "_step", step)
