"""What is written, that it is always the same, and what is refused before anything is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from kompakt.artifact import Artifact, claim_output, open_artifact, write_artifact
from kompakt.errors import OutputError
from kompakt.progress import Event, listening

CHILD = Path(__file__).with_name("child.py")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``, hidden ones too."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_everything_given_is_there(artifact: Artifact) -> None:
    assert artifact.files == (
        "calibration.npz",
        "golden.npz",
        "model.onnx",
        "report.html",
        "weights/large.bin",
        "weights/large.data",
    )
    assert artifact.file("weights/large.bin").read_bytes() == b"graph"
    assert artifact.record["variant"] == "new"
    assert artifact.record["drop"] == 0.1 + 0.2
    assert artifact.manifest["scheme"] == {"name": "w8a8", "bits": [8, 8]}
    assert b"<title>new</title>" in artifact.read("report.html")
    calibration = artifact.calibration()
    assert calibration is not None
    assert list(calibration) == ["layer1.0/histogram", "scalars"]
    assert calibration["scalars"].shape == (5, 4)
    golden = artifact.golden()
    assert golden is not None
    assert golden.digests["conv"].shape == (4, 16)


def test_what_is_returned_is_what_is_opened(artifact: Artifact) -> None:
    assert open_artifact(artifact.path) == artifact


def test_nothing_else_is_left(artifact: Artifact) -> None:
    assert [entry.name for entry in artifact.path.parent.iterdir()] == ["out"]


def test_same_arguments_give_same_bytes(child: ModuleType, tmp_path: Path) -> None:
    first, second = child.write(tmp_path / "a"), child.write(tmp_path / "b")
    assert tree(first.path) == tree(second.path)


@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_same_bytes_in_other_processes(artifact: Artifact, tmp_path: Path, seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Shanghai"}
    other = tmp_path / "elsewhere" / "out"
    subprocess.run([sys.executable, CHILD, other, "new"], check=True, env=environment)
    assert tree(other) == tree(artifact.path)


def test_only_the_measured_record_changes_bytes(child: ModuleType, tmp_path: Path) -> None:
    first = child.write(tmp_path / "a", record={"variant": "a", "latency_ms": 1.25})
    second = child.write(tmp_path / "b", record={"variant": "b", "latency_ms": 1.5})
    one, other = tree(first.path), tree(second.path)
    assert {name for name in one if one[name] != other[name]} == {"manifest.json", "report.html"}
    assert first.fingerprint == second.fingerprint


def test_another_model_has_another_fingerprint(child: ModuleType, tmp_path: Path) -> None:
    first = child.write(tmp_path / "a")
    second = child.write(tmp_path / "b", files={"model.onnx": b"other"})
    assert first.fingerprint != second.fingerprint


def test_an_old_artifact_is_replaced_whole(child: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "out"
    child.write(out, "old", files={"model.onnx": b"1", "gone.bin": b"2"})
    new = child.write(out, "new")
    assert open_artifact(out).record["variant"] == "new"
    assert not (out / "gone.bin").exists()
    assert tree(tmp_path) == {f"out/{name}": raw for name, raw in tree(new.path).items()}


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_an_empty_directory_is_used(
    child: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(child.swap, "_exchange", lambda first, second: False)
    (tmp_path / "out").mkdir()
    child.write(tmp_path / "out")
    assert open_artifact(tmp_path / "out").record["variant"] == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_missing_parents_are_made(child: ModuleType, tmp_path: Path) -> None:
    child.write(tmp_path / "a" / "b" / "out")
    assert open_artifact(tmp_path / "a/b/out").files


def test_parents_made_for_nothing_are_removed(child: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        child.write(tmp_path / "a" / "b" / "out", record={"drop": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_path_is_copied(child: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(b"weights")
    written = child.write(tmp_path / "out", files={"model.onnx": source})
    assert written.read("model.onnx") == b"weights"


def test_a_link_given_as_target_keeps_pointing(child: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    child.write(tmp_path / "link", "old")
    child.write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert open_artifact(tmp_path / "real").record["variant"] == "new"
    assert open_artifact(tmp_path / "link").path == tmp_path / "real"


def test_files_can_be_read_by_others(artifact: Artifact) -> None:
    umask = os.umask(0)
    os.umask(umask)
    assert artifact.path.stat().st_mode & 0o777 == 0o777 & ~umask
    assert artifact.file("model.onnx").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize(
    "name",
    [
        "../evil", "/etc/evil", "a/../../evil", "a//b", "", ".", "a/.", "back\\slash", "C:evil",
        "new\nline", "nul\0", "rtl\u202e", "manifest.json", "MANIFEST.JSON", "dot.", " space",
        "x" * 300, "\udc80",
    ],
)  # fmt: skip
def test_unusable_names_are_refused(child: ModuleType, tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError) as caught:
        child.write(tmp_path / "out", files={name: b"x"})
    assert caught.value.code == "K506"
    assert "\n" not in caught.value.what
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_writes_nothing_is_refused(child: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nothing was written to model\.onnx"):
        child.write(tmp_path / "out", files={"model.onnx": lambda path: None})
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_leaves_a_link_is_refused(child: ModuleType, tmp_path: Path) -> None:
    def link(path: Path) -> None:
        path.symlink_to("/etc/hostname")

    with pytest.raises(OutputError, match="symbolic link"):
        child.write(tmp_path / "out", files={"model.onnx": link})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_error_while_writing_leaves_the_old_artifact(
    child: ModuleType, tmp_path: Path, kind: type[BaseException]
) -> None:
    def fails(path: Path) -> None:
        path.write_bytes(b"half")
        raise kind

    old = child.write(tmp_path / "out", "old")
    before = tree(tmp_path)
    with pytest.raises(kind):
        child.write(tmp_path / "out", "new", files={"model.onnx": fails})
    assert tree(tmp_path) == before
    assert open_artifact(tmp_path / "out") == old


def test_a_claim_can_be_written_twice(child: ModuleType, tmp_path: Path) -> None:
    with claim_output(tmp_path / "out") as claim:
        assert not claim.target.exists()
        child.write(claim, "old")
        child.write(claim, "new")
    assert open_artifact(tmp_path / "out").record["variant"] == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_replacing_an_artifact_is_told_with_its_date(child: ModuleType, tmp_path: Path) -> None:
    events: list[Event] = []
    with listening(events.append):
        child.write(tmp_path / "out", "old")
        assert not [event for event in events if event.kind == "note"]
        os.utime(tmp_path / "out" / "manifest.json", (1e9, 1e9))
        child.write(tmp_path / "out", "new")
    (told,) = [event.message for event in events if event.kind == "note"]
    assert told.startswith("replaced the artifact of 2001-09-0")
    assert str(tmp_path / "out") in told


def test_writing_announces_its_progress(child: ModuleType, tmp_path: Path) -> None:
    events: list[Event] = []
    with listening(events.append):
        child.write(tmp_path / "out")
    advances = [event for event in events if event.kind == "advance"]
    assert advances[-1].done == advances[-1].total == 5


def test_large_arrays_survive(tmp_path: Path, child: ModuleType) -> None:
    arrays = {"x": np.arange(500_000, dtype=np.int16)}
    written = write_artifact(
        tmp_path / "out", files={}, manifest=child.MANIFEST, record={}, calibration=arrays
    )
    found = open_artifact(written.path).calibration()
    assert found is not None
    assert np.array_equal(found["x"], arrays["x"])


def test_torch_is_not_imported() -> None:
    program = "import sys, kompakt.artifact; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout.strip() == "False"
