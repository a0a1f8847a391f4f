"""Halos, rods and what the main lens gives up, against closed forms."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from scipy import stats

from datagen.lenses import halos
from datagen.lenses.deflectors import rod_alpha, tnfw_pull
from datagen.lenses.prior import draw_macro
from datagen.lenses.scene import Scenes
from datagen.lenses.settings import LensSettings
from datagen.lenses.substructure import (
    Lot,
    compensated_theta_e,
    draw_line_of_sight,
    draw_rods,
    draw_subhalos,
)
from tests.datagen.lenses.presets import lens_preset

N = 300


def lot_of(settings: LensSettings, n: int = N) -> Lot:
    index = torch.arange(n)
    return Lot(settings, 3, index, draw_macro(settings, 3, index, index % 3))


@pytest.fixture(scope="module")
def lot() -> Lot:
    return lot_of(lens_preset("fair"))


@pytest.fixture(scope="module")
def with_subhalos(lot: Lot) -> Scenes:
    return dataclasses.replace(lot.macro.scenes, subhalos=draw_subhalos(lot, 0))


def test_point_masses_have_their_einstein_radii() -> None:
    """1e8 to 1e12 Msun between z = 0.5 and 1: 0.0166 to 1.6645 arcsec."""
    theta2 = halos.theta2_per_msun(torch.tensor([0.5]), torch.tensor([1.0]))
    for mass, radius in ((1e8, 0.0166), (1e10, 0.1665), (1e12, 1.6645)):
        assert float((mass * theta2).sqrt()) == pytest.approx(radius, rel=3e-3)


@pytest.mark.parametrize("slope", [1.9, 0.9, 1.0, 2.0])
def test_masses_follow_the_mass_function(slope: float) -> None:
    u = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    mass = halos.power_law_mass(u, 1e7, 1e10, slope)
    assert float(mass.min()) >= 1e7
    assert float(mass.max()) <= 1e10
    assert float(mass.mean()) == pytest.approx(halos.mean_mass(1e7, 1e10, slope), rel=5e-3)
    counts = torch.histc(mass.log10(), 6, 7.0, 10.0)
    edges = torch.linspace(7.0, 10.0, 7, dtype=torch.float64)
    if slope == 1.9:
        law = 10.0 ** (-0.9 * edges)
        expected = (law[:-1] - law[1:]) / (law[0] - law[-1]) * 20000
        assert torch.allclose(counts.double(), expected, rtol=0.02, atol=2.0)


def test_poisson_numbers_follow_scipy() -> None:
    u = torch.rand(500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean = torch.linspace(0.1, 900.0, 500, dtype=torch.float64)
    reference = stats.poisson(mean.numpy()).ppf(u.numpy())
    assert halos.poisson_quantile(u, mean).tolist() == reference.astype(int).tolist()


def test_concentrations_and_truncation_are_those_of_the_relations() -> None:
    mass, z = torch.tensor([1e12], dtype=torch.float64), torch.tensor([0.0], dtype=torch.float64)
    r_s = float(halos.scale_radius_kpc(mass, z))
    # r_200 of 1e12 Msun today is 206 kpc for h = 0.7; c = 5.71 (0.7 / 2)^-0.084
    assert r_s == pytest.approx(206.3 / (5.71 * 0.35**-0.084), rel=0.01)
    assert float(halos.truncation_radius_kpc(mass / 1e4, 50.0)) == pytest.approx(
        1.4 * 10 ** (1 / 3)
    )


def test_isothermal_subhalos_end_at_their_tidal_radius(lot: Lot, with_subhalos: Scenes) -> None:
    """r_t^2 = b b_host with b = theta_e^2 / r_t the Einstein radius before truncation."""
    found = with_subhalos.subhalos
    assert found is not None
    assert found.profile == "sis"
    b = found.theta_e.square() / found.r_t
    is_there = found.theta_e > 0.0
    expected = (b * lot.macro.scenes.theta_e[:, None]).sqrt()
    torch.testing.assert_close(found.r_t[is_there], expected[is_there])
    # 1e9 Msun with a point's radius of 0.0526 arcsec, in a lens of 1.2 arcsec: 0.149 arcsec
    radius = halos.tidal_radius(torch.tensor(0.0526), torch.tensor(1.2))
    assert float(radius) == pytest.approx(0.149, abs=1e-3)


def test_subhalos_have_their_share_of_the_mass(lot: Lot, with_subhalos: Scenes) -> None:
    found = with_subhalos.subhalos
    assert found is not None
    share = found.theta_e.square().sum(-1) / (2.0 * lot.macro.scenes.theta_e.square())
    # Mean of U(0.001, 0.05), with the Poisson scatter of few massive subhalos.
    error = float(share.std()) / N**0.5
    assert float(share.mean()) == pytest.approx(0.0255, abs=4.0 * error)
    mass = (found.theta_e.square() / lot.theta2_per_msun()[:, None])[found.theta_e > 0.0]
    slope, low, high = 1.9, 1e7, 1e10

    share = (low ** (1.0 - slope) - mass ** (1.0 - slope)) / (low**-0.9 - high**-0.9)
    assert stats.kstest(share[:20000].numpy(), "uniform").pvalue > 1e-3


def test_subhalos_are_uniform_in_area(lot: Lot, with_subhalos: Scenes) -> None:
    found, lens = with_subhalos.subhalos, lot.macro.scenes
    assert found is not None
    r2 = (found.x - lens.x[:, None]).square() + (found.y - lens.y[:, None]).square()
    share = (r2 / (2.0 * lens.theta_e[:, None]).square())[found.theta_e > 0.0]
    assert stats.kstest(share[:20000].numpy(), "uniform").pvalue > 1e-3


def test_another_attempt_draws_other_substructure_only(lot: Lot) -> None:
    first, second = draw_subhalos(lot, 0), draw_subhalos(lot, 1)
    assert not torch.equal(first.x[:, 0], second.x[:, 0])
    assert not torch.equal(draw_rods(lot, 0).x, draw_rods(lot, 1).x)


def test_compensation_keeps_the_mean_convergence_of_the_ring(
    lot: Lot, with_subhalos: Scenes
) -> None:
    """The flux of the deflection through the ring, integrated on 500 points of it.

    Truncated halos near the ring count as points, so that the sum holds to first order.
    """
    lens, found = lot.macro.scenes, with_subhalos.subhalos
    assert found is not None
    kept = compensated_theta_e(with_subhalos)
    phi = torch.arange(500, dtype=torch.float64) * (2.0 * torch.pi / 500)
    before, after = [], []
    for row in range(40):
        radius = lens.theta_e[row]
        x, y = lens.x[row] + radius * phi.cos(), lens.y[row] + radius * phi.sin()
        there = found.theta_e[row] > 0.0
        d_x, d_y = x - found.x[row, there, None], y - found.y[row, there, None]
        r_s, r_t = found.r_s[row, there, None], found.r_t[row, there, None]
        pull = tnfw_pull(d_x.square() + d_y.square(), r_s, r_t)
        pull = pull * found.theta_e[row, there, None].square()
        # mean radial deflection = theta_e kappa_mean; that of the main lens is its theta_e
        radial = ((pull * d_x).sum(0) * phi.cos() + (pull * d_y).sum(0) * phi.sin()).mean()
        before.append(radial / radius)
        after.append((radial + kept[row] - radius) / radius)
    assert float(torch.stack(before).mean()) > 0.005
    assert float(torch.stack(after).square().mean().sqrt()) < 0.005
    assert abs(float(torch.stack(after).mean())) < 0.2 * float(torch.stack(before).mean())


def test_a_rod_counts_with_its_part_inside_the_ring(lot: Lot) -> None:
    """Against the flux of its deflection through the ring."""
    rods = draw_rods(lot, 0)
    scenes = dataclasses.replace(lot.macro.scenes, rods=rods)
    kept = compensated_theta_e(scenes)
    lens = lot.macro.scenes
    phi = torch.arange(20000, dtype=torch.float64) * (2.0 * torch.pi / 20000)
    for row in range(20):
        radius = lens.theta_e[row]
        x = lens.x[row] + radius * phi.cos() - rods.x[row]
        y = lens.y[row] + radius * phi.sin() - rods.y[row]
        cos, sin = rods.angle[row].cos(), rods.angle[row].sin()
        u, v = rod_alpha(x * cos + y * sin, y * cos - x * sin, rods.theta_v[row], rods.length[row])
        radial = ((u * cos - v * sin) * phi.cos() + (u * sin + v * cos) * phi.sin()).mean()
        assert float(kept[row]) == pytest.approx(float(radius - radial), abs=2e-4)
    flat = dataclasses.replace(rods, is_compensated=True)
    assert torch.equal(compensated_theta_e(dataclasses.replace(scenes, rods=flat)), lens.theta_e)


def test_masses_of_model_f_are_scaled_to_their_fraction() -> None:
    lot = lot_of(lens_preset("model_f"))
    found = draw_subhalos(lot, 0)
    assert torch.allclose(found.theta_e.square().sum(-1), 0.01 * lot.mass_inside())
    n_halos = (found.theta_e > 0.0).sum(-1).double()
    assert float(n_halos.mean()) == pytest.approx(25.0, abs=4.0 * 5.0 / N**0.5)
    assert torch.allclose(draw_rods(lot, 0).theta_v.square(), 0.01 * lot.mass_inside())


def test_flaws_change_slope_place_and_radii() -> None:
    right, wrong = (
        lot_of(lens_preset("model_1", legacy_flaws=f).resolved()) for f in (False, True)
    )
    assert torch.allclose(wrong.theta2_per_msun(), 0.77**2 * right.theta2_per_msun())
    rods = draw_rods(wrong, 0)
    assert not rods.x.any()
    assert draw_rods(right, 0).x.abs().min() > 0.0
    assert float(rods.theta_v[0]) == pytest.approx(0.77 * 1.6645 * 0.03**0.5, rel=1e-3)
    mass = [(h.theta_e.square() / lot.theta2_per_msun()[:, None]) for lot in (right, wrong)
            for h in [draw_subhalos(lot, 0)]]  # fmt: skip
    medians = [float(m[m > 0.0].median()) for m in mass]
    # u = 1/2 of m^-1.9 and m^-0.9 between 1e6 and 1e10 Msun
    assert medians[0] == pytest.approx(1e6 * 0.5 ** (-1 / 0.9), rel=0.05)
    assert medians[1] == pytest.approx((0.5 * 1e6**0.1 + 0.5 * 1e10**0.1) ** 10, rel=0.1)
    radius = torch.hypot(*(getattr(draw_subhalos(right, 0), name) for name in "xy"))
    assert 0.25 <= float(radius.min()) <= float(radius.max()) <= 2.0


def test_halos_on_the_line_of_sight_are_weaker_far_from_the_lens() -> None:
    lot = lot_of(lens_preset("fair", substructure__line_of_sight__n_halos=50.0), 60)
    found = draw_line_of_sight(lot)
    assert found is not None
    assert float((found.theta_e > 0.0).sum(-1).double().mean()) == pytest.approx(50.0, abs=4.0)
    # The heaviest come first; places tell which one was drawn as which.
    assert (found.theta_e.diff(dim=-1) <= 0.0).all()
    names = [f"line_of_sight{part}" for part in ("_z", "_mass", "_radius", "_direction")]
    u, mass, *place = (lot.uniform(name, found.x.shape[1]) for name in names)
    drawn = lot.places(*place)[0].argsort(dim=-1)
    u, mass = u.gather(-1, drawn), mass.gather(-1, drawn)
    theta_e = found.theta_e.gather(-1, found.x.argsort(dim=-1))
    ratio = theta_e.square() / halos.power_law_mass(mass, 1e7, 1e10, 1.9)
    near_source = ratio[(u > 0.95) & (theta_e > 0.0)].mean()
    assert near_source < 0.2 * ratio[(u > 0.3) & (u < 0.5) & (theta_e > 0.0)].mean()
