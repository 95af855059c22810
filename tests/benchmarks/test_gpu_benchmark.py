"""The GPU benchmark as far as it goes without a GPU: sizes, records, tables, and its checks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from benchmarks import gpu_sanitizer
from benchmarks.data import active_classes
from benchmarks.gpu_check import check_jobs, sweep_jobs
from benchmarks.gpu_edges import EDGES, require
from benchmarks.gpu_jobs import Job, run_here, run_side_by_side
from benchmarks.gpu_oracle import CLASSES as CHECKED_CLASSES
from benchmarks.gpu_oracle import make_rows, sweep_plan
from benchmarks.gpu_peers import check_cross_entropy
from benchmarks.gpu_record import (
    Budget,
    DeviceLostError,
    NotHereError,
    Record,
    attempted,
    result_stem,
)
from benchmarks.gpu_sizes import BOTH, CLASSES, FORWARD, rows_for, traffic_bytes
from benchmarks.gpu_subjects import DTYPES, make_mixed_, ours, usable_backends
from benchmarks.gpu_tables import large_tables, peer_tables, rate, small_tables
from benchmarks.gpu_timing import summary
from pclc_fast import pc_lc_loss

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
GIB = 2**30
needs_native = pytest.mark.skipif(
    "native" not in usable_backends(CPU)[0], reason="the checks are tried on the compiled kernels"
)


def make_record(tmp_path: Path, budget: Budget | None = None) -> Record:
    return Record("large", {"gpu": "NVIDIA H100 80GB HBM3"}, budget or Budget(30), tmp_path)


def make_cell(function: str, median: float, kind: str = "", **changes: Any) -> dict[str, Any]:
    cell = {"rows": 1000, "classes": 4096, "dtype": "bfloat16", "direction": BOTH}
    cell |= {"function": function, "kind": kind, "seconds": summary([median] * 3)}
    return {**cell, "peak_bytes": 1000 * 4096 * 2, **changes}


def statuses(record: Record) -> dict[str, str]:
    return {line["what"]: line["status"] for line in record.lines}


@pytest.mark.parametrize("script", [["-m", "benchmarks.gpu"], ["benchmarks/gpu.py"]])
def test_without_a_gpu_it_says_so_and_exits_with_2(script: list[str]) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *script, "--part", "small"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout.startswith("no GPU:")
    assert len(done.stdout.splitlines()) == 1


def test_bytes_are_read_once_and_for_backward_written_once() -> None:
    assert traffic_bytes(3, 5, 2, FORWARD) == 30
    assert traffic_bytes(3, 5, 2, BOTH) == 60


@pytest.mark.parametrize(
    ("l2_bytes", "free_bytes"),
    [(50 * 2**20, 78 * GIB), (126 * 2**20, 180 * GIB), (6 * 2**20, 6 * GIB)],  # H100, B200, small
)
def test_sizes_are_well_above_l2_and_fit(l2_bytes: int, free_bytes: int) -> None:
    for classes in CLASSES:
        for itemsize in (2, 4):
            row_bytes = classes * itemsize
            size = rows_for(classes, itemsize, l2_bytes, free_bytes) * row_bytes
            assert size > 4 * l2_bytes - row_bytes
            assert size // itemsize * (itemsize + 8 * 4) < free_bytes
            assert size <= GIB


def test_too_little_memory_is_an_error_that_says_so() -> None:
    with pytest.raises(ValueError, match="that are free"):
        rows_for(1000, 4, 50 * 2**20, GIB // 2)


def test_time_runs_out_once_and_what_was_not_run_is_said(tmp_path: Path) -> None:
    now = [0.0]
    budget = Budget(1, clock=lambda: now[0])
    record = make_record(tmp_path, budget)
    ran: list[int] = []
    assert record.attempt("first", lambda: ran.append(1))
    now[0] = 60.0
    assert budget.left() == 0
    assert budget.spent() == 60
    assert not record.attempt("second", lambda: ran.append(2))
    assert ran == [1]
    assert record.lines == [{"status": "NOT RUN", "what": "second", "reason": "the time is up"}]


def test_a_failure_is_a_line_and_the_run_goes_on(tmp_path: Path) -> None:
    record = make_record(tmp_path)

    def fail(error: Exception) -> None:
        raise error

    for what, error, status in (
        ("a cell", ValueError("no such kernel"), "NOT RUN"),
        ("a check", AssertionError("loss[3] is 2.0"), "FAIL"),
        ("a check without memory", torch.OutOfMemoryError("CUDA out of memory"), "FAIL"),
        ("a check without a second GPU", NotHereError("there is one GPU"), "FAIL"),
    ):
        assert not record.attempt(what, lambda error=error: fail(error), status)
    assert statuses(record) == {
        "a cell": "NOT RUN",
        "a check": "FAIL",
        "a check without memory": "NOT RUN",
        "a check without a second GPU": "NOT RUN",
    }
    assert [line["reason"] for line in record.failures()] == ["AssertionError: loss[3] is 2.0"]


def test_the_files_can_be_read_at_any_time(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    record.tables = large_tables
    path = record.write()
    assert path.name == "gpu-nvidia-h100-80gb-hbm3-large.json"
    assert json.loads(path.read_text())["cells"] == []
    record.cells += [make_cell("copy", 1e-3), make_cell("triton", 2e-3, "backend")]
    record.not_run("peer X", "not installed")
    record.write()
    found = json.loads(path.read_text())
    assert [cell["function"] for cell in found["cells"]] == ["copy", "triton"]
    assert found["lines"][0]["reason"] == "not installed"
    page = path.with_suffix(".md").read_text()
    assert "1000 x 4096" in page
    assert "peer X: not installed" in page
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".md"]


def test_names_of_files_have_no_odd_characters() -> None:
    assert result_stem("NVIDIA RTX 6000 (Ada)", "small") == "gpu-nvidia-rtx-6000-ada-small"


def test_table_of_bandwidths() -> None:
    cells = [
        make_cell("copy", 1e-3),
        make_cell("triton", 2e-3, "backend"),
        make_cell("native", 1.25e-3, "backend"),
        make_cell("native x3", 2.5e-3),
        make_cell("native mixed", 1.5e-3),
        make_cell("eager mask", 20e-3),
        make_cell("eager topk", 10e-3),
        make_cell("F.cross_entropy", 5e-3),
        make_cell("native", 1e-3, "backend", compiled=True),
        make_cell("compiled mask", 3e-3, compiled=True),
        make_cell("compiled F.cross_entropy", 4e-3, compiled=True),
    ]
    ((title, (header, row)),) = large_tables(cells)
    assert title == "bfloat16, forward + backward"
    found = dict(zip(header, row, strict=True))
    assert rate(cells[0]) == 1000 * 4096 * 2 * 2 / 1e-3
    assert found == {
        "N x K": "1000 x 4096",
        "copy": "16",
        "triton": "50.0% +-0.0%",
        "native": "80.0% +-0.0%",
        "fastest": "native",
        "eager": "8.00",
        "form": "topk",
        "comp": "3.00",
        "CE": "4.00",
        "comp CE": "4.00",
        "x3": "2.00",
        "mixed": "1.20",
        "peak": "1.00",
    }


def test_a_forward_pass_moves_half_of_a_copy() -> None:
    forward = make_cell("triton", 0.5e-3, "backend", direction=FORWARD)
    copy = make_cell("copy", 1e-3, direction=FORWARD)
    assert rate(forward) == rate(copy)


def test_tables_have_a_dash_for_what_was_not_measured() -> None:
    ((_, (header, row)),) = large_tables([make_cell("F.cross_entropy", 1e-3)])
    assert set(row[1:]) == {"-"}
    assert len(header) == len(row)
    ((_, (header, row)),) = peer_tables([make_cell("quack", 1e-3, "peer")])
    assert row == ["1000 x 4096", "-", "-", "-", "-"]
    assert large_tables([]) == small_tables([]) == peer_tables([]) == []


def test_tables_of_small_sizes_and_peers() -> None:
    cells = [
        make_cell("triton", 50e-6, "backend"),
        make_cell("triton graph", 10e-6),
        make_cell("F.cross_entropy", 60e-6),
        make_cell("F.cross_entropy graph", 15e-6),
    ]
    ((_, (_, row)),) = small_tables(cells)
    eager, graph = ["50.0", "triton", "60.0", "1.20"], ["10.0", "triton", "15.0", "1.50"]
    assert row == ["1000 x 4096", *eager, *graph]
    ((_, (header, row)),) = peer_tables([*cells[:1], make_cell("quack", 75e-6, "peer")])
    assert dict(zip(header, row, strict=True))["quack"] == "1.50"


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("classes", [10, 4097])
def test_mixed_rows_are_mixed(dtype: torch.dtype, classes: int) -> None:
    logits = torch.randn(9, classes, generator=torch.Generator().manual_seed(0)).to(dtype)
    target = torch.arange(9)
    make_mixed_(logits, target, chunk_elements=4 * classes)  # chunks of 4, 4 and 1 rows
    assert (active_classes(logits, target) == 3).all()


def test_checked_rows_are_of_every_case() -> None:
    for classes in (10, 4097):
        logits, target = make_rows(classes, torch.float32)
        active = active_classes(logits, target.clamp(min=0))
        assert (active[[0, 1]] == classes - 1).all()
        mixed = active[[2, 3, 6]]
        assert ((mixed > 0) & (mixed < classes - 1)).all()
        assert active[4] == 0
        assert target[5] == -100


def test_the_sweep_covers_every_dtype_and_mode_early() -> None:
    first = {combination for classes in CHECKED_CLASSES for combination in sweep_plan(classes)[:2]}
    assert len(first) == 12
    for classes in CHECKED_CLASSES:
        assert len(set(sweep_plan(classes))) == 12


@needs_native
def test_checks_pass_for_kernels_that_are_right(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    run_here(record, sweep_jobs("native", CPU, slice(None), widths=(1, 33, 2049)))
    edges = {name: EDGES[name] for name in EDGES if "many rows" not in name}
    run_here(record, check_jobs("native", CPU, edges))
    gpu_sanitizer.exercise("native", CPU)
    assert record.failures() == []
    passed = [line for line in record.lines if line["status"] == "PASS"]
    assert len(passed) == 3 + len(edges) - 1  # one edge is for GPUs


def test_checks_side_by_side_say_what_they_found(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    right = Job("right", partial(attempted, partial(require, True, "nothing"), "FAIL"))
    wrong = Job("wrong", partial(attempted, partial(require, False, "it is wrong"), "FAIL"))
    run_side_by_side(record, [right, wrong])
    assert statuses(record) == {"right": "PASS", "wrong": "FAIL"}
    assert record.failures()[0]["reason"] == "AssertionError: it is wrong"
    with pytest.raises(DeviceLostError, match="a process of the checks ended"):
        run_side_by_side(record, [Job("crash", partial(os._exit, 1))])


def test_checks_that_the_time_does_not_suffice_for_are_said(tmp_path: Path) -> None:
    record = make_record(tmp_path, Budget(0))
    run_side_by_side(record, [Job("late", partial(time.sleep, 0.1))])
    run_here(record, [Job("late too", partial(time.sleep, 60))])
    assert statuses(record) == {"late": "NOT RUN", "late too": "NOT RUN"}


@needs_native
@pytest.mark.parametrize("factor", [1 + 1e-4, float("nan")])
def test_checks_fail_for_kernels_that_are_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    def wrong(*arguments: Any, **keywords: Any) -> Any:
        result = pc_lc_loss(*arguments, **keywords)
        if keywords.get("return_stats"):
            return result[0] * factor, result[1]
        return result * factor

    monkeypatch.setattr("benchmarks.gpu_oracle.pc_lc_loss", wrong)
    record = make_record(tmp_path)
    run_here(record, sweep_jobs("native", CPU, slice(1), widths=(33,)))
    special = {name: EDGES[name] for name in EDGES if name.startswith(("NaN", "every"))}
    run_here(record, check_jobs("native", CPU, special))
    assert len(record.failures()) == 3


def test_a_peer_that_is_no_cross_entropy_is_found() -> None:
    def step(scale: float) -> Any:
        def scaled(logits: torch.Tensor, target: torch.Tensor) -> Any:
            loss = F.cross_entropy(logits, target)
            return loss.detach(), scale * torch.autograd.grad(loss, logits)[0]

        return scaled

    logits = torch.randn(8, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    target = torch.arange(8)
    check_cross_entropy(step(1.0), False, logits, target)
    check_cross_entropy(step(8.0), True, logits, target)
    with pytest.raises(AssertionError):
        check_cross_entropy(step(8.0), False, logits, target)


@pytest.mark.parametrize(
    ("status", "output", "expected"),
    [
        (0, "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n", "PASS"),
        (0, "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", "PASS"),
        (
            86,
            "========= Invalid __global__ read of size 4\n========= ERROR SUMMARY: 2 errors",
            "FAIL",
        ),
        (86, "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)", "FAIL"),
        (1, "Traceback\nRuntimeError: wrong\n========= ERROR SUMMARY: 0 errors", "FAIL"),
        (255, "========= Error: device not supported", "NOT RUN"),
        (1, "ModuleNotFoundError: no module", "NOT RUN"),
    ],
)
def test_verdict_of_the_sanitizer(status: int, output: str, expected: str) -> None:
    assert gpu_sanitizer.verdict(status, output)[0] == expected


def test_backends_that_cannot_run_are_named_with_their_reason() -> None:
    usable, reasons = usable_backends(torch.device("meta"))
    assert "reference" not in (*usable, *reasons)
    assert all(reasons.values())


@needs_native
def test_ours_is_the_public_function() -> None:
    logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    target = torch.arange(4)
    assert ours("native")(logits, target) == pc_lc_loss(logits, target, backend="native")
