"""Model files from strangers: refused with a reason, without harm, or used as they were when they were looked at."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

from kompakt.cli.main import app
from kompakt.errors import CaptureError
from kompakt.guard import process
from kompakt.guard.limits import MB, Limits
from kompakt.network.onnx import import_onnx, untrusted
from kompakt.network.onnx.names import Names, dotted, identifier
from kompakt.network.onnx.untrusted import checked_file

from ..onnx_corpus import NEEDED, Hostile, external, graph, linear, model, save, value
from ..onnx_corpus_beside import corpus as corpus_beside
from ..onnx_corpus_graphs import corpus

ALL = [*corpus(), *corpus_beside()]
ROOT = Path(__file__).resolve().parents[3]
ASSETS = os.environ.get("KOMPAKT_ASSETS")
COMMANDS = {
    "inspect": (),
    "compress": ("--calibration", "builtin:digits", "--output", "out"),
    "measure": ("--data", "builtin:digits"),
}
OPENED: list[str] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str):
        OPENED.append(arguments[0])


sys.addaudithook(_hear)


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where private copies are made; empty again afterwards."""
    folder = tmp_path / "private"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(untrusted, "DEFAULT", Limits(seconds=0.9))
    monkeypatch.chdir(tmp_path)
    process.WORKER.peak_bytes = 0
    yield folder
    if list(folder.iterdir()):
        gc.collect()  # networks refer to themselves
    assert list(folder.iterdir()) == []


def everything(folder: Path) -> dict[str, Any]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if "private" not in path.relative_to(folder).parts:
            facts = path.lstat()
            found[str(path)] = (facts.st_size, facts.st_mtime_ns, facts.st_mode)
    return found


