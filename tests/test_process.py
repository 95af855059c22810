"""What the package does to the process it is imported into, each in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pclc_fast import backends

needs_native = pytest.mark.skipif(
    not backends()["native"].usable, reason="the compiled module is not there"
)

# A problem of 512 x 1000, large enough for two threads, and its loss and gradient as bytes.
_PROBLEM = """
import hashlib, json, os, signal, sys, threading, warnings
import torch
from pclc_fast import backends, pc_lc_loss

torch.manual_seed(0)
target = torch.randint(1000, (512,))

def logits(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    rows = 3 * torch.randn(512, 1000, generator=generator, dtype=torch.float64)
    rows[torch.arange(512), target] += 12
    return rows.to(dtype).requires_grad_()

def digest(tensor):
    octets = tensor.detach().reshape(-1).view(torch.uint8)
    return hashlib.sha256(octets.numpy()).hexdigest()

def loss_and_gradient(rows, **options):
    loss = pc_lc_loss(rows, target, **options)
    (gradient,) = torch.autograd.grad(loss.sum(), rows)
    return digest(loss), digest(gradient)
"""


def run(script: str, tmp_path: Path, timeout: float = 120, setup: str = _PROBLEM) -> Any:
    """Run a script and return the object that it prints last, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", setup + script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _links_openmp() -> bool:
    spec = importlib.util.find_spec("pclc_fast._C")
    return bool(spec and spec.origin and b"libgomp" in Path(spec.origin).read_bytes())


@needs_native
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc/self/maps")
@pytest.mark.skipif(not _links_openmp(), reason="the compiled module was built without OpenMP")
def test_one_openmp_runtime_is_mapped(tmp_path: Path) -> None:
    script = """
torch.set_num_threads(2)
loss_and_gradient(logits())
with open("/proc/self/maps") as maps:
    paths = {line.split(maxsplit=5)[5].strip() for line in maps if "/" in line}
runtimes = ("libgomp", "libomp", "libiomp")
print(json.dumps([path for path in paths if os.path.basename(path).startswith(runtimes)]))
"""
    assert len(run(script, tmp_path)) == 1


_SUBNORMALS = """
def survive():
    one = 1.0
    double = 1e-310 * one == 1e-310 and 1e-310 > 0
    few = torch.full((7,), 1e-40)
    many = torch.full((1 << 20,), 1e-40)  # enough for torch to use its threads, which are ours
    return double and all(bool((values * one == 1e-40).all()) for values in (few, many))

torch.set_num_threads(2)
at_first = survive()
loss_and_gradient(logits())
CHANGE
results = [at_first, survive()]
thread = threading.Thread(target=lambda: (loss_and_gradient(logits()), results.append(survive())))
thread.start()
thread.join()
print(json.dumps(results))
"""


def test_the_floating_point_mode_is_unchanged(tmp_path: Path) -> None:
    assert run(_SUBNORMALS.replace("CHANGE", ""), tmp_path) == [True, True, True]


def test_a_changed_floating_point_mode_is_noticed(tmp_path: Path) -> None:
    changed = _SUBNORMALS.replace("CHANGE", "supported = torch.set_flush_denormal(True)")
    supported = "results = results if supported else [True, False, False]\nprint("
    assert run(changed.replace("print(", supported), tmp_path)[:2] == [True, False]


@needs_native
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_finishes_with_the_same_bits(tmp_path: Path) -> None:
    """OpenMP threads do not survive fork: a parallel region in the child would hang."""
    script = """
rows = logits()
torch.set_num_threads(2)
expected = loss_and_gradient(rows)
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    signal.alarm(30)  # a hang ends here and not with the parent
    os.write(writer, json.dumps(loss_and_gradient(rows)).encode())
    os._exit(0)
os.close(writer)
status = os.waitpid(child, 0)[1]
with os.fdopen(reader) as results:
    got = results.read()
print(json.dumps([status, json.loads(got or "null") == list(expected)]))
"""
    assert run(script, tmp_path) == [0, True]


def test_the_number_of_threads_changes_no_bit(tmp_path: Path) -> None:
    script = """
results = {}
for threads in (1, 2):
    torch.set_num_threads(threads)
    results[threads] = [
        loss_and_gradient(logits(dtype), reduction=reduction, lc_mode=lc_mode)
        for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
        for reduction in ("mean", "none")
        for lc_mode in ("hard", "soft", "all")
    ]
print(json.dumps([len(results[1]), results[1] == results[2]]))
"""
    assert run(script, tmp_path) == [24, True]


_MISSING = {
    "absent": "sys.modules['pclc_fast._C'] = None",
    "broken": """
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "pclc_fast._C":
            raise ImportError("libgomp.so.1: cannot open shared object file")
sys.meta_path.insert(0, Broken())
""",
}


@pytest.mark.parametrize(
    ("missing", "reason"),
    [("absent", "pclc_fast._C"), ("broken", "libgomp.so.1: cannot open shared object file")],
)
def test_without_the_compiled_module_the_reference_runs(
    missing: str, reason: str, tmp_path: Path
) -> None:
    script = """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(5):
        got = loss_and_gradient(logits(torch.float64))
        pc_lc_loss(torch.zeros(2, 3), torch.tensor([0, 1]), reduction="sum")
same = got == loss_and_gradient(logits(torch.float64), backend="reference")
try:
    pc_lc_loss(torch.zeros(2, 3), torch.tensor([0, 1]), backend="native")
except RuntimeError as error:
    refusal = str(error)
warned = [(warning.category.__name__, str(warning.message)) for warning in caught]
print(json.dumps([same, warned, list(backends()["native"]), refusal]))
"""
    setup = f"import sys\n{_MISSING[missing]}\n{_PROBLEM}"
    same, warned, (usable, why), refusal = run(script, tmp_path, setup=setup)
    assert same
    assert [category for category, _ in warned] == ["RuntimeWarning"]
    assert not usable
    for message in (warned[0][1], why, refusal):
        assert reason in message
    assert "native" in refusal
