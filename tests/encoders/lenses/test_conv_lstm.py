from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from datagen.errors import ConfigError
from encoders.lenses.conv_lstm import ConvLSTM
from encoders.lenses.polar import (
    PolarMap,
    light_centroid,
    light_of,
    ring_radius,
)
from encoders.polar import unwrap

POLAR: dict[str, Any] = {
    "n_azimuths": 360,
    "n_radii": 24,
    "inner": 0.3,
    "outer": 2.0,
    "theta_e_px": None,
    "centre": "image",
}


def polar_map(side: int, **more: object) -> PolarMap:
    return PolarMap(side=side, **(POLAR | more))


def network(side: int = 33, channels: int = 1, **more: object) -> ConvLSTM:
    torch.manual_seed(4)
    polar = POLAR | more
    return ConvLSTM(channels, 3, side, polar=polar, width=8, hidden=8).eval()


def blobs(side: int, places: list[tuple[float, float, float]], sigma: float = 1.0) -> Tensor:
    """Return an image (1, 1, side, side) of Gaussians at (x, y) [px from the middle], flux."""
    offsets = torch.arange(side) - (side - 1) / 2
    image = torch.zeros(side, side)
    for x, y, flux in places:
        square = (offsets[None] - x) ** 2 + (offsets[:, None] - y) ** 2
        image += flux * torch.exp(-0.5 * square / sigma**2)
    return image[None, None]


def test_unwrapping_is_bilinear_interpolation_on_circles() -> None:
    rng = np.random.default_rng(5)
    image = rng.normal(size=(2, 3, 12, 15))
    centre, radii = np.array([[7.2, 5.1], [6.6, 5.9]]), np.array([[0.0, 1.5, 4.0], [1.0, 2.0, 3.3]])
    found = unwrap(*(torch.from_numpy(a) for a in (image, centre, radii)), n_azimuths=7)
    angle = 2 * np.pi * np.arange(7) / 7
    for b in range(2):
        x = centre[b, 0] + radii[b][:, None] * np.cos(angle)
        y = centre[b, 1] + radii[b][:, None] * np.sin(angle)
        for c in range(3):
            expected = map_coordinates(image[b, c], [y, x], order=1)
            np.testing.assert_allclose(found[b, c].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("centre", ["image", "flux"])
@pytest.mark.parametrize("side", [64, 65])
def test_a_quarter_turn_of_the_image_shifts_the_map(side: int, centre: str) -> None:
    """`rot90` shows at angle phi what stood at phi + 90 degrees."""
    image = blobs(side, [(9, 4, 1.0), (-7, -5, 0.6)], sigma=2.0).double()
    unwrapped = polar_map(side, centre=centre)
    maps, turned = unwrapped(image), unwrapped(torch.rot90(image, 1, dims=(-2, -1)))
    assert maps.shape == (1, 1, 24, 360)
    torch.testing.assert_close(turned, maps.roll(-90, dims=-1), atol=2e-5, rtol=0)
    assert (maps - maps.roll(-90, dims=-1)).abs().max() > 0.1


def test_two_images_of_a_source_give_the_einstein_radius() -> None:
    """SIS: images at theta_E + beta and beta - theta_E, magnified by theta_E / beta +- 1."""
    theta_e, beta, angle = 10.0, 2.0, 0.7
    direction = (math.cos(angle), math.sin(angle))
    places = []
    for sign in (1, -1):
        x, y = ((beta + sign * theta_e) * component for component in direction)
        places.append((x, y, theta_e / beta + sign))
    torch.manual_seed(6)
    image = 3.0 + blobs(65, places) + 0.2 * torch.randn(1, 1, 65, 65)
    found = ring_radius(light_of(image), torch.tensor([[32.0, 32.0]])).item()
    assert found == pytest.approx(theta_e + beta**2 / theta_e, rel=0.05)


def test_the_radius_is_found_where_light_is_everywhere() -> None:
    """Without noise and strongly stretched, half of the pixels lie far above the median."""
    offsets = torch.arange(65) - 32.0
    distance = torch.hypot(offsets[None], offsets[:, None])
    image = torch.asinh(1e5 * torch.exp(-(distance - 11.0).abs() / 3))[None, None]
    found = ring_radius(light_of(image), torch.tensor([[32.0, 32.0]])).item()
    assert found == pytest.approx(11.0, rel=0.02)


def test_the_centroid_is_that_of_the_light() -> None:
    image = torch.cat((blobs(41, [(3.0, -5.0, 1.0)]), torch.zeros(1, 1, 41, 41)))
    found = light_centroid(light_of(image))
    torch.testing.assert_close(found, torch.tensor([[23.0, 15.0], [20.0, 20.0]]), atol=1e-3, rtol=0)


def test_a_ring_lies_on_one_radius_of_the_map() -> None:
    offsets = torch.arange(65) - 32.0
    distance = torch.hypot(offsets[None], offsets[:, None])
    ring = torch.exp(-0.5 * (distance - 11.0) ** 2)[None, None]
    radii = torch.linspace(0.3, 2.0, 24)
    for theta_e_px in (11.0, None):
        profile = polar_map(65, theta_e_px=theta_e_px)(ring).mean(dim=-1).flatten()
        assert radii[profile.argmax()].item() == pytest.approx(1.0, abs=0.05)


def test_the_network_hardly_sees_quarter_turns() -> None:
    """The second round of the LSTM has forgotten where the first began."""
    image = blobs(33, [(5, 2, 1.0), (-4, -3, 0.6)], sigma=1.5)
    model = network()
    logits, turned = model(image), model(torch.rot90(image, 1, dims=(-2, -1)))
    spread = (logits - model(blobs(33, [(5, 2, 1.0)]))).abs().max()
    assert (turned - logits).abs().max() < 1e-4 * spread


def test_an_image_counts_alone_and_has_gradients() -> None:
    torch.manual_seed(7)
    images = torch.rand(3, 2, 33, 33, requires_grad=True)
    model = network(channels=2, centre="flux")
    logits = model(images)
    torch.testing.assert_close(model(images[1:2]), logits[1:2], atol=1e-6, rtol=1e-5)
    logits[1].sum().backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    assert images.grad[1].abs().max() > 0
    assert images.grad[0].abs().max() == 0


def test_an_image_without_light_gives_numbers() -> None:
    images = torch.zeros(1, 1, 33, 33, requires_grad=True)
    logits = network(centre="flux")(images)
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"n_azimuths": 100}, "multiple of 9, but got n_azimuths = 100"),
        ({"n_radii": 0}, "n_radii = 0"),
        ({"inner": 2.0}, "0 <= inner < outer, but got inner = 2.0, outer = 2.0"),
        ({"centre": "lens"}, "image, flux, but got centre = lens"),
        ({"theta_e_px": 9.0}, r"0 < theta_e_px <= 8 px.*theta_e_px = 9.0; null"),
        ({"outer": 20.0}, "expected side > 40 px, but got side = 33"),
    ],
)
def test_wrong_settings_are_named(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        network(**more)
