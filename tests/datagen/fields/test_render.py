from __future__ import annotations

from collections.abc import Callable

import galsim
import numpy as np
import pytest
import torch
from astropy.table import Table
from numpy.typing import NDArray

from datagen.fields.psf import PsfModel
from datagen.fields.render import View, fourier_renderer, get_renderer
from datagen.fields.render.components import components
from datagen.fields.render.extent import psf_radius, sersic_radius

MakeSources = Callable[..., Table]

SCALE, SIGMA = 0.263, 4.6
RENDERERS = ("fourier", "galsim")
PSF = PsfModel(0.88, 3.0, 0.01, -0.02)
ACCURATE = galsim.GSParams(folding_threshold=5e-4, maxk_threshold=1e-4, kvalue_accuracy=1e-6)


def view(side: int = 160, faint_limit: float = 0.02 * SIGMA) -> View:
    return View((side, side), PSF, "i", SCALE, faint_limit)


@pytest.fixture(params=RENDERERS)
def renderer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def draw(renderer: str, sources: Table, seen: View) -> NDArray[np.float32]:
    return next(get_renderer(renderer)(sources, [seen]))


def plain_galsim(sources: Table, side: int = 160) -> NDArray[np.float32]:
    """Draw with `drawImage` on generous stamps, in arcsec, without anything shared."""
    image = galsim.ImageF(side, side, xmin=0, ymin=0, scale=SCALE)
    psf = PSF.galsim().withGSParams(ACCURATE)
    for row in sources:
        profile = psf.withFlux(row["FLUX_I"])
        if row["SOURCE_TYPE"] == 0:
            profile = galsim.Convolve([galaxy(row), psf], gsparams=ACCURATE)
        centre = galsim.PositionD(row["X"], row["Y"])
        stamp = profile.drawImage(nx=360, ny=360, scale=SCALE, center=centre)
        common = stamp.bounds & image.bounds
        image[common] += stamp[common]
    return np.asarray(image.array)


def galaxy(row: Table.Row) -> galsim.GSObject:
    size, fraction = row["HLR"], row["FRACDEV"]
    if np.isfinite(row["SERSIC_N"]):
        profile = galsim.Sersic(row["SERSIC_N"], half_light_radius=size)
    else:
        early = galsim.DeVaucouleurs(half_light_radius=size)
        late = galsim.Exponential(half_light_radius=size)
        profile = fraction * early + (1 - fraction) * late
    return profile.withFlux(row["FLUX_I"]).shear(g1=row["G1"], g2=row["G2"])


KINDS: dict[str, dict[str, float]] = {
    "star": {"SOURCE_TYPE": 1},
    "exponential": {"G1": 0.3, "G2": -0.2},
    "de Vaucouleurs": {"FRACDEV": 1, "G1": -0.1},
    "mixture": {"FRACDEV": 0.4, "G2": 0.25},
    "Sersic": {"SERSIC_N": 2.5, "G2": 0.1},
}


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_plain_galsim(kind: str, make_sources: MakeSources) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.uniform(0, 160, (2, 6)).tolist()
    flux = [3e2, 1e3, 3e3, 1e4, 3e4, 1e5]
    sources = make_sources(x, y, FLUX_I=flux, HLR=[0.2, 0.3, 0.5, 0.8, 1.2, 2.0], **KINDS[kind])
    expected = plain_galsim(sources)
    for renderer in RENDERERS:
        image = draw(renderer, sources, view())
        assert np.abs(image - expected).max() < 0.05 * SIGMA, renderer
        assert np.abs(image - expected).max() < 1e-4 * expected.max(), renderer


@pytest.mark.parametrize("kind", KINDS)
def test_flux_is_conserved(renderer: str, kind: str, make_sources: MakeSources) -> None:
    sources = make_sources([150.3], [149.8], FLUX_I=1e4, HLR=0.6, **KINDS[kind])
    image = draw(renderer, sources, view(300))
    assert image.sum() == pytest.approx(1e4, rel=5e-3)


def test_light_left_out_is_below_the_limit(renderer: str, make_sources: MakeSources) -> None:
    sources = make_sources([150.0], [150.0], FLUX_I=1e5, HLR=1.5, FRACDEV=1)
    wide = draw(renderer, sources, view(300, 1e-3))
    cut = draw(renderer, sources, view(300, 0.1))
    assert (np.abs(cut) < 1e-3).any()
    assert np.abs(wide - cut).max() < 0.1


def test_sub_pixel_positions_are_pixel_centres(renderer: str, make_sources: MakeSources) -> None:
    image = draw(renderer, make_sources([40.3], [71.8], SOURCE_TYPE=1), view(128))
    rows, cols = np.indices(image.shape)
    assert (image * cols).sum() / image.sum() == pytest.approx(40.3, abs=0.01)
    assert (image * rows).sum() / image.sum() == pytest.approx(71.8, abs=0.01)
    assert np.unravel_index(image.argmax(), image.shape) == (72, 40)


def test_shear_along_x_stretches_columns(renderer: str, make_sources: MakeSources) -> None:
    sources = make_sources([80], [80], G1=0.4, HLR=1.0)
    image = draw(renderer, sources, view())
    rows, cols = np.indices(image.shape) - 80
    assert (image * cols**2).sum() > 1.5 * (image * rows**2).sum()


