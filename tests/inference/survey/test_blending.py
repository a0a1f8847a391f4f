from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from encoders.fields.network import MembershipNetwork
from encoders.fields.normalize import normalize
from inference.survey.blending import Mosaic, correct_prevalence
from inference.survey.dataset import cut
from inference.survey.reading import TileReader
from inference.survey.windows import WindowPlan, WindowShape


def reader_of(image: NDArray[np.float32]) -> TileReader:
    bands = image.shape[0]
    reader: Any = SimpleNamespace(
        shape=image.shape[1:],
        background=np.full(bands, 5, np.float32),
        sigma=np.full(bands, 2, np.float32),
        read=lambda rows, columns, out: np.copyto(out, image[:, rows, columns]),
    )
    return reader


def predict(
    network: nn.Module, image: NDArray[np.float32], plan: WindowPlan, blend: str
) -> NDArray[np.float32]:
    reader = reader_of(image)
    mosaic = Mosaic(plan, blend)
    levels = [torch.from_numpy(a[None]) for a in (reader.background, reader.sigma)]
    for index, start in enumerate(plan.starts):
        window = torch.from_numpy(cut(reader, plan, [start]))
        with torch.inference_mode():
            logits = network(normalize(window, *levels))
        mosaic.add(index, torch.sigmoid(logits)[0].numpy())
    assert mosaic.is_complete
    return mosaic.result()


def network() -> MembershipNetwork:
    torch.manual_seed(0)
    made = MembershipNetwork(n_bands=2, cell_px=64, width=4, n_counts=3)
    made.start_from(0.0)
    with torch.no_grad():  # as after some training: signals of unit variance, scores in (0, 1)
        made.head[-1].weight.mul_(50.0)
        for _ in range(50):
            made(torch.randn(2, 2, 256, 256))
    return made.eval()


def test_tiled_is_the_whole_image_answer() -> None:
    """With a halo as wide as a cell sees beyond its border the seams vanish."""
    shape = (1153, 1302)
    image = np.random.default_rng(0).normal(5, 3, (2, *shape)).astype(np.float32)
    image[:, 100:120, 200:260] = np.nan
    encoder = network()
    unit = encoder.alignment_px
    reach = (encoder.receptive_field_px - encoder.cell_px) // 2
    halo = -(-reach // unit) * unit
    window = 2 * halo + 2 * unit
    assert window < shape[0]
    tiled = WindowPlan(shape, WindowShape(window, 2 * unit, halo, encoder.cell_px, unit))
    whole = WindowPlan(shape, WindowShape(2048, 2048, 0, encoder.cell_px, unit))
    assert len(tiled.starts) > 4
    answer = predict(encoder, image, whole, "crop")
    np.testing.assert_allclose(predict(encoder, image, tiled, "crop"), answer, atol=1e-6)
    assert answer.std() > 0.01


def test_without_halo_the_seams_show() -> None:
    """The test above can fail."""
    image = np.random.default_rng(0).normal(5, 3, (2, 640, 640)).astype(np.float32)
    encoder = network()
    tiled = WindowPlan((640, 640), WindowShape(128, 128, 0, 64, 64))
    whole = WindowPlan((640, 640), WindowShape(640, 640, 0, 64, 64))
    a, b = (predict(encoder, image, plan, "crop") for plan in (tiled, whole))
    assert np.abs(a - b).max() > 1e-5


@pytest.mark.parametrize("blend", ["crop", "taper"])
def test_equal_windows_blend_to_themselves_in_any_order(blend: str) -> None:
    plan = WindowPlan((150, 203), WindowShape(96, 48, 16, 16, 16))
    full = np.random.default_rng(1).random((10, 13)).astype(np.float32)
    results = []
    for order in (range(len(plan.starts)), reversed(range(len(plan.starts)))):
        mosaic = Mosaic(plan, blend)
        for index in order:
            row, column = (p // 16 for p in plan.starts[index])
            mosaic.add(index, full[row : row + 6, column : column + 6])
        results.append(mosaic.result())
    np.testing.assert_allclose(results[0], full, rtol=1e-6)
    assert results[0].tobytes() == results[1].tobytes()


@pytest.mark.parametrize("blend", ["crop", "taper"])
def test_every_plane_is_blended_as_if_it_were_alone(blend: str) -> None:
    plan = WindowPlan((150, 203), WindowShape(96, 48, 16, 16, 16))
    windows = np.random.default_rng(2).random((len(plan.starts), 3, 6, 6)).astype(np.float32)
    together = Mosaic(plan, blend)
    alone = [Mosaic(plan, blend) for _ in range(3)]
    for index, window in enumerate(windows):
        together.add(index, window)
        for mosaic, plane in zip(alone, window, strict=True):
            mosaic.add(index, plane)
    result = together.result()
    assert result.shape == (3, 10, 13)
    assert result.tobytes() == b"".join(mosaic.result().tobytes() for mosaic in alone)


def test_tapered_errors_are_those_of_fully_correlated_windows() -> None:
    """Draws that share one deviate: the scatter of the blended value is the blended error."""
    plan = WindowPlan((32, 96), WindowShape(64, 32, 16, 16, 16))
    rng = np.random.default_rng(3)
    errors = rng.uniform(0.5, 2.0, (len(plan.starts), 1, 2, 4)).astype(np.float32)
    deviates = rng.normal(size=400).astype(np.float32)
    mosaic = Mosaic(plan, "taper")
    for index, error in enumerate(errors):
        mosaic.add(index, np.concatenate([error, deviates[:, None, None] * error]))
    blended, *values = mosaic.result()
    np.testing.assert_allclose(np.std(values, axis=0), blended * deviates.std(), rtol=1e-5)


def test_prevalence_moves_the_logit() -> None:
    p = np.array([0.0, 0.1, 0.5, 0.9, 1.0], np.float32)
    corrected = correct_prevalence(p, trained=0.2, target=0.03)
    shift = np.log(0.03 / 0.97) - np.log(0.2 / 0.8)
    logit = np.log(p[1:-1] / (1 - p[1:-1])) + shift
    np.testing.assert_allclose(corrected[1:-1], 1 / (1 + np.exp(-logit)), rtol=1e-5)
    assert corrected[0] == 0
    assert corrected[-1] == 1
    np.testing.assert_allclose(correct_prevalence(p, 0.2, 0.2), p, rtol=1e-6)
