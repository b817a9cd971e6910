"""A TFLite file as C source for firmware: the bytes, and what the application must know to use them."""

from __future__ import annotations

import re

from kompakt.targets import litert

BYTES_A_LINE = 12
_RESOLVERS = {"CONV_2D": "Conv2D", "DEPTHWISE_CONV_2D": "DepthwiseConv2D"}
_POOLS = {"AVERAGE_POOL_2D": "AveragePool2D", "MAX_POOL_2D": "MaxPool2D"}


def c_array(content: bytes, name: str = "model", arena: int | None = None) -> dict[str, str]:
    """C source and header of a model.

    Args:
        content: The ``.tflite`` file.
        name: What the array and the files are called; what no C identifier may hold becomes ``_``.
        arena: Bytes of the arena, where it was measured.

    Returns:
        Text by file name: ``NAME.h`` and ``NAME.c``.
    """
    name = _identifier(name)
    guard = f"{name.upper()}_H"
    lines = [
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"#define {name.upper()}_LENGTH {len(content)}u",
        *_facts(content, name, arena),
        f"extern const uint8_t {name}[{name.upper()}_LENGTH];",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        f"#endif  /* {guard} */",
        "",
    ]
    rows = [
        "  " + ", ".join(f"0x{byte:02x}" for byte in content[at : at + BYTES_A_LINE]) + ","
        for at in range(0, len(content), BYTES_A_LINE)
    ]
    source = [
        f'#include "{name}.h"',
        "",
        "/* The interpreter reads 16-byte aligned flatbuffers. */",
        f"const uint8_t {name}[{name.upper()}_LENGTH] __attribute__((aligned(16))) = {{",
        *rows,
        "};",
        "",
    ]
    return {f"{name}.h": "\n".join(lines), f"{name}.c": "\n".join(source)}


def _identifier(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return plain if plain[:1].isalpha() or plain[:1] == "_" else f"_{plain}"


def _facts(content: bytes, name: str, arena: int | None) -> list[str]:
    """Grids of inputs and outputs, the operators to register, and the size of the arena."""
    lines = []
    for role, ends in zip(("INPUT", "OUTPUT"), litert.ends(content), strict=True):
        for place, end in enumerate(ends):
            prefix = f"{name.upper()}_{role}_{place}"
            lines.append(f"#define {prefix}_SIZE {_count(end['shape'])}u")
            grid = end["quantization_parameters"]
            if grid["scales"]:
                lines.append(f"#define {prefix}_SCALE {grid['scales'][0]!r}f")
                lines.append(f"#define {prefix}_ZERO_POINT ({int(grid['zero_points'][0])})")
    if arena is not None:
        lines.append("/* Measured on a 64-bit machine; pointers are half as long on a Cortex-M. */")
        lines.append(f"#define {name.upper()}_ARENA {arena}u")
    names = litert.operator_names(content)
    lines.append(f"#define {name.upper()}_OPERATORS {len(names)}")
    lines.append("/* For tflite::MicroMutableOpResolver:")
    lines += [f" *   resolver.Add{resolver_name(operator)}();" for operator in names]
    return [*lines, " */"]


def _count(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def resolver_name(operator: str) -> str:
    """How the resolver of TensorFlow Lite for Microcontrollers calls an operator."""
    known = {**_RESOLVERS, **_POOLS}
    return known.get(operator, "".join(word.capitalize() for word in operator.split("_")))


__all__ = ["c_array", "resolver_name"]


def c_files(content: bytes, arena: int | None = None) -> dict[str, bytes]:
    """The same as files: ``model.h`` and ``model.c``."""
    return {name: text.encode() for name, text in c_array(content, "model", arena).items()}
