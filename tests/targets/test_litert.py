"""TFLite files: integer operators, channels last, the referee's codes in LiteRT and on microcontrollers."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kompakt.errors import ArtifactError, TargetError
from kompakt.measuring.parity import certify
from kompakt.network.capture import capture
from kompakt.network.rewrites import inference_form
from kompakt.quantize.integer import run_in_integers
from kompakt.quantize.place import quantizer_calls
from kompakt.schemes import Scheme, Treatment, fp16, w8a8, w8a8_dynamic, w8a16
from kompakt.targets import TARGETS, litert, tflite_micro
from kompakt.targets.litert_c_array import c_array
from kompakt.targets.litert_moving_forms import kept_order
from kompakt.targets.target import Written

from ..nets import MODELS, Deployed, deployed, inputs, network

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert") is None, reason="LiteRT is not installed"
)
needs_micro = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None, reason="tflite-micro is not installed"
)
INT4 = Scheme(
    name="int4", default=Treatment(mode="static", weight="int4_narrow", activation="auto8")
)
INT4_WEIGHTS = Scheme(name="w4", default=Treatment(mode="weight_only", weight="int4_narrow"))
WRITTEN = [name for name in MODELS if name != "recurrent"]
IMAGES = [name for name in WRITTEN if len(MODELS[name][1]) == 3]


def made(name: str, scheme: Scheme | None = None, target: str = "litert") -> Deployed:
    return deployed(name, scheme or w8a8(), target=target)


@cache
def firmware(name: str) -> Written:
    """Written for a microcontroller, without the measurement of its arena."""
    placed = made(name).placed
    return litert.write(placed, integer_io=True, channels_last=True)


def run(written: Written, name: str, x: Tensor) -> np.ndarray:
    session = litert.load(written.files[written.main], written.options)
    return next(iter(session({network(name).input_specs[0].name: x.numpy()}).values()))


def relative(found: np.ndarray, exact: Tensor) -> float:
    return float(np.linalg.norm(found - exact.numpy()) / np.linalg.norm(exact.numpy()))


def codes_that_differ(deployment: Deployed, target: str, folder: Path, x: Tensor) -> dict[str, int]:
    """Free running: how many codes of each site differ between the file and the referee."""
    written = deployment.written
    path = written.save(folder)
    assert set(written.codes) == set(quantizer_calls(deployment.placed))
    probe = TARGETS[target].probe
    assert probe is not None
    key = deployment.network.input_specs[0].name
    found = probe(path, written.options, list(written.codes.values()))({key: x.numpy()})
    differing = {}

    def compare(site: str, codes: Tensor) -> None:
        theirs = found[written.codes[site]]
        assert theirs.shape == tuple(codes.shape)
        differing[site] = int(np.count_nonzero(theirs != codes.numpy()))

    run_in_integers(deployment.placed, x, on_codes=compare)
    return differing


@pytest.mark.parametrize("name", WRITTEN)
def test_every_code_is_the_referees(name: str, tmp_path: Path) -> None:
    differing = codes_that_differ(made(name), "litert", tmp_path, inputs(name, seed=9, samples=3))
    assert differing
    assert set(differing.values()) == {0}, differing


@needs_micro
@pytest.mark.parametrize("name", ["plain", "residual", "depthwise", "gate", "darknet", "dense"])
def test_every_code_on_a_microcontroller_is_the_referees(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tflite_micro, "arena_bytes", lambda content: None)
    deployment = made(name, target="tflite-micro")
    x = inputs(name, seed=9, samples=3)
    differing = codes_that_differ(deployment, "tflite-micro", tmp_path, x)
    assert set(differing.values()) == {0}, differing


@pytest.mark.parametrize("name", WRITTEN)
def test_float_files_compute_the_network(name: str) -> None:
    written = litert.write(network(name))
    for samples in (1, 3):
        x = inputs(name, seed=4, samples=samples)
        with torch.no_grad():
            assert relative(run(written, name, x), network(name)(x)) < 1e-5


@pytest.mark.parametrize("scheme", [w8a16(), INT4, INT4_WEIGHTS, fp16(), w8a8_dynamic()])
@pytest.mark.parametrize("name", ["depthwise", "dense 3d"])
def test_other_schemes_compute_what_is_simulated(name: str, scheme: Scheme) -> None:
    deployment = made(name, scheme)
    x = inputs(name, seed=4)
    with torch.no_grad():
        exact = deployment.placed(x)
    # The simulation of dynamic layers has one scale a tensor, XNNPACK one a row.
    limit = 0.02 if scheme.name == w8a8_dynamic().name else 5e-3
    assert relative(run(deployment.written, name, x), exact) < limit


@pytest.mark.parametrize("name", IMAGES)
def test_with_codes_at_its_ends_a_file_has_no_float_tensor_and_no_border_transposition(
    name: str,
) -> None:
    from ai_edge_litert import schema_py_generated as schema

    if name in ("movers", "mixed concat"):
        pytest.skip("its channels are shuffled, or it adds up tensors in float")
    written = firmware(name)
    content = written.files[written.main]
    graph = schema.Model.GetRootAsModel(content, 0).Subgraphs(0)
    kinds = {graph.Tensors(i).Type() for i in range(graph.TensorsLength())}
    assert kinds <= {schema.TensorType.INT8, schema.TensorType.INT32}
    assert not {"TRANSPOSE", "QUANTIZE", "DEQUANTIZE"} & set(litert.operator_names(content))


@pytest.mark.parametrize("name", ["plain", "gate"])
def test_codes_at_the_ends_give_the_same_answers(name: str) -> None:
    x = inputs(name, seed=7)
    assert np.array_equal(run(firmware(name), name, x), run(made(name).written, name, x))


def test_without_options_the_file_is_called_as_it_is() -> None:
    written = firmware("plain")
    session = litert.load(written.files[written.main])
    (spec,) = session.input_specs
    assert (spec.shape, spec.dtype) == (("batch", 10, 10, 3), torch.int8)
    (found,) = session({spec.name: np.zeros((2, 10, 10, 3), np.int8)}).values()
    assert found.dtype == np.int8


def test_names_and_shapes_are_the_networks() -> None:
    session = litert.load(
        made("plain").written.files["model.tflite"], made("plain").written.options
    )
    wanted = network("plain")
    assert session.input_names == tuple(s.name for s in wanted.input_specs)
    assert session.output_names == tuple(s.name for s in wanted.output_specs)
    assert session.input_specs[0].shape == ("batch", 3, 10, 10)


def test_at_most_one_transposition_in_a_network_of_images() -> None:
    for name in IMAGES:
        counts = litert.write(network(name)).notes[0]
        allowed = 5 if name == "movers" else 1
        assert int(counts.split(", ")[1].split()[0]) <= allowed, (name, counts)


def test_two_writes_give_the_same_bytes() -> None:
    assert litert.write(made("gate").placed).files == made("gate").written.files


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    content = made("plain").written.files["model.tflite"]
    for damaged in (b"", content[:200], content[:4] + b"XXXX" + content[8:]):
        with pytest.raises(ArtifactError) as caught:
            litert.load(damaged)
        assert caught.value.code == "K530"


def test_inputs_that_do_not_fit_are_refused() -> None:
    session = litert.load(
        made("plain").written.files["model.tflite"], made("plain").written.options
    )
    with pytest.raises(TargetError) as caught:
        session({session.input_names[0]: np.zeros((1, 4, 10, 10), np.float32)})
    assert caught.value.code == "K403"


def test_an_operator_without_a_form_is_named() -> None:
    with pytest.raises(TargetError) as caught:
        litert.write(network("recurrent"))
    assert caught.value.code == "K401"
    assert "lstm" in str(caught.value)


class Padded(nn.Module):
    """Every way of padding: as TFLite's SAME does, on both sides, unevenly."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(3, 4, 3, padding=1)
        self.both = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(4, 6, (5, 1), padding=(3, 0), dilation=(2, 1))
        self.groups = nn.Conv2d(6, 4, 3, groups=2)
        self.line = nn.Conv1d(4, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.both(self.same(nn.functional.pad(x, (1, 0, 2, 1))))
        x = nn.functional.max_pool2d(self.wide(x), 3, 2, 1)
        x = nn.functional.avg_pool2d(self.groups(nn.functional.pad(x, (1, 1, 1, 1))), 2, 1, 1)
        return self.line(x.flatten(2))


def test_paddings_and_windows() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 12, 12)
    net = inference_form(capture(Padded().eval(), x))
    session = litert.load(litert.write(net).files["model.tflite"])
    with torch.no_grad():
        exact = net(x)
    assert (
        relative(session({session.input_names[0]: x.numpy()})[session.output_names[0]], exact)
        < 1e-5
    )


