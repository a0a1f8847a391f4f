"""Classifiers as programs: the same probabilities, for any number of images, with their card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datagen.errors import ConfigError, OutputError
from encoders.lenses import program
from encoders.lenses.module import LensModule
from encoders.lenses.program import CARD, TOLD, save_program

EQUIVARIANT = {
    "_target_": "encoders.lenses.e2cnn_network.EquivariantNetwork",
    **{"group": "D4", "channels": [8, 8], "n_blocks": [0]},
}


@pytest.fixture
def module(card: dict[str, Any], options: dict[str, Any]) -> LensModule:
    """Return an equivariant classifier that cuts images of 19 px to 17 and splits them in bands."""
    torch.manual_seed(0)
    stretch = card["stretch"] | {"kind": "sqrt", "scales": [0.8, 1.6], "steps": ["opening"]}
    stretch |= {"mean": [0.1, 0.2], "std": [0.8, 0.9]}
    known = card | {"image_side": 19, "stretch": stretch}
    made = LensModule(card=known, **options | {"network": EQUIVARIANT})
    for _ in range(3):
        made(images(6))
    made.temperature.fill_(0.2)
    return made.eval()


def images(n: int) -> Tensor:
    return 5 * torch.randn(n, 1, 19, 19, generator=torch.Generator().manual_seed(n))


def test_a_program_gives_the_probabilities_of_its_module(
    module: LensModule, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "lens.pt2"
    save_program(module, path)
    told = {CARD: ""}
    loaded = torch.export.load(path, extra_files=told).module()
    assert json.loads(told[CARD]) == {key: module.card[key] for key in TOLD}
    for n in (1, 7):
        with torch.no_grad():
            expected = module.probabilities(images(n))
        torch.testing.assert_close(loaded(images(n)), expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.05
    assert [file.name for file in path.parent.iterdir()] == ["lens.pt2"]


def test_a_program_onnx_without_its_packages(
    module: LensModule, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(program.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install onnx onnxscript"):
        save_program(module, tmp_path / "lens.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_program_has_a_known_form(module: LensModule, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"end with \.pt2 or \.onnx .* export_path = .*lens\.pt$"):
        save_program(module, tmp_path / "lens.pt")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        save_program(module, tmp_path / "file" / "lens.pt2")


def test_an_onnx_program_gives_the_probabilities_of_its_module(
    module: LensModule, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / "lens.onnx"
    save_program(module, path)
    model = onnx.load(str(path))
    told = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert told["classes"] == module.card["classes"]
    session = runtime.InferenceSession(str(path))
    for n in (1, 7):
        (found,) = session.run(None, {"images": images(n).numpy()})
        with torch.no_grad():
            expected = module.probabilities(images(n)).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
