"""Who may import whom: the rules that keep the parts replaceable and ``import pclc_fast`` cheap.

Every rule is a function that returns the breaches it finds. The first tests hold the rules; the
second break them one at a time in a copy of the sources and see that exactly that rule notices.
"""

from __future__ import annotations

import ast
import functools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "pclc_fast"
HEAVY = ["jinja2", "matplotlib", "numpy", "rich", "sklearn", "torchvision", "triton", "tyro"]


@functools.cache
def _nodes(text: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(text)))


def nodes(file: Path) -> list[ast.AST]:
    return _nodes(file.read_text(encoding="utf-8"))


def imports(file: Path, root: Path) -> Iterator[str]:
    """Everything that a file imports, at any depth, as absolute dotted names."""
    package = file.relative_to(root).parent.parts
    for node in nodes(file):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def within(name: str, *modules: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def sources(root: Path, but: str = "") -> Iterator[Path]:
    """The Python files of the package, without those in the folder or file ``but``."""
    excluded = root / PACKAGE / but
    for file in sorted((root / PACKAGE).rglob("*.py")):
        if not but or (file != excluded and excluded not in file.parents):
            yield file


def breaches(root: Path, files: Iterable[Path], forbidden: Callable[[str], bool]) -> list[str]:
    return [
        f"{file.relative_to(root).as_posix()} imports {name}"
        for file in files
        for name in imports(file, root)
        if forbidden(name)
    ]


def reference_imports_nothing_of_ours(root: Path) -> list[str]:
    reference = root / PACKAGE / "reference.py"
    return breaches(root, [reference], lambda name: within(name, PACKAGE))


def backends_do_not_import_each_other(root: Path) -> list[str]:
    files = sorted((root / PACKAGE / "backends").glob("*.py"))
    modules = {file: f"{PACKAGE}.backends.{file.stem}" for file in files}
    found = []
    for file in files:
        others = [name for other, name in modules.items() if backend_of(other) != backend_of(file)]
        found += breaches(root, [file], functools.partial(_is_one_of, others))
    return found


def backend_of(file: Path) -> str:
    """The backend that a file is part of: triton.py and triton_kernels.py are of one."""
    return file.stem.partition("_")[0]


def _is_one_of(modules: list[str], name: str) -> bool:
    return within(name, *modules)


def _touch_a_compiled_module(root: Path, module: str, owner: str) -> list[str]:
    """What others than the backend ``owner`` do with ``pclc_fast.module``."""
    files = list(sources(root, but=f"backends/{owner}.py"))
    found = breaches(root, files, lambda name: within(name, f"{PACKAGE}.{module}"))
    for file in files:
        for node in nodes(file):
            by_name = isinstance(node, ast.Constant) and node.value == f"{PACKAGE}.{module}"
            if by_name or (
                isinstance(node, ast.Attribute)
                and node.attr == module
                and ast.unparse(node.value) != "torch"
            ):
                found.append(f"{file.name} reaches for {ast.unparse(node)}")
    return found


def only_native_touches_the_cpu_module(root: Path) -> list[str]:
    return _touch_a_compiled_module(root, "_C", "native")


def only_cuda_touches_the_cuda_module(root: Path) -> list[str]:
    return _touch_a_compiled_module(root, "_cuda", "cuda")


def lab_uses_the_public_surface(root: Path) -> list[str]:
    allowed = {PACKAGE, f"{PACKAGE}.__version__"}
    for node in nodes(root / PACKAGE / "__init__.py"):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            allowed |= {f"{PACKAGE}.{name}" for name in ast.literal_eval(node.value)}
    return breaches(
        root,
        sorted((root / PACKAGE / "lab").rglob("*.py")),
        lambda name: (
            within(name, PACKAGE) and name not in allowed and not within(name, f"{PACKAGE}.lab")
        ),
    )


def core_does_not_import_the_lab_or_what_it_needs(root: Path) -> list[str]:
    forbidden = [f"{PACKAGE}.lab", *(name for name in HEAVY if name != "triton")]
    return breaches(root, sources(root, but="lab"), lambda name: within(name, *forbidden))


def _includes(root: Path, pattern: str) -> Iterator[tuple[str, str]]:
    for file in sorted(path for path in (root / "csrc").rglob("*") if path.is_file()):
        text = file.read_text(encoding="utf-8")
        for header in re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', text, re.MULTILINE):
            if re.match(pattern, header):
                yield file.name, f"{file.name} includes {header}"


def only_modules_see_python(root: Path) -> list[str]:
    found = _includes(root, r"Python\.h|pybind11/|structmember\.h|nanobind/")
    return [breach for name, breach in found if name not in ("module.cpp", "module_cuda.cpp")]


def kernels_do_not_see_libtorch(root: Path) -> list[str]:
    return [breach for _, breach in _includes(root, r"torch/|ATen/|c10/")]


RULES = {
    rule.__name__: rule
    for rule in (
        reference_imports_nothing_of_ours,
        backends_do_not_import_each_other,
        only_native_touches_the_cpu_module,
        only_cuda_touches_the_cuda_module,
        lab_uses_the_public_surface,
        core_does_not_import_the_lab_or_what_it_needs,
        only_modules_see_python,
        kernels_do_not_see_libtorch,
    )
}

# Imports the package from one root, an editable installation or not, and says what came.
_PROBE = """
import importlib.abc, importlib.machinery, json, sys

class Recorder(importlib.abc.MetaPathFinder):
    names = []

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "pclc_fast":
            self.names.append(name)
            return importlib.machinery.PathFinder.find_spec(name, path)
        if name == "torch":
            self.names.append(name)

root, torch_first = sys.argv[1], sys.argv[2] == "torch first"
sys.path.insert(0, root)
sys.meta_path.insert(0, Recorder())
if torch_first:
    import torch
before = set(sys.modules)
import pclc_fast
print(json.dumps([Recorder.names, sorted(set(sys.modules) - before)]))
"""


def probe(root: Path, order: str, tmp_path: Path) -> tuple[list[str], list[str]]:
    """Import in a fresh process; what was looked for in which order, and which modules are new."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, str(root), order],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    looked_for, new = json.loads(done.stdout)
    return looked_for, new


def imported_before_torch(looked_for: list[str]) -> list[str]:
    """What of ours came before torch, whose OpenMP runtime the compiled module is to share."""
    return [name for name in looked_for[: looked_for.index("torch")] if name != PACKAGE]


def brought_in(new: list[str]) -> list[str]:
    """Which modules came with us and not with torch, and should not have."""
    forbidden = [f"{PACKAGE}.lab", *HEAVY]
    return [name for name in new if within(name, *forbidden)]


def test_importing_pclc_fast_imports_torch_first(tmp_path: Path) -> None:
    looked_for, _ = probe(ROOT, "as it is", tmp_path)
    assert f"{PACKAGE}.backends.native" in looked_for
    assert imported_before_torch(looked_for) == []


def test_importing_pclc_fast_brings_in_nothing_heavy(tmp_path: Path) -> None:
    _, new = probe(ROOT, "torch first", tmp_path)
    assert PACKAGE in new
    assert brought_in(new) == []


@pytest.mark.parametrize("rule", RULES)
def test_sources_keep_the_rule(rule: str) -> None:
    assert RULES[rule](ROOT) == []


def test_the_rules_see_what_they_are_about() -> None:
    assert f"{PACKAGE}.options.make_options" in imports(ROOT / PACKAGE / "loss.py", ROOT)
    assert f"{PACKAGE}._C" in imports(ROOT / PACKAGE / "backends" / "native.py", ROOT)
    assert ("module.cpp", "module.cpp includes pybind11/pybind11.h") in _includes(ROOT, "pybind11")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the sources that a test can spoil."""
    root = tmp_path / "copy"
    ignore = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / PACKAGE, root / PACKAGE, ignore=ignore)
    shutil.copytree(ROOT / "csrc", root / "csrc")
    for name in ("other", "third"):
        (root / PACKAGE / "backends" / f"{name}.py").write_text("")
    (root / PACKAGE / "lab").mkdir(exist_ok=True)
    (root / PACKAGE / "lab" / "spoiled.py").write_text("")
    return root


