"""Tiny random instances of text models of transformers."""

from __future__ import annotations

from benchmarks.architecture import SIZES, VOCABULARY, Architecture, from_config, text_model

_TEXT = {**SIZES, "vocab_size": VOCABULARY}
_DECODER = {**_TEXT, "use_cache": False}
_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": VOCABULARY,
    "use_cache": False,
}

LANGUAGE: dict[str, Architecture] = {
    "BERT (eager attention)": text_model(
        from_config("BertModel", "BertConfig", **_TEXT, attn_implementation="eager")
    ),
    "BERT (sdpa)": text_model(
        from_config("BertModel", "BertConfig", **_TEXT, attn_implementation="sdpa")
    ),
    "BERT masked language model": text_model(from_config("BertForMaskedLM", "BertConfig", **_TEXT)),
    "DistilBERT": text_model(
        from_config(
            "DistilBertForSequenceClassification",
            "DistilBertConfig",
            dim=32,
            n_layers=2,
            n_heads=4,
            hidden_dim=64,
            vocab_size=VOCABULARY,
        )
    ),
    "RoBERTa": text_model(
        from_config("RobertaForSequenceClassification", "RobertaConfig", **_TEXT)
    ),
    "ALBERT": text_model(from_config("AlbertModel", "AlbertConfig", **_TEXT, embedding_size=16)),
    "ELECTRA": text_model(from_config("ElectraModel", "ElectraConfig", **_TEXT, embedding_size=16)),
    "MPNet": text_model(from_config("MPNetModel", "MPNetConfig", **_TEXT)),
    "DeBERTa-v2": text_model(
        from_config(
            "DebertaV2Model",
            "DebertaV2Config",
            **_TEXT,
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            max_relative_positions=16,
            position_buckets=8,
        )
    ),
    "GPT-2": text_model(
        from_config(
            "GPT2LMHeadModel",
            "GPT2Config",
            n_embd=32,
            n_layer=2,
            n_head=4,
            vocab_size=VOCABULARY,
            n_positions=64,
            use_cache=False,
            bos_token_id=0,
            eos_token_id=1,
        )
    ),
    "Llama": text_model(
        from_config("LlamaForCausalLM", "LlamaConfig", **_DECODER, num_key_value_heads=2)
    ),
    "Mistral": text_model(
        from_config("MistralForCausalLM", "MistralConfig", **_DECODER, num_key_value_heads=2)
    ),
    "Qwen2": text_model(
        from_config("Qwen2ForCausalLM", "Qwen2Config", **_DECODER, num_key_value_heads=2)
    ),
    "OPT": text_model(
        from_config(
            "OPTForCausalLM",
            "OPTConfig",
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            ffn_dim=64,
            vocab_size=VOCABULARY,
            max_position_embeddings=64,
            word_embed_proj_dim=32,
            use_cache=False,
        )
    ),
    "BLOOM": text_model(
        from_config(
            "BloomForCausalLM",
            "BloomConfig",
            hidden_size=32,
            n_layer=2,
            n_head=4,
            vocab_size=VOCABULARY,
            use_cache=False,
        )
    ),
    "Mamba": text_model(
        from_config(
            "MambaForCausalLM",
            "MambaConfig",
            hidden_size=32,
            num_hidden_layers=2,
            vocab_size=VOCABULARY,
            use_cache=False,
        ),
        mask=False,
    ),
    "T5 encoder": text_model(
        from_config(
            "T5EncoderModel",
            "T5Config",
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            vocab_size=VOCABULARY,
        )
    ),
    "BART": text_model(from_config("BartModel", "BartConfig", **_BART)),
    "Switch Transformers encoder": text_model(
        from_config(
            "SwitchTransformersEncoderModel",
            "SwitchTransformersConfig",
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            num_experts=4,
            vocab_size=VOCABULARY,
        )
    ),
    "Longformer": text_model(
        from_config("LongformerModel", "LongformerConfig", **_TEXT, attention_window=[4, 4])
    ),
    "Reformer": text_model(
        from_config(
            "ReformerModel",
            "ReformerConfig",
            hidden_size=32,
            num_attention_heads=2,
            attention_head_size=16,
            feed_forward_size=64,
            vocab_size=VOCABULARY,
            axial_pos_shape=[4, 8],
            axial_pos_embds_dim=[16, 16],
            attn_layers=["local"],
            local_attn_chunk_length=4,
            is_decoder=False,
        )
    ),
}
