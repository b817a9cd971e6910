"""Turns operators that own parameters back into calls of real ``nn`` layers under their original
names.

A layer of the model is used as it is when the call does exactly what the layer does. Otherwise (a
functional call, a subclass with a ``forward`` of its own, an attention in-projection) a plain layer
is made around the very same parameters: tied weights stay tied because parameters are matched by
identity, never by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx, nn

from kompakt.network.dropout import ScaledDotProductAttention, attention_layer
from kompakt.network.layer_rules import LAYER_RULES, LayerRule, build_layer
from kompakt.network.operators import arguments, operator_name, remove_dead_nodes, value
from kompakt.network.program import Traced
from kompakt.network.rnn import restore_rnns
from kompakt.network.stack import module_path
from kompakt.network.weights import resolve_weights

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def rebuild_layers(traced: Traced, model: nn.Module) -> dict[str, nn.Module]:
    """Replace operators by layer calls in ``traced.graph``; returns the layers by name.

    Args:
        traced: Flat graph; changed.
        model: The module it was traced from.
    """
    return _Rebuilding(traced, model).run()


class _Rebuilding:
    """Keeps which layers exist, so that a layer called twice stays one layer."""

    def __init__(self, traced: Traced, model: nn.Module) -> None:
        self.traced = traced
        self.modules = dict(nn.Module.named_modules(model, remove_duplicate=False))
        self.owners: dict[int, list[tuple[str, str]]] = {}
        self.layers: dict[str, nn.Module] = {}
        self.origin: dict[str, LayerRule] = {}

    def run(self) -> dict[str, nn.Module]:
        for name in restore_rnns(self.traced.graph):
            self.layers[name] = _without_hooks(self.modules[name])
        resolve_weights(self.traced)
        self.owners = _owners(self.modules, self.traced)
        remove_dead_nodes(self.traced.graph)
        for node in list(self.traced.graph.nodes):
            rule = LAYER_RULES.get(operator_name(node))
            if rule is not None:
                self._replace(node, rule)
            attention = attention_layer(node)
            if attention is not None:
                self._replace_attention(node, attention)
        return self.layers

    def _replace(self, node: fx.Node, rule: LayerRule) -> None:
        values = arguments(node)
        weights = self._weights(values, rule)
        if weights is None:
            return
        concrete = {name: value(v) for name, v in values.items()}
        made = build_layer(rule, {**concrete, **weights})
        if made is None:
            return
        tensors = {rule.weights[name]: weights[name] for name in weights}
        name = self._existing(node, rule, made, tensors) or self._new(node, rule, made, tensors)
        with self.traced.graph.inserting_before(node):
            inputs = tuple(values[argument] for argument in rule.inputs)
            call = self.traced.graph.call_module(name, inputs)
        call.meta.update(node.meta)
        node.replace_all_uses_with(call)
        self.traced.graph.erase_node(node)

    def _replace_attention(self, node: fx.Node, layer: ScaledDotProductAttention) -> None:
        name = self._free(module_path(node), "attention", layer)
        found = arguments(node)
        inputs = tuple(found[key] for key in ("query", "key", "value", "attn_mask"))
        with self.traced.graph.inserting_before(node):
            call = self.traced.graph.call_module(name, inputs)
        call.meta.update(node.meta)
        node.replace_all_uses_with(call)
        self.traced.graph.erase_node(node)
        self.layers[name] = layer

    def _weights(
        self, values: Mapping[str, Any], rule: LayerRule
    ) -> dict[str, Tensor | None] | None:
        """The tensors behind the weight arguments; None when one of them is computed in the
        graph.
        """
        found: dict[str, Tensor | None] = {}
        for name in rule.weights:
            given = values.get(name)
            if isinstance(given, fx.Node) and given.op != "get_attr":
                return None
            found[name] = self.traced.tensors[str(given.target)] if given is not None else None
        return found

    def _existing(
        self, node: fx.Node, rule: LayerRule, made: nn.Module, tensors: Mapping[str, Tensor | None]
    ) -> str:
        """Name of a layer that computes exactly this call: made before, or the model's own."""
        for name, layer in self.layers.items():
            if self.origin.get(name) is rule and rule.weights and _same(layer, made, tensors, rule):
                return name
        for name in self._candidates(node, tensors):
            module = self.modules.get(name)
            if not name or module is None or name in self.layers:
                continue
            if _is_plain(module, made) and _same(module, made, tensors, rule):
                self._register(name, _without_hooks(module), rule)
                return name
        return ""

    def _candidates(self, node: fx.Node, tensors: Mapping[str, Tensor | None]) -> list[str]:
        """The module that contains the call, then every module that owns the weight."""
        weight = tensors.get("weight")
        owners = self.owners.get(id(weight), []) if weight is not None else []
        return [module_path(node), *(owner for owner, _ in owners)]

    def _new(
        self, node: fx.Node, rule: LayerRule, made: nn.Module, tensors: Mapping[str, Tensor | None]
    ) -> str:
        """Put the call's own tensors into the freshly built layer and give it a name."""
        for attribute, tensor in tensors.items():
            _put(made, attribute, tensor)
        path = module_path(node)
        if not rule.weights:
            inside = isinstance(self.modules.get(path), type(made)) and path
            name = path if inside and path not in self.layers else self._free(path, "dropout", made)
        else:
            name = self._name(path, rule, tensors, made)
        made.train(self.modules[""].training)
        self._register(name, made, rule)
        return name

    def _name(
        self, path: str, rule: LayerRule, tensors: Mapping[str, Tensor | None], made: nn.Module
    ) -> str:
        operator = rule.operator.removeprefix("aten.").rstrip("123d")
        weight = tensors.get("weight")
        owners = self.owners.get(id(weight), []) if weight is not None else []
        if not owners:
            return self._free(path, operator, made)
        owner, attribute = next(((o, a) for o, a in owners if o == path), owners[0])
        if owner and self._keeps_names(owner, tensors):
            return owner
        return self._free(owner, re.sub(r"_?weight$", "", attribute) or operator, made)

    def _keeps_names(self, owner: str, tensors: Mapping[str, Tensor | None]) -> bool:
        """Whether a layer called ``owner`` would give every tensor the name it has in the model."""
        if owner in self.layers:
            return False
        return all(
            tensor is None or (owner, attribute) in self.owners.get(id(tensor), ())
            for attribute, tensor in tensors.items()
        )

    def _free(self, path: str, word: str, made: nn.Module) -> str:
        """A name for a layer the model does not have; a network that is captured again has it."""
        base = f"{path}.{word}" if path else word
        if isinstance(self.modules[""], fx.GraphModule):
            pattern = re.compile(rf"{re.escape(base)}(_\d+)?")
            for name, module in self.modules.items():
                alike = type(module) is type(made) and pattern.fullmatch(name)
                if alike and name not in self.layers:
                    return str(name)
        name, number = base, 0
        while name in self.layers or name in self.modules or self._is_attribute(path, name):
            number += 1
            name = f"{base}_{number}"
        return name

    def _is_attribute(self, path: str, name: str) -> bool:
        return hasattr(self.modules.get(path), name.rpartition(".")[2])

    def _register(self, name: str, layer: nn.Module, rule: LayerRule) -> None:
        self.layers[name] = layer
        self.origin[name] = rule


