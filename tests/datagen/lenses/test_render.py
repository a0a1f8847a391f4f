from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import caustics
import numpy as np
import pytest
import torch
from caustics.lenses import func
from scipy.signal import fftconvolve
from scipy.special import gamma, gammainc

from datagen.errors import ConfigError
from datagen.lenses import render as render_module
from datagen.lenses.camera import Camera, first_halos
from datagen.lenses.light import elliptical_r2, sersic, sersic_b, sersic_peak
from datagen.lenses.observe import psf_kernel
from datagen.lenses.prior import draw_macro
from datagen.lenses.render import Grid, convolve, deflection, render, subhalo_deflection, to_pixels
from datagen.lenses.scene import Multipoles, Rods, Scenes, Sersics
from datagen.lenses.substructure import Lot, draw_subhalos
from tests.datagen.lenses.presets import lens_preset

MakeScenes = Callable[..., Scenes]
GRID = Grid(side=41, pixel_scale=0.15)
PSF = psf_kernel(0.3, 1.0, GRID.ray_scale)


def caustics_image(scenes: Scenes, row: int, grid: Grid) -> torch.Tensor:
    """The same scene drawn by caustics, counts per pixel."""
    cosmology = caustics.FlatLambdaCDM(name="cosmology").to(dtype=torch.float64)
    s, sub = scenes[row : row + 1], scenes.subhalos
    redshifts = torch.tensor([0.5, 1.0], dtype=torch.float64)
    common = {"cosmology": cosmology, "z_l": 0.5, "z_s": 1.0}
    lenses: list[caustics.ThinLens] = [
        caustics.SIE(**common, x0=s.x[0], y0=s.y[0], q=s.q[0], phi=s.angle[0], Rein=s.theta_e[0]),
        caustics.ExternalShear(
            **common, x0=0.0, y0=0.0, gamma_1=s.gamma_1[0], gamma_2=s.gamma_2[0]
        ),
    ]
    for k in range(0 if sub is None else sub.x.shape[1]):
        place = {"x0": sub.x[row, k], "y0": sub.y[row, k], "name": f"halo_{k}"}
        if sub.profile == "point":
            lenses.append(caustics.Point(**common, **place, Rein=sub.theta_e[row, k]))
            continue
        # theta_e^2 = 4 G M / c^2 D_ls / (D_l D_s) with the constants of caustics
        mass = func.rein_to_mass_point(
            sub.theta_e[row, k],
            cosmology.angular_diameter_distance_z1z2(*redshifts),
            cosmology.angular_diameter_distance(redshifts[0]),
            cosmology.angular_diameter_distance(redshifts[1]),
        )
        tau = sub.r_t[row, k] / sub.r_s[row, k]
        lenses.append(caustics.TNFW(**common, **place, mass=mass, Rs=sub.r_s[row, k], tau=tau))
    light = s.source
    peak = sersic_peak(light.flux, light.n, light.r_eff)
    source = caustics.Sersic(
        x0=light.x[0, 0],
        y0=light.y[0, 0],
        q=light.q[0, 0],
        phi=light.angle[0, 0],
        n=light.n[0, 0],
        Re=(light.r_eff / torch.sqrt(light.q))[0, 0],  # on the major axis
        Ie=(peak * torch.exp(-sersic_b(light.n)))[0, 0],
    )
    plane = caustics.SinglePlane(**common, lenses=lenses)
    camera = caustics.LensSource(plane, source, grid.pixel_scale, grid.side, psf=PSF)
    image = camera.to(dtype=torch.float64)()
    return image * grid.pixel_scale**2


@pytest.mark.parametrize("profile", ["point", "tnfw"])
def test_images_agree_with_caustics(make_scenes: MakeScenes, profile: str) -> None:
    scenes = make_scenes(2, 3, profile)
    ours = render(scenes, GRID, PSF)
    for row in range(2):
        theirs = caustics_image(scenes, row, GRID)
        assert (ours[row, 0] - theirs).abs().max() < 1e-6 * theirs.max()


