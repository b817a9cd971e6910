"""A network over PyTorch's quantized tensors, with the modules that ``torch.ao.quantization`` converts to.

A quantized tensor carries its scale and zero point with its codes. Layers take and give such tensors; between a layer
and its quantizer stands nothing, because the quantizer's scale is the layer's output scale.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from kompakt.errors import TargetError
from kompakt.network import tree
from kompakt.network.kinds import kind_of
from kompakt.network.network import Network, holds_tensor
from kompakt.network.operators import arguments, operator_name, value
from kompakt.numerics.granularity import PerChannel
from kompakt.quantize.kinds import padding_mode
from kompakt.quantize.layers import Treated
from kompakt.quantize.place import is_quantizer_call, quantizer_of
from kompakt.quantize.quantizer import Quantizer
from kompakt.quantize.redundant import redundant_activations
from kompakt.targets.pytorch_program import quietly

OPS: Any = torch.ops
MOVERS = frozenset({"reshape", "transpose", "slice", "max_pool", "pad"})
_ARITHMETIC = {"add": "add", "mul": "mul", "cat": "cat", "global_average_pool": "pool"}


def quantized_module(network: Network) -> fx.GraphModule:
    """The eager module of a placed and frozen (or untouched float) network.

    Args:
        network: Its quantizers, if any, have ranges and its treated layers are frozen; it is not changed.

    Returns:
        A module that takes and gives float tensors and can be scripted; it returns a tuple of outputs, or the one
        output there is.

    Raises:
        TargetError: K401 when a layer has no quantized form.
    """
    with torch.no_grad(), quietly():
        return _Writer(network).result()


class _Writer:
    def __init__(self, network: Network) -> None:
        self.network, self.graph, self.root = network, fx.Graph(), nn.Module()
        self.made: dict[Node, Any] = {}
        self.grids: dict[Node, Quantizer] = {}
        """For new nodes that yield quantized tensors, their quantizer."""
        self.skip = set(redundant_activations(network))

    def result(self) -> fx.GraphModule:
        specs = iter(self.network.input_specs)
        for node in self.network.graph.nodes:
            if node.op == "placeholder":
                self.made[node] = self.graph.placeholder(next(specs).name, type_expr=Tensor)
            elif node.op == "output":
                leaves = [n for n in tree.flatten(node.args[0])[0] if holds_tensor(n)]
                results = tuple(self.plain(leaf) for leaf in leaves)
                self.graph.output(results[0] if len(results) == 1 else results)
            elif node not in self.made:
                self.made[node] = self.made[node.args[0]] if node in self.skip else self._call(node)
        module = fx.GraphModule(self.root, self.graph, class_name="QuantizedNetwork").eval()
        module.graph.eliminate_dead_code()
        module.recompile()
        return module

    # Values

    def call(self, function: Any, *args: Any, grid: Quantizer | None = None, **kw: Any) -> Node:
        """One operator call, on the grid of a quantizer when its result is a quantized tensor."""
        made = self.graph.call_function(function, args, kw)
        if grid is not None:
            self.grids[made] = grid
        return made

    def plain(self, node: Any) -> Any:
        """The float value of a node of the network."""
        made = self.made[node]
        quantized = isinstance(made, Node) and made in self.grids
        return self.graph.call_method("dequantize", (made,)) if quantized else made

    def codes(self, node: Any) -> Node | None:
        """The quantized value of a node of the network, if it has one."""
        made = self.made.get(node) if isinstance(node, Node) else None
        return made if isinstance(made, Node) and made in self.grids else None

    # Calls

    def _call(self, node: Node) -> Any:
        if is_quantizer_call(self.network, node):
            return self._quantize(node)
        if node.op == "get_attr":
            return self._attribute(str(node.target))
        chain = self._chain(node)
        made = self._integer(node, *chain) if chain is not None else None
        if made is not None:
            return made
        if node.op == "call_module":
            layer = self.network.get_submodule(str(node.target))
            if isinstance(layer, Treated) and layer.stage != "off":
                return self._treated(node, layer)
            self._adopt(str(node.target), layer)
            return self.graph.call_module(
                str(node.target), tuple(map(self._float, node.args)), dict(node.kwargs)
            )
        return self._float_call(node)

    def _float(self, argument: Any) -> Any:
        return fx.node.map_arg(argument, self.plain)

    def _float_call(self, node: Node) -> Any:
        """An operator on floats; TorchScript knows operators by name and finds the overload itself."""
        if operator_name(node) == "kompakt.global_average_pool":
            axes = list(range(2, value(node).dim()))
            return self.call(OPS.aten.mean, self._float(node.args[0]), axes, True)
        if operator_name(node) == "aten.sym_size":
            return self.call(OPS.aten.size, self._float(node.args[0]), node.args[1])
        packet = getattr(node.target, "overloadpacket", node.target)
        return self.call(packet, *self._float(node.args), **self._float(dict(node.kwargs)))

    def _quantize(self, node: Node) -> Any:
        quantizer, source = quantizer_of(self.network, node), node.args[0]
        codes = self.codes(source)
        if codes is not None and self.grids[codes] is quantizer:
            return codes
        scale, zero = quantizer.parameters_()
        grid = (float(scale), int(zero), torch.quint8)
        return self.call(torch.quantize_per_tensor, self.plain(source), *grid, grid=quantizer)

    def _chain(self, node: Node) -> tuple[Node, Quantizer] | None:
        """The last node of the kernel that starts here, and the quantizer of its result; None without one."""
        end = node
        users = list(node.users)
        if len(users) == 1 and kind_of(users[0]) in ("relu", "relu6"):
            end = users[0]
        readers = list(end.users)
        if not readers or not all(is_quantizer_call(self.network, r) for r in readers):
            return None
        quantizers = {quantizer_of(self.network, r) for r in readers}
        return (end, quantizers.pop()) if len(quantizers) == 1 else None

    def _integer(self, node: Node, end: Node, quantizer: Quantizer) -> Node | None:
        """An integer kernel that gives a quantized tensor, or None when this is none."""
        kind = kind_of(end) if end is not node and end not in self.skip else ""
        made = self._kernel(node, quantizer, kind == "relu")
        if made is not None and kind == "relu6":
            # On the same grid, clipping codes is the same as clipping before they are made.
            made = self.call(OPS.aten.hardtanh, made, 0.0, 6.0, grid=quantizer)
        if made is not None and end is not node:
            self.made[end] = made
        return made

    def _kernel(self, node: Node, quantizer: Quantizer, relu: bool) -> Node | None:
        kind, first = kind_of(node), node.args[0]
        scale, zero = quantizer.parameters_()
        grid = (float(scale), int(zero))
        if kind in MOVERS and not relu and _moves_codes(node):
            codes = self.codes(first)
            if codes is None or self.grids[codes] is not quantizer:
                return None
            if kind == "pad":
                return self._padded(node)
            packet = getattr(node.target, "overloadpacket", node.target)
            rest = (*self._float(node.args[1:]),)
            return self.call(packet, codes, *rest, grid=quantizer, **self._float(dict(node.kwargs)))
        if node.op == "call_module":
            layer = self.network.get_submodule(str(node.target))
            static = isinstance(layer, Treated) and layer.treatment.mode == "static"
            codes = self._padded(first) if static else None
            if codes is None:
                return None
            path = self._layer(node, layer, grid, relu)
            made = self.graph.call_module(path, (codes,))
            self.grids[made] = quantizer
            return made
        parts = [self.codes(n) for n in node.all_input_nodes]
        if kind not in _ARITHMETIC or None in parts or not parts:
            return None
        if kind == "global_average_pool":
            return self._average(node, parts[0], quantizer, grid) if not relu else None
        if kind == "cat":
            axis = arguments(node)["dim"]
            return self.call(OPS.quantized.cat, parts, axis, *grid, grid=quantizer)
        function = getattr(OPS.quantized, _ARITHMETIC[kind] + ("_relu" if relu else ""))
        return self.call(function, *parts, *grid, grid=quantizer)

    def _padded(self, source: Any) -> Node | None:
        """The codes a layer reads; a padding that other runtimes leave to the layer is done on codes here."""
        codes = self.codes(source)
        if codes is not None or not isinstance(source, Node) or kind_of(source) != "pad":
            return codes
        inner = self.codes(source.args[0])
        if inner is None or not _moves_codes(source):
            return None
        amounts = arguments(source)["pad"]
        return self.call(OPS.aten.constant_pad_nd, inner, amounts, 0, grid=self.grids[inner])

    def _average(self, node: Node, codes: Any, quantizer: Quantizer, grid: Any) -> Node:
        """PyTorch's own average keeps the scale of its input; this one rounds once, to its quantizer's."""
        plain = self.graph.call_method("dequantize", (codes,))
        mean = self.call(OPS.aten.mean, plain, list(range(2, value(node).dim())), True)
        return self.call(torch.quantize_per_tensor, mean, *grid, torch.quint8, grid=quantizer)

    # Layers

    def _layer(self, node: Node, layer: Any, grid: tuple[float, int], relu: bool) -> str:
        """A quantized layer as a new module under the layer's name; returns that name."""
        weight, bias = _weight(layer), layer.treated_bias()
        made = _module_for(node, layer, relu)
        made.set_weight_bias(weight, None if bias is None else bias.detach())
        made.scale, made.zero_point = grid
        path = str(node.target)
        if path in self._taken():
            path = f"{path}_{node.name}"
        self._adopt(path, made)
        return path

    def _taken(self) -> set[str]:
        return {name for name, _ in self.root.named_modules()}

    def _treated(self, node: Node, layer: Treated) -> Node:
        """A treated layer outside integer kernels: dynamic, or with decoded weights."""
        if layer.treatment.mode != "dynamic" or not isinstance(layer, nn.Linear):
            raise _no_form(
                node, f"there is no quantized {type(layer).__name__} for its surroundings"
            )
        from torch.ao.nn.quantized import dynamic

        made = dynamic.Linear(layer.in_features, layer.out_features)
        bias = None if layer.bias is None else layer.bias.detach()
        made.set_weight_bias(_weight(layer), bias)
        self._adopt(str(node.target), made)
        return self.graph.call_module(str(node.target), (self._float(node.args[0]),))

    def _attribute(self, path: str) -> Node:
        found: Any = self.network
        for part in path.split("."):
            found = getattr(found, part)
        name = "".join(c if c.isalnum() else "_" for c in path)
        self.root.register_buffer(name, found.detach().clone())
        return self.graph.get_attr(name)

    def _adopt(self, path: str, layer: nn.Module) -> None:
        owner, _, name = path.rpartition(".")
        parent = self.root
        for part in owner.split(".") if owner else ():
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = getattr(parent, part)
        if name not in parent._modules:
            parent.add_module(name, layer)


