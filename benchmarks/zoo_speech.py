"""Tiny random instances of speech and sound models of transformers."""

from __future__ import annotations

from torch import nn

from benchmarks.architecture import (
    SIZES,
    Architecture,
    fixed_model,
    from_config,
    sound_model,
)

_SPEECH = {
    **SIZES,
    "vocab_size": 20,
    "conv_dim": (16, 16, 16),
    "conv_stride": (5, 2, 2),
    "conv_kernel": (10, 3, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


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


SPEECH: dict[str, Architecture] = {
    "Whisper encoder": fixed_model(_whisper_encoder, input_features=(16, 40)),
    "Wav2Vec2": sound_model(from_config("Wav2Vec2ForCTC", "Wav2Vec2Config", **_SPEECH)),
    "HuBERT": sound_model(from_config("HubertModel", "HubertConfig", **_SPEECH)),
    "Audio Spectrogram Transformer": fixed_model(
        from_config(
            "ASTForAudioClassification",
            "ASTConfig",
            **SIZES,
            num_mel_bins=32,
            max_length=64,
            num_labels=5,
        ),
        input_values=(64, 32),
    ),
}