@pytest.mark.parametrize(
    ("rule", "file", "line"),
    [
        ("reference_imports_nothing_of_ours", "reference.py", "from .tensors import LOGIT_DTYPES"),
        ("reference_imports_nothing_of_ours", "reference.py", "def f(): import pclc_fast.loss"),
        ("backends_do_not_import_each_other", "backends/other.py", "from . import native"),
        ("backends_do_not_import_each_other", "backends/native.py", "from .other import x"),
        (
            "backends_do_not_import_each_other",
            "backends/other.py",
            "from ..backends.third import x",
        ),
        ("backends_do_not_import_each_other", "backends/triton_row.py", "from . import native"),
        ("backends_do_not_import_each_other", "backends/native.py", "from .triton_row import x"),
        ("only_native_touches_the_cpu_module", "loss.py", "from . import _C"),
        ("only_native_touches_the_cpu_module", "backends/other.py", "from .._C import x"),
        ("only_native_touches_the_cpu_module", "lab/spoiled.py", "name = 'pclc_fast._C'"),
        ("only_native_touches_the_cpu_module", "dispatch.py", "native._C.forward_cpu"),
        ("only_cuda_touches_the_cuda_module", "backends/other.py", "from .._cuda import x"),
        ("only_cuda_touches_the_cuda_module", "dispatch.py", "cuda._cuda.forward_cuda"),
        ("lab_uses_the_public_surface", "lab/spoiled.py", "from pclc_fast.options import Options"),
        ("lab_uses_the_public_surface", "lab/spoiled.py", "from .. import dispatch"),
        ("lab_uses_the_public_surface", "lab/spoiled.py", "from ..tensors import check_targets"),
        ("lab_uses_the_public_surface", "lab/spoiled.py", "import pclc_fast.autograd as a"),
        ("core_does_not_import_the_lab_or_what_it_needs", "loss.py", "import numpy as np"),
        ("core_does_not_import_the_lab_or_what_it_needs", "loss.py", "def f(): from . import lab"),
        ("core_does_not_import_the_lab_or_what_it_needs", "tensors.py", "import torchvision.io"),
        ("only_modules_see_python", "../csrc/pclc_cpu.cpp", "#include <Python.h>"),
        ("only_modules_see_python", "../csrc/pclc_cuda.cu", "#include <pybind11/pybind11.h>"),
        ("only_modules_see_python", "../csrc/pclc.h", "  # include <pybind11/numpy.h>"),
        ("kernels_do_not_see_libtorch", "../csrc/module.cpp", "#include <torch/extension.h>"),
        ("kernels_do_not_see_libtorch", "../csrc/pclc_row.h", '#include "c10/util/Half.h"'),
    ],
)
def test_breaking_a_rule_is_noticed(rule: str, file: str, line: str, copy: Path) -> None:
    assert [name for name, check in RULES.items() if check(copy)] == []
    with (copy / PACKAGE / file).open("a", encoding="utf-8") as spoiled:
        spoiled.write(f"\n{line}\n")
    assert [name for name, check in RULES.items() if check(copy)] == [rule]


def test_the_lab_may_use_what_is_public(copy: Path) -> None:
    allowed = "import pclc_fast\nfrom pclc_fast import PCLCLoss\nfrom . import spoiled\n"
    (copy / PACKAGE / "lab" / "spoiled.py").write_text(allowed)
    assert lab_uses_the_public_surface(copy) == []


def test_an_import_before_torch_and_a_heavy_one_are_noticed(copy: Path, tmp_path: Path) -> None:
    init = copy / PACKAGE / "__init__.py"
    (copy / PACKAGE / "early.py").write_text("")
    (copy / "triton").mkdir()
    (copy / "triton" / "__init__.py").write_text("import triton.language\n")
    (copy / "triton" / "language.py").write_text("")
    init.write_text(f"from . import early\n{init.read_text(encoding='utf-8')}\nimport triton\n")
    (copy / PACKAGE / "lab" / "__init__.py").write_text("")
    with init.open("a", encoding="utf-8") as spoiled:
        spoiled.write("from . import lab\n")
    looked_for, new = probe(copy, "as it is", tmp_path)
    assert imported_before_torch(looked_for) == [f"{PACKAGE}.early"]
    assert {f"{PACKAGE}.lab", "triton", "triton.language"} <= set(brought_in(new))