def test_reshapes_keep_the_stored_order_where_they_can() -> None:
    last = (0, 2, 3, 1)
    assert kept_order((1, 8, 5, 5), (1, 2, 4, 5, 5), last) == (0, 3, 4, 1, 2)
    assert kept_order((1, 8, 5, 5), (1, 8, 25), last) == (0, 2, 1)
    assert kept_order((1, 8, 5, 5), (1, 200), last) is None
    assert kept_order((2, 3), (6,), (0, 1)) == (0,)


@needs_micro
def test_the_arena_is_the_smallest_that_runs() -> None:
    from tflite_micro.python.tflite_micro import runtime

    content = firmware("plain").files["model.tflite"]
    size = tflite_micro.arena_bytes(content)
    assert size is not None
    runtime.Interpreter.from_bytes(content, arena_size=size).invoke()
    assert tflite_micro.arena_bytes(b"no model") is None


def test_the_c_array_says_what_firmware_must_know() -> None:
    content = firmware("plain").files["model.tflite"]
    files = c_array(content, "my model", arena=4096)
    assert list(files) == ["my_model.h", "my_model.c"]
    header = files["my_model.h"]
    for fact in ("MY_MODEL_ARENA 4096u", "resolver.AddConv2D();", "MY_MODEL_INPUT_0_SIZE 300u"):
        assert fact in header