def _weight(layer: Treated) -> Tensor:
    """The weight as a quantized tensor with the layer's own codes."""
    codes, scale, zero = layer.weight_codes, layer.weight_scale, layer.weight_zero_point
    assert codes is not None
    assert scale is not None
    assert zero is not None
    if layer.treatment.mode == "dynamic":
        codes = codes.t()
    codes = codes.contiguous()
    if isinstance(layer.treatment.granularity, PerChannel):
        steps = (scale.double(), zero.long(), layer.treatment.granularity.axis)
        return torch._make_per_channel_quantized_tensor(codes, *steps)
    return torch._make_per_tensor_quantized_tensor(codes, float(scale), int(zero))


def _module_for(node: Node, layer: Any, relu: bool) -> Any:
    """An empty quantized module with a layer's settings."""
    import torch.ao.nn.intrinsic.quantized as fused
    import torch.ao.nn.quantized as quantized

    if isinstance(layer, nn.Linear):
        kind: Any = fused.LinearReLU if relu else quantized.Linear
        return kind(layer.in_features, layer.out_features)
    spatial = len(layer.kernel_size)
    owner, name = (fused, f"ConvReLU{spatial}d") if relu else (quantized, f"Conv{spatial}d")
    if isinstance(layer.padding, str):
        raise _no_form(node, f"its padding is {layer.padding!r}: give it as numbers")
    return getattr(owner, name)(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=layer.bias is not None,
        padding_mode=layer.padding_mode,
    )


def _moves_codes(node: Node) -> bool:
    """Whether PyTorch moves codes here as it moves numbers: of paddings it only knows those with zeros."""
    if kind_of(node) != "pad":
        return True
    found = arguments(node)
    return padding_mode(node) == "constant" and not found.get("value")


def _no_form(node: Node, why: str) -> TargetError:
    return TargetError(
        "K401",
        f"writing {node.target} as TorchScript",
        why=why,
        help="keep it in float, or use the target torch",
    )
