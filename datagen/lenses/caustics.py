"""The tangential caustic of an isothermal ellipsoid with shear, and points inside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from datagen.lenses.deflectors import rotated, shear_alpha, sie_alpha

N_ANGLES = 256


@dataclass(frozen=True)
class MacroLens:
    """Isothermal ellipsoids with external shear, each field of shape (B,).

    Args:
        theta_e: Einstein radius on the intermediate axis [arcsec].
        q: Axis ratio.
        angle: Position angle of the major axis [rad].
        x: Centre along columns [arcsec].
        y: Centre along rows [arcsec].
        gamma_1: Shear along the axes.
        gamma_2: Shear along the diagonals.
    """

    theta_e: Tensor
    q: Tensor
    angle: Tensor
    x: Tensor
    y: Tensor
    gamma_1: Tensor
    gamma_2: Tensor


def tangential_caustic(lens: MacroLens, n_angles: int = N_ANGLES) -> tuple[Tensor, Tensor]:
    """Return the caustic as a polygon around `centre_of_caustic`.

    The deflection of an isothermal lens depends on the direction alone, so that its derivative is
    2 kappa t t', with t the tangential unit vector and 2 kappa = c(phi) / r. With A = 1 - shear,
    det(A - 2 kappa t t') = det A (1 - 2 kappa t' A^-1 t) vanishes at r = c(phi) t' A^-1 t, in
    closed form (compare Kormann, Schneider & Bartelmann 1994, section 4, for no shear).

    Args:
        lens: The lenses.
        n_angles: Vertices of the polygon.

    Returns:
        x and y in the source plane [arcsec], (B, n_angles).
    """
    phi = torch.arange(n_angles, dtype=lens.q.dtype, device=lens.q.device)
    phi = (phi * (2.0 * math.pi / n_angles)).expand(len(lens.q), -1)
    q, gamma_1, gamma_2 = (v[:, None] for v in (lens.q, lens.gamma_1, lens.gamma_2))
    cos, sin = torch.cos(phi), torch.sin(phi)
    own = phi - lens.angle[:, None]
    kappa2_r = lens.theta_e[:, None] * q.sqrt()
    kappa2_r = kappa2_r / (q.square() * torch.cos(own).square() + torch.sin(own).square()).sqrt()
    determinant = 1.0 - gamma_1.square() - gamma_2.square()
    # t = (-sin, cos); A^-1 = [[1 + g1, g2], [g2, 1 - g1]] / det A
    inverse = (1.0 + gamma_1) * sin.square() - 2.0 * gamma_2 * sin * cos
    inverse = (inverse + (1.0 - gamma_1) * cos.square()) / determinant
    radius = kappa2_r * inverse
    return _to_source(lens, radius * cos, radius * sin)


def centre_of_caustic(lens: MacroLens) -> tuple[Tensor, Tensor]:
    """Return the point of the source plane in the middle of the caustic [arcsec], (B,) each."""
    x = (1.0 - lens.gamma_1) * lens.x - lens.gamma_2 * lens.y
    y = (1.0 + lens.gamma_1) * lens.y - lens.gamma_2 * lens.x
    return x, y


def points_inside(lens: MacroLens, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return source positions uniform in the area inside the tangential caustic.

    The polygon is cut into triangles about its middle; one is chosen with probability in
    proportion to its area and a point is drawn uniformly in it. This is exact while the caustic is
    star-shaped about its middle, which only swallowtails (shear across a strong ellipticity)
    break, for very few of the points.

    Args:
        lens: The lenses.
        u: Uniform numbers, (B, 3).

    Returns:
        x and y [arcsec], (B,) each.
    """
    polygon = torch.stack(tangential_caustic(lens), -1)
    middle = torch.stack(centre_of_caustic(lens), -1)[:, None]
    first = polygon - middle
    second = first.roll(-1, 1)
    area = (first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]).abs()
    share = torch.cumsum(area, -1)
    chosen = torch.searchsorted(share, u[:, :1] * share[:, -1:]).clamp_max(area.shape[1] - 1)
    rows = torch.arange(len(u), device=u.device)
    a, b = first[rows, chosen[:, 0]], second[rows, chosen[:, 0]]
    # A point of a triangle: distance from the corner by a square root, place across it evenly.
    point = middle[:, 0] + u[:, 1:2].sqrt() * (a + u[:, 2:3] * (b - a))
    return point[:, 0], point[:, 1]


def _to_source(lens: MacroLens, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Map offsets from the lens, (B, n) [arcsec], to the source plane."""
    theta_e, q, angle = (v[:, None] for v in (lens.theta_e, lens.q, lens.angle))
    main_x, main_y = rotated(lambda u, v: sie_alpha(u, v, theta_e, q), dx, dy, angle)
    x, y = dx + lens.x[:, None], dy + lens.y[:, None]
    shear_x, shear_y = shear_alpha(x, y, lens.gamma_1[:, None], lens.gamma_2[:, None])
    return x - main_x - shear_x, y - main_y - shear_y
