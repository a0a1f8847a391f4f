"""Derivatives of the smooth lens and of its light with respect to their parameters, in closed form.

e1, e2 = e cos(2 angle), e sin(2 angle) with e = (1 - q) / (1 + q). Call with float64 and e not
below 1e-3: at e = 0 the angle is undefined, and differences of large numbers give small ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from datagen.lenses.deflectors import (
    Vector,
    multipole_psi,
    rotated,
    shear_alpha,
    sie_alpha,
    sie_kappa,
)
from datagen.lenses.light import elliptical_r2, sersic_b, sersic_peak
from datagen.lenses.scene import Scenes, Sersics

# Step of the central differences in ln n, of numbers that hold for a whole image.
_STEP = 1e-5
_TINY = 1e-18


def lens_derivatives(scenes: Scenes, alpha: Vector, axis: Tensor) -> list[Vector]:
    """Return the derivatives of the deflection by ln theta_e, e1, e2, x, y, gamma_1, gamma_2.

    The potential psi of ellipsoid and multipoles is r times a function of the position angle, so
    that its second derivatives are 2 kappa t t' with t the unit vector across the radius.

    Args:
        scenes: B scenes without substructure.
        alpha: Their deflection [arcsec], (B, R, R) each.
        axis: Positions of the rays along x and y [arcsec], shape (R,).
    """
    column = _columns(scenes)
    theta_e, q, angle = column("theta_e"), column("q"), column("angle")
    plane_x, plane_y = axis[None, None, :], axis[None, :, None]
    x, y = plane_x - column("x"), plane_y - column("y")
    shear = shear_alpha(plane_x, plane_y, column("gamma_1"), column("gamma_2"))
    own = alpha[0] - shear[0], alpha[1] - shear[1]
    cos, sin = torch.cos(angle), torch.sin(angle)
    kappa2 = 2.0 * sie_kappa(cos * x + sin * y, cos * y - sin * x, theta_e, q)
    r2 = x**2 + y**2 + _TINY
    ellipsoid, bend = own, kappa2 / r2
    if scenes.multipoles is not None:
        ellipsoid = rotated(lambda u, v: sie_alpha(u, v, theta_e, q), x, y, angle)
        for k, m in enumerate((3, 4)):
            strength = theta_e * scenes.multipoles.amplitude[:, k, None, None]
            psi = multipole_psi(x, y, strength, scenes.multipoles.angle[:, k, None, None], m)
            bend = bend + (1 - m**2) * psi / r2**2
    across = -x * y * bend
    shape = _shape_derivatives(scenes, ellipsoid, (x, y), kappa2)
    return [
        own,
        *shape,
        (-(y**2) * bend, -across),
        (-across, -(x**2) * bend),
        (plane_x, -plane_y),
        (plane_y, plane_x),
    ]


def _shape_derivatives(
    scenes: Scenes, alpha: Vector, place: Vector, kappa2: Tensor
) -> tuple[Vector, Vector]:
    """Return the derivatives of the deflection of the ellipsoid by e1 and e2.

    Args:
        scenes: B scenes.
        alpha: The deflection [arcsec].
        place: Of the rays, from the centre of the lens [arcsec].
        kappa2: Twice its convergence, theta_e sqrt(q) / p.
    """
    q, angle = scenes.q[:, None, None], scenes.angle[:, None, None]
    f2 = 1.0 - q**2

    def by_q(u: Tensor, v: Tensor) -> Vector:
        return -q / f2 * kappa2 * u, -kappa2 * v / (q * f2)

    growth = 0.5 / q + q / f2
    turned = rotated(by_q, *place, angle)
    q_x, q_y = growth * alpha[0] + turned[0], growth * alpha[1] + turned[1]
    # turning the lens turns its deflection, at rays turned the other way
    turn_x, turn_y = kappa2 * place[1] - alpha[1], alpha[0] - kappa2 * place[0]
    size = (1.0 - q) / (1.0 + q)
    dq, cos, sin = -2.0 / (1.0 + size) ** 2, torch.cos(2.0 * angle), torch.sin(2.0 * angle)
    factors = (dq * cos, -0.5 * sin / size), (dq * sin, 0.5 * cos / size)
    first, second = ((a * q_x + b * turn_x, a * q_y + b * turn_y) for a, b in factors)
    return first, second


def light_derivatives(light: Sersics, x: Tensor, y: Tensor) -> list[Tensor]:
    """Return the derivatives of the surface brightness at x, y, of shape (B, R, R).

    By x, y, e1, e2, ln n, ln r_eff, ln flux of each component in turn.
    """
    components = (_component(light, k) for k in range(light.x.shape[1]))
    return [plane for one in components for plane in _sersic_derivatives(one, x, y)]


def _component(light: Sersics, k: int) -> Sersics:
    return light._map(lambda values: values[:, k])


def _sersic_derivatives(light: Sersics, x: Tensor, y: Tensor) -> list[Tensor]:
    column = _columns(light)
    n, r_eff = column("n"), column("r_eff")
    dx, dy = x - column("x"), y - column("y")
    r2 = elliptical_r2(dx, dy, column("q"), column("angle"))
    log = torch.log((r2 / r_eff**2).clamp(min=1e-12))
    depth = sersic_b(n) * torch.exp(0.5 / n * log)
    peak = sersic_peak(column("flux"), n, r_eff)
    image = peak * torch.exp(-depth)
    # I = peak exp(-depth): dI = I (d ln peak - d depth), and depth ~ r2^(1 / 2n)
    slope = -image * depth / (2.0 * n * r_eff**2) * torch.exp(-log)
    low, high = n * torch.exp(-n.new_tensor(_STEP)), n * torch.exp(n.new_tensor(_STEP))
    one = torch.ones_like(r_eff)
    log_peak, log_b = (
        (torch.log(f(high)) - torch.log(f(low))) / (2.0 * _STEP)
        for f in (lambda m: sersic_peak(one, m, one), sersic_b)
    )
    # r2 (1 - e^2) = (1 + e^2) (dx^2 + dy^2) - 2 e1 (dx^2 - dy^2) - 4 e2 dx dy
    size = (1.0 - column("q")) / (1.0 + column("q"))
    e1, e2 = size * torch.cos(2.0 * column("angle")), size * torch.sin(2.0 * column("angle"))
    per_area = 2.0 / (1.0 - size**2) * slope
    xx, yy = dx**2, dy**2
    both = xx + yy + r2
    return [
        per_area * (2.0 * e2 * dy - ((1.0 + size**2) - 2.0 * e1) * dx),
        per_area * (2.0 * e2 * dx - ((1.0 + size**2) + 2.0 * e1) * dy),
        per_area * (e1 * both - xx + yy),
        per_area * (e2 * both - 2.0 * dx * dy),
        image * (log_peak - depth * (log_b - 0.5 / n * log)),
        image * (depth / n - 2.0),
        image,
    ]


def _columns(batch: Scenes | Sersics) -> Callable[[str], Tensor]:
    """Return the function from the name of a field to its values, shape (B, 1, 1)."""

    def column(name: str) -> Tensor:
        values: Tensor = getattr(batch, name)
        return values[:, None, None]

    return column
