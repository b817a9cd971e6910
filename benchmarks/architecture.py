"""How a tiny random instance of an architecture is described: the model, its inputs, what may change.

Built from configurations, never downloaded.
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


SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
VOCABULARY = 99


def from_config(architecture: str, config: str, **settings: Any) -> Callable[[], nn.Module]:
    """A builder for a class of transformers; the import waits until it is called."""

    def build() -> nn.Module:
        import transformers

        made: nn.Module = getattr(transformers, architecture)(
            getattr(transformers, config)(**settings)
        )
        return made

    return build


def image_model(build: Callable[[], nn.Module], size: int = 32) -> Architecture:
    return Architecture(
        build=build, inputs=lambda batch, _: {"pixel_values": torch.randn(batch, 3, size, size)}
    )


def text_model(build: Callable[[], nn.Module], mask: bool = True) -> Architecture:
    names = ("input_ids", "attention_mask") if mask else ("input_ids",)

    def inputs(batch: int, length: int) -> Inputs:
        ids = torch.randint(3, VOCABULARY, (batch, length))
        values = (ids, torch.ones_like(ids).index_fill_(1, torch.tensor([length - 1]), 0))
        return dict(zip(names, values, strict=False))

    dynamic = {name: {1: "sequence"} for name in names}
    return Architecture(build=build, inputs=inputs, lengths=(7, 12), dynamic=dynamic)


def sound_model(build: Callable[[], nn.Module]) -> Architecture:
    return Architecture(
        build=build,
        inputs=lambda batch, length: {"input_values": torch.randn(batch, length)},
        lengths=(800, 640),
        dynamic={"input_values": {1: "samples"}},
    )


def fixed_model(build: Callable[[], nn.Module], **shapes: tuple[int, ...]) -> Architecture:
    return Architecture(
        build=build,
        inputs=lambda batch, _: {name: torch.randn(batch, *s) for name, s in shapes.items()},
    )
