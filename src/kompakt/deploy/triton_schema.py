"""The part of Triton's ``model_config.proto`` that is written, as a table; texts are made and read through it.

Field names, numbers and types are those of Triton's own schema, so a text that parses here has no misspelt field and no
unknown type. Where ``tritonclient`` is installed, a text is read once more with the schema that comes with it.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from kompakt.errors import OutputError

PACKAGE = "inference"

# field: (number, type); a type in capitals is an enumeration, one ending in [] repeats, {} maps strings to it
MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "ModelTensorReshape": {"shape": (1, "int64[]")},
    "ModelInput": {
        "name": (1, "string"),
        "data_type": (2, "DataType"),
        "dims": (4, "int64[]"),
        "reshape": (5, "ModelTensorReshape"),
    },
    "ModelOutput": {
        "name": (1, "string"),
        "data_type": (2, "DataType"),
        "dims": (3, "int64[]"),
        "reshape": (5, "ModelTensorReshape"),
    },
    "ModelInstanceGroup": {"count": (2, "int32"), "kind": (4, "ModelInstanceGroup.Kind")},
    "ModelVersionPolicy.Latest": {"num_versions": (1, "uint32")},
    "ModelVersionPolicy": {"latest": (1, "ModelVersionPolicy.Latest")},
    "ModelDynamicBatching": {
        "preferred_batch_size": (1, "int32[]"),
        "max_queue_delay_microseconds": (2, "uint64"),
    },
    "ModelWarmup.Input": {
        "data_type": (1, "DataType"),
        "dims": (2, "int64[]"),
        "zero_data": (3, "bool"),
    },
    "ModelWarmup": {
        "name": (1, "string"),
        "batch_size": (2, "uint32"),
        "inputs": (3, "ModelWarmup.Input{}"),
        "count": (4, "uint32"),
    },
    "ModelEnsembling.Step": {
        "model_name": (1, "string"),
        "model_version": (2, "int64"),
        "input_map": (3, "string{}"),
        "output_map": (4, "string{}"),
    },
    "ModelEnsembling": {"step": (1, "ModelEnsembling.Step[]")},
    "ModelOptimizationPolicy.ExecutionAccelerators.Accelerator": {
        "name": (1, "string"),
        "parameters": (2, "string{}"),
    },
    "ModelOptimizationPolicy.ExecutionAccelerators": {
        "gpu_execution_accelerator": (
            1,
            "ModelOptimizationPolicy.ExecutionAccelerators.Accelerator[]",
        ),
    },
    "ModelOptimizationPolicy": {
        "execution_accelerators": (4, "ModelOptimizationPolicy.ExecutionAccelerators"),
    },
    "ModelParameter": {"string_value": (1, "string")},
    "ModelConfig": {
        "name": (1, "string"),
        "platform": (2, "string"),
        "version_policy": (3, "ModelVersionPolicy"),
        "max_batch_size": (4, "int32"),
        "input": (5, "ModelInput[]"),
        "output": (6, "ModelOutput[]"),
        "instance_group": (7, "ModelInstanceGroup[]"),
        "default_model_filename": (8, "string"),
        "dynamic_batching": (11, "ModelDynamicBatching"),
        "optimization": (12, "ModelOptimizationPolicy"),
        "parameters": (14, "ModelParameter{}"),
        "ensemble_scheduling": (15, "ModelEnsembling"),
        "model_warmup": (16, "ModelWarmup[]"),
        "backend": (17, "string"),
    },
}

ENUMS: dict[str, dict[str, int]] = {
    "DataType": {
        "TYPE_INVALID": 0,
        "TYPE_BOOL": 1,
        "TYPE_UINT8": 2,
        "TYPE_UINT16": 3,
        "TYPE_UINT32": 4,
        "TYPE_UINT64": 5,
        "TYPE_INT8": 6,
        "TYPE_INT16": 7,
        "TYPE_INT32": 8,
        "TYPE_INT64": 9,
        "TYPE_FP16": 10,
        "TYPE_FP32": 11,
        "TYPE_FP64": 12,
        "TYPE_STRING": 13,
        "TYPE_BF16": 14,
    },
    "ModelInstanceGroup.Kind": {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2, "KIND_MODEL": 3},
}

ONE_OF = {"ModelVersionPolicy": ("policy_choice", ("latest",))}
_SCALARS = {"int64": 3, "uint64": 4, "int32": 5, "bool": 8, "string": 9, "uint32": 13}
_MESSAGE, _ENUM = 11, 14


@cache
def config_class() -> Any:
    """The class of ``ModelConfig`` messages, made of the tables above."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="kompakt/model_config.proto", package=PACKAGE, syntax="proto3"
    )
    made: dict[str, Any] = {}
    for name in sorted({*MESSAGES, *ENUMS}, key=lambda n: n.count(".")):
        _declare(file, made, name)
    for name, fields in MESSAGES.items():
        for field, (number, kind) in fields.items():
            _add_field(made[name], name, field, number, kind)
        if name in ONE_OF:
            choice, members = ONE_OF[name]
            made[name].oneof_decl.add(name=choice)
            for entry in made[name].field:
                if entry.name in members:
                    entry.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName(f"{PACKAGE}.ModelConfig")
    return message_factory.GetMessageClass(found)


