"""Deciding where quantizers go, without editing anything.

The result is plain data (:class:`Decision`): which nodes compute in integers, on which edges codes flow, and why every
other site stays float. :mod:`kompakt.quantize.place` then edits the graph accordingly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.fx import Node

from kompakt.errors import SchemeError, TargetError
from kompakt.network.kinds import kind_of
from kompakt.network.match import select
from kompakt.network.network import Network
from kompakt.numerics.formats import get_format
from kompakt.quantize.kinds import padding_mode, placing_kind
from kompakt.quantize.plan import Site
from kompakt.quantize.possible import possible_treatment
from kompakt.quantize.rules import Rules
from kompakt.schemes import Scheme, Treatment

PADDING = "pad"


@dataclass
class Decision:
    """Where codes flow in one network.

    Attributes:
        treatments: The treatment of every layer node that is not left in float.
        integer: Nodes that compute on codes.
        quantized: Nodes whose output gets a quantizer, with the format of its codes.
        repeated: Nodes that only move codes, with the node whose quantizer is repeated behind them.
        rewired: For every quantized or repeated node, the users that read codes instead of floats.
        group: For quantized nodes that share one quantizer, the node that represents the group.
        summed: Layers whose kernel does the addition behind them: what they hand to it is not quantized.
        sites: The plan's rows for layers and operators.
    """

    treatments: dict[Node, Treatment] = field(default_factory=dict)
    integer: set[Node] = field(default_factory=set)
    quantized: dict[Node, str] = field(default_factory=dict)
    repeated: dict[Node, Node] = field(default_factory=dict)
    rewired: dict[Node, set[Node]] = field(default_factory=dict)
    group: dict[Node, Node] = field(default_factory=dict)
    summed: set[Node] = field(default_factory=set)
    sites: list[Site] = field(default_factory=list)

    def representative(self, node: Node) -> Node:
        """The node that stands for the group ``node`` belongs to."""
        while self.group.get(node, node) is not node:
            node = self.group[node]
        return node

    def ask(self, node: Node, asked: str) -> None:
        """Quantize the output of ``node`` in this format, or in a wider one that was asked for before."""
        known = self.quantized.setdefault(node, asked)
        if get_format(asked).kind != get_format(known).kind:
            raise TargetError(
                "K400",
                f"codes in {known} and in {asked} for one tensor",
                where=str(node.meta.get("site", node.name)),
                why="it is read by a layer on integers and by one on small floats",
                help="give neighbouring layers the same formats, or keep one of them in float",
            )
        if get_format(asked).bits > get_format(known).bits:
            self.quantized[node] = asked


def decide(network: Network, scheme: Scheme, rules: Rules) -> Decision:
    """Work out where a scheme's quantizers go under a runtime's rules.

    Raises:
        SchemeError: K320 when a selector matches nothing, K345 when nothing would be treated at all.
        TargetError: K400 when the runtime cannot execute a format the scheme asks for.
    """
    decision = Decision()
    kinds = {node: placing_kind(node) for node in network.graph.nodes}
    _treat_layers(network, scheme, rules, kinds, decision)
    _grow_integer_region(network, rules, kinds, decision)
    decision.summed = _summed_layers(network, rules, kinds, decision)
    for node in network.graph.nodes:
        if node in decision.integer:
            _quantize_edges(node, rules, kinds, scheme, decision)
    _agree_on_formats(decision)
    _list_activations(network, rules, kinds, decision)
    if scheme.default.mode != "float" and not decision.treatments:
        raise SchemeError(
            "K345",
            f"the scheme {scheme.name} on this network",
            why="no layer of it can be treated that way by " + rules.runtime,
            help="`kompakt inspect` says for every layer why it stays float",
        )
    return decision


def _treat_layers(
    network: Network, scheme: Scheme, rules: Rules, kinds: dict[Node, str], decision: Decision
) -> None:
    chosen: dict[str, Treatment] = {}
    for override in scheme.overrides:
        for name in select(network, override.select):
            chosen[name] = override.treatment
    modules = dict(nn.Module.named_modules(network, remove_duplicate=False))
    listed: set[str] = set()
    for node in network.graph.nodes:
        if node.op != "call_module":
            continue
        layer, kind = modules[str(node.target)], kinds[node]
        if next(layer.parameters(), None) is None:
            continue
        default = scheme.embedding if kind == "embedding" else scheme.default
        treatment = chosen.get(str(node.target), default)
        treatment, why = possible_treatment(layer, kind, treatment, rules)
        if why is None:
            decision.treatments[node] = treatment
            if treatment.mode == "static":
                decision.integer.add(node)
        if str(node.target) in listed:
            continue
        listed.add(str(node.target))
        decision.sites.append(
            Site(
                name=str(node.target),
                kind=kind,
                role="weight",
                node=node.name,
                format=treatment.weight if why is None else None,
                why_float=why,
                treatment=treatment if why is None else None,
            )
        )


def tensor_inputs(node: Node) -> list[Node]:
    """The nodes whose tensors ``node`` computes with (weights are not among them)."""
    if node.op == "call_module":
        return [a for a in node.args[:1] if isinstance(a, Node)]
    found: list[Node] = []
    for argument in node.args:
        if isinstance(argument, Node):
            found.append(argument)
        elif isinstance(argument, Sequence):
            found.extend(a for a in argument if isinstance(a, Node))
    return [n for n in found if hasattr(n.meta.get("val"), "shape")]


def tail(node: Node, rules: Rules, kinds: dict[Node, str]) -> Node:
    """The last node of the kernel that starts at ``node``: itself, or the activation it absorbs."""
    users = list(node.users)
    fused = rules.fused_activations.get(kinds[node], frozenset())
    return users[0] if len(users) == 1 and kinds[users[0]] in fused else node


def head(node: Node, rules: Rules, kinds: dict[Node, str]) -> Node:
    """The node that starts the kernel ``node`` ends."""
    inputs = tensor_inputs(node)
    if len(inputs) == 1 and tail(inputs[0], rules, kinds) is node:
        return inputs[0]
    return node


def walk_back(node: Node, through: frozenset[str], kinds: dict[Node, str]) -> list[Node]:
    """``node``, then what its codes come from through operators that only move them; the origin is last."""
    path = [node]
    while kinds[path[-1]] in through and tensor_inputs_or_tuple(path[-1]):
        path.append(tensor_inputs_or_tuple(path[-1])[0])
    return path


def tensor_inputs_or_tuple(node: Node) -> list[Node]:
    """Like :func:`tensor_inputs`, but follows an item back to the split that made it."""
    first = node.args[0] if node.args else None
    return [first] if isinstance(first, Node) else tensor_inputs(node)


def _grow_integer_region(
    network: Network, rules: Rules, kinds: dict[Node, str], decision: Decision
) -> None:
    """Add the weightless operators that sit between integer kernels, to the greatest fixed point."""
    if not decision.integer:
        return
    candidates = {n for n in network.graph.nodes if kinds[n] in rules.integer_operators}
    ends = ((n, tail(n, rules, kinds)) for n in network.graph.nodes)
    fused = {end for start, end in ends if end is not start}
    region = decision.integer | (candidates - fused)
    changed = True
    while changed:
        changed = False
        for node in list(region - decision.integer):
            inputs = tensor_inputs(node)
            fed = bool(inputs) and all(
                head(walk_back(a, rules.pass_through, kinds)[-1], rules, kinds) in region
                or _is_quantized_anyway(a, rules, kinds, decision)
                for a in inputs
            )
            if not (fed and _reaches(tail(node, rules, kinds), region, rules, kinds)):
                region.discard(node)
                changed = True
    decision.integer |= region


def _is_quantized_anyway(
    node: Node, rules: Rules, kinds: dict[Node, str], decision: Decision
) -> bool:
    """Whether an integer layer reads this very tensor, which therefore gets a quantizer in any case."""
    if kinds[node] in rules.pass_through:
        return False
    return any(user in decision.integer and user in decision.treatments for user in node.users)


def _reaches(node: Node, region: set[Node], rules: Rules, kinds: dict[Node, str]) -> bool:
    return any(
        user in region
        or (kinds[user] in rules.pass_through and _reaches(user, region, rules, kinds))
        for user in node.users
    )


def _summed_layers(
    network: Network, rules: Rules, kinds: dict[Node, str], decision: Decision
) -> set[Node]:
    """For every addition, the last of its inputs that is a layer which can add the other input itself."""
    order = {node: i for i, node in enumerate(network.graph.nodes)}
    found: set[Node] = set()
    for node in decision.integer:
        if kinds[node] != "add":
            continue
        able = [
            a
            for a in tensor_inputs(node)
            if kinds[a] in rules.summing_layers and a in decision.integer and len(a.users) == 1
        ]
        if able and len(tensor_inputs(node)) == 2:
            found.add(max(able, key=order.__getitem__))
    return found


def _quantize_edges(
    node: Node, rules: Rules, kinds: dict[Node, str], scheme: Scheme, decision: Decision
) -> None:
    asked = _activation_of(node, decision, rules, kinds, scheme)
    quantized = [a for a in tensor_inputs(node) if a not in decision.summed]
    origins = [_quantize_input(node, a, asked, rules, kinds, decision) for a in quantized]
    end = tail(node, rules, kinds)
    if kinds[node] not in rules.float_output_layers and node not in decision.summed:
        decision.ask(end, asked)
        decision.rewired.setdefault(end, set()).update(end.users)
    shared = kinds[node] in rules.shared_inputs
    if shared and (
        asked in rules.symmetric_activations or len(_clippings(node, rules, kinds)) == 1
    ):
        anchor = decision.representative(end)
        for origin in origins:
            decision.group[decision.representative(origin)] = anchor


def _clippings(node: Node, rules: Rules, kinds: dict[Node, str]) -> set[str]:
    """The activations (or none: ``""``) that clip the tensors a node gathers.

    Only behind a quantizer whose codes begin at 0 and end where the activation does can the activation be left out,
    so that the layer before it runs in integers. A scale shared with a tensor of another range takes that away.
    """
    found: set[str] = set()
    for argument in tensor_inputs(node):
        origin = walk_back(argument, rules.pass_through, kinds)[-1]
        if kinds[origin] in rules.shared_inputs:
            found |= _clippings(origin, rules, kinds)
        else:
            found.add(kinds[origin] if kinds[origin] in ("relu", "relu6") else "")
    return found


def _agree_on_formats(decision: Decision) -> None:
    """Sites that share a quantizer get the widest format any of them was asked for."""
    for node, asked in list(decision.quantized.items()):
        decision.ask(decision.representative(node), asked)
    for node in decision.quantized:
        decision.quantized[node] = decision.quantized[decision.representative(node)]


def _activation_of(
    node: Node, decision: Decision, rules: Rules, kinds: dict[Node, str], scheme: Scheme
) -> str:
    """The format of the codes around an integer kernel."""
    if node in decision.treatments:
        return rules.activation_format(str(decision.treatments[node].activation))
    for argument in tensor_inputs(node):
        origin = head(walk_back(argument, rules.pass_through, kinds)[-1], rules, kinds)
        if origin in decision.treatments:
            return rules.activation_format(str(decision.treatments[origin].activation))
    return rules.activation_format(str(scheme.default.activation or "auto8"))


def _quantize_input(
    node: Node,
    argument: Node,
    asked: str,
    rules: Rules,
    kinds: dict[Node, str],
    decision: Decision,
) -> Node:
    """Put a quantizer where the codes of this input are made; returns that node."""
    path = walk_back(argument, rules.pass_through, kinds)
    inner = head(path[-1], rules, kinds)
    from_integer = inner in decision.integer
    if not from_integer:
        # Floats may be moved as floats; only padding must see codes, to be absorbed by a kernel.
        path = walk_back(argument, frozenset({PADDING}) & rules.pass_through, kinds)
    origin = path[-1]
    decision.ask(origin, asked)
    readers = decision.rewired.setdefault(origin, set())
    every_user = from_integer and kinds[inner] not in rules.float_output_layers
    chain = list(reversed(path))
    readers.update(origin.users if every_user else {chain[1] if len(chain) > 1 else node})
    for position, mover in enumerate(chain[1:], start=1):
        following = chain[position + 1] if position + 1 < len(chain) else node
        if following is node and _kernel_pads_itself(node, mover, kinds):
            continue
        if hasattr(mover.meta.get("val"), "shape"):
            decision.repeated[mover] = origin
            decision.rewired.setdefault(mover, set()).update(
                mover.users if every_user else {following}
            )
    return origin


def _kernel_pads_itself(node: Node, mover: Node, kinds: dict[Node, str]) -> bool:
    """Whether ``mover`` only pads spatial axes with zeros for the convolution ``node``, which takes that over."""
    if kinds[mover] != PADDING or kinds[node] != "conv" or len(mover.users) > 1:
        return False
    if padding_mode(mover) != "constant":
        return False
    amounts = mover.args[1] if len(mover.args) > 1 else ()
    spatial = len(mover.meta["val"].shape) - 2
    return isinstance(amounts, Sequence) and len(amounts) <= 2 * spatial


def _list_activations(
    network: Network, rules: Rules, kinds: dict[Node, str], decision: Decision
) -> None:
    """One row for every edge: its format, or why it stays float."""
    silent = {"output", "constant", "shape", "getitem", "dropout", "identity"}
    for node in network.graph.nodes:
        value = node.meta.get("val")
        if kinds[node] in silent or not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        quantized = node in decision.quantized
        if not quantized and (node in decision.repeated or tail(node, rules, kinds) is not node):
            continue
        why = None if quantized else _why_edge_is_float(node, rules, kinds, decision)
        decision.sites.append(
            Site(
                name=str(node.meta.get("site", node.name)),
                kind=kind_of(node),
                role="activation",
                node=node.name,
                format=decision.quantized.get(node),
                why_float=why,
            )
        )


def _why_edge_is_float(node: Node, rules: Rules, kinds: dict[Node, str], decision: Decision) -> str:
    start = head(node, rules, kinds)
    if start in decision.summed:
        return "its layer's kernel does the addition behind it, and rounds the sum"
    treatment = decision.treatments.get(start)
    if treatment is not None and treatment.mode == "static":
        return f"{rules.runtime}'s integer {kinds[start]} hands out float: nothing behind it needs codes"
    if treatment is not None and treatment.mode == "dynamic":
        return "its layer quantizes its input at run time and hands out float"
    if treatment is not None:
        return "only the weights of its layer are compressed"
    if kinds[start] in rules.static_layers:
        return "its layer stays float"
    if kinds[start] == "input":
        return "no integer kernel reads it"
    if kinds[start] in rules.pass_through:
        return "it only moves floats: nothing before or behind it computes on codes here"
    if kinds[start] in rules.integer_operators:
        return "it does not lie between integer kernels"
    return rules.why_float(kinds[start])
