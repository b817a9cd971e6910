"""What a measurement was made on: processor, software, load."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from kompakt.errors import UsageError

ISAS = (
    *("any", "x86", "x86-avx2", "x86-avx512f", "x86-vnni"),
    *("arm", "arm-neon", "arm-dotprod", "arm-i8mm"),
)
"""Instruction sets to write for; each is what :func:`isa` finds on some machine, or a family of them."""
PACKAGES = (
    "kompakt",
    "torch",
    "numpy",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "ai-edge-litert",
    "transformers",
)
ISA_ALIASES = {"avx2": "x86-avx2", "avx512": "x86-avx512f", "vnni": "x86-vnni"}
"""Short names of instruction sets."""
_X86_FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
)
_ARM_FLAGS = {"asimd": "neon", "neon": "neon", "asimddp": "dotprod", "i8mm": "i8mm", "sve": "sve"}
_MAC_FLAGS = {"AdvSIMD": "neon", "FEAT_DotProd": "dotprod", "FEAT_I8MM": "i8mm"}
_NUMPY_NAMES = {"avx2": "AVX2", "avx512f": "AVX512F", "avx512_vnni": "AVX512VNNI"}


def environment() -> dict[str, Any]:
    """Describe this machine and what runs on it, for a record.

    Nothing is imported for it but what already is; versions come from package metadata.

    Returns:
        ``cpu``, ``machine``, ``isa``, ``vnni``, ``flags``, ``cores``, ``usable_cores``,
        ``threads`` (of torch, if imported), ``governor``, ``load`` (1 minute), ``memory_bytes``,
        ``os``, ``python`` and ``versions``; ``None`` for what cannot be known.
    """
    flags = cpu_flags()
    return {
        "cpu": cpu_model(),
        "machine": platform.machine(),
        "isa": isa(flags),
        "vnni": has_vnni(flags),
        "flags": sorted(flags),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "threads": _torch_threads(),
        "governor": _governor(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "memory_bytes": _memory_bytes(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
    }


def fingerprint(env: Mapping[str, Any]) -> str:
    """Short hash of what decides speed and codes: processor, its flags, cores, runtime versions.

    Two records with different fingerprints may be compared in accuracy, not in latency.
    """
    runtimes = {
        name: env["versions"].get(name)
        for name in ("torch", "onnxruntime", "openvino", "ai-edge-litert")
    }
    identity = [env[key] for key in ("cpu", "machine", "flags", "usable_cores")]
    text = json.dumps([identity, runtimes], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def cpu_flags() -> frozenset[str]:
    """The processor's extensions that matter for integer kernels, by their Linux names.

    On ARM ``neon``, ``dotprod``, ``i8mm`` and ``sve``.
    """
    found = _cpuinfo_flags() if Path("/proc/cpuinfo").exists() else _mac_flags()
    seen = _numpy_features()
    # Under an emulator /proc/cpuinfo tells of the host; numpy asks the processor it runs on.
    denied = {flag for flag, name in _NUMPY_NAMES.items() if seen.get(name) is False}
    if found & denied:
        found = found - denied - {"avx_vnni", "amx_int8", "amx_bf16", "avx512_bf16"}
    return frozenset(found)


def has_vnni(flags: frozenset[str] | set[str]) -> bool:
    """Whether x86 multiplies 8-bit integers without 16-bit saturation."""
    return bool({"avx512_vnni", "avx_vnni", "amx_int8"} & flags)


def isa(flags: frozenset[str] | set[str]) -> str:
    """The instruction set that decides which integer kernels run, for instance ``x86-vnni``."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64", "i686", "i386", "x86"):
        if has_vnni(flags):
            return "x86-vnni"
        return next((f"x86-{name}" for name in ("avx512f", "avx2") if name in flags), "x86")
    if machine.startswith(("arm", "aarch")):
        return next((f"arm-{name}" for name in ("i8mm", "dotprod", "neon") if name in flags), "arm")
    return machine or "unknown"


def resolved_isa(asked: str) -> str:
    """The instruction set to write for: ``auto`` is this machine's.

    Raises:
        UsageError: K001 when there is none of that name.
    """
    if asked == "auto":
        return isa(cpu_flags())
    asked = ISA_ALIASES.get(asked, asked)
    if asked not in ISAS:
        raise UsageError(
            "K001",
            f"the instruction set {asked!r}",
            why="there is none of that name",
            help=f"use auto, {', '.join((*ISA_ALIASES, *ISAS))}",
        )
    return asked


def cpu_model() -> str:
    """The processor's name."""
    text = _read(Path("/proc/cpuinfo"))
    match = re.search(r"^(?:model name|Hardware|cpu model)\s*:\s*(.+)$", text, re.MULTILINE)
    if match:
        return match[1].strip()
    part = re.search(r"^CPU part\s*:\s*(.+)$", text, re.MULTILINE)
    if part:
        return f"{platform.machine()} part {part[1].strip()}"
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def usable_cores() -> float | None:
    """Processor cores this process may use: affinity, and the quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = re.fullmatch(r"(\d+) (\d+)\s*", _read(Path("/sys/fs/cgroup/cpu.max")))
    if quota and allowed:
        return round(min(float(allowed), int(quota[1]) / int(quota[2])), 2)
    return allowed


def versions() -> dict[str, str]:
    """Versions of the packages that matter, where installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpuinfo_flags() -> set[str]:
    text = _read(Path("/proc/cpuinfo"))
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    names = set(match[1].split()) if match else set()
    return {name for name in _X86_FLAGS if name in names} | {
        ours for theirs, ours in _ARM_FLAGS.items() if theirs in names
    }


def _mac_flags() -> set[str]:
    if sys.platform != "darwin":
        return set()
    found = {ours for name, ours in _MAC_FLAGS.items() if _sysctl(f"hw.optional.arm.{name}") == "1"}
    old = (_sysctl("machdep.cpu.features") + " " + _sysctl("machdep.cpu.leaf7_features")).lower()
    return found | {name for name in _X86_FLAGS if name in old.split()}


def _numpy_features() -> dict[str, bool]:
    try:
        features = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    except (ImportError, AttributeError):  # a private place, which may move
        return {}
    return dict(features)


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(
            ["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _torch_threads() -> int | None:
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else None


def _governor() -> str | None:
    return _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")).strip() or None


def _memory_bytes() -> int | None:
    match = re.search(r"^MemTotal:\s+(\d+) kB", _read(Path("/proc/meminfo")), re.MULTILINE)
    if match:
        return int(match[1]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
