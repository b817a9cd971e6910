"""The manifest: exact bytes, what it may hold, what is refused when read."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kompakt.artifact.manifest import manifest_bytes, parse_manifest
from kompakt.errors import ArtifactError, OutputError

SETTINGS: dict[str, Any] = {
    "source_sha256": None,
    "scheme": {},
    "target": {},
    "versions": {},
    "seed": None,
}
FILES = {"b.bin": (3, "0" * 64), "a.bin": (0, "f" * 64)}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(-1e300, 1e300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def signed(content: object) -> bytes:
    """The bytes of ``content`` as a manifest with a right sha256 of itself."""
    text = json.dumps({**content, "manifest_sha256": "0" * 64}, indent=2).encode() + b"\n"  # type: ignore[dict-item]
    return text.replace(
        b"0" * 64 + b'"\n}\n', hashlib.sha256(text).hexdigest().encode() + b'"\n}\n'
    )


def valid() -> dict[str, Any]:
    content = parse_manifest(manifest_bytes(SETTINGS, {"drop": 0.5}, FILES))
    del content["manifest_sha256"]
    return content


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_any_record_comes_back(record: dict[str, Any]) -> None:
    raw = manifest_bytes(SETTINGS, record, FILES)
    assert parse_manifest(raw)["record"] == record
    assert raw.isascii()


def test_the_test_signs_as_the_code_does() -> None:
    assert signed(valid()) == manifest_bytes(SETTINGS, {"drop": 0.5}, FILES)


def test_numpy_numbers_and_tuples_become_json() -> None:
    record = {"a": np.float32(0.5), "b": np.int64(3), "c": (1, np.bool_(True)), "d": np.float64(1)}
    found = parse_manifest(manifest_bytes(SETTINGS, record, FILES))["record"]
    assert found == {"a": 0.5, "b": 3, "c": [1, True], "d": 1.0}


def test_files_are_sorted_and_keys_keep_their_order() -> None:
    raw = manifest_bytes({**SETTINGS, "extra": {"z": 1, "a": 2}}, {}, FILES)
    content = parse_manifest(raw)
    assert list(content["files"]) == ["a.bin", "b.bin"]
    assert list(content["extra"]) == ["z", "a"]
    assert list(content)[-1] == "manifest_sha256"


@pytest.mark.parametrize(
    ("record", "place"),
    [
        ({"drop": float("nan")}, "record.drop is nan"),
        ({"sites": [{"sqnr_db": float("inf")}]}, r"record.sites\[0\].sqnr_db is inf"),
        ({"x": np.float32("nan")}, "record.x is nan"),
        ({"x": {1: 2}}, "record.x has the key 1"),
        ({"x": {1, 2}}, "record.x is a set"),
        ({"x": b"bytes"}, "record.x is a bytes"),
        ({"x": np.zeros(2)}, "record.x is a ndarray"),
    ],
)
def test_what_json_cannot_hold_is_named(record: dict[str, Any], place: str) -> None:
    with pytest.raises(OutputError, match=place) as caught:
        manifest_bytes(SETTINGS, record, FILES)
    assert caught.value.code == "K507"


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1}, {"seed": True}, {"source_sha256": "abc"}, {"scheme": "w8a8"},
        {"target": None}, {"versions": {"torch": 2}}, {"files": {}}, {"schema": 1}, {"record": {}},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(OutputError) as caught:
        manifest_bytes({**SETTINGS, **change}, {}, FILES)
    assert caught.value.code == "K507"


@pytest.mark.parametrize("key", list(SETTINGS))
def test_missing_settings_are_named(key: str) -> None:
    settings = {name: value for name, value in SETTINGS.items() if name != key}
    with pytest.raises(OutputError, match=f"'{key}' is missing"):
        manifest_bytes(settings, {}, FILES)


def test_every_flipped_byte_and_every_truncation_is_found() -> None:
    raw = manifest_bytes(SETTINGS, {"drop": 0.5, "name": "layer"}, FILES)
    for at in range(len(raw)):
        for flip in (0x01, 0x20, 0xFF):
            with pytest.raises(ArtifactError):
                parse_manifest(raw[:at] + bytes([raw[at] ^ flip]) + raw[at + 1 :])
        with pytest.raises(ArtifactError):
            parse_manifest(raw[:at])
    with pytest.raises(ArtifactError):
        parse_manifest(raw + b"\n")


def entry(**changes: object) -> dict[str, object]:
    return {"size": 1, "sha256": "0" * 64, **changes}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"files": {"../evil": entry()}}, r"part '\.' or '\.\.'"),
        ({"files": {"/etc/passwd": entry()}}, "absolute"),
        ({"files": {"a\\..\\b": entry()}}, "control character"),
        ({"files": {"\x1b[31m": entry()}}, "control character"),
        ({"files": {"manifest.json": entry()}}, "it is the manifest"),
        ({"files": {"A.bin": entry(), "a.BIN": entry()}}, "twice"),
        ({"files": {"a": entry(size=-1)}}, "wrong size"),
        ({"files": {"a": entry(size=True)}}, "wrong size"),
        ({"files": {"a": entry(size=1.5)}}, "wrong size"),
        ({"files": {"a": entry(sha256="0" * 63)}}, "sha256"),
        ({"files": {"a": entry(sha256="G" * 64)}}, "sha256"),
        ({"files": {"a": entry(extra=1)}}, "not a size and a sha256"),
        ({"files": {"a": None}}, "not a size and a sha256"),
        ({"files": []}, "'files' is missing"),
        ({"record": []}, "'record' is missing"),
        ({"schema": 0}, "'schema' is missing"),
        ({"schema": "1"}, "'schema' is missing"),
        ({"format": "something else"}, "its 'format' is not"),
        ({"kompakt": None}, "'kompakt' is missing"),
    ],
)
def test_a_signed_but_wrong_manifest_is_refused(change: dict[str, Any], reason: str) -> None:
    raw = signed({**valid(), **change})
    with pytest.raises(ArtifactError, match="cannot be read") as caught:
        parse_manifest(raw)
    assert caught.value.code == "K513"
    assert re.search(reason, caught.value.why)


def test_a_newer_schema_says_so() -> None:
    with pytest.raises(ArtifactError, match="schema version 2") as caught:
        parse_manifest(signed({**valid(), "schema": 2, "kompakt": "9.1"}))
    assert caught.value.code == "K514"
    assert "kompakt 9.1" in caught.value.why


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\x80\x04K\x01.",
        b'{"format": NaN}',
        "{\u00e9}".encode(),
        b"[" * 100_000,
    ],
)
def test_other_files_are_no_manifest(raw: bytes) -> None:
    with pytest.raises(ArtifactError) as caught:
        parse_manifest(raw)
    assert caught.value.code == "K513"


@pytest.mark.parametrize("inner", ["[" * 100_000, '{"a": 1, "a": 2}', "NaN", "1" * 5000])
def test_signed_nonsense_is_refused(inner: str) -> None:
    text = f'{{\n  "format": "kompakt artifact",\n  "x": {inner},\n  "manifest_sha256": "'
    unsigned = text.encode() + b"0" * 64 + b'"\n}\n'
    raw = text.encode() + hashlib.sha256(unsigned).hexdigest().encode() + b'"\n}\n'
    with pytest.raises(ArtifactError) as caught:
        parse_manifest(raw)
    assert caught.value.code == "K513"