MAIN = """
#include "plain.h"
static void host(int operation, void *argument) {
  register int r0 __asm__("r0") = operation;
  register void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}
static void run(void) {
  static char text[12];
  uint32_t sum = 5381;
  for (uint32_t i = 0; i < PLAIN_LENGTH; ++i) sum = sum * 33u + plain[i];
  if ((uintptr_t)plain % 16u) sum = 0;
  for (int i = 0; i < 8; ++i) text[i] = "0123456789abcdef"[(sum >> (28 - 4 * i)) & 15];
  text[8] = 10;
  host(4, text);
  host(0x18, (void *)0x20026);
  for (;;) {}
}
__attribute__((section(".vectors"), used)) static void *const vectors[] = {
  (void *)0x20010000, (void *)run};
"""
LAYOUT = """
SECTIONS { . = 0; .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) }
  . = 0x20000000; .bss : { *(.data*) *(.bss*) } }
"""


@pytest.mark.skipif(
    not (shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm")),
    reason="no toolchain for Cortex-M, or no emulator",
)
def test_the_c_array_arrives_on_an_emulated_cortex_m(tmp_path: Path) -> None:
    content = firmware("plain").files["model.tflite"]
    for name, text in c_array(content, "plain").items():
        (tmp_path / name).write_text(text)
    (tmp_path / "main.c").write_text(MAIN)
    (tmp_path / "layout.ld").write_text(LAYOUT)
    build = "arm-none-eabi-gcc -mcpu=cortex-m3 -mthumb -Os -nostdlib -ffreestanding -T layout.ld"
    command = [*build.split(), "main.c", "plain.c", "-o", "firmware.elf"]
    subprocess.run(command, cwd=tmp_path, check=True)
    machine = "qemu-system-arm -M lm3s6965evb -nographic -semihosting -kernel firmware.elf"
    ran = subprocess.run(
        machine.split(), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    total = 5381
    for byte in content:
        total = (total * 33 + byte) % 2**32
    assert f"{total:08x}" in ran.stdout + ran.stderr


def test_applications_find_a_signature() -> None:
    written = made("plain").written
    interpreter = litert.load(written.files["model.tflite"], written.options).interpreter
    specs = network("plain")
    assert interpreter.get_signature_list() == {
        "serving_default": {
            "inputs": [s.name for s in specs.input_specs],
            "outputs": [s.name for s in specs.output_specs],
        }
    }


@needs_micro
def test_files_for_microcontrollers_are_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite_micro, "arena_bytes", lambda content: None)
    deployment = made("plain", target="tflite-micro")
    certificate = certify(
        deployment.placed,
        deployment.written,
        TARGETS["tflite-micro"],
        deployment.batches,
        rules=deployment.rules,
    )
    assert certificate.verdict == "exact", certificate.first_difference
