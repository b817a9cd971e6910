"""Schemes: what they refuse, and that files say the same as objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kompakt.errors import SchemeError
from kompakt.numerics.granularity import PerChannel, PerGroup, PerTensor
from kompakt.schemes import (
    FLOAT,
    PRESETS,
    Override,
    Scheme,
    Treatment,
    bf16,
    fp16,
    get_scheme,
    w4,
    w8,
    w8a8,
    w8a8_dynamic,
    w8a16,
)


def without_nulls(data: Any) -> Any:
    """TOML has no null: what is absent has its default."""
    if isinstance(data, dict):
        return {k: without_nulls(v) for k, v in data.items() if v is not None}
    return [without_nulls(v) for v in data] if isinstance(data, list) else data


def as_toml(data: Any) -> str:
    """Inline TOML of plain data; enough for schemes."""
    if isinstance(data, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {as_toml(v)}" for k, v in data.items()) + "}"
    if isinstance(data, list):
        return "[" + ", ".join(as_toml(v) for v in data) + "]"
    return json.dumps(data)


ALL = [
    *(preset() for preset in PRESETS.values()),
    w8a8(keep_float=("head", "kind:linear")),
    w4(group=64, symmetric=False),
    w8a8().with_override("type:Conv2d", w8a16().default),
]


@pytest.mark.parametrize("scheme", ALL, ids=lambda s: f"{s.name}+{len(s.overrides)}")
def test_a_scheme_survives_json_and_toml(scheme: Scheme, tmp_path: Path) -> None:
    as_json = tmp_path / "scheme.json"
    as_json.write_text(json.dumps(scheme.to_json()))
    assert get_scheme(str(as_json)) == scheme

    table = without_nulls(scheme.to_json())
    as_text = tmp_path / "scheme.toml"
    as_text.write_text("\n".join(f"{k} = {as_toml(v)}" for k, v in table.items()))
    assert get_scheme(str(as_text)) == scheme


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_found_by_name_and_has_it(name: str) -> None:
    assert get_scheme(name) == PRESETS[name]()
    assert get_scheme(name).name.startswith(name.split("-")[0])


def test_only_static_schemes_need_calibration() -> None:
    assert w8a8().needs_calibration
    assert w8a16().needs_calibration
    for scheme in (w8a8_dynamic(), w8(), w4(), fp16(), bf16(), PRESETS["float32"]()):
        assert not scheme.needs_calibration
    assert w8().with_override("head", w8a8().default).needs_calibration


def test_presets_say_what_their_names_say() -> None:
    assert w4(group=64).default == Treatment(
        mode="weight_only", weight="int4", granularity=PerGroup(1, 64)
    )
    assert w4(symmetric=False).default.weight == "uint4"
    assert not w4(symmetric=False).default.symmetric_weight
    assert w8a8().default.granularity == PerChannel(0)
    assert fp16().default.granularity == PerTensor()
    assert w8a8(keep_float=("a", "b")).overrides == (
        Override(select="a", treatment=FLOAT),
        Override(select="b", treatment=FLOAT),
    )


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"mode": "statical"}, "K340"),
        ({"mode": "static", "activation": "auto8"}, "K340"),
        ({"mode": "weight_only"}, "K340"),
        ({"mode": "static", "weight": "int8"}, "K340"),
        ({"mode": "dynamic", "weight": "int8"}, "K340"),
        ({"mode": "weight_only", "weight": "int99"}, "K300"),
        ({"mode": "static", "weight": "int8", "activation": "auto9"}, "K300"),
        ({"mode": "weight_only", "weight": "int8", "symmetric_weight": "no"}, "K340"),
    ],
)
def test_a_treatment_that_makes_no_sense_is_refused(settings: dict[str, Any], code: str) -> None:
    with pytest.raises(SchemeError) as caught:
        Treatment(**settings)
    assert caught.value.code == code
    assert caught.value.why
    assert caught.value.help


def changed(**changes: Any) -> dict[str, Any]:
    return {**w8a8(keep_float=("head",)).to_json(), **changes}


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (changed(embeding={}), "embeding"),
        (changed(default={"mode": "float", "wheight": "int8"}), "wheight"),
        (changed(overrides=[{"select": "a", "treatment": {}, "comment": "x"}]), "comment"),
        (changed(overrides=[{"treatment": {}}]), "select"),
        (changed(overrides=7), "structure"),
        (changed(overrides=["head"]), "table"),
        (changed(default="w8a8"), "table"),
        (changed(default={"mode": "weight_only", "weight": 8}), "structure"),
        ({"name": "x"}, "default"),
        ([1, 2], "table"),
    ],
)
def test_a_scheme_file_of_another_structure_is_refused(
    data: Any, word: str, tmp_path: Path
) -> None:
    path = tmp_path / "scheme.json"
    path.write_text(json.dumps(data))
    with pytest.raises(SchemeError) as caught:
        get_scheme(str(path))
    assert caught.value.code == "K341"
    assert word in str(caught.value)


def test_a_granularity_in_a_file_is_checked(tmp_path: Path) -> None:
    data = changed(
        default={"mode": "weight_only", "weight": "int8", "granularity": {"kind": "per_row"}}
    )
    path = tmp_path / "scheme.json"
    path.write_text(json.dumps(data))
    with pytest.raises(SchemeError) as caught:
        get_scheme(str(path))
    assert caught.value.code == "K305"


def test_what_is_no_scheme_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SchemeError) as caught:
        get_scheme("w9a9")
    assert caught.value.code == "K342"
    assert "w8a8" in caught.value.help
    broken = tmp_path / "scheme.toml"
    broken.write_text("name = [")
    with pytest.raises(SchemeError) as caught:
        get_scheme(str(broken))
    assert caught.value.code == "K341"
    with pytest.raises(SchemeError) as caught:
        get_scheme(str(tmp_path / "absent.json"))
    assert caught.value.code == "K342"
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SchemeError) as caught:
        get_scheme(str(binary))
    assert caught.value.code == "K341"
