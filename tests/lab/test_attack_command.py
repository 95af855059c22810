"""``pclc attack`` from the outside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import nn

from pclc_fast.lab import cli
from pclc_fast.lab.attacks import load_result
from pclc_fast.lab.models import small_cnn

FACTORY = """
import torch

from pclc_fast.lab.models import small_cnn

def make():
    return small_cnn(seed=1)

class Sure(torch.nn.Sequential):
    def forward(self, images):
        return super().forward(images).softmax(dim=1)

def cool():  # a name that terminals may know as a picture
    return Sure(*small_cnn(seed=1))

def wrong():
    return 3

def broken():
    raise ValueError("no such network")
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of pclc train that knows the digits a little."""
    folder = tmp_path_factory.mktemp("runs")
    options = ["--epochs", "2", "--batch-size", "64", "--warm-ups", str(folder / "warm-ups")]
    assert cli.run(["train", *options, "--lr", "0.003", "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def weights(undefended: nn.Module, tmp_path: Path) -> Path:
    (tmp_path / "factory.py").write_text(FACTORY)
    save_file(undefended.state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


QUICK = ["--attacks", "fgsm", "pgd-10", "--epsilon", "0.1", "0.2", "--n-ex", "60"]


def test_a_run_is_attacked(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["attack", str(run), *QUICK, "--out", str(tmp_path)]
    assert cli.run(arguments) == 0
    shown = capsys.readouterr()
    assert "FGSM" in shown.out
    assert "worst case" in shown.out
    assert f"saved {tmp_path / 'attacks.json'}" in shown.out
    result = load_result(tmp_path)
    assert result.clean.images == 60
    assert result.model.name == str(run)
    assert result.model.facts["loss"] == "pclc"
    assert result.data.facts["data_set_sha256"]
    assert [a.key for a in result.attacks] == ["fgsm", "pgd-10"]
    assert result.environment["command"].startswith("pclc attack ")
    assert f"{100 * result.worst_case(0.1).accuracy:.1f}" in shown.out
    assert shown.err.count("fooled in") == 4  # a line for each attack and epsilon
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adversarial.safetensors", "attacks.json"]
    assert cli.run(arguments) == 2
    assert "is there already: choose another folder by --out" in capsys.readouterr().err
    assert cli.run([*arguments, "--overwrite", "--norm", "L2"]) == 0
    assert load_result(tmp_path).norm == "L2"


def test_by_default_results_lie_in_the_run(run: Path) -> None:
    assert cli.run(["attack", str(run), *QUICK, "--preset", "released", "--individual"]) == 0
    result = load_result(run / "attacks" / "released")
    assert result.preset == "released"
    assert not result.cumulative
    assert all(result.alone(cell) for cell in result.cells)


def test_any_model_is_attacked(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(weights.parent)
    start = ["attack", "--data", "digits", "--eps", "0.1", "--bs", "64", "--attacks", "fgsm"]
    model = [
        "--model",
        "factory:make",
        "--weights",
        str(weights),
        "--n_ex",
        "0",
    ]
    assert cli.run([*start, *model]) == 0
    result = load_result(weights.parent / "attacks" / "strong")
    assert (result.clean.images, result.batch_size) == (450, 64)
    assert result.clean.accuracy > 0.9
    assert result.model.facts["factory"] == "factory:make"
    capsys.readouterr()
    model = ["--model", "factory:cool", "--weights", str(weights), "--out", "sure"]
    assert cli.run([*start, *model]) == 0
    shown = capsys.readouterr().err
    assert shown.startswith("factory:cool: 450 images of digits")
    assert (
        0 < shown.index("warning: softmax") < shown.index("fooled in")
    )  # before the time is spent
    for name, message in (
        ("factory:wrong", "must make a torch.nn.Module; it made int"),
        ("factory:broken", "--model factory:broken cannot be made: ValueError: no such network"),
        ("factory:none", "cannot be made: AttributeError: module 'factory' has no"),
        ("nowhere:make", "cannot be made: ModuleNotFoundError: No module named 'nowhere'"),
    ):
        model = ["--model", name, "--weights", str(weights), "--save_dir", "elsewhere"]
        assert cli.run([*start, *model]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "give either the folder of a run, or --model package.module:factory"),
        ("x --model a:b", "give either the folder of a run, or --model package.module:factory"),
        ("--model a --weights w --data digits --out o", "must be package.module:factory; got a"),
        ("--model :b --weights w --data digits", "must be package.module:factory; got :b"),
        ("--model a:b --data digits", "--model needs --weights too"),
        ("{run} --weights w", "--weights goes with --model; a run has its own"),
        ("{run} --n-ex -1", "--n-ex must be positive, or 0 for all images; got -1"),
        ("{run} --bs 0", "--batch-size must be at least 1; got 0"),
        ("{run} --eps 8 --out {out}", "8 of 255 is 8 / 255"),
        ("{run} --attacks pdg --out {out}", "attacks must be some of pgd-rescaled"),
        ("{run} --device tpu --out {out}", "--device tpu cannot be used"),
        ("{run} --data nothing --out {out}", "--data must be one of"),
        ("{out}", "is not the folder of a run: it has no config.json"),
        ("{run} --substitute {out} --out {out}", "config.json cannot be used"),
    ],
)
def test_bad_input(
    arguments: str,
    message: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = arguments.format(run=run, out=tmp_path / "out").split()
    assert cli.run(["attack", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_run_that_is_not_finished(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    assert cli.run(["attack", str(tmp_path)]) == 2
    assert "is not finished. pclc train --resume" in capsys.readouterr().err
    (tmp_path / "model.safetensors").write_bytes(b"no")
    assert cli.run(["attack", str(tmp_path)]) == 2
    assert "cannot be used as the model's weights" in capsys.readouterr().err
    save_file(small_cnn(seed=0, classes=3).state_dict(), tmp_path / "model.safetensors")
    assert cli.run(["attack", str(tmp_path)]) == 2
    assert "cannot be used as the model's weights" in capsys.readouterr().err


def test_a_substitute_is_another_run(run: Path, tmp_path: Path) -> None:
    options = ["--attacks", "pgd-transfer", "--epsilon", "0.2", "--n-ex", "60"]
    assert cli.run(
        ["attack", str(run), *options, "--substitute", str(run), "--out", str(tmp_path)]
    ) == 0  # fmt: skip
    result = load_result(tmp_path)
    assert result.attacks[0].threat == "transfer"
    assert result.cells[0].fooled


def test_a_model_and_images_that_do_not_fit(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said as any other mistake, of the model under attack and of a substitute."""
    other = tmp_path / "other"
    shutil.copytree(run, other)
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps({**config, "model": "lenet5"}), encoding="utf-8")
    for command in ([str(other)], [str(run), "--substitute", str(other)]):
        assert cli.run(["attack", *command, "--out", str(tmp_path / "out")]) == 2
        assert "lenet5 needs images of at least 12 x 12; these are 8 x 8" in capsys.readouterr().err


def test_killed_it_goes_on(run: Path, tmp_path: Path) -> None:
    options = ["--attacks", "fgsm", "square", "--epsilon", "0.05", "--batch-size", "20"]
    command = ["attack", str(run), *options, "--n-ex", "40", "--out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pclc_fast.lab", *command, str(tmp_path / "killed")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    parts = tmp_path / "killed" / "attacks.parts"
    end = time.monotonic() + 90
    while not list(parts.glob("square*")):  # Square has two
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("*.safetensors")}
    assert kept
    assert not (tmp_path / "killed" / "attacks.json").exists()
    assert cli.run([*command, str(tmp_path / "killed")]) == 0
    assert cli.run([*command, str(tmp_path / "whole")]) == 0
    assert not parts.exists()
    killed, whole = (
        json.loads((tmp_path / name / "attacks.json").read_text()) for name in ("killed", "whole")
    )
    for a, b in zip(killed["cells"], whole["cells"], strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
    first, second = (tmp_path / n / "adversarial.safetensors" for n in ("killed", "whole"))
    assert first.read_bytes() == second.read_bytes()
