"""What a measurement was made on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kompakt.errors import UsageError
from kompakt.measuring import environment as module
from kompakt.measuring.environment import environment, fingerprint, has_vnni, isa

ARM = """processor\t: 0
BogoMIPS\t: 100.00
Features\t: fp asimd evtstrm aes asimddp i8mm
CPU part\t: 0xd40
"""
X86 = """model name\t: Some Processor 9000
flags\t\t: fpu sse2 avx2 fma avx512f avx512_vnni amx_int8
"""


def test_everything_is_told_and_is_json() -> None:
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["cores"] >= found["usable_cores"] > 0
    assert found["memory_bytes"] > 1 << 28
    assert found["python"].count(".") == 2
    assert {"torch", "numpy", "onnx"} <= set(found["versions"])
    assert found["vnni"] == ("vnni" in found["isa"])


def test_nothing_heavy_is_imported_for_it() -> None:
    code = (
        "import sys; from kompakt.measuring.environment import environment; environment(); "
        "print([m for m in ('torch', 'onnxruntime', 'onnx', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_fingerprint_follows_processor_and_runtimes_not_load() -> None:
    found = environment()
    known = fingerprint(found)
    assert len(known) == 12
    assert fingerprint({**found, "load": 17.0, "memory_bytes": 5, "governor": "x"}) == known
    assert fingerprint({**found, "cpu": "another"}) != known
    newer = {**found["versions"], "onnxruntime": "99.0"}
    assert fingerprint({**found, "versions": newer}) != known


@pytest.mark.parametrize(
    ("machine", "flags", "name"),
    [
        ("x86_64", {"avx2", "avx512f", "avx512_vnni"}, "x86-vnni"),
        ("AMD64", {"avx2", "avx_vnni"}, "x86-vnni"),
        ("x86_64", {"avx2", "avx512f"}, "x86-avx512f"),
        ("x86_64", {"avx2"}, "x86-avx2"),
        ("x86_64", set(), "x86"),
        ("aarch64", {"neon", "dotprod", "i8mm"}, "arm-i8mm"),
        ("arm64", {"neon", "dotprod"}, "arm-dotprod"),
        ("armv7l", {"neon"}, "arm-neon"),
        ("riscv64", set(), "riscv64"),
    ],
)
def test_instruction_sets(
    machine: str, flags: set[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.platform, "machine", lambda: machine)
    assert isa(flags) == name
    assert has_vnni(flags) == ("vnni" in name)


@pytest.fixture
def cpuinfo(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    texts: dict[str, str] = {}
    monkeypatch.setattr(module, "_read", lambda path: texts.get(str(path), ""))
    return texts


def test_arm_flags_and_name(cpuinfo: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo["/proc/cpuinfo"] = ARM
    monkeypatch.setattr(module, "_numpy_features", dict)
    if not Path("/proc/cpuinfo").exists():
        pytest.skip("no /proc here")
    assert module.cpu_flags() == {"neon", "dotprod", "i8mm"}
    assert module.cpu_model().endswith("part 0xd40")


def test_an_emulator_does_not_pass_for_its_host(
    cpuinfo: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/cpuinfo").exists():
        pytest.skip("no /proc here")
    cpuinfo["/proc/cpuinfo"] = X86
    seen = {"AVX2": True, "AVX512F": False, "AVX512VNNI": False}
    monkeypatch.setattr(module, "_numpy_features", lambda: seen)
    assert module.cpu_flags() == {"avx2", "fma"}
    monkeypatch.setattr(module, "_numpy_features", dict)
    assert has_vnni(module.cpu_flags())
    assert module.cpu_model() == "Some Processor 9000"


def test_a_container_quota_counts(cpuinfo: dict[str, str]) -> None:
    cpuinfo["/sys/fs/cgroup/cpu.max"] = "50000 100000\n"
    assert module.usable_cores() == 0.5
    cpuinfo["/sys/fs/cgroup/cpu.max"] = "max 100000\n"
    assert module.usable_cores() >= 1


def test_an_instruction_set_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        module.resolved_isa("banana")
    assert caught.value.code == "K001"
    assert "x86-vnni" in str(caught.value.help)


def test_every_instruction_set_of_a_machine_may_be_asked_for() -> None:
    assert module.resolved_isa("auto") in module.ISAS
    for name in module.ISAS:
        assert module.resolved_isa(name) == name
    assert module.resolved_isa("avx2") == "x86-avx2"
    assert module.resolved_isa("vnni") == "x86-vnni"
