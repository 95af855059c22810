"""The command line from the outside: what it writes, what it says, how it fails."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pclc_fast
from pclc_fast.lab import cli, files, reproduce
from pclc_fast.lab.errors import RunError

COMMANDS = "the command must be one of: train, attack, report, reproduce digits, doctor"


def pclc(*arguments: str, code: str = "", folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``python -m pclc_fast.lab``, or ``code`` instead of it, in a process of its own."""
    start = ["-c", code] if code else ["-m", "pclc_fast.lab"]
    environment = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "-W", "error", *start, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


def test_end_to_end(tmp_path: Path) -> None:
    options = ["--epochs", "1", "--seeds", "0", "--epsilons", "0.1", "0.3", "--steps", "2"]
    options += ["--images", "30"]
    done = pclc("reproduce", "digits", *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/digits"
    document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    with open(folder / "report.csv", encoding="utf-8", newline="") as file:
        rows = {row["row"]: row["value"] for row in csv.DictReader(file)}

    assert [run["id"] for run in document["runs"]] == ["ce", "pclc"]
    for run in document["runs"]:
        assert run["missing"] == {}
        attacks = [attack["key"] for attack in run["attacked"]["attacks"]]
        assert attacks == ["fgsm", "pgd", "pgd-rescaled", "multi-targeted"]
        for share in run["attacked"]["worst"]:
            name = f"worst/{run['id']}/{share['epsilon']:g}"
            assert rows[f"{name}/images"] == "30"
            assert float(rows[f"{name}/accuracy"]) == int(rows[f"{name}/correct"]) / 30
            assert share["low"] < share["accuracy"] + 1e-9 < share["high"] + 2e-9
        assert {c["status"] for c in run["audit"]["checks"]} <= {"PASS", "FAIL", "NOT RUN"}
    where = document["environment"]
    assert where["command"] == "pclc reproduce digits " + " ".join(options)
    assert where["torch"] == torch.__version__
    assert where["pclc_fast"] == pclc_fast.__version__
    assert where["threads"] == 1
    assert where["backends"]["reference"] == {"usable": True, "reason": ""}
    assert where["cpu"]

    shown = " ".join(done.stdout.split())
    assert "PC-LC - CE" in shown
    assert f"{100 * float(rows['worst/ce/0.1/accuracy']):.1f} [" in shown
    assert "What this does not show is robustness." in shown
    assert "\x1b" not in done.stdout + done.stderr
    lines = done.stderr.splitlines()  # not a terminal: a line for each part
    assert len(lines) < 30
    assert all(re.match(r"(runs/digits/)?(ce|pclc)\b", line) for line in lines)
    names = {"report.html", "report.csv", "report.json", "ce", "pclc", "warm-ups"}
    assert {p.name for p in folder.iterdir()} == names


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    code = """
import sys
sys.modules.update(sklearn=None, tyro=None)  # their import fails
from pclc_fast.lab.__main__ import main
sys.exit(main())
"""
    done = pclc("reproduce", "digits", code=code, folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == 'pclc: sklearn, tyro not installed: pip install "pclc-fast[lab]"\n'


def test_a_wrong_value_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = pclc("reproduce", "digits", "--epochs", "-1", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "pclc: --epochs must be at least 1; got -1\n"
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("reproduce digits --epsilons 0.1 2", "--epsilons must be from 0 to 1; got 0.1 2"),
        ("reproduce digits --lr inf", "--lr must be positive and finite; got inf"),
        (
            "reproduce",
            f"{COMMANDS}; got: reproduce",
        ),
        (
            "drain",
            f"{COMMANDS}; got: drain",
        ),
    ],
)
def test_bad_input(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments.split()) == 2
    assert capsys.readouterr() == ("", f"pclc: {message}\n")


@pytest.mark.parametrize("arguments", ["--epochs x", "--bogus 1"])
def test_what_cannot_be_parsed(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.run(["reproduce", "digits", *arguments.split()])
    assert stopped.value.code == 2
    assert arguments.split()[0] in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert cli.run(["reproduce", "digits", "--epochs", "1", "--out", str(file / "run")]) == 2
    expected = f"pclc: --out must be a folder that can be written to; got {file / 'run'} ("
    assert capsys.readouterr().err.startswith(expected)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["reproduce", "-h"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == 0
    assert "  reproduce digits  CE against PC-LC" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RunError("the loss became nan"), 1, "pclc: the loss became nan\n"),
        (KeyboardInterrupt(), 130, "pclc: interrupted, nothing new was saved\n"),
    ],
)
def test_a_run_that_fails(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(reproduce, "reproduce_digits", failing)
    assert cli.run(["reproduce", "digits", "--out", str(tmp_path)]) == code
    assert capsys.readouterr().err == message


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    files.write_atomically(path, "old")
    files.write_atomically(path, "new ±")
    assert path.read_text(encoding="utf-8") == "new ±"

    def full_disk(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        files.write_atomically(path, "newest")
    assert path.read_text(encoding="utf-8") == "new ±"
    assert list(tmp_path.iterdir()) == [path]
