"""Poses: flux is kept, and turned galaxies are those that GalSim draws turned."""

from __future__ import annotations

import math

import galsim
import pytest
import torch

from datagen.errors import ConfigError
from encoders.augment import turning
from encoders.galaxies.draws import Draw
from encoders.galaxies.geometry import Geometry, Pose, Resampling
from tests.encoders.galaxies.skies import SCALE, about_of, draw_of, drawn

ANY = {
    "turns": True,
    "flips": True,
    "jitter": 2.0,
    "size": [0.9, 1.1],
    "order": 3,
    "hides": ["r_eff"],
}


class Fixed(Geometry):
    """A geometry whose pose the test chooses."""

    pose: Pose

    def drawn(self, draw: Draw) -> Pose:
        return self.pose


def fixed(angle: float, is_mirrored: bool, shift: tuple[float, float], size: float) -> Resampling:
    geometry = Fixed(**ANY)
    turned = turning(torch.tensor([angle]), torch.tensor([is_mirrored]))
    geometry.pose = Pose(turned, torch.tensor([shift]), torch.tensor([size]))
    return Resampling(96, 64, geometry, None, None)


@pytest.mark.parametrize(
    ("angle", "is_mirrored", "shift", "size"),
    [
        (0.5, False, (0.0, 0.0), 1.0),
        (2.1, True, (0.0, 0.0), 1.0),
        (0.3, False, (1.6, -0.7), 1.1),
        (4.0, True, (-0.5, 2.0), 0.9),
    ],
)
def test_galaxies_lie_as_galsim_draws_them(
    angle: float, is_mirrored: bool, shift: tuple[float, float], size: float
) -> None:
    galaxy = galsim.Exponential(half_light_radius=1.2).shear(g1=0.3, g2=0.2).shift(0.9, -1.4)
    op = fixed(angle, is_mirrored, shift, size)
    found, about = op(drawn(galaxy, 96), about_of(1), draw_of(1))
    seen = galsim.Convolve(galaxy, galsim.Moffat(beta=3.5, fwhm=0.7))
    seen = seen.shift(-SCALE * shift[0], -SCALE * shift[1])
    # GalSim's matrices act on (x, y) of the sky, rows upwards: the inverse of ours, as it stands.
    (a, b), (c, d) = torch.linalg.inv(op.geometry.pose.turning[0] / size).tolist()
    seen = seen.transform(a, b, c, d) / size**2
    wanted = seen.drawImage(nx=64, ny=64, scale=SCALE, method="no_pixel", dtype=float).array
    error = (found[0, 0].double() - torch.from_numpy(wanted.copy())).abs().max()
    assert error < 2e-3 * wanted.max()
    assert about.fwhm.item() == pytest.approx(0.7 * size)


@pytest.mark.parametrize("radius", [0.5, 1.0])
def test_poses_keep_flux(radius: float) -> None:
    n_stamps = 100
    galaxy = galsim.Convolve(
        galsim.Exponential(half_light_radius=radius), galsim.Gaussian(fwhm=0.7)
    )
    image = galaxy.drawImage(nx=96, ny=96, scale=SCALE, method="no_pixel", dtype=float).array
    stamps = torch.from_numpy(image.copy()).float().expand(n_stamps, 1, 96, 96)
    op = Resampling(96, 64, Geometry(**ANY), None, None)
    found, _ = op(stamps, about_of(n_stamps), draw_of(n_stamps))
    error = found.double().sum((1, 2, 3)) / image.sum() - 1.0
    assert error.abs().max() < 1e-4


def test_poses_are_spread_evenly() -> None:
    pose = Geometry(**ANY).drawn(draw_of(4000))
    angle = torch.atan2(-pose.turning[:, 1, 0], pose.turning[:, 1, 1])
    counts = torch.histc(angle, 8, -math.pi, math.pi)
    assert (counts - 500).abs().max() < 110
    is_mirrored = torch.linalg.det(pose.turning) < 0
    assert is_mirrored.float().mean().item() == pytest.approx(0.5, abs=0.04)
    assert pose.shift.abs().max() <= 2.0
    assert pose.shift.std(dim=0).tolist() == pytest.approx([4.0 / 12**0.5] * 2, rel=0.05)
    assert pose.size.min() >= 0.9
    assert pose.size.max() < 1.1


def test_without_a_pose_the_middle_stays_as_it_is() -> None:
    still = ANY | {"turns": False, "flips": False, "jitter": 0.0, "size": [1.0, 1.0]}
    stamps = torch.randn(2, 1, 20, 20)
    found, about = Resampling(20, 12, Geometry(**still), None, None)(
        stamps, about_of(2), draw_of(2)
    )
    torch.testing.assert_close(found, stamps[..., 4:16, 4:16], atol=5e-5, rtol=0)
    assert about.sigma.flatten().tolist() == pytest.approx([1.0, 1.0], abs=0.005)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jitter": -1.0}, "expected jitter >= 0"),
        ({"size": [1.1, 0.9]}, r"size = \[1.1, 0.9\]"),
        ({"size": [0.0, 1.0]}, "size"),
        ({"size": [1.0]}, "size"),
        ({"order": 2}, r"one of \(1, 3\), but got order = 2"),
    ],
)
def test_poses_that_cannot_be(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Geometry(**(ANY | change))


def test_views_larger_than_stamps_are_refused() -> None:
    with pytest.raises(ConfigError, match="train_px = 97, store_px = 96"):
        Resampling(96, 97, Geometry(**ANY), None, None)
