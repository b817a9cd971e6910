"""Tiny random instances of image models of transformers."""

from __future__ import annotations

from benchmarks.architecture import SIZES, Architecture, from_config, image_model

_VIT = {**SIZES, "image_size": 32, "patch_size": 8, "num_labels": 5}

VISION: dict[str, Architecture] = {
    "ResNet": image_model(
        from_config(
            "ResNetForImageClassification",
            "ResNetConfig",
            embedding_size=8,
            hidden_sizes=[8, 16],
            depths=[1, 2],
            num_labels=5,
        )
    ),
    "RegNet": image_model(
        from_config(
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
    "MobileNetV1": image_model(
        from_config(
            "MobileNetV1ForImageClassification",
            "MobileNetV1Config",
            image_size=64,
            depth_multiplier=0.25,
            num_labels=5,
        ),
        64,
    ),
    "MobileNetV2": image_model(
        from_config(
            "MobileNetV2ForImageClassification",
            "MobileNetV2Config",
            image_size=64,
            depth_multiplier=0.35,
            num_labels=5,
        ),
        64,
    ),
    "EfficientNet": image_model(
        from_config(
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
    "ConvNeXt": image_model(
        from_config(
            "ConvNextForImageClassification",
            "ConvNextConfig",
            hidden_sizes=[8, 16, 16, 16],
            depths=[1, 1, 1, 1],
            num_labels=5,
        ),
        64,
    ),
    "ViT": image_model(from_config("ViTForImageClassification", "ViTConfig", **_VIT)),
    "DeiT": image_model(from_config("DeiTForImageClassification", "DeiTConfig", **_VIT)),
    "DINOv2": image_model(
        from_config(
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
    "CLIP vision": image_model(
        from_config("CLIPVisionModel", "CLIPVisionConfig", **SIZES, image_size=32, patch_size=8)
    ),
    "Swin": image_model(
        from_config(
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
    "MobileViT": image_model(
        from_config(
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
    "SegFormer": image_model(
        from_config(
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
    "YOLOS": image_model(
        from_config(
            "YolosModel",
            "YolosConfig",
            **SIZES,
            image_size=[32, 32],
            patch_size=8,
            num_detection_tokens=4,
        )
    ),
}