def test_sources_outside_the_edge_give_their_light_inside(
    renderer: str, make_sources: MakeSources
) -> None:
    whole = draw(renderer, make_sources([100.2], [40.0], FLUX_I=1e5, HLR=1.5), view(160))
    moved = draw(renderer, make_sources([-3.8], [40.0], FLUX_I=1e5, HLR=1.5), view(56))
    assert moved.sum() > 0
    assert np.allclose(moved, whole[:56, 104:160], atol=1e-3)


def test_far_and_dark_sources_draw_nothing(renderer: str, make_sources: MakeSources) -> None:
    sources = make_sources([-4000, 50], [50, 50], FLUX_I=[1000.0, 0.0])
    assert not draw(renderer, sources, view()).any()
    assert not draw(renderer, make_sources([], []), view()).any()


def test_galaxies_without_a_size_are_points(renderer: str, make_sources: MakeSources) -> None:
    galaxy_image = draw(renderer, make_sources([50.2], [50.1], HLR=0.0), view())
    assert np.array_equal(
        galaxy_image, draw(renderer, make_sources([50.2], [50.1], SOURCE_TYPE=1), view())
    )


def test_images_add_up_and_repeat(renderer: str, make_sources: MakeSources) -> None:
    both = make_sources([30.0, 90.4], [40.0, 70.1])
    total = draw(renderer, both[:1], view()) + draw(renderer, both[1:], view())
    image = draw(renderer, both, view())
    assert np.array_equal(image, draw(renderer, both, view()))
    assert np.abs(image - total).max() < 1e-4


@pytest.mark.parametrize("fwhm_arcsec", [0.35, 0.9, 1.6])
def test_renderers_agree_in_every_band(fwhm_arcsec: float, make_sources: MakeSources) -> None:
    rng = np.random.default_rng(5)
    n = 60
    x, y = rng.uniform(-40, 340, n), rng.uniform(-40, 740, n)
    columns: dict[str, object] = {
        "FLUX_I": 10 ** rng.uniform(2, 6, n),
        "FLUX_G": 10 ** rng.uniform(2, 6, n),
        "HLR": rng.uniform(0.1, 2.0, n),
        "FRACDEV": rng.choice([0.0, 0.3, 1.0], n),
        "G1": rng.normal(0, 0.2, n),
        "SOURCE_TYPE": rng.random(n) < 0.3,
    }
    sources = make_sources(x.tolist(), y.tolist(), **columns)
    # Longer than a block, and no square.
    views = [
        View((700, 300), PsfModel(fwhm_arcsec, 2.5, 0.05, 0.02), "i", SCALE, 0.02 * SIGMA),
        View((700, 300), PsfModel(1.2, 2.5, -0.05, 0.0), "g", SCALE, 0.04),
    ]
    fast, reference = (list(get_renderer(name)(sources, views)) for name in ("fourier", "galsim"))
    for image, expected, seen in zip(fast, reference, views, strict=True):
        assert np.abs(image - expected).max() < 0.05 * seen.faint_limit / 0.02


def test_the_number_of_threads_changes_nothing(make_sources: MakeSources) -> None:
    sources = make_sources([30.0, 90.4], [40.0, 70.1])
    before = torch.get_num_threads()
    images = []
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        images.append(draw("fourier", sources, view()))
        assert torch.get_num_threads() == n_threads
    torch.set_num_threads(before)
    assert np.array_equal(*images)


def test_reach_of_the_profiles() -> None:
    flux, size = np.array([1e4]), np.array([3.0])
    for n, profile in ((1.0, galsim.Exponential), (4.0, galsim.DeVaucouleurs)):
        radius = sersic_radius(flux, size, np.array([n]), 0.1)[0]
        brightness = profile(half_light_radius=3.0, flux=1e4).xValue(radius, 0)
        assert brightness == pytest.approx(0.1, rel=0.02)
    radius = psf_radius(flux, PsfModel(0.9, 3.0, 0.0, 0.0), SCALE, 0.1)[0] * SCALE
    star = PsfModel(0.9, 3.0, 0.0, 0.0).galsim().xValue(radius, 0) * 1e4 * SCALE**2
    assert star == pytest.approx(0.1, rel=1e-2)


@pytest.mark.slow
def test_a_source_larger_than_half_of_the_largest_stamp_is_drawn_alike(
    make_sources: MakeSources,
) -> None:
    sources = make_sources([900.0], [20.0], FLUX_I=1e9, HLR=30.0, FRACDEV=1, G1=0.3)
    seen = view(48)
    parts = components(sources, ["i"], SCALE)
    assert parts.reach(np.array([seen.faint_limit])).max() > 2048
    image, expected = (draw(name, sources, seen) for name in ("fourier", "galsim"))
    assert expected.min() > SIGMA
    assert np.abs(image - expected).max() < 1e-3 * expected.max()


def test_strips_of_a_stamp_add_up_on_every_plane() -> None:
    rng = np.random.default_rng(8)
    stamp, flux = rng.random((700, 700), np.float32), np.array([1.0, 2.0], np.float32)
    planes = np.zeros((2, 500, 600), np.float32)
    fourier_renderer._add(planes, flux, stamp, -150, 50)
    assert np.array_equal(planes[:, :, 50:], flux[:, None, None] * stamp[150:650, :550])
    assert not planes[:, :, :50].any()
