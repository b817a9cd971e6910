"""Many architectures as tiny random instances: what ``capture`` is tried on.

Built from configurations, never downloaded. ``ARCHITECTURES`` lists them by name; each says how to
build the model and its inputs for any batch size, and which dimensions may change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Inputs = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A model and the inputs it takes.

    Attributes:
        build: Makes the model with random weights.
        inputs: Keyword inputs for a batch size and, where the length may change, a length.
        lengths: Length at capture and another one to check; empty when shapes are fixed.
        dynamic: Input name to {axis: dimension name}, as ``capture`` takes it.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int, int], Inputs]
    lengths: tuple[int, ...] = ()
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def model(self) -> nn.Module:
        """The model in eval mode, with weights and statistics as if something had been learnt.

        Fresh weights make many of these models return zeros, which would compare equal to anything.
        """
        model = self.build().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    spread = (
                        1.0 / max(parameter[0].numel(), 1) ** 0.5 if parameter.ndim > 1 else 0.1
                    )
                    parameter.add_(torch.randn_like(parameter) * spread)
            for name, buffer in model.named_buffers():
                if name.endswith("running_mean"):
                    buffer.normal_(std=0.1)
                if name.endswith("running_var"):
                    buffer.uniform_(0.5, 2.0)
        return model


_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
_VOCABULARY = 99


def _hf(architecture: str, config: str, **settings: Any) -> Callable[[], nn.Module]:
    """A builder for a class of transformers; the import waits until it is called."""

    def build() -> nn.Module:
        import transformers

        made: nn.Module = getattr(transformers, architecture)(
            getattr(transformers, config)(**settings)
        )
        return made

    return build


def _whisper_encoder() -> nn.Module:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    made: nn.Module = WhisperEncoder(
        WhisperConfig(
            d_model=32,
            encoder_layers=2,
            encoder_attention_heads=4,
            encoder_ffn_dim=64,
            num_mel_bins=16,
            max_source_positions=20,
        )
    )
    return made


def _image(build: Callable[[], nn.Module], size: int = 32) -> Architecture:
    return Architecture(
        build=build, inputs=lambda batch, _: {"pixel_values": torch.randn(batch, 3, size, size)}
    )


def _text(build: Callable[[], nn.Module], mask: bool = True) -> Architecture:
    names = ("input_ids", "attention_mask") if mask else ("input_ids",)

    def inputs(batch: int, length: int) -> Inputs:
        ids = torch.randint(3, _VOCABULARY, (batch, length))
        values = (ids, torch.ones_like(ids).index_fill_(1, torch.tensor([length - 1]), 0))
        return dict(zip(names, values, strict=False))

    dynamic = {name: {1: "sequence"} for name in names}
    return Architecture(build=build, inputs=inputs, lengths=(7, 12), dynamic=dynamic)


def _sound(build: Callable[[], nn.Module]) -> Architecture:
    return Architecture(
        build=build,
        inputs=lambda batch, length: {"input_values": torch.randn(batch, length)},
        lengths=(800, 640),
        dynamic={"input_values": {1: "samples"}},
    )


def _fixed(build: Callable[[], nn.Module], **shapes: tuple[int, ...]) -> Architecture:
    return Architecture(
        build=build,
        inputs=lambda batch, _: {name: torch.randn(batch, *s) for name, s in shapes.items()},
    )


_VIT = {**_SIZES, "image_size": 32, "patch_size": 8, "num_labels": 5}
_TEXT = {**_SIZES, "vocab_size": _VOCABULARY}
_DECODER = {**_TEXT, "use_cache": False}
_SPEECH = {
    **_SIZES,
    "vocab_size": 20,
    "conv_dim": (16, 16, 16),
    "conv_stride": (5, 2, 2),
    "conv_kernel": (10, 3, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": _VOCABULARY,
    "use_cache": False,
}

TRANSFORMERS: dict[str, Architecture] = {
    "ResNet": _image(
        _hf(
            "ResNetForImageClassification",
            "ResNetConfig",
            embedding_size=8,
            hidden_sizes=[8, 16],
            depths=[1, 2],
            num_labels=5,
        )
    ),
    "RegNet": _image(
        _hf(
            "RegNetForImageClassification",
            "RegNetConfig",
            embedding_size=8,
            hidden_sizes=[8, 8, 16, 16],
            depths=[1, 1, 1, 1],
            groups_width=8,
            num_labels=5,
        ),
        64,
    ),
    "MobileNetV1": _image(
        _hf(
            "MobileNetV1ForImageClassification",
            "MobileNetV1Config",
            image_size=64,
            depth_multiplier=0.25,
            num_labels=5,
        ),
        64,
    ),
    "MobileNetV2": _image(
        _hf(
            "MobileNetV2ForImageClassification",
            "MobileNetV2Config",
            image_size=64,
            depth_multiplier=0.35,
            num_labels=5,
        ),
        64,
    ),
    "EfficientNet": _image(
        _hf(
            "EfficientNetForImageClassification",
            "EfficientNetConfig",
            image_size=64,
            width_coefficient=0.25,
            depth_coefficient=0.25,
            hidden_dim=320,
            num_labels=5,
        ),
        64,
    ),
    "ConvNeXt": _image(
        _hf(
            "ConvNextForImageClassification",
            "ConvNextConfig",
            hidden_sizes=[8, 16, 16, 16],
            depths=[1, 1, 1, 1],
            num_labels=5,
        ),
        64,
    ),
    "ViT": _image(_hf("ViTForImageClassification", "ViTConfig", **_VIT)),
    "DeiT": _image(_hf("DeiTForImageClassification", "DeiTConfig", **_VIT)),
    "DINOv2": _image(
        _hf(
            "Dinov2Model",
            "Dinov2Config",
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=56,
            patch_size=14,
        ),
        56,
    ),
    "CLIP vision": _image(
        _hf("CLIPVisionModel", "CLIPVisionConfig", **_SIZES, image_size=32, patch_size=8)
    ),
    "Swin": _image(
        _hf(
            "SwinForImageClassification",
            "SwinConfig",
            image_size=64,
            patch_size=4,
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 2],
            window_size=4,
            num_labels=5,
        ),
        64,
    ),
    "MobileViT": _image(
        _hf(
            "MobileViTForImageClassification",
            "MobileViTConfig",
            image_size=64,
            hidden_sizes=[16, 24, 32],
            neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32],
            num_attention_heads=2,
            num_labels=5,
        ),
        64,
    ),
    "SegFormer": _image(
        _hf(
            "SegformerForSemanticSegmentation",
            "SegformerConfig",
            depths=[1, 1, 1, 1],
            hidden_sizes=[8, 16, 16, 16],
            num_attention_heads=[1, 2, 2, 2],
            decoder_hidden_size=16,
            num_labels=5,
        ),
        64,
    ),
    "YOLOS": _image(
        _hf(
            "YolosModel",
            "YolosConfig",
            **_SIZES,
            image_size=[32, 32],
            patch_size=8,
            num_detection_tokens=4,
        )
    ),
    "BERT (eager attention)": _text(
        _hf("BertModel", "BertConfig", **_TEXT, attn_implementation="eager")
    ),
    "BERT (sdpa)": _text(_hf("BertModel", "BertConfig", **_TEXT, attn_implementation="sdpa")),
    "BERT masked language model": _text(_hf("BertForMaskedLM", "BertConfig", **_TEXT)),
    "DistilBERT": _text(
        _hf(
            "DistilBertForSequenceClassification",
            "DistilBertConfig",
            dim=32,
            n_layers=2,
            n_heads=4,
            hidden_dim=64,
            vocab_size=_VOCABULARY,
        )
    ),
    "RoBERTa": _text(_hf("RobertaForSequenceClassification", "RobertaConfig", **_TEXT)),
    "ALBERT": _text(_hf("AlbertModel", "AlbertConfig", **_TEXT, embedding_size=16)),
    "ELECTRA": _text(_hf("ElectraModel", "ElectraConfig", **_TEXT, embedding_size=16)),
    "MPNet": _text(_hf("MPNetModel", "MPNetConfig", **_TEXT)),
    "DeBERTa-v2": _text(
        _hf(
            "DebertaV2Model",
            "DebertaV2Config",
            **_TEXT,
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            max_relative_positions=16,
            position_buckets=8,
        )
    ),
    "GPT-2": _text(
        _hf(
            "GPT2LMHeadModel",
            "GPT2Config",
            n_embd=32,
            n_layer=2,
            n_head=4,
            vocab_size=_VOCABULARY,
            n_positions=64,
            use_cache=False,
            bos_token_id=0,
            eos_token_id=1,
        )
    ),
    "Llama": _text(_hf("LlamaForCausalLM", "LlamaConfig", **_DECODER, num_key_value_heads=2)),
    "Mistral": _text(_hf("MistralForCausalLM", "MistralConfig", **_DECODER, num_key_value_heads=2)),
    "Qwen2": _text(_hf("Qwen2ForCausalLM", "Qwen2Config", **_DECODER, num_key_value_heads=2)),
    "OPT": _text(
        _hf(
            "OPTForCausalLM",
            "OPTConfig",
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            ffn_dim=64,
            vocab_size=_VOCABULARY,
            max_position_embeddings=64,
            word_embed_proj_dim=32,
            use_cache=False,
        )
    ),
    "BLOOM": _text(
        _hf(
            "BloomForCausalLM",
            "BloomConfig",
            hidden_size=32,
            n_layer=2,
            n_head=4,
            vocab_size=_VOCABULARY,
            use_cache=False,
        )
    ),
    "Mamba": _text(
        _hf(
            "MambaForCausalLM",
            "MambaConfig",
            hidden_size=32,
            num_hidden_layers=2,
            vocab_size=_VOCABULARY,
            use_cache=False,
        ),
        mask=False,
    ),
    "T5 encoder": _text(
        _hf(
            "T5EncoderModel",
            "T5Config",
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            vocab_size=_VOCABULARY,
        )
    ),
    "BART": _text(_hf("BartModel", "BartConfig", **_BART)),
    "Whisper encoder": _fixed(_whisper_encoder, input_features=(16, 40)),
    "Wav2Vec2": _sound(_hf("Wav2Vec2ForCTC", "Wav2Vec2Config", **_SPEECH)),
    "HuBERT": _sound(_hf("HubertModel", "HubertConfig", **_SPEECH)),
    "Audio Spectrogram Transformer": _fixed(
        _hf(
            "ASTForAudioClassification",
            "ASTConfig",
            **_SIZES,
            num_mel_bins=32,
            max_length=64,
            num_labels=5,
        ),
        input_values=(64, 32),
    ),
    "Switch Transformers encoder": _text(
        _hf(
            "SwitchTransformersEncoderModel",
            "SwitchTransformersConfig",
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            num_experts=4,
            vocab_size=_VOCABULARY,
        )
    ),
    "Longformer": _text(
        _hf("LongformerModel", "LongformerConfig", **_TEXT, attention_window=[4, 4])
    ),
    "Reformer": _text(
        _hf(
            "ReformerModel",
            "ReformerConfig",
            hidden_size=32,
            num_attention_heads=2,
            attention_head_size=16,
            feed_forward_size=64,
            vocab_size=_VOCABULARY,
            axial_pos_shape=[4, 8],
            axial_pos_embds_dim=[16, 16],
            attn_layers=["local"],
            local_attn_chunk_length=4,
            is_decoder=False,
        )
    ),
}


class _Recurrent(nn.Module):
    """A recurrent layer and a head, batch first."""

    def __init__(self, cell: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = cell(8, 16, 2, batch_first=True, bidirectional=True, dropout=0.1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 8) to (B, T, 5)."""
        return self.head(self.rnn(x)[0])


