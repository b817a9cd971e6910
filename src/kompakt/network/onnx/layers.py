"""ONNX nodes with weights as real layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kompakt.network.onnx.facts import Array
from kompakt.network.onnx.reader import NodeReader, window

_CONVOLUTIONS: tuple[Any, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED: tuple[Any, ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS: tuple[Any, ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer made from a node.

    Attributes:
        module: The layer.
        parameters: Initializer name to (attribute, whether the file holds it transposed).
        tensors: Attribute to (initializer name, content): set by the importer, which shares equal initializers.
        argument: The place of the input that is the call's argument.
    """

    module: nn.Module
    parameters: Mapping[str, tuple[str, bool]]
    tensors: Mapping[str, tuple[str, Tensor]] = field(default_factory=dict)
    argument: int = 0


def layer_from(n: NodeReader) -> Layer | None:
    """The layer a node is, or None when it is none (or one PyTorch does not have)."""
    form = _FORMS.get(n.node.op_type)
    layer = form(n) if form is not None else None
    return layer if layer is not None and n.x(layer.argument) is not None else None


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(array.copy(order="C"))


def _is_float(*arrays: Array | None) -> bool:
    return all(a is None or a.dtype == "float32" for a in arrays)


def _is_stored(n: NodeReader, *places: int) -> bool:
    """Whether these inputs are initializers (or left out): only those can be written back in place."""
    values = [n.given(place) for place in places]
    return all(v is None or v.const_value is not None for v in values)


def _assemble(n: NodeReader, module: nn.Module, names: Mapping[int, tuple[str, bool]]) -> Layer:
    """Fill a layer made without storage with the initializers at these places."""
    parameters, tensors = {}, {}
    for place, (attribute, transposed) in names.items():
        content, value = n.constant(place), n.given(place)
        if content is None or value is None:
            continue
        tensor = _tensor(content.T if transposed else content)
        parameters[str(value.name)] = (attribute, transposed)
        tensors[attribute] = (str(value.name), tensor)
    return Layer(module=module, parameters=parameters, tensors=tensors)


def _convolution(n: NodeReader) -> Layer | None:
    weight, bias = n.constant(1), n.constant(2)
    if weight is None or not _is_stored(n, 1, 2) or not _is_float(weight, bias):
        return None
    if (n.given(2) is not None and bias is None) or weight.ndim not in (3, 4, 5):
        return None
    spatial, groups = weight.ndim - 2, n.integer("group", 1)
    found = window(n, spatial)
    if found is None or min(found[1]) < 0:
        return None
    strides, pads, dilations = found
    starts, ends = pads[:spatial], pads[spatial:]
    with torch.device("meta"):
        module = _CONVOLUTIONS[spatial - 1](
            weight.shape[1] * groups,
            weight.shape[0],
            tuple(weight.shape[2:]),
            stride=tuple(strides),
            padding=tuple(starts) if starts == ends else 0,
            dilation=tuple(dilations),
            groups=groups,
            bias=bias is not None,
        )
    if starts != ends:
        # More on one side than on the other: zeros are padded by a call of its own.
        module.padding_mode = "constant"
        pairs = zip(reversed(starts), reversed(ends), strict=True)
        module._reversed_padding_repeated_twice = [n for pair in pairs for n in pair]
    return _assemble(n, module, {1: ("weight", False), 2: ("bias", False)})


def _transposed(n: NodeReader) -> Layer | None:
    weight, bias = n.constant(1), n.constant(2)
    if weight is None or not _is_stored(n, 1, 2) or not _is_float(weight, bias):
        return None
    spatial, groups = weight.ndim - 2, n.integer("group", 1)
    if (
        n.word("auto_pad", "NOTSET") != "NOTSET"
        or n.integers("output_shape")
        or spatial not in (1, 2, 3)
    ):
        return None
    found = window(n, spatial)
    if found is None or found[1][:spatial] != found[1][spatial:]:
        return None
    strides, pads, dilations = found
    with torch.device("meta"):
        module = _TRANSPOSED[spatial - 1](
            weight.shape[0],
            weight.shape[1] * groups,
            tuple(weight.shape[2:]),
            stride=tuple(strides),
            padding=tuple(pads[:spatial]),
            output_padding=tuple(n.integers("output_padding") or [0] * spatial),
            dilation=tuple(dilations),
            groups=groups,
            bias=bias is not None,
        )
    return _assemble(n, module, {1: ("weight", False), 2: ("bias", False)})


