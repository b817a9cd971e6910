"""Placing a scheme: the decided quantizers become modules in a copy of the network."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn
from torch.fx import Node

from kompakt.network.network import Network
from kompakt.quantize.decide import Decision, decide
from kompakt.quantize.kinds import placing_kind
from kompakt.quantize.layers import Treated, treat_
from kompakt.quantize.plan import Plan
from kompakt.quantize.quantizer import Quantizer
from kompakt.quantize.rules import Rules
from kompakt.schemes import Scheme

CONTAINER = "quantizers"
"""Name of the submodule that holds the activation quantizers."""


def place(network: Network, scheme: Scheme, rules: Rules) -> Network:
    """Put the quantizers of a scheme where a runtime's rules want them.

    Args:
        network: An inference-form network (see ``network.rewrites.inference_form``); it is not changed.
        scheme: What to do to which sites.
        rules: What the runtime can execute.

    Returns:
        A copy with treated layers and, behind every edge that carries codes, a ``Quantizer`` module. They still
        need ranges: see :func:`kompakt.quantize.ranges.set_ranges_`. Its plan is ``plan_of(result)``.

    Raises:
        SchemeError: A selector matches nothing, or nothing would be treated.
        TargetError: The runtime cannot execute a format.
    """
    placed = copy.deepcopy(network)
    decision = decide(placed, scheme, rules)
    modules = dict(nn.Module.named_modules(placed, remove_duplicate=False))
    for node, treatment in decision.treatments.items():
        layer = modules[str(node.target)]
        if not isinstance(layer, Treated):
            treat_(layer, str(node.target), treatment)
    quantizers = _insert_quantizers(placed, decision, rules)
    placed.graph.lint()
    placed.recompile()
    _record_plan(placed, decision, quantizers)
    return placed


def _insert_quantizers(placed: Network, decision: Decision, rules: Rules) -> dict[Node, str]:
    """Insert one call per quantized or repeated node; returns the module path of each quantized node."""
    container = nn.Module()
    placed.add_module(CONTAINER, container)
    paths: dict[Node, str] = {}
    order = {node: i for i, node in enumerate(placed.graph.nodes)}
    for node in sorted(decision.quantized, key=order.__getitem__):
        owner = decision.representative(node)
        if owner not in paths:
            name = _module_name(str(owner.meta.get("site", owner.name)), container)
            container.add_module(name, _quantizer(owner, decision, rules))
            paths[owner] = f"{CONTAINER}.{name}"
        paths[node] = paths[owner]
    for node in sorted([*decision.quantized, *decision.repeated], key=order.__getitem__):
        source = decision.repeated.get(node, node)
        site = str(source.meta.get("site", source.name))
        _insert_call(placed, node, paths[source], site, decision.rewired[node])
    return {node: path for node, path in paths.items() if node in decision.quantized}


def _quantizer(owner: Node, decision: Decision, rules: Rules) -> Quantizer:
    """The quantizer behind a node, by a runtime's rules."""
    fmt = decision.quantized[owner]
    made = Quantizer(
        str(owner.meta.get("site", owner.name)),
        fmt,
        symmetric=fmt in rules.symmetric_activations,
        rounding=rules.rounding,
    )
    made.arithmetic = rules.arithmetic
    given = rules.fixed_outputs.get(placing_kind(owner), {}).get(fmt)
    if given is not None and owner not in decision.group.values():
        made.set_parameters(torch.tensor(given[0]), torch.tensor(given[1]))
        made.fixed = True
    return made


def _insert_call(placed: Network, node: Node, path: str, site: str, readers: set[Node]) -> None:
    with placed.graph.inserting_after(node):
        call = placed.graph.call_module(path, (node,))
    call.meta.update(val=node.meta.get("val"), site=site, quantizes=node.name)
    for reader in readers:
        if reader is not call:
            reader.replace_input_with(node, call)


def _module_name(site: str, container: nn.Module) -> str:
    """A legal, unused module name for a site."""
    base = "".join(c if c.isalnum() or c == "_" else "_" for c in site) or "site"
    name, count = base, 1
    while hasattr(container, name):
        count += 1
        name = f"{base}_{count}"
    return name


def _record_plan(placed: Network, decision: Decision, paths: dict[Node, str]) -> None:
    by_name = {node.name: node for node in paths}
    shared = {
        str(n.meta["site"]): str(decision.representative(n).meta["site"])
        for n in paths
        if decision.representative(n) is not n
    }
    sites = tuple(
        replace(row, quantizer=paths[by_name[row.node]])
        if row.role == "activation" and row.node in by_name
        else row
        for row in decision.sites
    )
    taps = {str(node.meta["site"]): node.name for node in paths}
    placed.meta["plan"] = Plan(sites=sites, taps=taps, shared=shared)


def plan_of(placed: Network) -> Plan:
    """The plan a placed network was made by."""
    plan = placed.meta["plan"]
    assert isinstance(plan, Plan)
    return plan


def quantizer_calls(placed: Network) -> dict[str, Node]:
    """For each site that carries codes, the first node that quantizes it, in graph order."""
    calls: dict[str, Node] = {}
    for node in placed.graph.nodes:
        if node.op == "call_module" and "quantizes" in node.meta:
            calls.setdefault(str(node.meta["site"]), node)
    return calls


def calls_by_quantizer(placed: Network) -> dict[str, list[str]]:
    """For each quantizer module's path, the sites of its calls in graph order (repeats included)."""
    sites: dict[str, list[str]] = {}
    for node in placed.graph.nodes:
        if node.op == "call_module" and "quantizes" in node.meta:
            sites.setdefault(str(node.target), []).append(str(node.meta["site"]))
    return sites


def quantizer_of(placed: Network, node: Node) -> Quantizer:
    """The quantizer module that a quantizer call runs."""
    module = placed.get_submodule(str(node.target))
    assert isinstance(module, Quantizer)
    return module


def is_quantizer_call(placed: Network, node: object) -> bool:
    """Whether ``node`` is a call of a quantizer."""
    return isinstance(node, Node) and node.op == "call_module" and "quantizes" in node.meta


__all__ = [
    "calls_by_quantizer",
    "is_quantizer_call",
    "place",
    "plan_of",
    "quantizer_calls",
    "quantizer_of",
]
