"""Who may write where: one run at a time, never over anything that is not an artifact."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from kompakt.artifact import Artifact, claim_output, open_artifact, output, swap
from kompakt.artifact.output import writing_errors
from kompakt.errors import ArtifactError, OutputError
from kompakt.progress import Event, listening

HOLDER = """
import sys, time
from kompakt.artifact import claim_output
with claim_output(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def _hear_interrupts() -> None:
    # A suite started in the background ignores Ctrl-C, and its children would inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def held(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds ``tmp_path / "out"``."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "out")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=_hear_interrupts
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_is_refused(
    child: ModuleType, tmp_path: Path, held: subprocess.Popen[str]
) -> None:
    with pytest.raises(OutputError, match=f"process {held.pid}") as caught:
        child.write(tmp_path / "out")
    assert caught.value.code == "K503"
    child.write(tmp_path / "other")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_frees_its_output(
    child: ModuleType, tmp_path: Path, held: subprocess.Popen[str], how: signal.Signals
) -> None:
    held.send_signal(how)
    held.wait()
    child.write(tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_threads_exclude_each_other_too(tmp_path: Path) -> None:
    codes: list[str] = []

    def second() -> None:
        try:
            with claim_output(tmp_path / "out"):
                codes.append("none")
        except OutputError as error:
            codes.append(error.code)

    with claim_output(tmp_path / "out"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert codes == ["K503"]


def test_many_runs_at_once_write_one_whole_artifact(child: ModuleType, tmp_path: Path) -> None:
    program = str(Path(__file__).with_name("child.py"))
    command = [sys.executable, program, str(tmp_path / "out")]
    runs = [
        subprocess.Popen([*command, variant], stdout=subprocess.PIPE, text=True)
        for variant in ("old", "new") * 3
    ]
    results = [(run.communicate()[0].strip(), run.returncode) for run in runs]
    assert set(results) <= {("", 0), ("K503", 1)}
    assert ("", 0) in results
    assert open_artifact(tmp_path / "out").record["variant"] in ("old", "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_claim_leaves_nothing_behind(tmp_path: Path) -> None:
    with claim_output(tmp_path / "a" / "out"):
        assert (tmp_path / "a").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_other_files_is_not_replaced(child: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError) as caught:
        child.write(tmp_path / "out")
    assert caught.value.code == "K504"
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("name", ["notes.txt", "weights/notes.txt", "new/notes.txt"])
def test_a_users_file_in_an_artifact_is_not_deleted(
    child: ModuleType, artifact: Artifact, name: str
) -> None:
    (artifact.path / name).parent.mkdir(exist_ok=True)
    (artifact.path / name).write_text("mine")
    with pytest.raises(OutputError) as caught:
        child.write(artifact.path)
    assert caught.value.code == "K504"
    assert name in caught.value.why
    assert (artifact.path / name).read_text() == "mine"


def test_a_file_that_appears_meanwhile_is_not_deleted(
    child: ModuleType, artifact: Artifact
) -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"x")
        (artifact.path / "notes.txt").write_text("mine")

    with pytest.raises(OutputError, match="is not replaced"):
        child.write(artifact.path, files={"model.onnx": write})
    assert (artifact.path / "notes.txt").read_text() == "mine"
    assert [entry.name for entry in artifact.path.parent.iterdir()] == ["out"]


def test_a_damaged_file_may_be_replaced(child: ModuleType, artifact: Artifact) -> None:
    artifact.file("model.onnx").write_bytes(b"damaged")
    child.write(artifact.path)
    assert open_artifact(artifact.path).read("model.onnx") != b"damaged"


def test_an_artifact_that_cannot_be_read_is_not_replaced(
    child: ModuleType, artifact: Artifact
) -> None:
    (artifact.path / "manifest.json").write_text("{}")
    with pytest.raises(OutputError) as caught:
        child.write(artifact.path)
    assert caught.value.code == "K504"


def test_a_file_is_not_replaced(child: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError) as caught:
        child.write(tmp_path / "out")
    assert caught.value.code == "K504"
    assert (tmp_path / "out").read_text() == "mine"


def test_a_parent_that_is_a_file_is_named(child: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError) as caught:
        child.write(tmp_path / "file" / "out")
    assert caught.value.code == "K504"


@pytest.mark.parametrize("path", [".", "..", "./"])
def test_the_current_directory_is_not_replaced(
    child: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    with pytest.raises(OutputError) as caught:
        child.write(path)
    assert caught.value.code == "K505"


@pytest.mark.parametrize("path", ["/", "/proc"])
def test_a_mount_point_is_not_replaced(child: ModuleType, path: str) -> None:
    with pytest.raises(OutputError) as caught:
        child.write(path)
    assert caught.value.code == "K505"


@pytest.mark.parametrize("path", ["/proc/out", "nul\0", "x" * 300])
def test_an_impossible_place_is_an_output_error(
    child: ModuleType, tmp_path: Path, path: str
) -> None:
    with pytest.raises(OutputError) as caught:
        child.write(tmp_path / path)
    assert caught.value.code == "K500"


def test_leftovers_of_a_killed_run_are_removed(child: ModuleType, tmp_path: Path) -> None:
    for name in (".out.kompakt-partial", ".out.kompakt-old"):
        (tmp_path / name / "weights").mkdir(parents=True)
        (tmp_path / name / "weights" / "half").write_bytes(b"half")
    (tmp_path / ".out.kompakt-lock").write_text("999999")
    (tmp_path / ".other.kompakt-partial").mkdir()
    child.write(tmp_path / "out", "old")
    child.write(tmp_path / "out", "new")
    assert sorted(e.name for e in tmp_path.iterdir()) == [".other.kompakt-partial", "out"]


def test_an_old_artifact_left_aside_is_opened(child: ModuleType, tmp_path: Path) -> None:
    old = child.write(tmp_path / "out", "old")
    old.path.rename(tmp_path / ".out.kompakt-old")
    (tmp_path / ".out.kompakt-partial").mkdir()
    assert open_artifact(tmp_path / "out") == old
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_an_old_artifact_that_was_being_removed_stays_away(
    child: ModuleType, tmp_path: Path
) -> None:
    old = child.write(tmp_path / "out", "old")
    old.file("model.onnx").unlink()
    old.path.rename(tmp_path / ".out.kompakt-old")
    with pytest.raises(ArtifactError):
        open_artifact(tmp_path / "out")
    child.write(tmp_path / "out", "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_an_old_artifact_left_aside_survives_a_failing_run(
    child: ModuleType, tmp_path: Path
) -> None:
    old = child.write(tmp_path / "out", "old")
    old.path.rename(tmp_path / ".out.kompakt-old")
    with pytest.raises(OutputError):
        child.write(tmp_path / "out", "new", files={"model.onnx": lambda path: None})
    assert open_artifact(tmp_path / "out") == old


def test_without_exchange_it_is_replaced_by_two_renames(
    child: ModuleType, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "_exchange", lambda first, second: False)
    child.write(artifact.path, "old")
    assert open_artifact(artifact.path).record["variant"] == "old"
    assert [entry.name for entry in artifact.path.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
@pytest.mark.parametrize("old", [True, False], ids=["replace", "fresh"])
def test_when_the_last_sync_fails_everything_is_as_before(
    child: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool, old: bool
) -> None:
    if old:
        child.write(tmp_path / "out", "old")
    if not exchange:
        monkeypatch.setattr(swap, "_exchange", lambda first, second: False)
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), tmp_path.stat()):
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OutputError) as caught:
        child.write(tmp_path / "out", "new")
    monkeypatch.undo()
    assert caught.value.code == "K502"
    assert [entry.name for entry in tmp_path.iterdir()] == (["out"] if old else [])
    if old:
        assert open_artifact(tmp_path / "out").record["variant"] == "old"


def test_leftovers_that_cannot_be_removed_are_announced(
    child: ModuleType, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rmtree(path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(output.shutil, "rmtree", rmtree)
    events: list[Event] = []
    with listening(events.append):
        child.write(artifact.path, "old")
    assert any("the next run will" in event.message for event in events)
    monkeypatch.undo()
    child.write(artifact.path, "new")
    assert [entry.name for entry in artifact.path.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (28, "K501"),
        (122, "K501"),
        (27, "K501"),
        (13, "K500"),
        (30, "K500"),
        (5, "K502"),
        (18, "K505"),
    ],
)
def test_each_system_error_has_its_code(tmp_path: Path, number: int, code: str) -> None:
    with pytest.raises(OutputError) as caught, writing_errors(tmp_path):
        raise OSError(number, os.strerror(number), str(tmp_path / "file"))
    assert caught.value.code == code
    assert caught.value.why == os.strerror(number)
    assert caught.value.where.endswith("file")
