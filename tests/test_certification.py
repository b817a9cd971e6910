"""Certifying the winner: what is measured on which data, and what the record then says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from kompakt.artifact import compare_golden
from kompakt.artifact.golden import GOLDEN_SAMPLES
from kompakt.certification import Certified, certify_trial, evaluating, run_network, using_threads
from kompakt.measuring.data import Batch, prepare
from kompakt.network.capture import capture
from kompakt.observe import from_arrays
from kompakt.options import Options
from kompakt.recording import weights_sha256
from kompakt.schemes import Scheme, w4, w8a8, w8a8_dynamic
from kompakt.search.budget import Budget
from kompakt.search.candidates import Candidate
from kompakt.search.ladder import Ladder
from kompakt.search.trial import Trial
from kompakt.search.workbench import Workbench

from .nets import ONNXRUNTIME, grid, inputs, model

DENSE = "dense"


def options(**changes: Any) -> Options:
    settings = {
        "metric": "top1", "budget": Budget(), "target": "onnxruntime", "isa": "x86-vnni",
        "level": None, "scheme": None, "calibrator": None, "methods": (), "keep_float": (), "threads": 1,
        "batch": 1, "seed": 5, "name": "dense", "measure_latency": False, "measure_memory": False,
        "commands": ("kompakt compress …",),
    }  # fmt: skip
    return Options(**{**settings, **changes})


def climbed(
    folder: Path, scheme: Scheme | None = None, samples: int = 40, isa: str = "x86-vnni"
) -> tuple[Ladder, Trial]:
    """A ladder with one trial: by default weights in 4 bits, which change some answers."""
    given = [Batch({"x": grid(20, 40, seed=s)}, None, 20) for s in range(samples // 20)]
    network = capture(model(DENSE), inputs(DENSE))
    bench = Workbench(network, ONNXRUNTIME, isa, folder, given, given, 1)
    candidate = Candidate(name="only", level=1, scheme=scheme or w4(), calibrator="minmax")
    ladder = Ladder(
        bench=bench, budget=Budget(), judge=None, example=Batch({"x": grid(1, 40)}, None, 1),
        rng=np.random.default_rng(0), time_it=False, fixed=(candidate,),
    )  # fmt: skip
    trial = ladder.climb()
    assert trial is not None
    return ladder, trial


def certified(
    ladder: Ladder, trial: Trial, data: list[tuple[Tensor, Tensor]] | None = None, **changes: Any
) -> Certified:
    specs = ladder.bench.network.input_specs
    return certify_trial(
        trial,
        ladder=ladder,
        data=None if data is None else prepare(data, specs),
        source=model(DENSE),
        options=options(**changes),
        rng=np.random.default_rng(0),
    )


def answers(ladder: Ladder, trial: Trial, x: Tensor) -> tuple[Tensor, Tensor]:
    """Classes by the float file and by the compressed one."""
    assert trial.build is not None
    runs = (ladder.bench.float_build().runnable, trial.build.runnable)
    exact, found = (torch.from_numpy(run({"x": x.numpy()})["output"]).argmax(1) for run in runs)
    return exact, found


# --- accuracy ---------------------------------------------------------------------------------


def test_a_budget_that_held_where_it_was_chosen_is_judged_anew(tmp_path: Path) -> None:
    """Samples on which the two files differ, labelled as the float file answers: all is lost."""
    ladder, trial = climbed(tmp_path)
    x = grid(3000, 40, seed=9)
    exact, found = answers(ladder, trial, x)
    differ = exact != found
    assert 20 <= int(differ.sum()) < 1500
    budget = Budget(max_drop=0.5)
    record = certified(ladder, trial, [(x[differ], exact[differ])], budget=budget).record
    assert record.baseline.metric == record.source.metric == 1.0
    assert record.candidate.metric == 0.0
    assert record.drop == 1.0
    assert record.verdict == "violated"
    assert record.budget_met is False
    assert record.budget_reasons == ["the drop is 1, the limit 0.5"]
    assert "The budget is not met" in record.verdict_text
    assert record.agreement == 0.0
    assert trial.outcome == "chosen"
    easy = certified(ladder, trial, [(x[~differ], exact[~differ])], budget=budget).record
    assert (easy.drop, easy.verdict, easy.budget_met) == (0.0, "proven", True)
    assert easy.metric is not None
    assert easy.metric["discordant"] == 0


def test_agreement_is_counted_with_the_float_file_whatever_the_labels(tmp_path: Path) -> None:
    ladder, trial = climbed(tmp_path)
    x = grid(500, 40, seed=3)
    exact, found = answers(ladder, trial, x)
    share = float((exact == found).double().mean())
    labels = torch.zeros(500, dtype=torch.int64)
    by_labels = certified(ladder, trial, [(x, labels)]).record
    assert by_labels.agreement == pytest.approx(share)
    assert by_labels.candidate.metric == pytest.approx(float((found == 0).double().mean()))
    alone = certified(ladder, trial, [(x, labels)], metric="agreement").record
    assert alone.agreement == alone.candidate.metric == pytest.approx(share)


def test_what_was_not_measured_is_none(tmp_path: Path) -> None:
    ladder, trial = climbed(tmp_path)
    record = certified(ladder, trial, budget=Budget(max_latency_ms=100.0)).record
    nothing = ("metric", "drop", "drop_interval", "agreement", "speedup", "latency", "memory_ratio")
    assert [getattr(record, name) for name in nothing] == [None] * len(nothing)
    assert record.verdict == "unmeasured"
    assert record.budget_met is False, "nothing is promised unmeasured"
    assert record.budget_reasons == ["the latency in ms was not measured, the limit 100"]
    assert record.seed == 5
    assert record.commands == ("kompakt compress …",)


def test_a_file_that_computes_something_else_does_not_meet_the_budget(tmp_path: Path) -> None:
    ladder, trial = climbed(tmp_path, w8a8_dynamic())
    sound = certified(ladder, trial).record
    assert sound.parity is not None
    assert sound.parity["verdict"] in ("exact", "within tolerance")
    assert trial.build is not None
    model = onnx.load_from_string(trial.build.written.files["model.onnx"])
    scale = next(t for t in model.graph.initializer if t.name == "b.weight_scale")
    changed = numpy_helper.to_array(scale) * np.float32(1.01)
    scale.CopyFrom(numpy_helper.from_array(changed, scale.name))
    files = {"model.onnx": model.SerializeToString()}
    trial.build.written = replace(trial.build.written, files=files)
    trial.certificate = None
    record = certified(ladder, trial, budget=Budget(max_size=1 << 30)).record
    assert record.parity is not None
    assert (record.parity["verdict"], record.parity["first_difference"]) == ("failed", "b")
    assert record.budget_met is False
    assert "first at b" in record.budget_reasons[-1]


# --- the golden pack and the sketch -----------------------------------------------------------


def test_the_golden_pack_holds_real_samples_up_to_its_size(tmp_path: Path) -> None:
    ladder, trial = climbed(tmp_path, w8a8(), samples=60)
    golden = certified(ladder, trial).golden
    assert [batch.inputs["x"].shape[0] for batch in golden.batches] == [20, GOLDEN_SAMPLES - 20]
    kept = np.concatenate([batch.inputs["x"] for batch in golden.batches])
    given = np.concatenate([batch.arrays()["x"] for batch in ladder.bench.samples])
    assert np.array_equal(kept, given[:GOLDEN_SAMPLES])
    assert trial.build is not None
    outputs = trial.build.runnable({"x": golden.batches[1].inputs["x"]})
    assert np.array_equal(outputs["output"], golden.batches[1].outputs["output"])
    assert set(golden.digests) == set(trial.build.written.codes)
    assert compare_golden(golden, certified(ladder, trial).golden).exact


def test_without_samples_the_example_is_golden(tmp_path: Path) -> None:
    ladder, trial = climbed(tmp_path)
    ladder.bench.samples = []
    done = certified(ladder, trial)
    assert np.array_equal(done.golden.batches[0].inputs["x"], ladder.example.arrays()["x"])
    assert done.record.parity is not None
    assert done.record.parity["samples"] == 1


def test_the_sketch_is_what_calibration_saw(tmp_path: Path) -> None:
    ladder, trial = climbed(tmp_path, w8a8())
    sketch = certified(ladder, trial).sketch
    assert sketch is not None
    seen = ladder.bench.calibration
    assert seen is not None
    again = from_arrays(sketch)
    assert set(again.statistics) == set(seen.statistics)
    assert all(again.statistics[s].high == e.high for s, e in seen.statistics.items())
    (tmp_path / "w4").mkdir()
    assert certified(*climbed(tmp_path / "w4")).sketch is None, "it never was calibrated"


# --- the record -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "isa", "warned"),
    [(w8a8(), "x86-vnni", True), (w8a8(), "arm", False), (w4(), "x86-vnni", False)],
)
def test_saturation_is_warned_of_where_it_can_happen(
    scheme: Scheme, isa: str, warned: bool, tmp_path: Path
) -> None:
    record = certified(*climbed(tmp_path, scheme, isa=isa)).record
    assert any("saturate" in warning for warning in record.warnings) is warned


def test_every_site_is_in_the_record(tmp_path: Path) -> None:
    record = certified(*climbed(tmp_path, w8a8(keep_float=("c",)))).record
    rows = {row["name"]: row for row in record.sites if row["role"] == "weight"}
    assert set(rows) == {"a", "b", "c"}
    assert rows["a"]["format"] == "int8_narrow"
    assert rows["c"]["why_float"]
    activations = [row for row in record.sites if row["role"] == "activation" and row["format"]]
    assert activations
    assert all(row["scale"] > 0 for row in activations)
    assert record.model["parameters"] == sum(p.numel() for p in model(DENSE).parameters())


def test_speed_is_that_of_the_size_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kompakt.certification.LATENCY_SECONDS", 0.1)
    ladder, trial = climbed(tmp_path)
    record = certified(ladder, trial, measure_latency=True, budget=Budget(min_speedup=1e6)).record
    assert record.latency is not None
    assert [row["batch"] for row in record.latency["table"]] == [1, 8]
    first, large = record.latency["table"]
    assert record.speedup == first["speedup"]
    assert record.candidate.latency_ms == first["candidate_ms"]
    assert record.candidate.throughput == large["candidate_throughput"]
    assert record.source.latency_ms is not None
    assert record.source.latency_ms > 0
    assert record.budget_reasons[0].startswith("the speed-up is")
    again = certified(ladder, trial, measure_latency=True, batch=8).record
    assert again.latency is not None
    assert [row["batch"] for row in again.latency["table"]] == [8], "each size once"


def test_pytorch_is_timed_with_the_threads_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kompakt.certification.LATENCY_SECONDS", 0.1)
    seen: set[int] = set()
    ladder, trial = climbed(tmp_path)

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.add(torch.get_num_threads())
            return x

    with using_threads(2):
        certify_trial(
            trial, ladder=ladder, data=None, source=Watched(),
            options=options(measure_latency=True, threads=1), rng=np.random.default_rng(0),
        )  # fmt: skip
        assert torch.get_num_threads() == 2
    assert seen == {1}


def test_memory_is_that_of_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def peak(spec: str, arguments: dict[str, Any]) -> Any:
        """The real one takes two processes; it has tests of its own."""
        asked.append(arguments)
        with np.load(arguments["inputs"]) as stored:
            assert stored["x"].shape == (1, 40)
        return type("Peak", (), {"above_bytes": Path(arguments["path"]).stat().st_size})

    monkeypatch.setattr("kompakt.certification.peak_memory", peak)
    ladder, trial = climbed(tmp_path)
    ladder.bench.threads = 3
    record = certified(ladder, trial, measure_memory=True).record
    assert [arguments["threads"] for arguments in asked] == [3, 3]
    assert record.baseline.peak_memory_bytes == record.baseline.size_bytes
    assert record.candidate.peak_memory_bytes == record.candidate.size_bytes
    assert record.memory_ratio == pytest.approx(record.size_ratio)


# --- small parts ------------------------------------------------------------------------------


def test_modes_come_back_even_after_an_error() -> None:
    mixed = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(3)), nn.Linear(3, 3))
    mixed[1].eval()
    before = [module.training for module in mixed.modules()]
    with evaluating(mixed):
        assert not any(module.training for module in mixed.modules())
    assert [module.training for module in mixed.modules()] == before

    def fail() -> None:
        with evaluating(mixed):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [module.training for module in mixed.modules()] == before


def test_a_network_runs_on_arrays_as_a_runtime_does() -> None:
    x = inputs(DENSE)
    found = run_network(capture(model(DENSE), x), {"x": x.numpy()})
    with torch.no_grad():
        assert np.array_equal(found["output"], model(DENSE)(x).numpy())


class Stored(nn.Module):
    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        total = x
        for tensor in self.buffers():
            total = total + tensor.float().sum()
        return total


def digest(**tensors: Tensor) -> str:
    return weights_sha256(capture(Stored(**tensors), torch.zeros(2, 2)))


def test_the_fingerprint_of_weights_tells_apart_what_differs() -> None:
    base = {"a": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3)}
    assert digest(**base) == digest(**{k: v.clone() for k, v in base.items()})
    assert digest(**base) == digest(a=base["a"].t().contiguous().t(), count=base["count"])
    nudged = base["a"].clone()
    nudged[1, 2] = torch.nextafter(nudged[1, 2], torch.tensor(9.0))
    others = [
        {"a": nudged, "count": base["count"]},
        {"a": base["a"].reshape(3, 2), "count": base["count"]},
        {"a": base["a"].double(), "count": base["count"]},
        {"a": base["a"], "count": torch.tensor(4)},
        {"b": base["a"], "count": base["count"]},
        {"a": base["a"].bfloat16(), "count": torch.tensor(True)},
    ]
    assert len({digest(**base), *(digest(**other) for other in others)}) == len(others) + 1
