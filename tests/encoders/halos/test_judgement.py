"""Saliency, coverage and pictures, apart from trainings."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from encoders.halos.conformal import coverage, coverage_curve
from encoders.halos.network import Outputs
from encoders.halos.pictures import draw_corner, draw_latents, draw_novelty
from encoders.halos.saliency import saliency
from encoders.pictures import png


class Weighted(nn.Module):
    """z_0 is a weighted sum of squares."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.arange(-4.0, 5.0).view(1, 3, 3))

    def forward(self, maps: Tensor) -> Outputs:
        return Outputs((self.weights * maps.square()).sum(dim=(1, 2, 3))[:, None])


def test_saliency_is_the_gradient_also_in_inference_mode() -> None:
    network = Weighted()
    with torch.inference_mode():
        maps = torch.randn(2, 1, 3, 3)
        found = saliency(network, maps)
    torch.testing.assert_close(found, (2 * network.weights.detach() * maps).abs())
    assert network.weights.grad is None


def test_coverage_of_several_levels_is_that_of_each() -> None:
    rng = np.random.default_rng(0)
    target, clusters = rng.normal(size=2000), np.arange(2000) // 2
    widths = np.array([0.674, 1.0, 1.96])[:, None] * np.ones(2000)
    found = coverage_curve(target, -widths, widths, clusters)
    np.testing.assert_allclose(found[:, 0], [0.5, 0.683, 0.95], atol=0.04)
    assert tuple(found[1]) == coverage(target, -widths[1], widths[1], clusters)


def test_pictures_of_few_latents_and_of_maps_that_are_all_alike() -> None:
    group = np.array([0, 0, 1], dtype=np.int64)
    for z in (np.zeros((3, 1)), np.zeros((3, 2)), np.arange(27.0).reshape(3, 9)):
        for draw in (draw_latents, draw_corner):
            assert png(draw(z, group, ["a 0", "noise"])).startswith(b"\x89PNG")
    scores = draw_novelty(np.zeros(3), {"noise": np.ones(3)}, 0.5)
    (text,) = [text.get_text() for text in scores.axes[0].get_legend().get_texts()]
    assert text == "noise: 1.000"
