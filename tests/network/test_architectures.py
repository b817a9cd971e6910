"""Tiny random instances of real architectures: captured, bit-equal at other shapes, and deployable.

A handful run by default; the others, and the list of what cannot be captured, are marked slow.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from kompakt.errors import CaptureError
from kompakt.network.capture import capture
from kompakt.network.kinds import kind_of
from kompakt.network.rewrites import inference_form

DEFAULT = ("ResNet", "ConvNeXt", "ViT", "BERT (sdpa)", "DistilBERT", "GPT-2", "Llama", "Wav2Vec2")
SLOW = (
    "RegNet",
    "MobileNetV1",
    "MobileNetV2",
    "EfficientNet",
    "DeiT",
    "DINOv2",
    "CLIP vision",
    "Swin",
    "MobileViT",
    "SegFormer",
    "YOLOS",
    "BERT (eager attention)",
    "BERT masked language model",
    "RoBERTa",
    "ALBERT",
    "ELECTRA",
    "MPNet",
    "DeBERTa-v2",
    "Mistral",
    "Qwen2",
    "OPT",
    "BLOOM",
    "T5 encoder",
    "Switch Transformers encoder",
    "BART",
    "Whisper encoder",
    "HuBERT",
    "Audio Spectrogram Transformer",
)
STOCHASTIC_DEPTH = ("Swin", "SegFormer")
MASKS_IN_TRAINING = ("Wav2Vec2", "HuBERT")
NAMES = [*DEFAULT, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.fixture(scope="module")
def architectures() -> ModuleType:
    pytest.importorskip("transformers")
    sys.path.insert(0, str(Path(__file__).parents[2]))
    try:
        return importlib.import_module("benchmarks.architectures")
    finally:
        sys.path.pop(0)


@pytest.mark.parametrize("name", NAMES)
def test_captured_bit_equal_and_deployable(name, architectures, same, relative_error):
    torch.manual_seed(0)
    entry = architectures.ARCHITECTURES[name]
    model = entry.model()
    length = entry.lengths[0] if entry.lengths else 0
    example = entry.inputs(2, length)
    network = capture(model, example, dynamic=entry.dynamic)
    for other in entry.lengths or (0,):
        assert same(model, network, entry.inputs(3, other))
    form = inference_form(network)
    for got, wanted in zip(
        form.flatten_outputs(form(**example)),
        network.flatten_outputs(network(**example)),
        strict=True,
    ):
        assert got.shape == wanted.shape
        assert wanted.isfinite().all()
        assert wanted.std() > 1e-6
        assert relative_error(got, wanted) < 1e-4
    if name not in (*STOCHASTIC_DEPTH, *MASKS_IN_TRAINING):
        assert same(model, network, example, train=True)
        assert not [note for note in network.notes if "train" in note]
    else:
        assert [note for note in network.notes if "train mode" in note]
    loose = [n for n in network.graph.nodes if n.op == "call_function" and kind_of(n) in LAYERS]
    assert loose == []
    missing = set(model.state_dict()) - set(network.state_dict())
    assert missing == set(network.interface.dropped) | set(network.interface.renamed)


LAYERS = ("conv", "conv_transpose", "linear", "embedding", "batch_norm", "layer_norm")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "code"), [("Longformer", "K101"), ("Reformer", "K101"), ("Mamba", "K106")]
)
def test_what_cannot_be_captured_says_so(name, code, architectures):
    entry = architectures.ARCHITECTURES[name]
    with pytest.raises(CaptureError) as error:
        capture(entry.model(), entry.inputs(2, entry.lengths[0]), dynamic=entry.dynamic)
    assert error.value.code == code


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Wav2Vec2", "GPT-2", "BERT (sdpa)", "Llama", "MobileViT"])
def test_captures_again(name, architectures, same):
    entry = architectures.ARCHITECTURES[name]
    model = entry.model()
    length = entry.lengths[0] if entry.lengths else 0
    first = capture(model, entry.inputs(2, length), dynamic=entry.dynamic)
    second = capture(first, entry.inputs(2, length), dynamic=entry.dynamic)
    assert same(model, second, entry.inputs(3, length))
    assert [kind_of(n) for n in second.graph.nodes] == [kind_of(n) for n in first.graph.nodes]
