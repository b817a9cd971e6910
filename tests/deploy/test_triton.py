"""A model repository of Triton: configurations that read back, files where the server looks, all or nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor
from typer.testing import CliRunner

from kompakt.cli.main import app
from kompakt.deploy import TritonOptions, deploy_triton
from kompakt.deploy import triton_repository as writing
from kompakt.deploy.triton_schema import ENUMS, MESSAGES, check_text, installed_class, parse
from kompakt.errors import OutputError

from ..nets import deployed
from .repositories import FILES, POST, artifact, config, preprocessing, refused, tensor, tree

# --- one model --------------------------------------------------------------------------------


def test_a_configuration_says_what_the_record_says(tmp_path: Path) -> None:
    done = deploy_triton(artifact(tmp_path), tmp_path / "repository")
    assert done.models == ("my_net_v1",)
    assert tree(done.repository) == {"my_net_v1/config.pbtxt", "my_net_v1/1/model.onnx"}
    found = config(done)
    assert (found.name, found.backend, found.max_batch_size) == ("my_net_v1", "onnxruntime", 32)
    assert [(t.name, t.data_type, list(t.dims)) for t in found.input] == [("x", 11, [3, 10, 10])]
    assert [(t.name, t.data_type, list(t.dims)) for t in found.output] == [("output", 11, [5])]
    assert found.dynamic_batching.max_queue_delay_microseconds == 100
    assert [(g.count, g.kind) for g in found.instance_group] == [(1, 2)]
    assert found.version_policy.latest.num_versions == 1
    assert [(w.batch_size, list(w.inputs["x"].dims)) for w in found.model_warmup] == [
        (1, [3, 10, 10]),
        (32, [3, 10, 10]),
    ]


def test_settings_reach_the_configuration(tmp_path: Path) -> None:
    options = TritonOptions(
        name="seen",
        max_batch=8,
        instances=3,
        device="auto",
        queue_delay_us=500,
        version=7,
        warmup=False,
    )
    done = deploy_triton(artifact(tmp_path), tmp_path / "repository", options)
    found = config(done)
    assert tree(done.repository) == {"seen/config.pbtxt", "seen/7/model.onnx"}
    assert (found.max_batch_size, found.dynamic_batching.max_queue_delay_microseconds) == (8, 500)
    assert [(g.count, g.kind) for g in found.instance_group] == [(3, 0)]
    assert not found.model_warmup


@pytest.mark.parametrize(
    ("target", "backend", "files"),
    [
        ("onnxruntime", "onnxruntime", {"model.onnx"}),
        ("openvino", "openvino", {"model.xml", "model.bin"}),
        ("tensorrt", "onnxruntime", {"model.onnx"}),
        ("torchscript", "pytorch", {"model.pt"}),
    ],
)
def test_each_target_has_its_backend(
    target: str, backend: str, files: set[str], tmp_path: Path
) -> None:
    done = deploy_triton(artifact(tmp_path, target), tmp_path / "repository")
    found = config(done)
    assert found.backend == backend
    assert found.default_model_filename in files
    assert {Path(p).name for p in tree(done.repository)} == {*files, "config.pbtxt"}
    assert ("--gpus" in done.command) == (target == "tensorrt")


def test_an_engine_is_served_by_the_tensorrt_backend(tmp_path: Path) -> None:
    (tmp_path / "built.plan").write_bytes(b"engine")
    options = TritonOptions(plan=tmp_path / "built.plan")
    done = deploy_triton(artifact(tmp_path, "tensorrt"), tmp_path / "repository", options)
    found = config(done)
    assert (found.backend, found.default_model_filename) == ("tensorrt", "model.plan")
    assert (done.repository / "my_net_v1/1/model.plan").read_bytes() == b"engine"
    assert not found.optimization.execution_accelerators.gpu_execution_accelerator
    refused("K540", artifact(tmp_path / "o", "openvino"), tmp_path / "other", options)


def test_onnx_for_tensorrt_is_accelerated_by_it(tmp_path: Path) -> None:
    found = config(deploy_triton(artifact(tmp_path, "tensorrt"), tmp_path / "repository"))
    accelerators = found.optimization.execution_accelerators.gpu_execution_accelerator
    assert [a.name for a in accelerators] == ["tensorrt"]
    assert [g.kind for g in found.instance_group] == [1]


def test_torchscript_tensors_are_named_by_position(tmp_path: Path) -> None:
    made = artifact(tmp_path, "torchscript", inputs=[tensor("a", "b", 3), tensor("c", "b", 4)])
    found = config(deploy_triton(made, tmp_path / "repository"))
    assert [t.name for t in found.input] == ["INPUT__0", "INPUT__1"]
    assert [t.name for t in found.output] == ["OUTPUT__0"]
    assert found.platform == "pytorch_libtorch"


def test_a_model_with_external_weights_is_a_folder(tmp_path: Path) -> None:
    made = artifact(tmp_path, files={"model.onnx": b"onnx", "model.onnx.data": b"weights"})
    done = deploy_triton(made, tmp_path / "repository")
    inside = done.repository / "my_net_v1/1/model.onnx"
    assert (inside / "model.onnx").read_bytes() == b"onnx"
    assert (inside / "model.onnx.data").read_bytes() == b"weights"


def test_a_fixed_batch_is_not_batched(tmp_path: Path) -> None:
    made = artifact(tmp_path, inputs=[tensor("x", 1, 3)], outputs=[tensor("y", 1, 5)])
    found = config(deploy_triton(made, tmp_path / "repository"))
    assert found.max_batch_size == 0
    assert [list(t.dims) for t in found.input] == [[1, 3]]
    assert not found.HasField("dynamic_batching")
    options = TritonOptions(max_batch=4)
    assert "dynamic dimension" in refused("K542", made, tmp_path / "other", options).why
    assert not (tmp_path / "other").exists()


def test_one_number_a_sample_gets_a_dimension(tmp_path: Path) -> None:
    made = artifact(tmp_path, outputs=[tensor("score", "batch")])
    found = config(deploy_triton(made, tmp_path / "repository"))
    assert list(found.output[0].dims) == [1]
    assert found.output[0].HasField("reshape")
    assert list(found.output[0].reshape.shape) == []


def test_dynamic_dimensions_that_nothing_tells_have_no_warmup(tmp_path: Path) -> None:
    made = artifact(tmp_path, inputs=[tensor("ids", "batch", "words", dtype="int64")])
    found = config(deploy_triton(made, tmp_path / "repository"))
    assert [list(t.dims) for t in found.input] == [[-1]]
    assert not found.model_warmup


def test_settings_the_server_is_not_given_are_told(tmp_path: Path) -> None:
    made = artifact(tmp_path, settings={"session.some_setting": "1"})
    done = deploy_triton(made, tmp_path / "repository")
    assert any("session.some_setting" in note for note in done.notes)


def test_the_configuration_has_the_tensors_of_the_file(tmp_path: Path) -> None:
    """A real file: what ONNX Runtime says of it is what the configuration says."""
    import onnxruntime

    plain = deployed("plain")
    made = artifact(tmp_path, files=plain.written.files)
    done = deploy_triton(made, tmp_path / "repository", TritonOptions(name="net"))
    session = onnxruntime.InferenceSession(str(done.repository / "net/1/model.onnx"))
    found = config(done)
    for given, written in (
        (session.get_inputs(), found.input),
        (session.get_outputs(), found.output),
    ):
        assert [(v.name, v.shape[1:]) for v in given] == [(t.name, list(t.dims)) for t in written]
        assert {v.type for v in given} == {"tensor(float)"}
    x = np.zeros((2, *found.input[0].dims), np.float32)
    assert session.run(None, {"x": x})[0].shape == (2, *found.output[0].dims)


def test_two_writes_give_the_same_text(tmp_path: Path) -> None:
    made = artifact(tmp_path)
    texts = {
        (deploy_triton(made, tmp_path / name).repository / "my_net_v1/config.pbtxt").read_bytes()
        for name in ("one", "two")
    }
    assert len(texts) == 1


# --- what is there already ----------------------------------------------------------------------


def test_a_model_becomes_a_new_version_of_itself_only(tmp_path: Path) -> None:
    made, repository = artifact(tmp_path), tmp_path / "repository"
    deploy_triton(made, repository)
    refused("K541", made, repository)
    deploy_triton(made, repository, TritonOptions(version=2, instances=2))
    assert tree(repository / "my_net_v1") == {"config.pbtxt", "1/model.onnx", "2/model.onnx"}
    assert (
        config(deploy_triton(made, repository, TritonOptions(version=3, instances=4)))
        .instance_group[0]
        .count
        == 4
    )
    other = artifact(tmp_path / "o", outputs=[tensor("output", "batch", 6)])
    assert (
        "other inputs or outputs"
        in refused("K541", other, repository, TritonOptions(version=9)).why
    )
    (repository / "my_net_v1/config.pbtxt").write_text("no configuration")
    refused("K541", made, repository, TritonOptions(version=9))
    assert not (repository / "my_net_v1/9").exists()


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, repository = artifact(tmp_path), tmp_path / "repository"
    step = tmp_path / "pre.onnx"
    step.write_bytes(preprocessing())
    real, calls = writing._put, []

    def failing(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(28, os.strerror(28))
        real(*arguments)

    monkeypatch.setattr(writing, "_put", failing)
    assert refused("K501", made, repository, TritonOptions(before=step)).exit_code == 1
    assert len(calls) == 2
    assert list(repository.iterdir()) == []
    assert not [p for p in tmp_path.iterdir() if ".partial" in p.name]


def test_a_repository_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused("K504", artifact(tmp_path), tmp_path / "file" / "repository")


def test_unusable_settings_and_targets_are_refused(tmp_path: Path) -> None:
    made, repository = artifact(tmp_path), tmp_path / "repository"
    for options in (
        TritonOptions(name="../up"),
        TritonOptions(name=".hidden"),
        TritonOptions(device="tpu"),
        TritonOptions(instances=0),
        TritonOptions(version=0),
        TritonOptions(max_batch=-1),
        TritonOptions(plan=tmp_path / "none"),
    ):
        code = "K540" if options.plan else "K001"
        refused(code, made, repository, options)
    refused("K540", artifact(tmp_path / "l", "litert"), repository)
    refused("K510", tmp_path / "nothing", repository)
    (made / "model.onnx").write_bytes(b"changed")
    refused("K511", made, repository)
    assert not repository.exists()


# --- the schema -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ['nam: "x"', "input { data_type: TYPE_F32 }", "max_batch_size: many", "instance_group {"],
)
def test_a_misspelt_field_or_type_does_not_parse(text: str) -> None:
    with pytest.raises(OutputError) as caught:
        parse(text)
    assert caught.value.code == "K544"


def test_the_table_is_tritons_schema() -> None:
    """Every name, number, type and repetition of the table is that of tritonclient's schema."""
    theirs = installed_class()
    if theirs is None:
        pytest.skip("tritonclient is not installed")
    file = theirs.DESCRIPTOR.file
    kinds = {v: k for k, v in vars(descriptor.FieldDescriptor).items() if k.startswith("TYPE_")}
    for name, fields in MESSAGES.items():
        message = file.message_types_by_name[name.split(".")[0]]
        for part in name.split(".")[1:]:
            message = message.nested_types_by_name[part]
        for field, (number, kind) in fields.items():
            found = message.fields_by_name[field]
            assert found.number == number, (name, field)
            assert bool(found.is_repeated) == kind.endswith(("[]", "{}")), (name, field)
            base = kind.removesuffix("[]").removesuffix("{}")
            if kind.endswith("{}"):
                found = found.message_type.fields_by_name["value"]
            named = found.message_type or found.enum_type
            said = (
                named.full_name.removeprefix("inference.")
                if named
                else kinds[found.type][5:].lower()
            )
            assert said == base, (name, field)
    for name, values in ENUMS.items():
        holder = file
        for part in name.split(".")[:-1]:
            holder = holder.message_types_by_name[part]
        theirs_values = holder.enum_types_by_name[name.split(".")[-1]].values
        assert {v.name: v.number for v in theirs_values} == values


