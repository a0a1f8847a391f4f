"""Lens classifiers as programs that run without Skyfold: torch's own exported form, and ONNX."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from datagen.errors import ConfigError
from datagen.files import write_bytes
from encoders.lenses.export import plain
from encoders.lenses.module import LensModule

SUFFIXES = (".pt2", ".onnx")
# What a user of a program must know of its images and answers, from the card.
TOLD = ("classes", "bands", "pixel_scale", "image_side", "data_hash")
CARD = "card.json"
N_EXAMPLES = 2


class Program(nn.Module):
    """`softmax(plain(network)(stretch(images)) / temperature)`: calibrated probabilities.

    Args:
        module: A trained classifier; it is left alone.
    """

    temperature: Tensor

    def __init__(self, module: LensModule) -> None:
        super().__init__()
        self.stretched = module.stretched
        # Other machines have their own layout of memory.
        self.network = plain(module.network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.register_buffer("temperature", module.temperature.detach().clone())

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities (B, n_classes) for images (B, C, H, H) [counts]."""
        return torch.softmax(self.network(self.stretched(images)) / self.temperature, dim=1)


def check_suffix(path: str) -> str:
    """Return the suffix of a program's file.

    Raises:
        ConfigError: There is no such kind of program.
    """
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise ConfigError(
            f"expected predict.export_path to end with {' or '.join(SUFFIXES)} (torch.export or "
            f"ONNX), but got export_path = {path}",
            path,
            SUFFIXES,
        )
    return suffix


def save_program(module: LensModule, path: Path) -> None:
    """Write a classifier as a program for batches of any size, atomically.

    The file also has the card: `classes` in the order of the probabilities, `bands`, `pixel_scale`
    [arcsec/px], `image_side` [px] and `data_hash`.

    Args:
        module: A trained classifier.
        path: `.pt2` is read by `torch.export.load`, `.onnx` by ONNX runtimes.

    Raises:
        ConfigError: The suffix is another one, or the packages that write ONNX are missing.
        OutputError: The file cannot be written.
    """
    write = {".pt2": _torch_bytes, ".onnx": _onnx_bytes}[check_suffix(str(path))]
    card = {key: module.card[key] for key in TOLD}
    side = int(card["image_side"])
    images = torch.zeros(N_EXAMPLES, len(card["bands"]), side, side)
    # In evaluation mode nothing in a program depends on the batch.
    write_bytes(path, write(Program(module).eval(), images, card))


def _torch_bytes(program: nn.Module, images: Tensor, card: Mapping[str, Any]) -> bytes:
    made = torch.export.export(program, (images,), dynamic_shapes=({0: _any_batch()},))
    buffer = io.BytesIO()
    torch.export.save(made, buffer, extra_files={CARD: json.dumps(card)})
    return buffer.getvalue()


def _onnx_bytes(program: nn.Module, images: Tensor, card: Mapping[str, Any]) -> bytes:
    if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript")):
        raise ConfigError(
            "predict.export_path with .onnx needs more packages: pip install onnx onnxscript, or "
            "choose .pt2"
        )
    made = torch.onnx.export(
        program,
        (images,),
        dynamo=True,
        dynamic_shapes=({0: _any_batch()},),
        input_names=["images"],
        output_names=["probabilities"],
        verbose=False,
    )
    assert made is not None
    model: Any = made.model_proto
    for key, value in card.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    return bytes(model.SerializeToString())


def _any_batch() -> Any:  # noqa: ANN401 - torch ships no type for it
    return torch.export.Dim("batch", min=1)
