"""``pclc train`` within this process: run folders, shared warm-ups, resuming, refusals."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from train_command import RUN, Stopper, assert_same_result, rows, train
from written_images import picture, shapes

from pclc_fast.lab import session
from pclc_fast.lab.checkpoint import read_state, write_state
from pclc_fast.lab.data import load_dataset
from pclc_fast.lab.distributed import World
from pclc_fast.lab.errors import RunError
from pclc_fast.lab.losses import LossName
from pclc_fast.lab.run_folder import RunFolder
from pclc_fast.lab.train import check_together

FILES = ["config.json", "env.json", "metrics.jsonl", "model.safetensors", "state.previous.pt"]

pytestmark = pytest.mark.usefixtures("own_folder")


def test_a_run_leaves_its_folder(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(p.name for p in finished.iterdir()) == sorted([*FILES, "state.pt"])
    found = rows(finished)
    assert [(row["epoch"], row["phase"]) for row in found] == [
        (1, "warm-up"),
        (2, "warm-up"),
        (3, "pclc"),
        (4, "pclc"),
    ]
    assert found[1]["test_accuracy"] > 0.5
    config = json.loads((finished / "config.json").read_text(encoding="utf-8"))
    assert (config["epochs"], config["model"], config["device"]) == (2, "small-cnn", "cpu")
    env = json.loads((finished / "env.json").read_text(encoding="utf-8"))
    assert env["torch"] == torch.__version__
    assert len(env["data_sha256"]) == 64
    assert {"commit", "device_name", "packages", "backends", "threads"} <= env.keys()
    capsys.readouterr()
    assert train("--resume", str(finished)) == 0  # nothing is left to do
    assert "after 4 epochs" in capsys.readouterr().out
    assert rows(finished) == found


def test_it_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--epochs", "1", "--seeds", "3", "4") == 0
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert lines[0].startswith("digits: 1347 training and 450 test images of 1x8x8, 10 classes; ")
    assert [line.split(":")[0] for line in lines[1:]] == [
        "seed 3, epoch 1/2, warm-up",
        "seed 3, epoch 2/2, pclc",
        "seed 4, epoch 1/2, warm-up",
        "seed 4, epoch 2/2, pclc",
    ]
    last = rows(RUN / "seed-4")[-1]
    assert f"test {100 * last['test_accuracy']:.2f} %" in lines[-1]
    assert f"{RUN}/seed-4: {100 * last['test_accuracy']:.2f} % of the test images" in said.out


def test_a_shared_warm_up_changes_nothing(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warm_ups = str(finished.parent / "warm-ups")
    assert train("--epochs", "2", "--warm-ups", warm_ups, "--loss", "ce") == 0
    said = capsys.readouterr().err
    assert f"seed 0: the warm-up, 2 epochs, is in {warm_ups}" in said
    assert "epoch 2/4" not in said
    assert train("--epochs", "2", "--loss", "ce", "--out", "alone") == 0
    assert "the warm-up, 2 epochs" not in capsys.readouterr().err
    assert_same_result(Path("runs/digits-small-cnn-ce"), Path("alone"))
    assert rows(Path("alone"))[:2] == rows(finished)[:2]


def test_a_damaged_warm_up_is_not_used(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished.parent / "warm-ups", "warm-ups")
    (file,) = Path("warm-ups").iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    assert train("--epochs", "2", "--warm-ups", "warm-ups") == 0
    assert f"seed 0: {file} is damaged" in capsys.readouterr().err
    assert_same_result(RUN, finished)


def test_a_warm_up_of_something_else_is_not_used(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished.parent / "warm-ups", "warm-ups")
    (file,) = Path("warm-ups").iterdir()
    state = read_state(file.read_bytes())
    write_state(file, dataclasses.replace(state, belongs_to="another seed"))
    assert train("--epochs", "2", "--warm-ups", "warm-ups") == 0
    assert f"{file} is damaged (it belongs to something else)" in capsys.readouterr().err
    assert read_state(file.read_bytes()).belongs_to == file.stem  # written anew


@pytest.mark.parametrize("batches", [1, 6, 9, 12, 20])  # an epoch has 6
def test_ctrl_c_saves_within_the_epoch(
    batches: int,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        Stopper(patch, after=batches)
        assert train("--epochs", "2") == 130
    batch, epoch = (batches - 1) % 6 + 1, (batches - 1) // 6 + 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"pclc: stopped after batch {batch} of epoch {epoch}, saved. "
        f"Go on by pclc train --resume {RUN}"
    )
    assert not (RUN / "model.safetensors").exists()
    assert train("--resume", str(RUN)) == 0
    assert_same_result(RUN, finished)


def test_dropout_augmentation_and_attacks_go_on_too(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--epochs", "1", "--augmentation", "flip-crop", "--adversarial", "pgd"]
    assert train(*options, "--out", "undisturbed", "--warm-ups", "one") == 0
    with monkeypatch.context() as patch:
        Stopper(patch, after=9)
        assert train(*options, "--out", "stopped", "--warm-ups", "other") == 130
    assert train("--resume", "stopped") == 0
    assert_same_result(Path("stopped"), Path("undisturbed"))
    assert rows(Path("stopped"))[-1]["adversarial_accuracy"] > 0


def test_metrics_after_the_last_good_state_are_dropped(finished: Path) -> None:
    shutil.copytree(finished, "run")
    (Path("run") / "state.pt").unlink()  # the state before it stands for what a kill leaves
    (Path("run") / ".state.pt.123.tmp").write_bytes(b"half")
    assert train("--resume", "run") == 0
    assert_same_result(Path("run"), finished)
    assert not list(Path("run").glob(".*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lr", "0.1"], "--lr 0.1 contradicts the run in run, which has 0.01: leave it out"),
        (["--epochs=50"], "--epochs 50 contradicts the run in run, which has 2"),
        (["--loss", "ce"], "--loss ce contradicts the run in run, which has pclc"),
        (["--seeds", "1", "2"], "--seeds 1 2 contradicts the run in run, which has 0"),
        (["--out", "x"], "--out x contradicts the run in run"),
    ],
)
def test_a_run_cannot_change_its_mind(
    options: list[str], message: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, "run")
    assert train("--resume", "run", *options) == 2
    assert message in capsys.readouterr().err


def test_a_run_can_be_moved(finished: Path) -> None:
    """Where it was is not touched, and where it goes on may be said again."""
    shutil.copytree(finished, "run")
    config = Path("run/config.json")
    config.write_text(config.read_text().replace(str(finished), "gone/run"))
    (Path("run") / "state.pt").unlink()
    assert train("--resume", "run", "--lr", "0.01", "--device", "cpu", "--warm-ups", "other") == 0
    assert_same_result(Path("run"), finished)
    assert not Path("gone").exists()


def test_a_folder_of_images_is_found_from_anywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shapes(Path("shapes")).resolve()
    options = ["--epochs", "1", "--model", "small-cnn"]
    assert train("--data", "shapes", *options) == 0
    run = Path("runs/shapes-small-cnn-pclc").resolve()
    assert RunFolder(run).config().data == str(folder)
    assert train("--data", "shapes/../shapes/", *options, "--loss", "ce") == 0
    assert "seed 0: the warm-up, 1 epochs, is in" in capsys.readouterr().err
    assert Path("runs/shapes-small-cnn-ce").exists()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    (run / "state.pt").unlink()
    assert train("--resume", str(run)) == 0
    folder.rename("moved")
    assert train("--resume", str(run)) == 2
    assert f"got {folder}" in capsys.readouterr().err
    assert train("--resume", str(run), "--data", "moved") == 0
    assert train("--resume", str(run), "--data", "digits") == 2
    assert f"--data digits contradicts the run in {run}" in capsys.readouterr().err
    picture(Path("moved/train/circle/0.png"))
    assert train("--resume", str(run), "--data", "moved") == 2
    assert "belongs to another configuration or other data" in capsys.readouterr().err


def test_a_configuration_that_was_edited(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, "run")
    config = Path("run/config.json")
    config.write_text(config.read_text().replace('"lr": 0.01', '"lr": 0.02'))
    assert train("--resume", "run") == 2
    assert "the state in run belongs to another configuration" in capsys.readouterr().err
    config.write_text("{")
    assert train("--resume", "run") == 2
    assert "run/config.json cannot be used: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": None}, "epochs is left open"),
        ({"model": None}, "model is left open"),
        ({"bf16": "auto"}, "bf16 is left open"),
        ({"compile": "auto"}, "compile is left open"),
        ({"seeds": [0, 1]}, "a run has one of the seeds 0 1"),
    ],
)
def test_a_configuration_that_is_not_of_a_run(
    change: dict[str, Any], message: str, finished: Path
) -> None:
    config = json.loads((finished / "config.json").read_text())
    Path("config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(RunError, match=f"config.json cannot be used: {message}"):
        RunFolder(Path()).config()


def test_a_run_is_never_overwritten(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "state.pt").read_bytes()
    assert train("--epochs", "1", "--out", str(finished)) == 2
    assert f"{finished} holds a run already: go on with it by" in capsys.readouterr().err
    assert (finished / "state.pt").read_bytes() == before
    assert train("--epochs", "1", "--out", str(finished), "--seeds", "1", "2") == 2
    assert f"{finished} holds a run already: go on with it by" in capsys.readouterr().err
    shutil.copytree(finished, "seeds/seed-0")
    assert train("--epochs", "1", "--out", "seeds") == 2
    assert "seeds holds a run already: go on with it by" in capsys.readouterr().err
    assert not Path("seeds/config.json").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (
            ["--resume", "nowhere"],
            2,
            "--resume must name the folder of a run; nowhere has no config",
        ),
        (["--device", "tpu9"], 2, "--device must be auto, cpu, cuda or cuda:N; got tpu9"),
        (["--device", "cuda:99"], 2, "NVIDIA GPUs here"),
        (["--out", "file/run"], 2, "--out must be a folder that can be written to; got file/run"),
        (["--epochs", "0"], 2, "--epochs must be at least 1; got 0"),
        (["--model", "lenet6"], 2, "lenet6"),
        (["--data", "nowhere"], 2, "nowhere"),
    ],
)
def test_what_cannot_be(
    options: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").touch()
    assert train(*options) == code
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.parametrize("batch", ["256", "1347"])  # the only step of an epoch: seen by the test
def test_divergence_leaves_the_last_good_state(
    batch: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--epochs", "1", "--lr", "1e20", "--batch-size", batch) == 1
    said = capsys.readouterr().err
    assert "in epoch 1: lr 1e+20 is too large. Begin another run with a smaller --lr" in said
    assert rows(RUN) == []
    assert not (RUN / "state.pt").exists()


def test_a_second_ctrl_c_does_not_wait(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def step(*_: Any) -> None:
        signal.raise_signal(signal.SIGINT)  # handled before the next is sent
        signal.raise_signal(signal.SIGINT)

    shutil.copytree(finished, "run")
    Path("run/state.pt").unlink()
    # A shell starts what it puts into the background with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr(session.Trainer, "_step", step)
        assert train("--resume", "run") == 130
    signal.signal(signal.SIGINT, before)
    said = capsys.readouterr().err
    assert (
        "pclc: interrupted. The last saved state is intact: go on by pclc train --resume " in said
    )
    assert train("--resume", "run") == 0
    assert_same_result(Path("run"), finished)


def test_an_epoch_is_saved_before_it_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(session.Progress, "finished", gone)
    with pytest.raises(BrokenPipeError):
        train("--epochs", "1")
    assert read_state((RUN / "state.pt").read_bytes()).epoch == len(rows(RUN)) == 1


def test_every_process_needs_a_share(finished: Path) -> None:
    config, data = RunFolder(finished).config(), load_dataset("digits")
    check_together(config, data, World(torch.device("cpu"), size=256))
    with pytest.raises(RunError, match=r"each of 257 processes needs a share: .* have 256 images"):
        check_together(config, data, World(torch.device("cpu"), size=257))


@pytest.mark.parametrize(("loss", "classes"), [("pclc", 1), ("gce", 2)])
def test_classes_to_choose_from(finished: Path, loss: LossName, classes: int) -> None:
    config = dataclasses.replace(RunFolder(finished).config(), loss=loss)
    digits = load_dataset("digits")
    world = World(torch.device("cpu"))
    few = dataclasses.replace(digits, class_names=digits.class_names[:classes])
    with pytest.raises(RunError, match=f"--loss {loss} needs at least {classes + 1} classes; digi"):
        check_together(config, few, world)
    enough = dataclasses.replace(digits, class_names=digits.class_names[: classes + 1])
    check_together(config, enough, world)


def test_another_machine_is_mentioned(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished, "run")
    env = Path("run/env.json")
    env.write_text(env.read_text().replace('"threads": 1', '"threads": 64'))
    assert train("--resume", "run") == 0
    assert "run began with threads 64, now it is 1: it will not" in capsys.readouterr().err