def test_float32_images_are_those_of_float64(make_scenes: MakeScenes) -> None:
    for profile in ("point", "sis", "tnfw"):
        exact = render(make_scenes(4, 8, profile), GRID, PSF)
        image = render(make_scenes(4, 8, profile, dtype=torch.float32), GRID, PSF.float())
        assert image.dtype == torch.float32
        assert (image - exact).abs().max() < 2e-5 * exact.max()


FAIR = {"imaging__side": 41, "macro__theta_e": "1.0", "imaging__supersampling": 2}


def fair_scenes(n_images: int, n_halos: int, profile: str = "tnfw") -> Scenes:
    """Scenes of the preset fair with the heaviest of their subhalos."""
    settings = lens_preset("fair", substructure__cdm__profile=profile, **FAIR)
    index = torch.arange(n_images)
    macro = draw_macro(settings, 3, index, torch.ones_like(index))
    camera = Camera.build(settings.imaging, "cpu", torch.float64)
    subhalos = draw_subhalos(Lot(settings, 3, index, macro), 0)
    lit = camera.expose(macro.scenes, macro).scenes
    return dataclasses.replace(lit, subhalos=first_halos(subhalos, n_halos))


def fair_images(scenes: Scenes, n_rays: int) -> torch.Tensor:
    """The scenes as the preset sees them, with `n_rays` per pixel and axis."""
    grid = Grid(41, 0.1, n_rays)
    psf = psf_kernel(0.15, 0.45, grid.ray_scale)
    return render(scenes, grid, psf.to(scenes.theta_e))


def errors(ours: torch.Tensor, exact: torch.Tensor) -> tuple[float, float]:
    """Largest error of a pixel over the peak, and largest chi2 with sky 1 and gain 1."""
    largest = ((ours - exact).abs().amax((1, 2, 3)) / exact.amax((1, 2, 3))).max()
    chi2 = ((ours - exact) ** 2 / (1.0 + exact)).sum((1, 2, 3)).max()
    return float(largest), float(chi2)


