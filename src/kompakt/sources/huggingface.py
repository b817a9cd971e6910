"""Models from a Hugging Face directory: ``config.json`` and safetensors, never a pickle or code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kompakt.errors import CaptureError
from kompakt.measuring.imported import told

Dynamic = dict[str, dict[int, str]]

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
SEQUENCE_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids"})


def open_directory(path: Path) -> tuple[nn.Module, dict[str, Tensor], Dynamic]:
    """Load the model of a directory that ``save_pretrained`` wrote.

    Args:
        path: Holds ``config.json`` and ``model.safetensors`` (or its parts and their index).

    Returns:
        The model in evaluation mode, example inputs by keyword, and the dimensions that should stay
        variable: the sequence of text inputs.

    Raises:
        CaptureError: K016 when a file is missing or the weights are pickles, K017 when transformers
            cannot build the model without foreign code, K019 when transformers is not installed.
    """
    config_json = _read_config(path)
    _check_weights(path)
    transformers = _import_transformers()
    factory = _model_class(transformers, config_json)
    with _quiet(transformers):
        try:
            config = transformers.AutoConfig.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
            if hasattr(config, "use_cache"):
                config.use_cache = False  # a cache is state for generating, not an output
            model: nn.Module = factory.from_pretrained(
                path,
                config=config,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
            )
        except Exception as error:
            raise CaptureError("K017", f"loading {path}", why=told(error)) from error
    model.eval()
    example = example_inputs(model)
    return model, example, sequence_dimensions(example)


def example_inputs(model: Any) -> dict[str, Tensor]:
    """Small inputs a transformers model can be called with, from its kind and its configuration.

    Args:
        model: A ``PreTrainedModel``.

    Returns:
        Tensors by keyword: token ids (3, 5) with a mask, or images, or audio.
    """
    config, main = model.config, str(model.main_input_name)
    if main == "pixel_values":
        size = getattr(config, "image_size", None) or 224
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        return {main: torch.zeros(2, getattr(config, "num_channels", 3), height, width)}
    if main == "input_values":
        return {main: torch.zeros(2, 16_000)}
    if main == "input_features":
        frames = 2 * getattr(config, "max_source_positions", 1500)
        return {main: torch.zeros(2, getattr(config, "num_mel_bins", 80), frames)}
    inputs = dict(model.dummy_inputs)
    vocabulary = getattr(config, "vocab_size", None)
    if vocabulary:
        inputs = {k: v % vocabulary if k.endswith("input_ids") else v for k, v in inputs.items()}
    return (
        {"attention_mask": torch.ones_like(inputs["input_ids"]), **inputs}
        if ("input_ids" in inputs)
        else inputs
    )


def sequence_dimensions(inputs: Mapping[str, Any]) -> Dynamic:
    """Dimension 1 of every text input, as one variable ``sequence``."""
    return {
        name: {1: "sequence"}
        for name, value in inputs.items()
        if name in SEQUENCE_INPUTS and isinstance(value, Tensor) and value.ndim == 2
    }


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CaptureError(
            "K016", f"the model directory {path}", where=str(file), why=told(error)
        ) from error
    if not isinstance(config, dict):
        raise CaptureError(
            "K016", f"the model directory {path}", where=str(file), why="it holds no JSON object"
        )
    return config


def _check_weights(path: Path) -> None:
    if any((path / name).is_file() for name in WEIGHTS):
        return
    pickles = sorted(f.name for f in path.glob("*") if f.suffix in (".bin", ".pt", ".pth", ".h5"))
    raise CaptureError(
        "K016",
        f"the model directory {path}",
        why=f"its weights are a pickle ({pickles[0]}), which can run any code"
        if pickles
        else "it has no model.safetensors",
    )


def _import_transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise CaptureError(
            "K019",
            "loading a Hugging Face directory",
            why=told(error),
            help="pip install 'kompakt[transformers]'",
        ) from error
    return transformers


def _model_class(transformers: Any, config: Mapping[str, Any]) -> Any:
    architectures = config.get("architectures") or []
    name = str(architectures[0]) if architectures else "AutoModel"
    factory = getattr(transformers, name, None) if name.isidentifier() else None
    if not hasattr(factory, "from_pretrained"):
        raise CaptureError(
            "K017",
            f"the architecture {name!r}",
            where="config.json",
            why="transformers has none of that name, and code that comes with a model is never run",
        )
    return factory


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    logging = transformers.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