def test_tritons_own_schema_reads_every_configuration(tmp_path: Path) -> None:
    if installed_class() is None:
        pytest.skip("tritonclient is not installed")
    (tmp_path / "pre.onnx").write_bytes(preprocessing())
    (tmp_path / "post.py").write_text(POST)
    options = TritonOptions(before=tmp_path / "pre.onnx", behind=tmp_path / "post.py")
    for target in FILES:
        with_steps = options if target != "torchscript" else TritonOptions()
        done = deploy_triton(
            artifact(tmp_path / target, target), tmp_path / f"r-{target}", with_steps
        )
        assert done.schema == "tritonclient"
        for name in done.models:
            text = (done.repository / name / "config.pbtxt").read_text()
            assert check_text(text, parse(text)) == "tritonclient"


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prints_how_to_serve(tmp_path: Path) -> None:
    made, repository = artifact(tmp_path), tmp_path / "my repository"
    arguments = ["deploy", "triton", str(made), "--repository", str(repository), "--name", "net"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    assert "docker run --rm -p 8000:8000" in result.stdout
    assert f"'{repository}:/models:ro'" in result.stdout
    again = CliRunner().invoke(app, [*arguments, "--json"])
    assert again.exit_code == 1
    assert "error[K541]" in again.stderr
    third = CliRunner().invoke(app, [*arguments, "--json", "--version", "2"])
    assert json.loads(third.stdout)["models"] == ["net"]
    wrong = CliRunner().invoke(app, ["deploy", "nothing", str(made), "--repository", "x"])
    assert wrong.exit_code == 2
    assert "K003" in wrong.stderr