def _recurrent(cell: type[nn.RNNBase]) -> Architecture:
    return Architecture(
        build=lambda: _Recurrent(cell),
        inputs=lambda batch, length: {"x": torch.randn(batch, length, 8)},
        lengths=(9, 5),
        dynamic={"x": {1: "time"}},
    )


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    return nn.TransformerEncoder(layer, 2)


PYTORCH: dict[str, Architecture] = {
    "nn.TransformerEncoder": Architecture(
        build=_encoder,
        inputs=lambda batch, length: {"src": torch.randn(batch, length, 32)},
        lengths=(7, 12),
        dynamic={"src": {1: "time"}},
    ),
    "nn.Transformer": Architecture(
        build=lambda: nn.Transformer(32, 4, 2, 2, 64, batch_first=True),
        inputs=lambda batch, length: {
            "src": torch.randn(batch, length, 32),
            "tgt": torch.randn(batch, length + 1, 32),
        },
        lengths=(7, 12),
        dynamic={"src": {1: "source"}, "tgt": {1: "target"}},
    ),
    "nn.LSTM": _recurrent(nn.LSTM),
    "nn.GRU": _recurrent(nn.GRU),
}

ARCHITECTURES: dict[str, Architecture] = {**PYTORCH, **TRANSFORMERS}