@pytest.mark.parametrize("profile", ["sis", "tnfw"])
def test_interpolated_deflections_give_the_images_of_all_rays(
    monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    scenes = fair_scenes(4, 30, profile)
    ours = fair_images(scenes, 4)
    single = fair_images(scenes.to("cpu", torch.float32), 4)
    assert (single - ours).abs().max() < 2e-5 * ours.max()
    monkeypatch.setattr(render_module, "_INTERPOLATED", ())
    error, chi2 = errors(ours, fair_images(scenes, 4))
    assert 0.0 < error < 5e-3
    assert chi2 < 0.1


def test_images_converge_with_rays() -> None:
    scenes = fair_scenes(8, 10)
    source = dataclasses.replace(scenes.source, n=scenes.source.n.clamp(max=1.0))
    scenes = dataclasses.replace(scenes, source=source)
    exact = fair_images(scenes, 8)
    (one, one_chi2), (four, four_chi2) = (errors(fair_images(scenes, n), exact) for n in (1, 4))
    assert one > 0.05
    assert one_chi2 > 10.0
    assert four < 5e-3
    assert four_chi2 < 0.05


def test_interpolation_is_exact_for_cubic_polynomials() -> None:
    for n_rays in (2, 3, 4):
        grid = Grid(7, 0.1, n_rays)
        like = torch.zeros(1, dtype=torch.float64)
        nodes, rays = grid.nodes(like), grid.axis(like)
        cubic, expected = (1.0 + x - 20.0 * x**2 + 300.0 * x**3 for x in (nodes, rays))
        torch.testing.assert_close(grid.interpolation(like) @ cubic, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_ray_through_the_middle_of_a_subhalo_is_harmless(
    make_scenes: MakeScenes, dtype: torch.dtype
) -> None:
    axis = torch.linspace(-1.0, 1.0, 5, dtype=dtype)
    for profile in ("point", "sis", "tnfw"):
        subhalos = make_scenes(1, 1, profile, dtype).subhalos
        assert subhalos is not None
        there = dataclasses.replace(subhalos, x=axis[None, 3:4], y=axis[None, 1:2])
        alpha_x, alpha_y = subhalo_deflection(there, axis)
        assert torch.isfinite(alpha_x).all()
        assert alpha_x[0, 1, 3].abs() < 0.1
        assert alpha_y[0, 1, 3].abs() < 0.1


def test_the_working_memory_does_not_change_images(
    make_scenes: MakeScenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = make_scenes(5, 7, "tnfw")
    images = render(scenes, GRID, PSF)
    monkeypatch.setattr(render_module, "_CHUNK_CPU", 500)
    torch.testing.assert_close(render(scenes, GRID, PSF), images, rtol=1e-9, atol=1e-12)


def test_padded_rows_change_nothing(make_scenes: MakeScenes) -> None:
    scenes = make_scenes(2, 4, "tnfw")
    assert scenes.subhalos is not None
    masses = scenes.subhalos.theta_e.clone()
    masses[:, 2:] = 0.0
    padded = dataclasses.replace(scenes.subhalos, theta_e=masses)
    fewer = scenes.subhalos._map(lambda values: values[:, :2])
    a, b = (render(dataclasses.replace(scenes, subhalos=s), GRID) for s in (padded, fewer))
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_rod_and_multipoles_change_the_deflection_as_stated(
    make_scenes: MakeScenes, rods: Rods
) -> None:
    scenes = make_scenes(2)
    axis = torch.linspace(-30.0, 30.0, 7, dtype=torch.float64)
    smooth = deflection(scenes, axis)[0]
    # far out a rod pulls like a point, and the compensated one not at all
    rod = deflection(dataclasses.replace(scenes, rods=rods), axis)[0] - smooth
    distance = 30.0 - rods.x
    expected = rods.theta_v**2 * distance / (distance**2 + (30.0 - rods.y) ** 2)
    torch.testing.assert_close(rod[:, -1, -1], expected, rtol=5e-3, atol=0.0)
    hidden = dataclasses.replace(rods, is_compensated=True)
    rest = deflection(dataclasses.replace(scenes, rods=hidden), axis)[0] - smooth
    assert (rest[:, -1, -1].abs() < 5e-3 * expected.abs()).all()
    none = Multipoles(torch.zeros(2, 2).double(), torch.zeros(2, 2).double())
    torch.testing.assert_close(
        deflection(dataclasses.replace(scenes, multipoles=none), axis)[0], smooth
    )


def test_images_have_gradients(make_scenes: MakeScenes) -> None:
    scenes = make_scenes(1, 2, "tnfw")
    grid = Grid(9, 0.4)

    def total(theta_e: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        subhalos = dataclasses.replace(scenes.subhalos, x=x)
        changed = dataclasses.replace(scenes, theta_e=theta_e, subhalos=subhalos)
        return render(changed, grid)

    assert scenes.subhalos is not None
    inputs = (scenes.theta_e.requires_grad_(), scenes.subhalos.x.requires_grad_())
    assert torch.autograd.gradcheck(total, inputs)


def test_an_unlensed_source_keeps_its_flux(make_scenes: MakeScenes) -> None:
    scenes = make_scenes(3)
    off = torch.zeros_like(scenes.theta_e)
    scenes = dataclasses.replace(scenes, theta_e=off, gamma_1=off, gamma_2=off)
    grid = Grid(61, 0.1, supersampling=3)
    total = render(scenes, grid).sum((1, 2, 3))
    torch.testing.assert_close(total, scenes.source.flux[:, 0], rtol=2e-3, atol=0.0)


def test_convolution_keeps_the_flux_and_is_that_of_scipy() -> None:
    image = torch.zeros(2, 33, 33, dtype=torch.float64)
    image[:, 10:20, 8:22] = torch.rand(2, 10, 14, dtype=torch.float64)
    kernel = torch.rand(9, 9, dtype=torch.float64)
    kernel /= kernel.sum()
    blurred = convolve(image, kernel)
    torch.testing.assert_close(blurred.sum((1, 2)), image.sum((1, 2)), rtol=1e-6, atol=0.0)
    for row in range(2):
        expected = fftconvolve(image[row], kernel, mode="same")
        np.testing.assert_allclose(blurred[row], expected, atol=1e-13)


def test_gaussian_and_other_kernels_blur_alike() -> None:
    grid = Grid(9, 0.2, 3)
    image = torch.rand(2, 27, 27, dtype=torch.float64)
    across = torch.rand(7, dtype=torch.float64)
    for kernel in (torch.outer(across, across.flip(0) ** 2), torch.rand(7, 7).double()):
        blurred = convolve(image * grid.ray_scale**2, kernel)
        expected = blurred.reshape(2, 1, 9, 3, 9, 3).sum((3, 5))
        torch.testing.assert_close(to_pixels(image, grid, kernel), expected)


def test_light_at_the_border_does_not_come_back_on_the_other_side() -> None:
    image = torch.zeros(1, 30, 30)
    image[0, 0, 29] = 1.0
    blurred = convolve(image, torch.full((21, 21), 1.0 / 441.0))
    assert blurred[0, 11:].abs().max() < 1e-7
    assert blurred[0, :, :19].abs().max() < 1e-7


def test_half_of_the_light_lies_inside_r_eff() -> None:
    n = torch.tensor([0.5, 1.0, 2.5, 4.0, 8.0], dtype=torch.float64)
    inside = gammainc(2.0 * n.numpy(), sersic_b(n).numpy())
    np.testing.assert_allclose(inside, 0.5, atol=1.3e-4)
    np.testing.assert_allclose(inside[1:], 0.5, atol=1.4e-5)
    # closed form of the total, written out with scipy's gamma
    b, r_eff = sersic_b(n).numpy(), 0.5
    flux = 2.0 * math.pi * n.numpy() * r_eff**2 * b ** (-2.0 * n.numpy()) * gamma(2.0 * n.numpy())
    np.testing.assert_allclose(
        sersic_peak(torch.from_numpy(flux), n, torch.tensor(r_eff, dtype=n.dtype)),
        np.ones(5),
        rtol=1e-12,
    )


def test_the_radius_of_a_flat_profile_is_on_the_intermediate_axis() -> None:
    r, q, n, one, angle = torch.tensor([0.7, 0.5, 2.0, 1.0, 0.4], dtype=torch.float64)
    on_axis = (r / torch.sqrt(q), 0.0 * r), (0.0 * r, r * torch.sqrt(q))
    for u, v in on_axis:
        x = torch.cos(angle) * u - torch.sin(angle) * v
        y = torch.sin(angle) * u + torch.cos(angle) * v
        flux = sersic(elliptical_r2(x, y, q, angle), one, n, r)
        torch.testing.assert_close(flux, torch.exp(-sersic_b(n)))


def test_scenes_can_be_cut_and_joined(make_scenes: MakeScenes) -> None:
    scenes = make_scenes(4, 3, "sis")
    joined = Scenes.cat([scenes[:1], scenes[1:]])
    assert len(joined) == 4
    torch.testing.assert_close(render(joined, GRID), render(scenes, GRID))
    other = make_scenes(1, 3, "point")
    with pytest.raises(ValueError, match="scenes differ in profile"):
        Scenes.cat([scenes, other])
    assert scenes.without_substructure().subhalos is None
    assert isinstance(scenes.source, Sersics)


def test_wrong_grids_kernels_and_profiles_are_named(make_scenes: MakeScenes) -> None:
    with pytest.raises(ConfigError, match="pixel_scale = -1, but it must be positive"):
        Grid(10, -1)
    with pytest.raises(ConfigError, match=r"psf has shape \(4, 4\)"):
        render(make_scenes(1), GRID, torch.full((4, 4), 1.0 / 16.0))
    wrong = make_scenes(1, 2, "nfw")
    with pytest.raises(ConfigError, match="profile = nfw, but it must be one of point, sis, tnfw"):
        render(wrong, GRID)
