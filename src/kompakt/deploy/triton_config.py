"""``config.pbtxt`` messages for a model, its steps and the ensemble of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kompakt.deploy.triton_schema import ENUMS, config_class
from kompakt.deploy.triton_steps import TYPES, Tensor

KINDS = {"cpu": "KIND_CPU", "gpu": "KIND_GPU", "auto": "KIND_AUTO"}


@dataclass(frozen=True, kw_only=True)
class Served:
    """One model of a repository.

    Attributes:
        name: Its name.
        backend: The backend that runs it.
        file: The name of its file in a version's folder.
        inputs: What it takes; the batch is the first dimension where ``max_batch`` is not 0.
        outputs: What it hands out.
        max_batch: The largest batch the server may make; 0 when the model has no batch dimension.
        platform: For backends that want it.
        accelerator: An execution accelerator of the ONNX Runtime backend.
    """

    name: str
    backend: str
    file: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int
    platform: str = ""
    accelerator: str = ""


def model_config(
    served: Served,
    *,
    instances: int,
    device: str,
    queue_delay_us: int,
    warmup: Mapping[str, Sequence[int]] | None,
    versions: int = 1,
) -> Any:
    """The configuration of one model.

    Args:
        served: The model.
        instances: How many run side by side, on each device.
        device: A key of :data:`KINDS`.
        queue_delay_us: How long a request may wait for others to share its batch.
        warmup: Shape of each input, without the batch, for the requests that are run before the model is ready.
        versions: How many of the newest versions are served.
    """
    config = config_class()(name=served.name, backend=served.backend, platform=served.platform)
    config.max_batch_size = served.max_batch
    config.default_model_filename = served.file
    _add_tensors(config.input, served.inputs, batched=served.max_batch > 0)
    _add_tensors(config.output, served.outputs, batched=served.max_batch > 0)
    kind = ENUMS["ModelInstanceGroup.Kind"][KINDS[device]]
    config.instance_group.add(count=instances, kind=kind)
    config.version_policy.latest.num_versions = versions
    if served.max_batch > 1:
        config.dynamic_batching.max_queue_delay_microseconds = queue_delay_us
    if served.accelerator:
        accelerators = config.optimization.execution_accelerators
        accelerators.gpu_execution_accelerator.add(name=served.accelerator)
    if warmup is not None:
        _add_warmup(config, served, warmup)
    return config


def ensemble_config(name: str, models: Sequence[Served]) -> Any:
    """The configuration that runs models one after the other; tensors are wired by name.

    Args:
        name: Its name.
        models: The models, first to last; what each takes is made by an earlier one or comes from the client.
    """
    config = config_class()(name=name, platform="ensemble", max_batch_size=models[0].max_batch)
    made: dict[str, Tensor] = {}
    taken: dict[str, Tensor] = {}
    for model in models:
        step = config.ensemble_scheduling.step.add(model_name=model.name, model_version=-1)
        for tensor in model.inputs:
            step.input_map[tensor.name] = tensor.name
            if tensor.name not in made:
                taken.setdefault(tensor.name, tensor)
        for tensor in model.outputs:
            step.output_map[tensor.name] = tensor.name
            made[tensor.name] = tensor
    batched = models[0].max_batch > 0
    _add_tensors(config.input, tuple(taken.values()), batched=batched)
    _add_tensors(config.output, models[-1].outputs, batched=batched)
    return config


def _add_tensors(field: Any, tensors: Sequence[Tensor], *, batched: bool) -> None:
    for tensor in tensors:
        shape = tensor.shape[1:] if batched else tensor.shape
        kind = ENUMS["DataType"][TYPES[tensor.dtype]]
        entry = field.add(name=tensor.name, data_type=kind, dims=shape or (1,))
        if not shape:  # one number a sample: requests have at least one dimension
            entry.reshape.SetInParent()


def _add_warmup(config: Any, served: Served, shapes: Mapping[str, Sequence[int]]) -> None:
    for size in dict.fromkeys((1, served.max_batch)) if served.max_batch else (0,):
        request = config.model_warmup.add(name=f"zeros, batch {size}" if size else "zeros", count=1)
        request.batch_size = max(size, 1) if served.max_batch else 0
        for tensor in served.inputs:
            entry = request.inputs[tensor.name]
            entry.data_type = ENUMS["DataType"][TYPES[tensor.dtype]]
            entry.dims.extend(shapes[tensor.name] or (1,))
            entry.zero_data = True


__all__ = ["KINDS", "Served", "ensemble_config", "model_config"]