def _declare(file: Any, made: dict[str, Any], name: str) -> None:
    """Declare a message or an enumeration, and the messages around it."""
    outer, _, inner = name.rpartition(".")
    if outer and outer not in made:
        _declare(file, made, outer)
    if name in made:
        return
    if name in ENUMS:
        holder = made[outer] if outer else file
        entry = holder.enum_type.add(name=inner)
        for value, number in ENUMS[name].items():
            entry.value.add(name=value, number=number)
        return
    made[name] = (
        made[outer].nested_type.add(name=inner) if outer else file.message_type.add(name=inner)
    )


def _add_field(message: Any, owner: str, name: str, number: int, kind: str) -> None:
    base = kind.removesuffix("[]").removesuffix("{}")
    label = 3 if kind.endswith(("[]", "{}")) else 1
    if not kind.endswith("{}"):
        field = message.field.add(name=name, number=number, label=label)
        _set_type(field, base)
        return
    entry_name = "".join(part.capitalize() for part in name.split("_")) + "Entry"
    entry = message.nested_type.add(name=entry_name)
    entry.options.map_entry = True
    _set_type(entry.field.add(name="key", number=1, label=1), "string")
    _set_type(entry.field.add(name="value", number=2, label=1), base)
    message.field.add(
        name=name,
        number=number,
        label=label,
        type=_MESSAGE,
        type_name=f".{PACKAGE}.{owner}.{entry_name}",
    )


def _set_type(field: Any, base: str) -> None:
    if base in _SCALARS:
        field.type = _SCALARS[base]
        return
    field.type = _ENUM if base in ENUMS else _MESSAGE
    field.type_name = f".{PACKAGE}.{base}"


def to_text(config: Any) -> str:
    """A configuration as the text of a ``config.pbtxt``; the same message gives the same text."""
    from google.protobuf import text_format

    return str(text_format.MessageToString(config, as_utf8=True))


def parse(text: str) -> Any:
    """Read the text of a ``config.pbtxt``.

    Raises:
        OutputError: K544: it has a field or a value that the schema does not have.
    """
    return _parsed(text, config_class())


def check_text(text: str, config: Any) -> str:
    """Read a text back, and say with which schema.

    Args:
        text: What is written.
        config: What it has to say.

    Returns:
        ``tritonclient``, or ``kompakt`` where that package is not installed.

    Raises:
        OutputError: K544: it does not say that.
    """
    if parse(text) != config:
        raise OutputError("K544", "the written config.pbtxt", why="it reads back differently")
    theirs = installed_class()
    if theirs is None:
        return "kompakt"
    again = _parsed(text, theirs)
    if again.SerializeToString(deterministic=True) != config.SerializeToString(deterministic=True):
        why = "tritonclient's schema reads it differently"
        raise OutputError("K544", "the written config.pbtxt", why=why)
    return "tritonclient"


def _parsed(text: str, message: Any) -> Any:
    from google.protobuf import text_format

    try:
        return text_format.Parse(text, message())
    except text_format.ParseError as error:
        raise OutputError("K544", "reading a config.pbtxt", why=str(error)) from error


@cache
def installed_class() -> Any | None:
    """``ModelConfig`` as ``tritonclient`` has it; None when the package is not installed or too old to load."""
    package = importlib.util.find_spec("tritonclient")
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        path = Path(folder) / "grpc" / "model_config_pb2.py"
        # The file alone: the package around it wants gRPC.
        spec = importlib.util.spec_from_file_location("kompakt_triton_model_config", path)
        if not path.is_file() or spec is None or spec.loader is None:
            continue
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception:  # noqa: BLE001  (made for another protobuf: the table is enough)
            return None
        return module.ModelConfig
    return None


__all__ = ["check_text", "config_class", "installed_class", "parse", "to_text"]
