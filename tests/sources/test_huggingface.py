from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kompakt.errors import CaptureError
from kompakt.sources import open_source

transformers = pytest.importorskip("transformers")

TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
}


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def test_a_text_model_with_its_head(tmp_path: Path) -> None:
    config = transformers.BertConfig(**TEXT, num_labels=3)
    saved = transformers.BertForSequenceClassification(config).eval()
    source = open_source(str(save(saved, tmp_path / "bert")))
    assert type(source.model).__name__ == "BertForSequenceClassification"
    assert source.name == "bert"
    assert not source.model.training
    inputs = source.example_inputs
    assert set(inputs) == {"input_ids", "attention_mask"}
    assert inputs["input_ids"].max() < 50
    assert source.dynamic == {"input_ids": {1: "sequence"}, "attention_mask": {1: "sequence"}}
    with torch.no_grad():
        assert torch.equal(source.model(**inputs).logits, saved(**inputs).logits)


def test_a_vision_model_gets_images_of_its_size(tmp_path: Path) -> None:
    config = transformers.ViTConfig(
        **{k: v for k, v in TEXT.items() if k != "vocab_size"}, image_size=16, patch_size=8
    )
    saved = transformers.ViTForImageClassification(config)
    source = open_source(str(save(saved, tmp_path / "vit")))
    assert source.example_inputs["pixel_values"].shape == (2, 3, 16, 16)
    assert source.dynamic == {}
    source.model(**source.example_inputs)


def test_a_generating_model_returns_no_cache(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(**TEXT, num_key_value_heads=2)
    folder = save(transformers.LlamaForCausalLM(config), tmp_path / "llama")
    source = open_source(str(folder))
    assert set(source.model(**source.example_inputs).keys()) == {"logits"}


def test_pickled_weights_are_refused_unopened(tmp_path: Path) -> None:
    folder = save(transformers.BertModel(transformers.BertConfig(**TEXT)), tmp_path / "old")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CaptureError) as caught:
        open_source(str(folder))
    assert caught.value.code == "K016"
    assert "pytorch_model.bin" in caught.value.why
    assert "safetensors" in caught.value.help


def broken(tmp_path: Path, config: Any) -> CaptureError:
    folder = save(transformers.BertModel(transformers.BertConfig(**TEXT)), tmp_path / "broken")
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(text)
    with pytest.raises(CaptureError) as caught:
        open_source(str(folder))
    return caught.value


@pytest.mark.parametrize("config", ["{not json", "[]", '"bert"'])
def test_a_damaged_config_is_an_error(tmp_path: Path, config: str) -> None:
    assert broken(tmp_path, config).code == "K016"


def test_an_unknown_architecture_is_an_error(tmp_path: Path) -> None:
    error = broken(tmp_path, {"model_type": "bert", "architectures": ["os.system", "BertModel"]})
    assert error.code == "K017"
    assert "os.system" in error.what
    assert broken(tmp_path, {"model_type": "unheard-of"}).code == "K017"


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path) -> None:
    sentinel = tmp_path / "executed"
    (tmp_path / "broken").mkdir()
    code = f"import pathlib\npathlib.Path({str(sentinel)!r}).touch()\nclass C: pass\n"
    (tmp_path / "broken" / "modeling_own.py").write_text(code)
    config = {
        "model_type": "own",
        "architectures": ["AutoModel"],
        "auto_map": {"AutoConfig": "modeling_own.C", "AutoModel": "modeling_own.C"},
    }
    assert broken(tmp_path, config).code == "K017"
    assert not sentinel.exists()


def test_a_folder_without_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CaptureError) as caught:
        open_source(str(tmp_path))
    assert caught.value.code == "K016"
    assert "config.json" in caught.value.where
