"""Schemes: what should happen to which sites. Frozen data and presets; no tensors, no code.

A :class:`Scheme` has one default :class:`Treatment` for every layer and a list of :class:`Override` rules for layers
selected by name or kind. The target decides where quantizers then go; the scheme only says what is wanted.

>>> from kompakt.schemes import w8a8
>>> w8a8(keep_float=("classifier",)).name
'w8a8'
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from kompakt.errors import SchemeError
from kompakt.numerics.formats import get_format
from kompakt.numerics.granularity import (
    Granularity,
    PerChannel,
    PerGroup,
    PerTensor,
    granularity_from_json,
)

Mode = Literal["float", "static", "dynamic", "weight_only"]
MODES: tuple[Mode, ...] = ("float", "static", "dynamic", "weight_only")
_AUTO = ("auto8", "auto16")


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """What happens to one layer.

    Attributes:
        mode: ``static`` (ranges from calibration), ``dynamic`` (activation ranges computed at run time),
            ``weight_only``, or ``float`` (left alone).
        weight: Format of the weights, for instance ``int8_narrow``, ``int4``, ``fp16``.
        activation: Format of the activations; ``auto8`` / ``auto16`` let the target choose the signedness that
            its processor executes fastest.
        granularity: How many scales the weights have.
        symmetric_weight: Whether the weights' zero point is 0.
    """

    mode: Mode = "float"
    weight: str | None = None
    activation: str | None = None
    granularity: Granularity = field(default_factory=lambda: PerChannel(0))
    symmetric_weight: bool = True

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise SchemeError(
                "K340",
                f"treatment mode {self.mode!r}",
                why="it is not a mode",
                help=f"use one of {', '.join(MODES)}",
            )
        if self.mode != "float" and self.weight is None:
            raise SchemeError(
                "K340",
                f"a {self.mode} treatment without a weight format",
                why="every treated layer needs one",
                help='add weight="int8_narrow"',
            )
        if self.mode in ("static", "dynamic") and self.activation is None:
            raise SchemeError(
                "K340",
                f"a {self.mode} treatment without an activation format",
                why="only weight_only treatments leave activations alone",
                help='add activation="auto8", or use mode="weight_only"',
            )
        if self.weight is not None:
            get_format(self.weight)
        if self.activation is not None and self.activation not in _AUTO:
            get_format(self.activation)
        if not isinstance(self.symmetric_weight, bool):
            raise SchemeError(
                "K340",
                f"symmetric_weight={self.symmetric_weight!r}",
                why="it is a yes or no",
                help="write true or false",
            )

    def to_json(self) -> dict[str, Any]:
        """Plain data that :meth:`from_json` reads back."""
        return {
            "mode": self.mode,
            "weight": self.weight,
            "activation": self.activation,
            "granularity": self.granularity.to_json(),
            "symmetric_weight": self.symmetric_weight,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Treatment:
        """Read what :meth:`to_json` wrote; unknown keys are refused."""
        _refuse_unknown(data, ("mode", "weight", "activation", "granularity", "symmetric_weight"))
        values = dict(data)
        if "granularity" in values:
            values["granularity"] = granularity_from_json(values["granularity"])
        return cls(**values)


FLOAT = Treatment()


@dataclass(frozen=True, kw_only=True)
class Override:
    """A treatment for the layers a selector matches.

    Attributes:
        select: A glob over layer names (``encoder.*.attn``), ``kind:linear`` or ``type:Conv2d``.
        treatment: What happens to them.
    """

    select: str
    treatment: Treatment


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """What should happen to which sites of a network.

    Attributes:
        name: Short name for tables.
        default: Treatment of every layer that no override selects.
        overrides: Exceptions; the last one that selects a layer wins.
        embedding: Treatment of embedding tables (they are looked up, never multiplied).
    """

    name: str
    default: Treatment
    overrides: tuple[Override, ...] = ()
    embedding: Treatment = FLOAT

    def with_override(self, select: str, treatment: Treatment) -> Scheme:
        """The same scheme with one more exception."""
        return replace(
            self, overrides=(*self.overrides, Override(select=select, treatment=treatment))
        )

    @property
    def needs_calibration(self) -> bool:
        """Whether some layer may need ranges from calibration data."""
        treatments = (self.default, *(o.treatment for o in self.overrides))
        return any(t.mode == "static" for t in treatments)

    @property
    def fewest_bits(self) -> int:
        """Bits of the narrowest weights it asks for; 32 when it changes none."""
        treatments = (self.default, self.embedding, *(o.treatment for o in self.overrides))
        treated = (t.weight for t in treatments if t.mode != "float" and t.weight is not None)
        return min((get_format(weight).bits for weight in treated), default=32)

    def to_json(self) -> dict[str, Any]:
        """Plain data that :meth:`from_json` reads back."""
        return {
            "name": self.name,
            "default": self.default.to_json(),
            "overrides": [
                {"select": o.select, "treatment": o.treatment.to_json()} for o in self.overrides
            ],
            "embedding": self.embedding.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scheme:
        """Read what :meth:`to_json` wrote; unknown keys are refused."""
        _refuse_unknown(data, ("name", "default", "overrides", "embedding"))
        try:
            return cls(
                name=str(data["name"]),
                default=Treatment.from_json(data["default"]),
                overrides=tuple(_override(o) for o in data.get("overrides", ())),
                embedding=Treatment.from_json(data.get("embedding", FLOAT.to_json())),
            )
        except KeyError as error:
            raise SchemeError("K341", "reading a scheme", why=f"it lacks {error}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise SchemeError(
                "K341", "reading a scheme", why=f"its structure is wrong: {error}"
            ) from error


def _override(data: Mapping[str, Any]) -> Override:
    _refuse_unknown(data, ("select", "treatment"))
    return Override(select=str(data["select"]), treatment=Treatment.from_json(data["treatment"]))


def _refuse_unknown(data: Mapping[str, Any], known: Sequence[str]) -> None:
    if not isinstance(data, Mapping):
        raise SchemeError("K341", f"{data!r} in a scheme", why="a table belongs there")
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise SchemeError(
            "K341",
            f"the key {unknown[0]!r} in a scheme",
            why="no such setting exists",
            help=f"known keys: {', '.join(known)}",
        )


def w8a8(*, keep_float: Sequence[str] = ()) -> Scheme:
    """Static INT8: per-channel weights, calibrated 8-bit activations."""
    return _keeping(
        Scheme(
            name="w8a8",
            default=Treatment(mode="static", weight="int8_narrow", activation="auto8"),
            embedding=_W8_ROWS,
        ),
        keep_float,
    )


def w8a8_dynamic(*, keep_float: Sequence[str] = ()) -> Scheme:
    """Dynamic INT8: per-channel weights; activation ranges computed at run time. Needs no data."""
    return _keeping(
        Scheme(
            name="w8a8-dynamic",
            default=Treatment(mode="dynamic", weight="int8_narrow", activation="uint8"),
            embedding=_W8_ROWS,
        ),
        keep_float,
    )


def w8a16(*, keep_float: Sequence[str] = ()) -> Scheme:
    """8-bit weights and calibrated 16-bit activations, for outlier-ridden activations."""
    return _keeping(
        Scheme(
            name="w8a16",
            default=Treatment(mode="static", weight="int8_narrow", activation="auto16"),
            embedding=_W8_ROWS,
        ),
        keep_float,
    )


def w4a8(*, keep_float: Sequence[str] = ()) -> Scheme:
    """4-bit weights with one scale per channel, in every layer; calibrated 8-bit activations.

    Rounding to nearest costs too much at 4 bits: use it with the methods ``adaround`` or ``reconstruction``.
    """
    return _keeping(
        Scheme(
            name="w4a8",
            default=Treatment(mode="static", weight="int4", activation="auto8"),
            embedding=_W8_ROWS,
        ),
        keep_float,
    )


def w8(*, group: int = 32, keep_float: Sequence[str] = ()) -> Scheme:
    """Weight-only INT8 in groups of 32; activations stay float. Needs no data."""
    return _keeping(
        Scheme(
            name="w8",
            default=Treatment(
                mode="weight_only", weight="int8_narrow", granularity=PerGroup(1, group)
            ),
            embedding=_W8_ROWS,
        ),
        keep_float,
    )


def w4(*, group: int = 32, symmetric: bool = True, keep_float: Sequence[str] = ()) -> Scheme:
    """Weight-only INT4 in groups of 32; activations stay float. Needs no data."""
    return _keeping(
        Scheme(
            name=f"w4-g{group}",
            default=Treatment(
                mode="weight_only",
                weight="int4" if symmetric else "uint4",
                granularity=PerGroup(1, group),
                symmetric_weight=symmetric,
            ),
            embedding=_W8_ROWS,
        ),
        keep_float,
    )


def fp8(*, keep_float: Sequence[str] = ()) -> Scheme:
    """FP8 (E4M3) for TensorRT: weights with a scale per channel, calibrated activations. Embeddings stay float."""
    return _keeping(
        Scheme(
            name="fp8",
            default=Treatment(mode="static", weight="fp8_e4m3", activation="fp8_e4m3"),
        ),
        keep_float,
    )


def fp16(*, keep_float: Sequence[str] = ()) -> Scheme:
    """Weights stored in half precision, computed in float32."""
    return _keeping(_stored("fp16"), keep_float)


def bf16(*, keep_float: Sequence[str] = ()) -> Scheme:
    """Weights stored in bfloat16, computed in float32."""
    return _keeping(_stored("bf16"), keep_float)


def float32() -> Scheme:
    """Nothing is changed: the float baseline."""
    return Scheme(name="float32", default=FLOAT)


_W8_ROWS = Treatment(mode="weight_only", weight="int8_narrow", granularity=PerChannel(0))

PRESETS = {
    "float32": float32,
    "w8a8": w8a8,
    "w8a8-dynamic": w8a8_dynamic,
    "w8a16": w8a16,
    "w4a8": w4a8,
    "w8": w8,
    "w4": w4,
    "fp8": fp8,
    "fp16": fp16,
    "bf16": bf16,
}


def get_scheme(name: str) -> Scheme:
    """A preset by name, or a scheme file (``.json`` or ``.toml``).

    Raises:
        SchemeError: K342 when there is neither a preset nor a readable file of that name.
    """
    if name in PRESETS:
        return PRESETS[name]()
    path = Path(name)
    if path.suffix not in (".json", ".toml") or not path.is_file():
        raise SchemeError(
            "K342",
            f"the scheme {name!r}",
            why="it is neither a preset nor a .json or .toml file",
            help=f"presets: {', '.join(PRESETS)}",
        )
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, OSError) as error:
        raise SchemeError("K341", f"reading {name}", why=str(error)) from error
    if not isinstance(data, dict):
        raise SchemeError("K341", f"reading {name}", why="it does not hold a table")
    return Scheme.from_json(data)


def _stored(format_name: str) -> Scheme:
    treatment = Treatment(mode="weight_only", weight=format_name, granularity=PerTensor())
    return Scheme(name=format_name, default=treatment, embedding=treatment)


def _keeping(scheme: Scheme, keep_float: Sequence[str]) -> Scheme:
    for select in keep_float:
        scheme = scheme.with_override(select, FLOAT)
    return scheme