def test_the_corpus_is_large() -> None:
    assert len(ALL) == len({h.name for h in ALL}) >= 60


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("hostile", ALL, ids=lambda h: h.name)
def test_a_hostile_file_is_refused(
    hostile: Hostile, command: str, private: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = hostile.write(folder)
    before, started = everything(tmp_path), time.process_time()
    OPENED.clear()
    result = CliRunner(env={"NO_COLOR": "1"}).invoke(app, [command, str(path), *COMMANDS[command]])
    assert result.exit_code == 1, result.output
    assert any(f"error[{code}]" in result.stderr for code in hostile.codes), result.stderr
    assert len(result.stderr) < 5000
    assert "Traceback" not in result.output
    assert everything(tmp_path) == before
    assert not [p for p in OPENED if "secret" in p or "passwd" in p]
    assert time.process_time() - started < 5
    assert process.WORKER.peak_bytes < 512 * MB


def test_a_good_file_is_found_harmless_once(private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(linear(), Path())
    checked_file(path).close()
    monkeypatch.setattr(process.WORKER, "ask", None)
    with checked_file(path) as copy:
        assert copy.read_bytes() == path.read_bytes()
        assert copy.parent.parent == private
        assert copy.parent.stat().st_mode & 0o77 == 0
    assert not copy.exists()


def test_weights_that_changed_are_looked_at_again(private: Path) -> None:
    path = save(external("weights.bin"), Path())
    Path("weights.bin").write_bytes(bytes(NEEDED))
    with checked_file(path) as copy:
        assert (copy.parent / "weights.bin").read_bytes() == bytes(NEEDED)
    asked = []
    original, process.WORKER.ask = process.WORKER.ask, lambda *a: asked.append(a[0])  # type: ignore[method-assign]
    try:
        checked_file(path).close()
        assert asked == []
        Path("weights.bin").write_bytes(b"1" * NEEDED)
        checked_file(path).close()
    finally:
        process.WORKER.ask = original  # type: ignore[method-assign]
    assert asked == ["load"]


def test_what_was_checked_is_what_is_read(private: Path) -> None:
    """Both files are swapped behind the check: the network keeps what was looked at."""
    path = save(external("weights.bin"), Path())
    weights = np.arange(12, dtype=np.float32)
    Path("weights.bin").write_bytes(weights.tobytes())
    network = import_onnx(path)
    Path("weights.bin").write_bytes(bytes(NEEDED))
    path.write_bytes(b"something else")
    source = network.meta["onnx"]
    assert source.content == external("weights.bin").SerializeToString()
    found = source.model().graph.initializers["w"].const_value.numpy()
    assert np.array_equal(found.reshape(-1), weights)


def test_a_process_that_died_is_replaced(private: Path) -> None:
    path = save(linear(), Path())
    worker = process.Worker()
    worker.ask("walk", path.resolve(), 100, Limits())
    assert worker._process is not None
    worker._process.kill()
    worker._process.wait()
    assert worker.ask("walk", path.resolve(), 100, Limits()) == []
    worker.stop()


def test_too_little_memory_is_told(private: Path) -> None:
    made = linear()
    made.graph.doc_string = "x" * (64 * MB)
    path = save(made, Path())
    with pytest.raises(CaptureError) as caught:
        checked_file(path, limits=Limits(memory_bytes=MB, memory_per_byte=0, run_memory_bytes=0))
    assert caught.value.code == "K146"
    assert "more memory" in caught.value.why


def test_the_limited_process_cannot_write(tmp_path: Path) -> None:
    from kompakt.guard import worker

    def write() -> str:
        (tmp_path / "written").write_bytes(b"x" * 10)
        return "written"

    found = worker._in_a_child(write, Limits(), 0)
    assert "File too large" in found["failed"]
    crashed = worker._in_a_child(lambda: os.kill(os.getpid(), signal.SIGKILL), Limits(), 0)
    assert crashed["died"] == "the process that tried it was killed by SIGKILL"
    greedy = worker._in_a_child(lambda: len(bytearray(4 << 30)), Limits(), 0)
    assert greedy["died"] == "it wanted more memory than it may have"


@pytest.mark.parametrize(
    "name", ["if", "class", "1", "ﬁ", "a²", "x'); import os; ('", "数据", "", "\n"]
)
def test_names_become_identifiers(name: str) -> None:
    for found in (identifier(name, "node"), dotted(name, "if")):
        assert found.isidentifier()
        scope: dict[str, int] = {}
        exec(f"{found} = 1", scope)
        assert found in scope


def test_many_equal_names_are_told_apart_quickly() -> None:
    names, started = Names(), time.process_time()
    found = [names._once("layer.conv") for _ in range(20_000)]
    assert len(set(found)) == len(found)
    assert time.process_time() - started < 2


def test_nodes_named_by_keywords_can_be_imported(private: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "class"),
        helper.make_node("HardSwish", ["a"], ["y"], "if"),
    ]
    inputs = [value("x")]
    network = import_onnx(save(model(graph(nodes, (), inputs)), Path()))
    assert [spec.name for spec in network.output_specs] == ["y"]


@pytest.mark.assets
@pytest.mark.skipif(ASSETS is None, reason="KOMPAKT_ASSETS is not set")
@pytest.mark.parametrize(
    "name", ["ultraface_rfb320", "nanodet_m", "silero_vad", "silero_vad_16k_op15"]
)
def test_real_files_are_harmless(name: str, private: Path) -> None:
    with checked_file(Path(str(ASSETS)) / f"{name}.onnx") as copy:
        assert onnx.load(str(copy)).graph.node


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_mutations_do_no_harm(
    first: int, private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    fuzz_onnx = importlib.import_module("benchmarks.fuzz_onnx")
    folder = tmp_path / "fuzz"
    folder.mkdir()
    good = fuzz_onnx.seeds()
    for number in range(first, first + 20):
        outcome = fuzz_onnx.try_one(fuzz_onnx.mutated(number, good), folder)
        assert not outcome.startswith("surprise"), (number, outcome)
        assert sorted(p.name for p in folder.iterdir()) == ["model.onnx", "weights.bin"]
    assert process.WORKER.peak_bytes < 512 * MB
