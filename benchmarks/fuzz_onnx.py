"""Structure-aware mutations of ONNX files against reading them: nothing may crash, hang or end in a surprise.

    python benchmarks/fuzz_onnx.py --count 100000 --result fuzz_onnx.json

Each mutation changes fields of a small good model (sizes, types, names, wiring, subgraphs, functions, references to
other files, attributes) or, seldom, bytes. The file is then imported as a user's would be, in a child process. A
mutation is fully determined by its number.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.fuzz_seeds import seeds

NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    16,
    127,
    255,
    4096,
    1 << 20,
    1 << 27,
    (1 << 31) - 1,
    1 << 40,
    (1 << 63) - 1,
    -(1 << 63),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-42, 1e30, float("nan"), float("inf"), -float("inf"))
TEXTS = (
    "",
    "x",
    "y",
    "w",
    "a" * 3000,
    "../x",
    "weights.bin",
    "/etc/passwd",
    "\x00",
    "[/]",
    "ai.onnx",
    "f",
    "If",
)
OPERATORS = (
    *(
        "Add",
        "Mul",
        "Relu",
        "Conv",
        "MatMul",
        "Gemm",
        "Reshape",
        "Expand",
        "Tile",
        "Range",
        "ConstantOfShape",
    ),
    *(
        "If",
        "Loop",
        "Scan",
        "Concat",
        "Slice",
        "Gather",
        "Resize",
        "Pad",
        "Transpose",
        "LSTM",
        "Softmax",
    ),
    *(
        "QuantizeLinear",
        "DequantizeLinear",
        "LayerNormalization",
        "BatchNormalization",
        "Constant",
        "Identity",
    ),
    *(
        "Where",
        "Squeeze",
        "Unsqueeze",
        "Split",
        "Cast",
        "ReduceMean",
        "TopK",
        "NonZero",
        "OneHot",
        "Clip",
    ),
)
HANG_SECONDS = 60.0
SLOW_SECONDS = 15.0
GROWTH_MB = 200


def mutated(number: int, good: list[onnx.ModelProto]) -> bytes:
    """The file of one number."""
    rng = random.Random(number)
    model = onnx.ModelProto()
    model.CopyFrom(rng.choice(good))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5))):
        try:
            _change(rng.choice(list(_messages(model))), rng)
        except (TypeError, ValueError, OverflowError, UnicodeError):
            continue
    content: bytes = model.SerializeToString()
    if rng.random() < 0.08:
        content = _bytes_changed(content, rng)
    return content


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, content in message.ListFields():
        if field.message_type is None:
            continue
        for inner in content if field.is_repeated else [content]:
            yield from _messages(inner)


def _change(message: Any, rng: random.Random) -> None:
    """Change one field of a message."""
    field = rng.choice(list(message.DESCRIPTOR.fields))
    if rng.random() < 0.7 and message.ListFields():
        field = rng.choice([f for f, _ in message.ListFields()])
    if field.is_repeated:
        _change_list(getattr(message, field.name), field, rng)
    elif field.message_type is not None:
        if rng.random() < 0.5:
            message.ClearField(field.name)
        else:
            getattr(message, field.name).SetInParent()
    elif rng.random() < 0.15:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(field, getattr(message, field.name), rng))


def _change_list(items: Any, field: Any, rng: random.Random) -> None:
    action = rng.choice(("delete", "copy", "swap", "set", "add", "many"))
    if field.message_type is not None:
        copies = list(items)
        if action == "delete" and copies:
            del items[rng.randrange(len(copies))]
        elif action in ("copy", "set", "many") and copies:
            for _ in range(1 if action != "many" else rng.choice((2, 50, 300))):
                items.add().CopyFrom(rng.choice(copies))
        elif action == "swap" and len(copies) > 1:
            items.reverse()
        else:
            items.add()
        return
    if action == "delete" and len(items):
        del items[rng.randrange(len(items))]
    elif action == "set" and len(items):
        at = rng.randrange(len(items))
        items[at] = _scalar(field, items[at], rng)
    elif action == "many":
        items.extend([_scalar(field, None, rng)] * rng.choice((2, 40, 3000)))
    else:
        items.append(rng.choice(list(items)) if len(items) else _scalar(field, None, rng))


def _scalar(field: Any, now: Any, rng: random.Random) -> Any:
    kind = field.cpp_type
    if kind == field.CPPTYPE_STRING and field.type == field.TYPE_BYTES:
        return _bytes_changed(now or b"1234", rng)
    if kind == field.CPPTYPE_STRING:
        return rng.choice(OPERATORS) if field.name == "op_type" else rng.choice(TEXTS)
    if kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    if kind == field.CPPTYPE_ENUM:
        return rng.choice([v.number for v in field.enum_type.values])
    if field.name == "data_type" or field.name == "elem_type":
        return rng.randrange(0, 30)
    return rng.choice(NUMBERS) if rng.random() < 0.7 else int(now or 0) + rng.choice((-1, 1))


def _bytes_changed(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    action = rng.choice(("flip", "cut", "grow", "empty"))
    if action == "flip":
        for _ in range(rng.choice((1, 1, 4))):
            if changed:
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif action == "cut":
        del changed[rng.randrange(len(changed) + 1) :]
    elif action == "grow":
        changed += bytes(rng.randrange(1, 64))
    else:
        changed.clear()
    return bytes(changed)


def try_one(content: bytes, folder: Path) -> str:
    """Import one file; returns ``imported``, an error code, or the surprise that it was."""
    from kompakt.errors import KompaktError
    from kompakt.network.onnx import import_onnx

    path = folder / "model.onnx"
    path.write_bytes(content)
    (folder / "weights.bin").write_bytes(np.ones(9, np.float32).tobytes())
    try:
        import_onnx(path)
    except KompaktError as error:
        return error.code
    except Exception as error:  # noqa: BLE001  (that is what is looked for)
        return f"surprise: {type(error).__name__}: {str(error)[:200]}"
    return "imported"


def run(first: int, count: int, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Try mutations until so many are done or the time is over."""
    good = seeds()
    found: Counter[str] = Counter()
    bad: list[dict[str, Any]] = []
    started, number, slowest, last = time.monotonic(), first, 0.0, first + count
    while number < last and time.monotonic() - started < seconds:
        pid, pipe = _child(number, last, good)
        buffer, before = b"", time.monotonic()
        while True:
            ready, _, _ = select.select([pipe], [], [], HANG_SECONDS)
            block = os.read(pipe, 1 << 16) if ready else b""
            if not block:
                break
            buffer += block
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                outcome = line.decode()
                found[outcome.split(":")[0].split(" ")[0]] += 1
                took, before = time.monotonic() - before, time.monotonic()
                slowest = max(slowest, took)
                if took > SLOW_SECONDS:
                    outcome += f" slow: {took:.1f} s"
                if outcome.startswith("surprise") or " grew " in outcome or " slow" in outcome:
                    bad.append({"number": number, "what": outcome})
                number += 1
            if lines and number % 1000 < len(lines):
                say(f"{number - first}: {dict(found)}, {len(bad)} bad")
            if time.monotonic() - started >= seconds:
                break
        os.kill(pid, signal.SIGKILL)
        os.close(pipe)
        _, status, usage = os.wait4(pid, 0)
        over = number >= last or time.monotonic() - started >= seconds
        if not over and not (os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0):
            what = "hang" if not ready else f"crash: status {status}"
            bad.append({"number": number, "what": what})
            found[what.split(":")[0]] += 1
            number += 1
        found["largest process, MB"] = max(found["largest process, MB"], usage.ru_maxrss // 1024)
    largest = found.pop("largest process, MB", 0)
    return {
        "first": first,
        "mutations": number - first,
        "outcomes": dict(found.most_common()),
        "bad": bad,
        "seconds": round(time.monotonic() - started, 1),
        "slowest_s": round(slowest, 2),
        "largest_process_mb": largest,
        "versions": {"onnx": onnx.__version__, "python": sys.version.split()[0]},
    }


BATCH = 2000


def _child(number: int, last: int, good: list[onnx.ModelProto]) -> tuple[int, int]:
    """A process that tries a batch of mutations and writes a line for each."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    os.close(reading)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    tempfile.tempdir = str(folder)  # private copies of networks that are never collected go with it
    (folder / "model").mkdir()
    try:
        for current in range(number, min(number + BATCH, last)):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            outcome = try_one(mutated(current, good), folder / "model")
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
            if more > GROWTH_MB and current > number:
                outcome += f" grew by {more} MB"
            os.write(writing, outcome.replace("\n", " ").encode() + b"\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0 if current == min(number + BATCH, last) - 1 else 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--result", type=Path, default=None)
    given = parser.parse_args()
    from kompakt.guard.limits import Limits
    from kompakt.network.onnx import untrusted

    untrusted.DEFAULT = Limits(seconds=2.0)
    result = run(given.first, given.count, given.seconds, lambda t: print(t, flush=True))
    text = json.dumps(result, indent=1) + "\n"
    if given.result is not None:
        given.result.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
