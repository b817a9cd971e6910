"""Recovers dropout that an export in eval mode loses.

Attention passes ``dropout_p = p if self.training else 0.0``, so the eval graph holds a zero; some
code only calls dropout ``if self.training``. A second export, in train mode, shows the real
probabilities. Both graphs are the same sequence of operators apart from dropout, so each dropout is
carried over to its place; where the sequences differ the eval graph stays as it is and a note says
that train-mode dropout may be missing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, fx, nn

from kompakt.network.operators import (
    arguments,
    is_operator,
    operator_name,
    remove_dead_nodes,
    value,
    written_arguments,
)
from kompakt.network.program import Traced
from kompakt.network.stack import module_path

_DROPOUTS = frozenset(
    ("aten.dropout", "aten.feature_dropout", "aten.alpha_dropout", "aten.feature_alpha_dropout")
)
_ATTENTION = "aten.scaled_dot_product_attention"

NOT_RECOVERED = (
    "train mode runs other code than eval mode, which cannot be captured; the network always runs "
    "that of eval mode, and attention dropout is missing"
)
ONLY_ATTENTION = (
    "train mode runs other code than eval mode, which cannot be captured; the network always runs "
    "that of eval mode, with the dropout of attention and dropout layers"
)


class ScaledDotProductAttention(nn.Module):
    """``torch.nn.functional.scaled_dot_product_attention`` with dropout in train mode only.

    Args:
        dropout_p: Probability of dropping an attention weight while training.
        settings: The other keyword arguments of the function: ``is_causal``, ``scale``,
            ``enable_gqa``.
    """

    kind = "attention"

    def __init__(self, dropout_p: float, settings: dict[str, Any]) -> None:
        super().__init__()
        self.dropout_p = dropout_p
        self.settings = settings

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
    ) -> Tensor:
        """Attention over ``key`` and ``value``, each (batch, heads, length, width)."""
        return nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask,
            dropout_p=self.dropout_p if self.training else 0.0,
            **self.settings,
        )


def may_hide_dropout(traced: Traced, model: nn.Module) -> bool:
    """Whether a train-mode export could show dropout that ``traced`` lacks."""
    names = {operator_name(node) for node in traced.graph.nodes}
    if _ATTENTION in names:
        return True
    dropouts = [node for node in traced.graph.nodes if operator_name(node) in _DROPOUTS]
    if any(not arguments(node)["p"] for node in dropouts):
        return True
    seen = {module_path(node) for node in dropouts}
    return any(
        not any(path == s or s.startswith(f"{path}.") or not path for s in seen)
        for path, module in nn.Module.named_modules(model)
        if _has_probability(module)
    )


def dropout_owners(traced: Traced, model: nn.Module) -> list[nn.Module]:
    """The modules of ``model`` whose own ``forward`` calls attention, softmax or dropout."""
    operators = (*_DROPOUTS, _ATTENTION, "aten.softmax")
    paths = {module_path(node) for node in traced.graph.nodes if operator_name(node) in operators}
    return [m for path, m in nn.Module.named_modules(model) if path in paths]


def recover_dropout(evaluating: Traced, training: Traced) -> bool:
    """Carry the dropout of a train-mode graph over to the eval-mode graph of the same model.

    Args:
        evaluating: Changed: dropout calls get their probabilities, attention nodes
            ``meta["dropout_p"]``.
        training: The graph of the same model and inputs, exported in train mode.

    Returns:
        False, with nothing changed, when train mode lacks operators of eval mode.
    """
    remove_dead_nodes(evaluating.graph)
    remove_dead_nodes(training.graph)
    pairs, extra = _paired(evaluating, training)
    if pairs is None:
        return False
    if extra:
        evaluating.notes.append(
            f"only train mode runs {', '.join(extra[:5])}{' …' if len(extra) > 5 else ''}; "
            "the network does not"
        )
    for node in [n for n in evaluating.graph.nodes if operator_name(n) in _DROPOUTS]:
        node.replace_all_uses_with(node.args[0])
        evaluating.graph.erase_node(node)
    carrying = _Carrying(evaluating.graph, pairs)
    for trained, node in list(pairs.items()):
        carrying.rewire(trained, node)
        if operator_name(node) == _ATTENTION:
            node.meta["dropout_p"] = float(arguments(trained)["dropout_p"])
    return True


def attention_layer(node: fx.Node) -> ScaledDotProductAttention | None:
    """A module for an attention node whose dropout was recovered; None when it has none."""
    probability = node.meta.get("dropout_p", 0.0)
    if operator_name(node) != _ATTENTION or not probability:
        return None
    found = arguments(node)
    settings: dict[str, Any] = {
        name: found[name] for name in ("is_causal", "scale", "enable_gqa") if name in found
    }
    if any(isinstance(v, fx.Node) for v in settings.values()):
        return None
    return ScaledDotProductAttention(probability, settings)


class _Carrying:
    """Copies dropout nodes; ``pairs`` maps a node of the train graph to its twin in the eval
    graph.
    """

    def __init__(self, graph: fx.Graph, pairs: dict[fx.Node, fx.Node]) -> None:
        self.graph = graph
        self.pairs = pairs

    def rewire(self, trained: fx.Node, node: fx.Node) -> None:
        """Make ``node`` read a dropout wherever ``trained`` does."""
        wanted = _arguments_in_order(trained)

        def replace(argument: fx.Node) -> fx.Node:
            other = next(wanted, None)
            twin = self._dropout(other) if other is not None and _is_dropout(other) else None
            return argument if twin is None else twin

        args = fx.node.map_arg(node.args, replace)
        node.kwargs = fx.node.map_arg(node.kwargs, replace)
        node.args = args

    def _dropout(self, trained: fx.Node) -> fx.Node | None:
        """The eval twin of a dropout node, made when first needed; None when its input has no
        twin.
        """
        if trained in self.pairs:
            return self.pairs[trained]
        source = trained.args[0]
        assert isinstance(source, fx.Node)
        if _is_silent(source):
            twin = self._dropout(source) if _is_dropout(source) else self._through(source)
        else:
            twin = self.pairs.get(source)
        if twin is None:
            return None
        with self.graph.inserting_after(twin):
            made = self.graph.call_function(
                trained.target,  # type: ignore[arg-type]
                (twin, arguments(trained)["p"], False),
            )
        made.meta.update({**trained.meta, "val": twin.meta.get("val")})
        self.pairs[trained] = made
        return made

    def _through(self, copied: fx.Node) -> fx.Node | None:
        """The eval twin of what a ``contiguous()`` copies."""
        source = copied.args[0]
        assert isinstance(source, fx.Node)
        return self._dropout(source) if _is_dropout(source) else self.pairs.get(source)


def _paired(
    evaluating: Traced, training: Traced
) -> tuple[dict[fx.Node, fx.Node] | None, list[str]]:
    """Train node → eval node, and where train mode runs more.

    The pairs are None when an operator of eval mode has no twin in train mode.
    """
    first, second = _sequence(training.graph), _sequence(evaluating.graph)
    keys = [_key(node) for node in first], [_key(node) for node in second]
    pairs: dict[fx.Node, fx.Node] = {}
    if keys[0] == keys[1]:
        pairs.update(zip(first, second, strict=True))
    else:
        matcher = difflib.SequenceMatcher(None, *keys, autojunk=False)
        for start, other, length in matcher.get_matching_blocks():
            pairs.update(
                zip(first[start : start + length], second[other : other + length], strict=True)
            )
        if len(pairs) < len(second):
            return None, []
    extra = [module_path(node) or "code in forward" for node in first if node not in pairs]
    for op in ("placeholder", "get_attr"):
        here = {node.target: node for node in evaluating.graph.find_nodes(op=op)}
        for node in training.graph.find_nodes(op=op):
            if node.target in here:
                pairs[node] = here[node.target]
    return pairs, list(dict.fromkeys(extra))


def _sequence(graph: fx.Graph) -> list[fx.Node]:
    """Everything that computes, without dropout and without updates of counters such as
    num_batches_tracked.
    """
    return [
        node
        for node in graph.nodes
        if node.op in ("call_function", "output")
        and not _is_silent(node)
        and not (is_operator(node) and written_arguments(node.target) and not node.users)
    ]


def _key(node: fx.Node) -> tuple[Any, ...]:
    produced = value(node)
    kind = tuple(produced.shape[1:]) if isinstance(produced, Tensor) else None
    static = str(kind) if _static(kind) else None
    return node.op, str(node.target), module_path(node, keep_call=True), static


def _is_silent(node: fx.Node) -> bool:
    """Whether one mode may record this operator and the other not: dropout, and copies into dense
    memory.
    """
    return _is_dropout(node) or operator_name(node) == "aten.contiguous"


def _static(shape: Any) -> bool:
    return shape is not None and all(isinstance(size, int) for size in shape)


def _is_dropout(node: fx.Node) -> bool:
    return operator_name(node) in _DROPOUTS


def _arguments_in_order(node: fx.Node) -> Iterator[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), found.append)
    return iter(found)


def _has_probability(module: nn.Module) -> bool:
    """Whether a module has a nonzero setting that looks like a dropout probability."""
    settings = {name: v for name, v in vars(module).items() if "drop" in name.lower()}
    if isinstance(module, nn.modules.dropout._DropoutNd):
        settings["p"] = module.p
    return any(isinstance(v, float) and 0.0 < v < 1.0 for v in settings.values())
