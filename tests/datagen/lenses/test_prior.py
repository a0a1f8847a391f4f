"""The prior of the macro model against closed forms; sources inside the caustic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Polygon
from scipy import stats

from datagen.lenses.caustics import MacroLens, points_inside, tangential_caustic
from datagen.lenses.deflectors import rotated, sie_alpha
from datagen.lenses.draws import Draws
from datagen.lenses.prior import Macro, draw_macro
from datagen.lenses.substructure import Lot, draw_rods, draw_subhalos
from tests.datagen.lenses.presets import lens_preset

N = 3000


@pytest.fixture(scope="module")
def macro() -> Macro:
    index = torch.arange(N)
    return draw_macro(lens_preset("fair"), 5, index, index % 3)


def agrees(values: torch.Tensor, reference: stats.distributions.rv_frozen) -> bool:
    return bool(stats.kstest(values.numpy(), reference.cdf).pvalue > 1e-3)


def test_fair_prior_follows_its_distributions(macro: Macro) -> None:
    scenes = macro.scenes
    assert agrees(scenes.theta_e, stats.uniform(0.8, 0.8))
    assert agrees(scenes.q, stats.uniform(0.5, 0.5))
    assert agrees(scenes.angle, stats.uniform(0.0, math.pi))
    assert agrees(scenes.x, stats.norm(0.0, 0.02))
    assert agrees(torch.hypot(scenes.gamma_1, scenes.gamma_2), stats.halfnorm(0.0, 0.05))
    direction = torch.atan2(scenes.gamma_2, scenes.gamma_1)
    assert agrees(direction, stats.uniform(-math.pi, 2.0 * math.pi))
    assert agrees(scenes.source.n[:, 0], stats.uniform(0.7, 2.3))
    assert agrees(scenes.source.r_eff[:, 0], stats.uniform(0.1, 0.3))
    assert agrees(macro.z_lens, stats.uniform(0.2, 0.6))
    assert agrees(macro.brightness, stats.uniform(20.0, 40.0))
    assert torch.all(scenes.source.flux == 1.0)


def test_sources_lie_behind_their_lenses(macro: Macro) -> None:
    """z_source is uniform between z_lens + 0.5 and 2.5."""
    low = torch.clamp(macro.z_lens + 0.5, min=0.7)
    assert torch.all(macro.z_source >= low - 1e-12)
    assert agrees((macro.z_source - low) / (2.5 - low), stats.uniform())


def test_the_prior_does_not_know_the_class() -> None:
    index, settings = torch.arange(50), lens_preset("fair")
    one, other = (draw_macro(settings, 5, index, torch.full_like(index, label)) for label in (0, 2))
    for name, values in vars(one.scenes).items():
        if isinstance(values, torch.Tensor):
            assert torch.equal(values, getattr(other.scenes, name))
    assert torch.equal(one.scenes.source.x, other.scenes.source.x)


WIDE = {
    "source__n": "normal(1, 0.6)",
    "source__r_eff": "normal(0.2, 0.1)",
    "source__q": "normal(0.9, 0.2)",
    "macro__theta_e": "normal(1.2, 0.6)",
    "macro__q": "normal(0.9, 0.1)",
    "macro__gamma": "half_normal(0.4)",
    "macro__z_lens": "normal(0.5, 0.3)",
    "macro__z_source": "normal(1.5, 2)",
    "imaging__snr": "normal(20, 15)",
    "substructure__cdm__mass_fraction": "normal(0.01, 0.01)",
    "substructure__rod__mass_fraction": "normal(0.01, 0.01)",
    "substructure__rod__length": "normal(0.2, 0.2)",
}


def test_wide_normal_distributions_stay_within_the_limits() -> None:
    settings, index = lens_preset("fair", **WIDE), torch.arange(N)
    macro = draw_macro(settings, 5, index, index % 3)
    scenes, source = macro.scenes, macro.scenes.source
    drawn = {"theta_e": scenes.theta_e, "q": scenes.q}
    drawn |= {"z_lens": macro.z_lens, "z_source": macro.z_source}
    drawn |= {"gamma": torch.hypot(scenes.gamma_1, scenes.gamma_2) * (1.0 - 1e-12)}
    for part, values in ((settings.macro, drawn), (settings.source, vars(source))):
        for name in set(values) & set(part.limits()):
            low, high = part.limits()[name]
            assert low <= float(values[name].min()) <= float(values[name].max()) <= high, name
    # Cut off, not piled up at the limit.
    assert float((scenes.q == 1.0).double().mean()) == 0.0
    assert agrees(scenes.q, stats.truncnorm(-8.5, 1.0, 0.9, 0.1))
    assert float(macro.brightness.min()) >= 0.1
    few = index[:100]
    lot = Lot(settings, 5, few, draw_macro(settings, 5, few, few % 3))
    assert torch.isfinite(draw_subhalos(lot, 0).theta_e).all()
    rods = draw_rods(lot, 0)
    assert torch.isfinite(rods.theta_v).all()
    assert float(rods.length.min()) >= 0.01


def lens_of(macro: Macro, rows: slice) -> MacroLens:
    names = ("theta_e", "q", "angle", "x", "y", "gamma_1", "gamma_2")
    return MacroLens(**{name: getattr(macro.scenes, name)[rows] for name in names})


def map_to_source(lens: MacroLens, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The lens equation of the first lens, written out."""
    a_x, a_y = rotated(
        lambda u, v: sie_alpha(u, v, lens.theta_e[0], lens.q[0]),
        x - lens.x[0],
        y - lens.y[0],
        lens.angle[0],
    )
    g_1, g_2 = lens.gamma_1[0], lens.gamma_2[0]
    return torch.stack([x - a_x - g_1 * x - g_2 * y, y - a_y - g_2 * x + g_1 * y])


