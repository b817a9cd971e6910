"""A run that is killed, or whose disk fails, at any system call: the old artifact or the new one.

strace counts the calls that change files while an artifact is written, then the same program runs
again and again and dies, or gets an error, at the first, second, … of them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from kompakt.artifact import open_artifact

CHILD = Path(__file__).with_name("child.py")
CHANGING = (
    "openat", "mkdir", "mkdirat", "write", "pwrite64", "sendfile", "copy_file_range", "ftruncate",
    "fsync", "fdatasync", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "flock",
)  # fmt: skip
#: After an error in one of these something hidden may stay, until the next run.
CLEANING = ("unlink", "unlinkat", "rmdir", "flock")
SCENES = {
    "fresh": (False, ()),
    "replace": (True, ()),
    "replace by two renames": (True, ("--no-exchange",)),
}
EVERY_NTH = 13


@dataclass(frozen=True)
class Call:
    """The ``number``-th call of a system call in the traced program."""

    name: str
    number: int


@cache
def strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    return (
        subprocess.run(["strace", "-e", "trace=none", "true"], capture_output=True).returncode == 0
    )


@pytest.fixture(autouse=True)
def _strace() -> None:
    if not strace_works():
        pytest.skip("strace is not installed or may not trace here")


def traced(
    folder: Path, options: tuple[str, ...], *strace: str
) -> subprocess.CompletedProcess[str]:
    """Write the variant ``new`` to ``folder / "out"`` under strace."""
    calls = ",".join(f"?{name}" for name in CHANGING)
    command = ["strace", "-f", "-qq", "-o", str(folder.parent / "trace"), "-e", f"trace={calls}"]
    program = [sys.executable, "-B", str(CHILD), str(folder / "out"), "new", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *strace, *program], capture_output=True, text=True, env=environment
    )


def prepared(child: ModuleType, tmp_path: Path, old: bool) -> Path:
    folder = tmp_path / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if old:
        child.write(folder / "out", "old")
    return folder


def file_calls(child: ModuleType, tmp_path: Path, scene: str) -> list[Call]:
    """Every call that touches a file of the run, in order."""
    old, options = SCENES[scene]
    folder = prepared(child, tmp_path, old)
    assert traced(folder, options).returncode == 0
    counts: dict[str, int] = {}
    found: list[Call] = []
    inside = False
    for line in (tmp_path / "trace").read_text().splitlines():
        match = re.match(r"\d+ +(\w+)\((.*)", line)
        if match is None:
            continue
        name, arguments = match.groups()
        counts[name] = counts.get(name, 0) + 1
        inside = (inside or "kompakt-test-begin" in arguments) and "test-end" not in arguments
        # the interpreter's own imports are no business of ours
        if inside and (name != "openat" or str(folder) in arguments):
            found.append(Call(name, counts[name]))
    assert {call.name for call in found} >= {"openat", "write", "fsync", "flock"}
    return found


def state(folder: Path) -> str | None:
    """Which artifact is there, complete; anything half-written fails the test."""
    left = folder / ".out.kompakt-old"
    if not (folder / "out").exists() and not left.exists():
        return None
    return str(open_artifact(folder / "out").record["variant"])


def finish(child: ModuleType, folder: Path, expected: dict[str, bytes]) -> None:
    """The same command again ends the job and leaves nothing else behind."""
    child.write(folder / "out", "new")
    assert contents(folder) == expected


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def killed_at(child: ModuleType, tmp_path: Path, scene: str, calls: list[Call]) -> None:
    old, options = SCENES[scene]
    before = "old" if old else None
    child.write(tmp_path / "reference" / "out", "new")
    expected = contents(tmp_path / "reference")
    seen = set()
    for call in calls:
        folder = prepared(child, tmp_path, old)
        inject = f"inject={call.name}:signal=SIGKILL:when={call.number}"
        assert traced(folder, options, "-e", inject).returncode in (-9, 137)
        if old and not options:
            assert (folder / "out").exists(), call
        found = state(folder)
        assert found in (before, "new"), call
        seen.add(found)
        finish(child, folder, expected)
    assert seen == {before, "new"}


def failed_at(
    child: ModuleType, tmp_path: Path, scene: str, calls: list[Call], error: str, onwards: bool
) -> None:
    old, options = SCENES[scene]
    before = "old" if old else None
    child.write(tmp_path / "reference" / "out", "new")
    expected = contents(tmp_path / "reference")
    for call in calls:
        folder = prepared(child, tmp_path, old)
        when = f"{call.number}+" if onwards else call.number
        run = traced(folder, options, "-e", f"inject={call.name}:error={error}:when={when}")
        assert run.stderr == "", (call, run.stderr)
        assert run.returncode in (0, 1), call
        assert re.fullmatch(r"K50[0-5]\n" if run.returncode else "", run.stdout), (call, run.stdout)
        assert state(folder) == (before if run.returncode else "new"), call
        if run.returncode and call.name not in CLEANING:
            left = [entry.name for entry in folder.iterdir()]
            assert left == (["out"] if old else []), call
        finish(child, folder, expected)


@pytest.mark.parametrize("scene", SCENES)
def test_killed_at_some_calls(child: ModuleType, tmp_path: Path, scene: str) -> None:
    calls = file_calls(child, tmp_path, scene)
    moving = [call for call in calls if call.name.startswith("rename")]
    killed_at(child, tmp_path, scene, moving + calls[::EVERY_NTH] + calls[-1:])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("scene", SCENES)
def test_killed_at_every_call(child: ModuleType, tmp_path: Path, scene: str) -> None:
    killed_at(child, tmp_path, scene, file_calls(child, tmp_path, scene))


@pytest.mark.parametrize(("error", "scene"), [("ENOSPC", "replace"), ("EIO", "fresh")])
def test_an_error_at_some_calls(child: ModuleType, tmp_path: Path, error: str, scene: str) -> None:
    calls = file_calls(child, tmp_path, scene)
    moving = [call for call in calls if call.name.startswith("rename")]
    failed_at(child, tmp_path, scene, moving + calls[4::EVERY_NTH], error, onwards=False)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EROFS", "EACCES"])
@pytest.mark.parametrize("scene", SCENES)
def test_an_error_at_every_call(child: ModuleType, tmp_path: Path, error: str, scene: str) -> None:
    calls = file_calls(child, tmp_path, scene)
    failed_at(child, tmp_path, scene, calls, error, onwards=False)


@pytest.mark.parametrize("name", ["write", "fsync"])
def test_a_disk_that_stays_full(child: ModuleType, tmp_path: Path, name: str) -> None:
    calls = [call for call in file_calls(child, tmp_path, "replace") if call.name == name]
    failed_at(child, tmp_path, "replace", calls[::4], "ENOSPC", onwards=True)


def test_a_disk_that_is_really_full(child: ModuleType, tmp_path: Path) -> None:
    script = """
        mount -t tmpfs -o size=44k none "$1" && "$2" -B "$3" "$1/out" old || exit 9
        cp -r "$1/out" "$4" && "$2" -B "$3" "$1/out" new
        echo "exit $?"; diff -r "$1/out" "$4" && ls -A "$1"
    """
    (tmp_path / "disk").mkdir()
    paths = [tmp_path / "disk", sys.executable, CHILD, tmp_path / "copy"]
    run = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", *map(str, paths)],
        capture_output=True,
        text=True,
    )
    if run.returncode == 9 or "unshare" in run.stderr:
        pytest.skip(f"no private tmpfs here: {run.stderr.strip()}")
    assert run.stdout.split() == ["K501", "exit", "1", "out"], run.stderr
    assert open_artifact(tmp_path / "copy").record["variant"] == "old"


@pytest.mark.parametrize("exchange", ["ENOSYS", "EINVAL"])
def test_a_system_without_exchange(child: ModuleType, tmp_path: Path, exchange: str) -> None:
    folder = prepared(child, tmp_path, old=True)
    run = traced(folder, (), "-e", f"inject=renameat2:error={exchange}")
    assert (run.returncode, run.stderr) == (0, "")
    assert state(folder) == "new"
    assert [entry.name for entry in folder.iterdir()] == ["out"]
