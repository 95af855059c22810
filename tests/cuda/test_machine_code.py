"""The check of the machine code reads what cuobjdump prints, and each of its rules can fail."""

from __future__ import annotations

import pytest
from machine_code import complaints, kernels_in, missing, named, without_vectors

SHARED = "_ZN4pclc6device14forward_sharedINS0_8BFloat16ELNS_6LcModeE1EEEvNS0_11ForwardCallIT_EE"
LANES = "_ZN4pclc6device13forward_lanesINS0_7Float32ELNS_6LcModeE2ELi16ELi8EEEvNS0_11ForwardCallE"


def usage(mangled: str, registers: int, stack: int = 0, shared: int = 1024, local: int = 0) -> str:
    return (
        f" Function {mangled}:\n  REG:{registers} STACK:{stack} SHARED:{shared} LOCAL:{local} "
        "CONSTANT[0]:656 TEXTURE:0 SURFACE:0 SAMPLER:0\n"
    )


def test_names_of_kernels() -> None:
    assert named(SHARED) == ("forward_shared", "BFloat16", "1", ())
    assert named(LANES) == ("forward_lanes", "Float32", "2", (16, 8))
    assert named("_ZN4pclc6device15prepare_weightsIfEEvNS0_4CallIT_EEPd") == (
        ("prepare_weights", "", "", ())
    )
    assert named("_ZN3cub11EmptyKernelIvEEvv") is None


def test_a_kernel_within_its_limits() -> None:
    (kernel,) = kernels_in("Fatbin elf code:\n" + usage(SHARED, 96))
    assert str(kernel) == "forward_shared<BFloat16, 1>"
    assert complaints(kernel) == []


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ({"registers": 96, "stack": 8}, "8 bytes of stack, at most 0"),
        ({"registers": 96, "local": 16}, "16 bytes of stack, at most 0"),
        ({"registers": 97}, "97 registers leave room for 19 warps, at least 20"),
        ({"registers": 64, "shared": 2048}, "2048 bytes of static shared memory"),
    ],
)
def test_a_kernel_over_a_limit(limits: dict[str, int], complaint: str) -> None:
    (kernel,) = kernels_in(usage(SHARED, **limits))
    (found,) = complaints(kernel)
    assert complaint in found


def test_kernels_that_are_missing() -> None:
    found = missing(kernels_in(usage(SHARED, 96)))
    assert "forward_shared<BFloat16, 1> is missing" not in found
    assert "forward_shared<BFloat16, 0> is missing" in found
    assert "prepare_weights<, > is missing" in found


def test_kernels_that_do_not_move_vectors() -> None:
    good = f"Function : {SHARED}\n /*0010*/ LDGSTS.E.BYPASS.128 [R4] ;\n /*0020*/ STG.E.128 ;\n"
    assert without_vectors(good) == []
    assert without_vectors(good.replace("STG.E.128", "STG.E.64")) == [
        r"forward_shared<BFloat16, 1>: no STG\.E\.128"
    ]
    assert without_vectors(f"Function : {LANES}\n /*0010*/ LDG.E R4 ;\n") == []