def _owners(modules: Mapping[str, nn.Module], traced: Traced) -> dict[int, list[tuple[str, str]]]:
    """Identity of a parameter or buffer → every (module name, attribute) that holds it."""
    found: dict[int, list[tuple[str, str]]] = {}
    for name, module in modules.items():
        for group in (module._parameters, module._buffers):
            for attribute, tensor in group.items():
                if tensor is not None:
                    found.setdefault(id(tensor), []).append((name, attribute))
    for full, tensor in traced.tensors.items():
        owner, _, attribute = full.rpartition(".")
        holders = found.setdefault(id(tensor), [])
        if (owner, attribute) not in holders:
            holders.append((owner, attribute))
    return found


def _is_plain(module: nn.Module, made: nn.Module) -> bool:
    """Whether ``module`` runs the stock ``forward`` of the layer we would build."""
    if not isinstance(module, type(made)) and type(module).__mro__[1] is not type(made).__mro__[1]:
        return False
    stock = type(made).forward
    return type(module).forward is stock and "forward" not in module.__dict__


def _same(
    module: nn.Module, made: nn.Module, tensors: Mapping[str, Tensor | None], rule: LayerRule
) -> bool:
    """Whether ``module`` holds these very tensors and has the settings of ``made``."""
    if not isinstance(module, nn.Module) or type(module).forward is not type(made).forward:
        return False
    return all(getattr(module, a, None) is tensor for a, tensor in tensors.items()) and all(
        getattr(module, setting, None) == getattr(made, setting, None) for setting in rule.settings
    )


def _without_hooks(module: nn.Module) -> nn.Module:
    """The layer itself; its hooks were traced into the graph and must not run a second time."""
    for hooks in _HOOKS:
        getattr(module, hooks).clear()
    if getattr(module, "inplace", False):
        module.__dict__["inplace"] = False
    return module


def _put(layer: nn.Module, attribute: str, tensor: Tensor | None) -> None:
    layer._parameters.pop(attribute, None)
    layer._buffers.pop(attribute, None)
    if tensor is None or isinstance(tensor, nn.Parameter):
        layer.register_parameter(attribute, tensor)
    else:
        layer.register_buffer(attribute, tensor)
