"""The installed package on x86-64 processors that this machine is not.

An instruction outside the level in use kills the process on an older processor, and no result on a
newer one can show it. So the machine code is read: which function holds which instructions. And it
runs on an emulated Haswell (AVX2) and Nehalem (neither AVX2 nor FMA) under `qemu-x86_64`, Debian's
`qemu-user` from 7.2 on. This file is also the program that runs there: it computes every function
on small arrays and prints hashes of the results, to be compared with those of a run here.

What the right values are is not known here.
"""

import hashlib
import itertools
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import softxent as sx
from softxent import _core

EMULATOR = shutil.which("qemu-x86_64")
OBJDUMP = shutil.which("objdump")
pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="this is no x86-64")
emulated = pytest.mark.skipif(EMULATOR is None, reason="needs qemu-x86_64 (Debian: qemu-user)")

# The only functions outside the levels with instructions that not every x86-64 has: both libraries
# ask the processor before they call them.
SELF_DETECTING = ("4half8binary164arch3x86", "4math4arch3x86", "9libm_math4arch3x86")

DTYPES = (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)
# One class; part of a vector; a whole one; vectors and a tail; a row that is cut in pieces.
COLUMNS = (1, 7, 16, 257, 16_411)
# As they are, so that one thread writes to the caches; and so that several write past them.
THRESHOLDS = ((None, None, None), (0, 0, 64))


def compute() -> dict[str, str]:
    """Every function's result, as a hash, by the name of the case."""
    hashes: dict[str, str] = {}
    for columns, dtype, thresholds in itertools.product(COLUMNS, DTYPES, THRESHOLDS):
        # Multiples of 1/16 within +-16 are exact in all dtypes. (NumPy's normal numbers come from
        # logarithms whose last digit may depend on the processor.)
        random = np.random.default_rng(columns)
        logits = (random.integers(-256, 256, size=(3, columns)) / 16).astype(dtype)
        logits[1, : columns // 2] = -np.inf
        targets = random.integers(columns, size=3)
        targets[2] = -100
        _core._set_thresholds(*thresholds)
        loss, grad = sx.cross_entropy_with_grad(logits, targets, temperature=1.5, threads=2)
        hidden = np.maximum(logits, dtype(-16))
        of_layer, slopes = sx.linear_cross_entropy_with_grad(
            hidden, hidden[::-1], [0, 2, -100], hidden[:, 0], threads=2
        )
        layer = [np.asarray(part) for part in (of_layer, *slopes)]
        outputs = {
            "layer": np.concatenate([part.astype(np.float64).ravel() for part in layer]),
            "loss": loss,
            "grad": grad,
            "losses": sx.cross_entropy(logits, targets, reduction="none", threads=2),
            "softmax": sx.softmax(logits, threads=2),
            "softmax of columns": sx.softmax(logits, axis=0, threads=2),
            "log_softmax": sx.log_softmax(logits, threads=2),
            "logsumexp": sx.logsumexp(logits, threads=2),
        }
        for name, output in outputs.items():
            case = f"{name}, {logits.dtype} (3, {columns}), {thresholds}"
            hashes[case] = hashlib.sha256(output.tobytes()).hexdigest()
    return hashes


def run(
    folder: Path, cpu: str | None = None, isa: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run this file as a program: on the emulated `cpu`, with the level `isa`, where named."""
    emulator = [] if cpu is None else [str(EMULATOR), "-cpu", cpu]
    environment = {name: value for name, value in os.environ.items() if name != "SOFTXENT_ISA"}
    if isa is not None:
        environment["SOFTXENT_ISA"] = isa
    if cpu is not None:
        # On an AMD processor NumPy's OpenBLAS takes the emulated Nehalem for one with AVX.
        environment["OPENBLAS_CORETYPE"] = cpu
    # -I: what is imported is the installed package, wherever the tests were started. The folder is
    # where the emulator leaves a core file when it dies.
    command = [*emulator, sys.executable, "-I", __file__]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def level_and_hashes(
    folder: Path, cpu: str | None = None, isa: str | None = None
) -> tuple[str, dict[str, str]]:
    """Run this file as a program and read what it prints: the level, and the hashes."""
    process = run(folder, cpu, isa)
    assert process.returncode != -signal.SIGILL, (
        f"on {cpu}: an instruction that the level in use does not have"
    )
    assert process.returncode == 0, f"on {cpu}: exit {process.returncode}\n{process.stderr}"
    found = json.loads(process.stdout.splitlines()[-1])
    return found["isa"], found["hashes"]


def differing(hashes: dict[str, str], expected: dict[str, str]) -> list[str]:
    """The cases whose results are not the same bit for bit."""
    assert hashes.keys() == expected.keys()
    return [case for case in hashes if hashes[case] != expected[case]]


@pytest.mark.skipif(OBJDUMP is None, reason="needs objdump (Debian: binutils)")
def test_instructions_stay_inside_the_functions_of_their_level() -> None:
    listing = subprocess.run(
        [str(OBJDUMP), "--disassemble", "--no-show-raw-insn", str(_core.__file__)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    function = ""
    with_avx: set[str] = set()
    with_avx512: set[str] = set()
    for line in listing.splitlines():
        if line.endswith(">:"):
            function = line
        _, _, instruction = line.partition("\t")
        # Every AVX instruction begins with v; AVX-512 adds 512-bit, mask and upper registers.
        if instruction.startswith("v"):
            with_avx.add(function)
        if re.search(r"%zmm|%k[0-7]\b|%[xy]mm(1[6-9]|2\d|3[01])\b", instruction):
            with_avx512.add(function)

    in_avx512 = {name for name in with_avx if "avx512" in name}
    # The loops of the crate gemm are in modules of their level too; that of AVX2 is called after FMA.
    in_avx2 = {name for name in with_avx if "avx2" in name or "11microkernel3fma" in name}
    assert in_avx2, "no function of the level: was the library stripped of its symbols?"
    assert in_avx512 & with_avx512
    assert with_avx512 - in_avx512 == set()
    elsewhere = with_avx - in_avx512 - in_avx2
    assert [name for name in elsewhere if not any(part in name for part in SELF_DETECTING)] == []


@emulated
def test_haswell_computes_the_same_bits_with_avx2(tmp_path: Path) -> None:
    here, expected = level_and_hashes(tmp_path)
    there, hashes = level_and_hashes(tmp_path, cpu="Haswell")
    assert there == "avx2"
    if here == "portable":
        pytest.skip("this processor has no AVX2 to compare with")
    assert differing(hashes, expected) == []


@emulated
def test_nehalem_computes_the_same_bits_as_the_portable_level_here(tmp_path: Path) -> None:
    _, expected = level_and_hashes(tmp_path, isa="portable")
    there, hashes = level_and_hashes(tmp_path, cpu="Nehalem")
    assert there == "portable"
    assert differing(hashes, expected) == []


@emulated
@pytest.mark.parametrize(("cpu", "isa"), [("Haswell", "avx512"), ("Nehalem", "avx2")])
def test_a_level_that_the_processor_lacks_fails_the_import(
    tmp_path: Path, cpu: str, isa: str
) -> None:
    process = run(tmp_path, cpu, isa)
    assert process.returncode == 1
    message = process.stderr.splitlines()[-1]
    assert message.startswith("ImportError: SOFTXENT_ISA: ")
    assert message.endswith(f"on this processor, got {isa}")


if __name__ == "__main__":
    print(json.dumps({"isa": sx.show_runtime()["isa"], "hashes": compute()}))