def _gemm(n: NodeReader) -> Layer | None:
    weight, bias = n.constant(1), n.constant(2)
    plain = n.number("alpha", 1.0) == 1.0 and n.number("beta", 1.0) == 1.0
    if weight is None or not plain or n.integer("transA", 0) or weight.ndim != 2:
        return None
    if not _is_stored(n, 1, 2) or not _is_float(weight, bias):
        return None
    transposed = not n.integer("transB", 0)
    outputs, inputs = weight.T.shape if transposed else weight.shape
    if bias is not None and bias.shape != (outputs,):
        return None
    with torch.device("meta"):
        module = nn.Linear(inputs, outputs, bias=bias is not None)
    return _assemble(n, module, {1: ("weight", transposed), 2: ("bias", False)})


def _product(n: NodeReader) -> Layer | None:
    weight = n.constant(1)
    if weight is None or weight.ndim != 2 or not _is_stored(n, 1) or not _is_float(weight):
        return None
    with torch.device("meta"):
        module = nn.Linear(weight.shape[0], weight.shape[1], bias=False)
    return _assemble(n, module, {1: ("weight", True)})


def _batch_norm(n: NodeReader) -> Layer | None:
    given, rank = [n.constant(place) for place in range(1, 5)], n.rank()
    used = [o for o in n.node.outputs[1:] if o.name]
    if any(g is None for g in given) or rank not in (2, 3, 4, 5) or used:
        return None
    if not _is_stored(n, 1, 2, 3, 4) or not _is_float(*given) or n.integer("training_mode", 0):
        return None
    assert given[0] is not None
    kind = _NORMS[max(0, rank - 3)]
    with torch.device("meta"):
        module = kind(len(given[0]), eps=n.number("epsilon", 1e-5))
    names = ("weight", "bias", "running_mean", "running_var")
    layer = _assemble(n, module, {p + 1: (name, False) for p, name in enumerate(names)})
    module.num_batches_tracked = None
    return layer


def _layer_norm(n: NodeReader) -> Layer | None:
    weight, bias, rank = n.constant(1), n.constant(2), n.rank()
    axis = n.integer("axis", -1)
    if (
        weight is None
        or rank is None
        or weight.ndim != rank - axis % rank
        or len(n.node.outputs) > 1
    ):
        return None
    if not _is_stored(n, 1, 2) or not _is_float(weight, bias):
        return None
    with torch.device("meta"):
        eps = n.number("epsilon", 1e-5)
        module = nn.LayerNorm(weight.shape, eps=eps, bias=bias is not None)
    return _assemble(n, module, {1: ("weight", False), 2: ("bias", False)})


def _embedding(n: NodeReader) -> Layer | None:
    """A look-up of whole rows by indices that are not negative."""
    weight = n.constant(0)
    if weight is None or weight.ndim != 2 or n.integer("axis", 0) != 0 or n.constant(1) is not None:
        return None
    if not _is_stored(n, 0) or not _is_float(weight) or weight.shape[0] < 2 or not (n.rank(1) or 0):
        return None
    with torch.device("meta"):
        module = nn.Embedding(*weight.shape)
    layer = _assemble(n, module, {0: ("weight", False)})
    return Layer(module=module, parameters=layer.parameters, tensors=layer.tensors, argument=1)


_FORMS: dict[str, Callable[[NodeReader], Layer | None]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Gemm": _gemm,
    "MatMul": _product,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Gather": _embedding,
}

__all__ = ["Layer", "layer_from"]
