from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from caustics.lenses import func
from scipy.special import elliprc
from torch import Tensor

from datagen.lenses.deflectors import (
    Vector,
    arctan_ratio,
    disc_pull,
    multipole_alpha,
    multipole_psi,
    point_psi,
    point_pull,
    rod_alpha,
    rod_psi,
    rotated,
    shear_alpha,
    shear_psi,
    sie_alpha,
    sie_kappa,
    sie_psi,
    sis_kappa,
    sis_psi,
    sis_pull,
    tnfw_kappa,
    tnfw_psi,
    tnfw_pull,
)

Plane = Callable[[Tensor, Tensor], Tensor]


def t(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def positions(n: int = 400) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    x, y = (6.0 * torch.rand(2, n, generator=rng, dtype=torch.float64) - 3.0).unbind()
    return x, y


THETA, Q, ANGLE, R_S, R_T = t(1.2), t(0.6), t(0.7), t(0.3), t(0.8)


def from_pull(pull: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Vector]:
    def alpha(x: Tensor, y: Tensor) -> Vector:
        strength = THETA**2 * pull(x**2 + y**2)
        return strength * x, strength * y

    return alpha


def from_r2(plane: Callable[[Tensor], Tensor]) -> Plane:
    return lambda x, y: plane(x**2 + y**2)


def zero(x: Tensor, y: Tensor) -> Tensor:
    return torch.zeros_like(x)


ALPHAS: dict[str, Callable[[Tensor, Tensor], Vector]] = {
    "sie": lambda x, y: sie_alpha(x, y, THETA, Q),
    "sis as sie": lambda x, y: sie_alpha(x, y, THETA, t(1.0)),
    "shear": lambda x, y: shear_alpha(x, y, t(0.05), t(-0.1)),
    "point": from_pull(point_pull),
    "sis": from_pull(lambda r2: sis_pull(r2, R_T)),
    "tnfw": from_pull(lambda r2: tnfw_pull(r2, R_S, R_T)),
    "rod": lambda x, y: rod_alpha(x, y, THETA, t(1.5)),
    "m = 3": lambda x, y: multipole_alpha(x, y, t(0.02), ANGLE, 3),
    "m = 4": lambda x, y: multipole_alpha(x, y, t(0.02), ANGLE, 4),
}
PSIS: dict[str, Plane] = {
    "sie": lambda x, y: sie_psi(x, y, THETA, Q),
    "sis as sie": lambda x, y: sie_psi(x, y, THETA, t(1.0)),
    "shear": lambda x, y: shear_psi(x, y, t(0.05), t(-0.1)),
    "point": from_r2(lambda r2: point_psi(r2, THETA)),
    "sis": from_r2(lambda r2: sis_psi(r2, THETA, R_T)),
    "tnfw": from_r2(lambda r2: tnfw_psi(r2, THETA, R_S, R_T)),
    "rod": lambda x, y: rod_psi(x, y, THETA, t(1.5)),
    "m = 3": lambda x, y: multipole_psi(x, y, t(0.02), ANGLE, 3),
    "m = 4": lambda x, y: multipole_psi(x, y, t(0.02), ANGLE, 4),
}
KAPPAS: dict[str, Plane] = {
    "sie": lambda x, y: sie_kappa(x, y, THETA, Q),
    "sis as sie": lambda x, y: sie_kappa(x, y, THETA, t(1.0)),
    "shear": zero,
    "point": zero,
    "sis": from_r2(lambda r2: sis_kappa(r2, THETA, R_T)),
    "tnfw": from_r2(lambda r2: tnfw_kappa(r2, THETA, R_S, R_T)),
    "rod": zero,
}


def gradient(values: Tensor, *at: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(values.sum(), at, create_graph=True)


@pytest.mark.parametrize("name", PSIS)
def test_the_gradient_of_the_potential_is_the_deflection(name: str) -> None:
    x, y = (p.requires_grad_() for p in positions())
    slopes = gradient(PSIS[name](x, y), x, y)
    for slope, alpha in zip(slopes, ALPHAS[name](x, y), strict=True):
        torch.testing.assert_close(slope, alpha, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", KAPPAS)
def test_half_the_divergence_of_the_deflection_is_the_convergence(name: str) -> None:
    x, y = (p.requires_grad_() for p in positions())
    alpha_x, alpha_y = ALPHAS[name](x, y)
    divergence = gradient(alpha_x, x)[0] + gradient(alpha_y, y)[0]
    torch.testing.assert_close(0.5 * divergence, KAPPAS[name](x, y), rtol=1e-7, atol=1e-8)


def test_multipoles_have_the_convergence_that_their_docstring_states() -> None:
    x, y = (p.requires_grad_() for p in positions())
    for m in (3, 4):
        alpha_x, alpha_y = ALPHAS[f"m = {m}"](x, y)
        kappa = 0.5 * (gradient(alpha_x, x)[0] + gradient(alpha_y, y)[0])
        wave = torch.cos(m * (torch.atan2(y, x) - ANGLE))
        torch.testing.assert_close(kappa, 0.02 * wave / (2.0 * torch.hypot(x, y)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-15), (torch.float32, 5e-7)])
def test_the_arctan_ratio_is_carlsons_integral(dtype: torch.dtype, tolerance: float) -> None:
    y = torch.logspace(-4, 8, 1001, dtype=torch.float64).to(dtype)
    expected = torch.from_numpy(elliprc(1.0, y.double().numpy()))
    torch.testing.assert_close(arctan_ratio(y).double(), expected, rtol=tolerance, atol=0.0)


def test_the_sie_agrees_with_caustics() -> None:
    x, y = positions()
    ours = rotated(lambda u, v: sie_alpha(u, v, THETA, Q), x - 0.1, y + 0.2, ANGLE)
    place = (t(0.1), t(-0.2), Q, ANGLE, THETA, x, y)
    for a, b in zip(ours, func.reduced_deflection_angle_sie(*place), strict=True):
        torch.testing.assert_close(a, b, rtol=0.0, atol=1e-9)
    cos, sin = torch.cos(ANGLE), torch.sin(ANGLE)
    u, v = cos * (x - 0.1) + sin * (y + 0.2), cos * (y + 0.2) - sin * (x - 0.1)
    torch.testing.assert_close(
        sie_kappa(u, v, THETA, Q), func.convergence_sie(*place), rtol=1e-8, atol=0.0
    )


def test_the_sie_is_smooth_through_the_round_lens() -> None:
    x, y = positions(20)
    q = t(1.0).requires_grad_()
    alpha, _ = sie_alpha(x, y, THETA, q)
    torch.testing.assert_close(alpha.detach(), THETA * x / torch.hypot(x, y), rtol=1e-9, atol=0.0)
    (slope,) = torch.autograd.grad(alpha.sum(), q)
    step = 1e-5
    below, above = (sie_alpha(x, y, THETA, t(1.0 + s))[0].sum() for s in (-step, step))
    assert slope.item() == pytest.approx(((above - below) / (2.0 * step)).item(), rel=1e-7)


def test_shear_point_and_truncated_sis_agree_with_caustics() -> None:
    x, y = positions()
    r2 = x**2 + y**2
    sheared = func.reduced_deflection_angle_external_shear(t(0), t(0), t(0.05), t(-0.1), x, y)
    for a, b in zip(ALPHAS["shear"](x, y), sheared, strict=True):
        torch.testing.assert_close(a, b)
    by_point = func.reduced_deflection_angle_point(t(0), t(0), THETA, x, y)[0]
    torch.testing.assert_close(ALPHAS["point"](x, y)[0], by_point)
    # lengths in arcsec and critical density 1: theta_e^2 = mass / pi; the core is made tiny
    mass, core, to_arcsec = math.pi * THETA**2, t(1e-9), t(180.0 * 3600.0 / math.pi)
    jaffe = (t(0), t(0), mass, core, R_T, x, y, to_arcsec, t(1.0))
    kappa = func.convergence_pseudo_jaffe(*jaffe)
    torch.testing.assert_close(sis_kappa(r2, THETA, R_T), kappa, rtol=1e-7, atol=0.0)
    alpha = func.reduced_deflection_angle_pseudo_jaffe(*jaffe)
    torch.testing.assert_close(ALPHAS["sis"](x, y)[1], alpha[1], rtol=1e-7, atol=0.0)


@pytest.mark.parametrize("tau", [0.5, 3.0, 20.0])
def test_tnfw_agrees_with_caustics(tau: float) -> None:
    x, y = positions()
    r = torch.hypot(x, y)
    r_t = tau * R_S
    m0 = func.M0_totmass_tnfw(t(1.0), t(tau))
    enclosed = func.mass_enclosed_2d_tnfw(r, R_S, t(tau), m0)
    # caustics uses a short series near r_s, good to 4e-7
    torch.testing.assert_close(tnfw_pull(r**2, R_S, r_t) * r**2, enclosed, rtol=1e-6, atol=0.0)
    to_arcsec = t(180.0 * 3600.0 / math.pi)
    m0 = func.M0_totmass_tnfw(math.pi * THETA**2, t(tau))
    kappa = func.convergence_tnfw(t(0), t(0), R_S, t(tau), x, y, t(1.0), m0, to_arcsec)
    is_away = (r / R_S - 1.0).abs() > 0.02
    ours = tnfw_kappa(r**2, THETA, R_S, r_t)
    torch.testing.assert_close(ours[is_away], kappa[is_away], rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("name", ["sis", "tnfw"])
def test_truncated_halos_become_points_far_out(name: str) -> None:
    far = t(1e5)
    alpha, _ = ALPHAS[name](far, t(0.0))
    assert (alpha * far).item() == pytest.approx(THETA.item() ** 2, rel=3e-5)


def test_a_rod_is_twenty_thousand_point_masses() -> None:
    n, length = 20_000, 1.5
    at = (torch.arange(n, dtype=torch.float64) + 0.5) / n * length - 0.5 * length
    x, y = positions(150)
    y = torch.where(y.abs() < 0.02, y + 0.04, y)
    x[:4], y[:4] = torch.tensor([0.0, 0.75, -0.77, 0.3]), torch.tensor([0.02, -0.02, 0.0, -0.02])
    r2 = (x[:, None] - at) ** 2 + y[:, None] ** 2
    scale = t(0.3) ** 2 / n
    ours = rod_alpha(x, y, t(0.3), t(length))
    torch.testing.assert_close(
        ours[0], (scale * (x[:, None] - at) / r2).sum(1), rtol=0.0, atol=1e-6
    )
    torch.testing.assert_close(ours[1], (scale * y[:, None] / r2).sum(1), rtol=0.0, atol=1e-6)


def test_a_disc_holds_its_mass_evenly() -> None:
    radius = t(0.5)
    r2 = torch.tensor([0.01, 0.25, 4.0], dtype=torch.float64)
    np.testing.assert_allclose(disc_pull(r2, radius) * r2, [0.04, 1.0, 1.0])
