"""Where a written file holds the float input and output of its dynamically quantized layers.

Such a layer has no codes to look at: its scale is found while it runs, inside a fused kernel. Its input and output are
floats that every fusion keeps, so they can be made visible without changing what runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx_ir as ir

from kompakt.network.network import Network
from kompakt.quantize.layers import Treated
from kompakt.targets.target import LayerValues

_WEIGHT = ".weight_codes"


def dynamic_paths(network: Network) -> dict[str, bool]:
    """The dynamic layers that a network calls, by path, in graph order, and whether they have a bias."""
    found: dict[str, bool] = {}
    for node in network.graph.nodes:
        layer = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, Treated) and layer.treatment.mode == "dynamic":
            found[str(node.target)] = layer.bias is not None
    return found


def dynamic_values(model: ir.Model, network: Network) -> dict[str, tuple[LayerValues, ...]]:
    """For each dynamic layer, the names of its float input and output, call by call in graph order."""
    biased = dynamic_paths(network)
    found: dict[str, tuple[LayerValues, ...]] = {}
    for path, product in _products(model, biased):
        codes = product.inputs[0]
        quantize = codes.producer() if codes is not None else None
        source = quantize.inputs[0] if quantize is not None else None
        result = _behind(product, ("Cast", "Mul", "Add") if biased[path] else ("Cast", "Mul"))
        if source is not None and result is not None:
            source.name = source.name or f"{path}.input"
            result.name = result.name or f"{path}.output"
            found[path] = (*found.get(path, ()), LayerValues(source.name, result.name))
    return found


def _products(model: ir.Model, paths: Collection[str]) -> Iterator[tuple[str, ir.Node]]:
    for node in model.graph:
        if node.op_type != "MatMulInteger" or node.inputs[1] is None:
            continue
        path = str(node.inputs[1].name).removesuffix(_WEIGHT)
        if path in paths:
            yield path, node


def _behind(product: ir.Node, kinds: tuple[str, ...]) -> ir.Value | None:
    """The output of a chain of operators of these types behind a product."""
    value = product.outputs[0]
    for kind in kinds:
        users = list(value.uses())
        if len(users) != 1 or users[0].node.op_type != kind:
            return None
        value = users[0].node.outputs[0]
    return value
