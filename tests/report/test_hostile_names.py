"""Whatever a model calls its layers, the page keeps its structure and stays inert."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kompakt.report import render

HOSTILE = [
    "layer[/]",
    "\x1b[31mred\x1b[0m",
    "nul\x00and\x08bell\x07",
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</title></style></textarea><img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "<!--", "]]>", "{{ 7*7 }}{% raw %}", "{0}{name}%s",
    "a|b\nc\r\nd",
    "\u202egnp.exe\u202c",
    "\ud800 lone surrogate",
    "javascript:alert(1)",
    "",
]  # fmt: skip


def renamed(node: Any, name: str, key: str = "") -> Any:
    """The record with every text but the few that steer the page replaced."""
    kept = {"verdict", "role", "outcome", "runtime", "fed_by"}
    if isinstance(node, dict):
        return {k: renamed(v, name, k) for k, v in node.items()}
    if isinstance(node, list):
        return [renamed(child, name, key) for child in node]
    return name if isinstance(node, str) and key not in kept else node


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_the_structure_does_not_depend_on_texts(
    record: dict[str, Any], parse: Any, name: str
) -> None:
    record["target"]["name"] = "torch"  # so that no text is looked up among the known words
    hostile, harmless = render(renamed(record, name)), render(renamed(record, "harmless"))
    if name.strip():
        assert [tag for tag, _ in parse(hostile).elements] == [
            tag for tag, _ in parse(harmless).elements
        ]
    page = parse(hostile)
    assert len(page.named("script")) == 1
    assert not [a for _, a in page.elements if any(key.startswith("on") for key in a)]
    assert not set("\x00\x07\x08\x1b\u202e\u202c") & set(hostile)
    hostile.encode("utf-8")


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_the_embedded_record_keeps_the_true_texts(
    record: dict[str, Any], parse: Any, name: str
) -> None:
    hostile = renamed(record, name)
    assert json.loads(parse(render(hostile)).texts["script"][0]) == hostile


def test_hostile_keys_are_inert_too(record: dict[str, Any], parse: Any) -> None:
    name = "</dt><script>alert(1)</script>\x1b"
    for part in ("environment", "timings"):
        record[part] |= {name: 1.0}
    record["parity"]["fused_operators"] |= {name: 3}
    record["environment"]["versions"] |= {name: name}
    page = parse(render(record))
    assert len(page.named("script")) == 1
    assert "</dt><script>alert(1)</script>�" in page.text()


def test_a_megabyte_is_shortened_and_said_to_be(record: dict[str, Any], parse: Any) -> None:
    record["sites"][0]["name"] = "encoder." + "x" * 1_000_000 + ".weight"
    page = parse(render(record))
    assert "encoder.xxx" in page.text()
    assert "xxx.weight" in page.text()
    assert "Very long texts and lists are shortened in it." in page.text("footer")
