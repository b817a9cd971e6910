"""From an exported program to one flat graph whose weights are named as in the model.

The exported graph passes every parameter as an input, wraps regions in higher-order operators and
carries shape assertions. Here parameters become ``get_attr`` nodes under their own names, regions
are put in line, assertions and inputs that are not tensors disappear.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from kompakt.errors import CaptureError
from kompakt.network.failure import user_line
from kompakt.network.operators import is_region, operator_name

_ASSERTIONS = frozenset(
    (
        "aten._assert_tensor_metadata",
        "aten._assert_scalar",
        "aten._assert_async",
        "aten.sym_constrain_range",
        "aten.sym_constrain_range_for_size",
        "aten._functional_assert_async",
    )
)
_KEPT_META = ("val", "nn_module_stack", "stack_trace")


@dataclass
class Traced:
    """A flat graph on its way to becoming a Network.

    Attributes:
        graph: Placeholders for input tensors, ``get_attr`` for weights, operators, one output.
        tensors: Name → parameter, buffer or constant behind each ``get_attr`` node.
        transient: Names of ``tensors`` that do not belong in a state dict.
        notes: What the user should know.
        transposed: Names of parameters that are stored the other way round than in the model.
        pieces: Parameter of the model → (offset, shape) → name of the parameter that was cut from
            it.
    """

    graph: fx.Graph
    tensors: dict[str, Tensor]
    transient: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    transposed: list[str] = field(default_factory=list)
    pieces: dict[str, dict[tuple[int, tuple[int, ...]], str]] = field(default_factory=dict)


def flat_graph(program: ExportedProgram, model: nn.Module, input_names: Sequence[str]) -> Traced:
    """The flat graph of an exported program.

    Args:
        program: What ``torch.export`` made of ``model``.
        model: The module that was exported; its own tensors are put into the result.
        input_names: A name for every input tensor.

    Raises:
        CaptureError: K105 for control flow, autocast regions and scripted objects.
    """
    return _Flattening(program, model).run(input_names)


class _Flattening:
    """One pass over an exported graph; ``env`` maps exported nodes to values in the new graph."""

    def __init__(self, program: ExportedProgram, model: nn.Module) -> None:
        self.program = program
        self.model = model
        self.traced = Traced(fx.Graph(), {})
        self.weights: dict[str, fx.Node] = {}

    def run(self, input_names: Sequence[str]) -> Traced:
        env = self._inputs(input_names)
        module = self.program.graph_module
        outputs = self._inline(module.graph, module, env)
        self.traced.graph.output(self._outputs(outputs))
        return self.traced

    def _inputs(self, input_names: Sequence[str]) -> dict[fx.Node, Any]:
        env: dict[fx.Node, Any] = {}
        names = iter(input_names)
        placeholders = self.program.graph.find_nodes(op="placeholder")
        for node, spec in zip(placeholders, self.program.graph_signature.input_specs, strict=True):
            if spec.kind is InputKind.USER_INPUT:
                env[node] = self.traced.graph.placeholder(next(names))
                env[node].meta["val"] = node.meta["val"]
                continue
            if spec.kind in (InputKind.TOKEN, InputKind.CUSTOM_OBJ):
                raise CaptureError(
                    "K105", f"capturing a model that uses {spec.target}", why="it is not a tensor"
                )
            persistent = spec.kind is InputKind.PARAMETER or bool(spec.persistent)
            env[node] = _Weight(str(spec.target), node.meta["val"], persistent)
        return env

    def _inline(self, graph: fx.Graph, module: nn.Module, env: dict[fx.Node, Any]) -> Any:
        """Copy the nodes of one (sub)graph; returns what its output node holds."""
        for node in graph.nodes:
            if node.op == "placeholder" or operator_name(node) in _ASSERTIONS:
                continue
            if node.op == "output":
                return self._resolve(node.args[0], env)
            if node.op == "get_attr":
                env[node] = self._attribute(node, module)
            elif is_region(node):
                env[node] = self._region(node, module, env)
            elif node.target is operator.getitem and _is_tuple(env, node.args[0]):
                env[node] = env[node.args[0]][node.args[1]]
            else:
                env[node] = self._copy(node, env)
        return ()

    def _copy(self, node: fx.Node, env: dict[fx.Node, Any]) -> fx.Node:
        args = self._resolve(node.args, env)
        kwargs = self._resolve(node.kwargs, env)
        copied = self.traced.graph.create_node(node.op, node.target, args, kwargs, name=node.name)
        copied.meta.update({key: node.meta[key] for key in _KEPT_META if key in node.meta})
        return copied

    def _attribute(self, node: fx.Node, module: nn.Module) -> Any:
        attribute = module
        for part in str(node.target).split("."):
            attribute = getattr(attribute, part)
        if isinstance(attribute, Tensor):
            return _Weight(str(node.target), node.meta.get("val", attribute), False, attribute)
        return attribute

    def _region(self, node: fx.Node, module: nn.Module, env: dict[fx.Node, Any]) -> Any:
        name = str(node.target)
        bodies = [b for b in map(env.get, node.all_input_nodes) if isinstance(b, fx.GraphModule)]
        where = _where(node, bodies[0] if bodies else None)
        position = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}.get(name)
        if position is None or (position == 4 and node.args[2]):
            raise CaptureError(
                "K105",
                f"capturing {type(self.model).__name__}",
                where=where,
                why=f"'{name}' runs part of the model under rules that a plain graph cannot hold",
                help="take the autocast or control flow out of the model's forward",
            )
        body = self._resolve(node.args[position], env)
        rest: list[Any] = list(node.args[position + 1 :])
        operands = [env.get(operand, operand) for operand in rest]
        if position == 1:
            self._note_gradients(operands, where)
        inner = dict(zip(body.graph.find_nodes(op="placeholder"), operands, strict=True))
        return self._inline(body.graph, body, inner)

    def _note_gradients(self, operands: Sequence[Any], where: str) -> None:
        weights = [o for o in operands if isinstance(o, _Weight)]
        if any(isinstance(_find(self.model, w.name), nn.Parameter) for w in weights):
            self.traced.notes.append(
                f"{where or 'a region'} runs under torch.no_grad(); in the network its "
                "parameters receive gradients"
            )

    def _resolve(self, argument: Any, env: dict[fx.Node, Any]) -> Any:
        return fx.node.map_arg(argument, lambda node: self._materialise(env[node]))

    def _materialise(self, entry: Any) -> Any:
        if not isinstance(entry, _Weight):
            return entry
        if entry.name not in self.weights:
            self.weights[entry.name] = self._weight(entry)
        return self.weights[entry.name]

    def _weight(self, entry: _Weight) -> fx.Node:
        tensor = entry.tensor
        if tensor is None:
            tensor = _find(self.model, entry.name)
        if tensor is None:
            tensor = self.program.constants[entry.name]
        self.traced.tensors[entry.name] = tensor
        if not entry.persistent and not isinstance(tensor, nn.Parameter):
            self.traced.transient.add(entry.name)
        node = self.traced.graph.create_node("get_attr", entry.name)
        node.meta["val"] = entry.value
        return node

    def _outputs(self, outputs: Any) -> list[Any]:
        """The user's output leaves; results that only exist to update buffers are left out."""
        kept = []
        for leaf, spec in zip(outputs, self.program.graph_signature.output_specs, strict=True):
            if spec.kind.name == "USER_OUTPUT":
                kept.append(leaf)
        return kept


@dataclass(frozen=True, eq=False)
class _Weight:
    """A parameter, buffer or constant that becomes a ``get_attr`` node when something reads it."""

    name: str
    value: Any
    persistent: bool
    tensor: Tensor | None = None


def _find(model: nn.Module, name: str) -> Tensor | None:
    found: Any = model
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, Tensor) else None


def _is_tuple(env: dict[fx.Node, Any], node: Any) -> bool:
    """Whether ``node`` was a region put in line, whose results are a tuple of nodes."""
    return isinstance(env.get(node), (tuple, list))


def _where(node: fx.Node, body: Any) -> str:
    """The user's line that a region comes from: its own, or that of the first operator inside
    it.
    """
    inside = list(body.graph.nodes) if isinstance(body, fx.GraphModule) else []
    traces = [str(n.meta.get("stack_trace", "")) for n in (*inside, node)]
    return next((line for line in map(user_line, traces) if line), "")
