"""Every damaged byte is found, named, and nothing is opened."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from kompakt.artifact import Artifact, open_artifact, verify
from kompakt.errors import ArtifactError

CHILD = Path(__file__).with_name("child.py")
FILES = (
    "calibration.npz",
    "golden.npz",
    "manifest.json",
    "model.onnx",
    "report.html",
    "weights/large.bin",
    "weights/large.data",
)


def positions(size: int, count: int) -> list[int]:
    """``count`` places spread over ``size`` bytes, first and last included."""
    return sorted({index * (size - 1) // max(count - 1, 1) for index in range(count)})


def refused(artifact: Artifact, file: str, code: str = "K511") -> None:
    report = verify(artifact.path)
    assert [problem.file for problem in report.problems] == [file]
    assert not report.ok
    with pytest.raises(ArtifactError) as caught:
        open_artifact(artifact.path)
    assert file in caught.value.what
    if file != "manifest.json":
        assert caught.value.code == code


def test_an_intact_artifact_verifies(artifact: Artifact) -> None:
    report = verify(artifact.path)
    assert report.ok
    assert report.files == 6
    assert report.manifest == artifact.manifest


@pytest.mark.parametrize("file", FILES)
def test_a_changed_byte_is_found(artifact: Artifact, file: str) -> None:
    raw = (artifact.path / file).read_bytes()
    for at in positions(len(raw), 20):
        (artifact.path / file).write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        refused(artifact, file)


@pytest.mark.parametrize("file", FILES)
def test_a_cut_file_is_found(artifact: Artifact, file: str) -> None:
    raw = (artifact.path / file).read_bytes()
    for length in positions(len(raw), 12):
        (artifact.path / file).write_bytes(raw[:length])
        refused(artifact, file)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_a_changed_bit_anywhere_is_found(artifact: Artifact, file: str) -> None:
    raw = (artifact.path / file).read_bytes()
    for at in positions(len(raw), 250):
        for bit in range(8):
            changed = raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]
            (artifact.path / file).write_bytes(changed)
            refused(artifact, file)
        (artifact.path / file).write_bytes(raw[:at])
        refused(artifact, file)
        (artifact.path / file).write_bytes(raw[:at] + b"\0" + raw[at:])
        refused(artifact, file)


@pytest.mark.parametrize("file", [file for file in FILES if file != "manifest.json"])
def test_a_missing_file_is_named(artifact: Artifact, file: str) -> None:
    (artifact.path / file).unlink()
    refused(artifact, file)


def test_swapped_files_are_both_named(artifact: Artifact) -> None:
    one, other = artifact.file("model.onnx"), artifact.file("weights/large.bin")
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    found = [problem.file for problem in verify(artifact.path).problems]
    assert found == ["model.onnx", "weights/large.bin"]
    with pytest.raises(ArtifactError, match="1 more"):
        open_artifact(artifact.path)


@pytest.mark.parametrize("name", ["extra.bin", ".hidden", "weights/extra", "weights.bin~"])
def test_an_unlisted_file_is_named(artifact: Artifact, name: str) -> None:
    (artifact.path / name).write_bytes(b"")
    refused(artifact, name, "K512")


def test_an_unlisted_directory_is_named(artifact: Artifact) -> None:
    (artifact.path / "empty").mkdir()
    refused(artifact, "empty/", "K512")


def test_a_hostile_name_is_shown_harmless(artifact: Artifact) -> None:
    (artifact.path / "a\x1b[31m\n[b]").write_bytes(b"")
    (problem,) = verify(artifact.path).problems
    assert problem.file.isprintable()


@pytest.mark.parametrize("name", ["model.onnx", "weights/large.bin", "new"])
def test_a_symbolic_link_is_refused(artifact: Artifact, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    if (artifact.path / name).exists():
        shutil.copy(artifact.path / name, outside)
        (artifact.path / name).unlink()
    (artifact.path / name).symlink_to(outside)
    refused(artifact, name, "K512")


def test_a_linked_directory_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    shutil.move(artifact.path / "weights", tmp_path / "weights")
    (artifact.path / "weights").symlink_to(tmp_path / "weights")
    problems = {problem.file: problem.what for problem in verify(artifact.path).problems}
    assert set(problems) == {"weights", "weights/large.bin", "weights/large.data"}
    with pytest.raises(ArtifactError):
        open_artifact(artifact.path)


def test_a_hard_link_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    os.link(artifact.file("model.onnx"), tmp_path / "second-name")
    refused(artifact, "model.onnx", "K512")


def test_a_linked_manifest_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    shutil.move(artifact.path / "manifest.json", tmp_path / "elsewhere")
    (artifact.path / "manifest.json").symlink_to(tmp_path / "elsewhere")
    refused(artifact, "manifest.json")


def test_a_pipe_does_not_block(artifact: Artifact) -> None:
    artifact.file("model.onnx").unlink()
    os.mkfifo(artifact.path / "model.onnx")
    refused(artifact, "model.onnx", "K512")
    (artifact.path / "model.onnx").unlink()
    (artifact.path / "manifest.json").unlink()
    os.mkfifo(artifact.path / "manifest.json")
    refused(artifact, "manifest.json")


@pytest.mark.parametrize("what", ["missing", "file", "empty", "foreign"])
def test_what_is_no_artifact_says_so(tmp_path: Path, what: str) -> None:
    path = tmp_path / "out"
    if what == "file":
        path.write_text("x")
    elif what != "missing":
        path.mkdir()
    if what == "foreign":
        (path / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(ArtifactError) as caught:
        open_artifact(path)
    assert caught.value.code == ("K513" if what == "foreign" else "K510")


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.sentinel, "executed")


@pytest.mark.parametrize("file", ["golden.npz", "calibration.npz", "manifest.json"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_is_never_executed(
    child: ModuleType, tmp_path: Path, file: str, protocol: int
) -> None:
    sentinel = tmp_path / "sentinel"
    bomb = pickle.dumps(Bomb(sentinel), protocol=protocol)
    pickle.loads(bomb)
    assert sentinel.exists()
    sentinel.unlink()
    artifact = child.write(tmp_path / "out", calibration=None, golden=None)
    if file == "manifest.json":
        (artifact.path / file).write_bytes(bomb)
        with pytest.raises(ArtifactError):
            open_artifact(artifact.path)
    else:
        # rightly listed in the manifest, as one who makes an artifact by hand could do
        artifact = child.write(tmp_path / "out", calibration=None, golden=None, files={file: bomb})
        opened = open_artifact(artifact.path)
        with pytest.raises(ArtifactError) as caught:
            opened.golden() if file == "golden.npz" else opened.calibration()
        assert caught.value.code == "K515"
    assert not sentinel.exists()


def test_a_file_changed_after_opening_is_not_read(artifact: Artifact) -> None:
    artifact.file("model.onnx").write_bytes(b"changed")
    with pytest.raises(ArtifactError, match="since it was checked"):
        artifact.read("model.onnx")
    artifact.file("golden.npz").unlink()
    with pytest.raises(ArtifactError) as caught:
        artifact.golden()
    assert caught.value.code == "K511"


def test_an_unknown_file_lists_the_known_ones(artifact: Artifact) -> None:
    with pytest.raises(ArtifactError) as caught:
        artifact.file("../../etc/passwd")
    assert caught.value.code == "K516"
    assert "model.onnx" in caught.value.why


def test_readers_see_old_or_new_while_it_is_replaced(child: ModuleType, tmp_path: Path) -> None:
    child.write(tmp_path / "out", "old")
    program = (
        "import sys, runpy; child = runpy.run_path(sys.argv[1]);"
        "[child['write'](sys.argv[2], variant) for variant in ('new', 'old') * 15]"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, CHILD, tmp_path / "out"])
    seen, reads = set(), 0
    while writer.poll() is None:
        seen.add(open_artifact(tmp_path / "out").record["variant"])
        reads += 1
    assert writer.returncode == 0
    assert seen == {"old", "new"}
    assert reads > 10