def test_the_caustic_is_where_the_magnification_diverges(macro: Macro) -> None:
    """Images found with root finding on det J along rays, instead of the closed form."""
    lens = lens_of(macro, slice(1))
    angles = torch.linspace(0.0, 6.0, 7, dtype=torch.float64)
    caustic = torch.stack(tangential_caustic(lens, 4096), -1)[0]
    for angle in angles:
        radius = torch.linspace(0.3, 3.0, 20001, dtype=torch.float64)
        x = lens.x[0] + radius * torch.cos(angle)
        y = lens.y[0] + radius * torch.sin(angle)
        step = 1e-5
        d_x = (map_to_source(lens, x + step, y) - map_to_source(lens, x - step, y)) / (2 * step)
        d_y = (map_to_source(lens, x, y + step) - map_to_source(lens, x, y - step)) / (2 * step)
        determinant = d_x[0] * d_y[1] - d_x[1] * d_y[0]
        crossing = int(torch.nonzero(determinant.sign().diff())[-1])
        critical = map_to_source(lens, x[crossing], y[crossing])
        assert float((caustic - critical).norm(dim=-1).min()) < 1e-3


def test_sources_are_uniform_inside_the_caustic(macro: Macro) -> None:
    """One caustic, many points, against rejection sampling with an even-odd rule."""
    lens = lens_of(macro, slice(3, 4))
    one = MacroLens(**{name: values.expand(4000) for name, values in vars(lens).items()})
    x, y = points_inside(one, Draws(0, torch.arange(4000), "points").uniform(3))
    corners = torch.stack(tangential_caustic(lens, 512), -1)[0].numpy()
    polygon = Polygon(corners)
    assert polygon.contains_points(torch.stack([x, y], -1).numpy()).mean() > 0.98
    rng = np.random.default_rng(0)
    box = rng.uniform(corners.min(0), corners.max(0), (20000, 2))
    inside = box[polygon.contains_points(box)]
    assert stats.ks_2samp(x.numpy(), inside[:, 0]).pvalue > 1e-3
    assert stats.ks_2samp(y.numpy(), inside[:, 1]).pvalue > 1e-3


def test_sources_of_all_lenses_lie_inside_their_caustics(macro: Macro) -> None:
    x, y = (getattr(macro.scenes.source, name)[:300, 0].numpy() for name in "xy")
    corners = torch.stack(tangential_caustic(lens_of(macro, slice(300)), 512), -1).numpy()
    inside = [Polygon(c).contains_point(point) for c, *point in zip(corners, x, y, strict=True)]
    # The polygons of few vertices, of which points are drawn, reach over the curve's hollow arcs.
    assert np.mean(inside) > 0.97


def test_clumps_share_the_flux() -> None:
    settings = lens_preset("model_4")
    macro = draw_macro(settings, 1, torch.arange(200), torch.arange(200) % 3)
    source = macro.scenes.source
    assert source.flux.shape == (200, 9)
    assert torch.allclose(source.flux.sum(-1), torch.ones(200, dtype=torch.float64))
    assert agrees(1.0 - source.flux[:, 0], stats.uniform(0.1, 0.3))
    distance = torch.hypot(source.x[:, 1:] - source.x[:, :1], source.y[:, 1:] - source.y[:, :1])
    # On circularised radii half of the clumps lie inside r_eff; ellipticity changes little.
    assert float((distance < source.r_eff[:, :1]).double().mean()) == pytest.approx(0.5, abs=0.05)
    assert macro.source_colours.shape == (200, 9, 3)
    assert macro.source_colours[0, 0].tolist() == [1.0, 2.0, 3.0]


def test_a_flaw_may_give_one_class_another_prior() -> None:
    settings = lens_preset("model_4", legacy_flaws=True).resolved()
    index = torch.arange(300)
    theta_e = draw_macro(settings, 1, index, index % 3).scenes.theta_e
    assert torch.all(theta_e[index % 3 != 0] == 1.5)
    assert agrees(theta_e[index % 3 == 0], stats.norm(1.09, 0.17))
