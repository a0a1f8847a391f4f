"""Deflection `alpha`, convergence `kappa` and potential `psi` of thin lenses, in closed form.

Pure functions of broadcastable tensors, differentiable, in any dtype and on any device. Lengths are
in arcsec; `alpha` is the reduced deflection: grad psi = alpha and div alpha = 2 kappa. x and y are
counted from the centre of the lens, of ellipsoids and rods along their own axes (see `rotated`).

Round halos are functions of r^2, and theta_e is the Einstein radius of their total mass if it were
a point [arcsec]. `*_pull` is alpha(r) / r for theta_e = 1, so that alpha = theta_e^2 pull (x, y).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Vector = tuple[Tensor, Tensor]
# Added to squared radii where the deflection has no direction at the centre [arcsec^2].
_TINY = 1e-18


def rotated(
    alpha: Callable[[Tensor, Tensor], Vector], x: Tensor, y: Tensor, angle: Tensor
) -> Vector:
    """Evaluate a deflection along axes turned by `angle` [rad] and turn the result back."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    u, v = alpha(cos * x + sin * y, cos * y - sin * x)
    return cos * u - sin * v, sin * u + cos * v


def arctan_ratio(y: Tensor) -> Tensor:
    """Return atan(w) / w for w = sqrt(y - 1), which is artanh(|w|) / |w| for y < 1.

    This is Carlson's R_C(1, y) (DLMF 19.2.17), analytic for all y > 0: neither it nor its gradient
    has a special case at y = 1. Halving the angle, R_C(1, y) = 2 / (1 + s) R_C(1, 2 s / (1 + s))
    with s = sqrt(y), brings y close to 1, where the power series is short.

    Args:
        y: > 0. The relative error is below 4e-7 in float32 and 1e-15 in float64 for y > 1e-4.
    """
    n_halvings, n_pairs = (5, 5) if y.dtype == torch.float64 else (4, 3)
    root = torch.sqrt(y)
    half = _half_plus_half(root)
    scale = half
    for _ in range(n_halvings - 1):
        root = torch.sqrt(root / half)
        half = _half_plus_half(root)
        scale = scale * half
    # w^2 = (root - 1) / (root + 1), and atan(w) / w = 1 - w^2 / 3 + w^4 / 5 - ...
    w2 = 1.0 - half.reciprocal()
    w4 = w2**2
    series = torch.zeros_like(w2)
    for k in range(4 * n_pairs - 3, 0, -4):
        # two terms at once: fewer passes over memory
        series = torch.addcmul(torch.rsub(w2, 1.0 / k, alpha=1.0 / (k + 2)), series, w4)
    return series / scale


def _half_plus_half(root: Tensor) -> Tensor:
    """Return (1 + root) / 2 in one pass."""
    return torch.rsub(root, 0.5, alpha=-0.5)


def sie_alpha(x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor) -> Vector:
    """Deflection of a singular isothermal ellipsoid, major axis along x.

    alpha_x = theta_e sqrt(q) / f atan(f x / p), alpha_y = theta_e sqrt(q) / f artanh(f y / p) with
    f^2 = 1 - q^2 and p^2 = q^2 x^2 + y^2; Kormann, Schneider & Bartelmann 1994, A&A 284, 285. As
    1 + (f x / p)^2 = r^2 / p^2 and 1 - (f y / p)^2 = q^2 r^2 / p^2, `arctan_ratio` needs no branch
    for the round lens.

    Args:
        x: Along the major axis [arcsec].
        y: Along the minor axis [arcsec].
        theta_e: Einstein radius on the intermediate axis [arcsec].
        q: Axis ratio, 0 < q <= 1.
    """
    p2 = _elliptical_r2(x, y, q)
    ratio = (x**2 + y**2 + _TINY) / p2
    scale = theta_e * torch.sqrt(q) * torch.rsqrt(p2)
    return scale * x * arctan_ratio(ratio), scale * y * arctan_ratio(q**2 * ratio)


def _elliptical_r2(x: Tensor, y: Tensor, q: Tensor) -> Tensor:
    """Return q^2 x^2 + y^2, kept off 0."""
    return (q * x) ** 2 + y**2 + _TINY


def sie_kappa(x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor) -> Tensor:
    """Convergence theta_e sqrt(q) / (2 p) of the same ellipsoid."""
    return 0.5 * theta_e * torch.sqrt(q) * torch.rsqrt(_elliptical_r2(x, y, q))


def sie_psi(x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor) -> Tensor:
    """Potential x alpha_x + y alpha_y of the same ellipsoid [arcsec^2]."""
    along, across = sie_alpha(x, y, theta_e, q)
    return x * along + y * across


def shear_alpha(x: Tensor, y: Tensor, gamma_1: Tensor, gamma_2: Tensor) -> Vector:
    """Deflection of an external shear."""
    return gamma_1 * x + gamma_2 * y, gamma_2 * x - gamma_1 * y


def shear_psi(x: Tensor, y: Tensor, gamma_1: Tensor, gamma_2: Tensor) -> Tensor:
    """Potential of an external shear [arcsec^2]; its convergence is 0."""
    return 0.5 * gamma_1 * (x**2 - y**2) + gamma_2 * x * y


def point_pull(r2: Tensor) -> Tensor:
    """alpha(r) / r of a point mass, 1 / r^2."""
    return r2.reciprocal()


def point_psi(r2: Tensor, theta_e: Tensor) -> Tensor:
    """Potential of a point mass [arcsec^2]; its convergence is 0 for r > 0."""
    return 0.5 * theta_e**2 * torch.log(r2)


def disc_pull(r2: Tensor, radius: Tensor) -> Tensor:
    """alpha(r) / r of a uniform disc, 1 / max(r, radius)^2."""
    return torch.maximum(r2, radius**2).reciprocal()


def sis_pull(r2: Tensor, r_t: Tensor) -> Tensor:
    """alpha(r) / r of an isothermal sphere whose density falls as r^-4 beyond r_t.

    rho ~ r^-2 (r^2 + r_t^2)^-1, the pseudo-Jaffe profile of Munoz, Kochanek & Keeton 2001,
    doi:10.1086/322314: alpha = theta_e^2 / r_t (1 - r / (s + r_t)) with s^2 = r^2 + r_t^2. Well
    inside r_t this is a singular isothermal sphere with Einstein radius theta_e^2 / r_t.

    Args:
        r2: Squared radius [arcsec^2], > 0.
        r_t: Truncation radius [arcsec].
    """
    return (torch.rsqrt(r2) - 1.0 / (torch.sqrt(r2 + r_t**2) + r_t)) / r_t


def sis_kappa(r2: Tensor, theta_e: Tensor, r_t: Tensor) -> Tensor:
    """Convergence of the same sphere."""
    return theta_e**2 / (2.0 * r_t) * (torch.rsqrt(r2) - torch.rsqrt(r2 + r_t**2))


def sis_psi(r2: Tensor, theta_e: Tensor, r_t: Tensor) -> Tensor:
    """Potential of the same sphere [arcsec^2], 0 at the centre."""
    outer = torch.sqrt(r2 + r_t**2)
    growth = torch.sqrt(r2) - r2 / (outer + r_t) + r_t * torch.log((outer + r_t) / (2.0 * r_t))
    return theta_e**2 / r_t * growth


def _tnfw_mass(tau: Tensor) -> Tensor:
    """Return total mass over M0 tau^2 / (tau^2 + 1)^2; Baltz et al. 2009, equation A4."""
    return (tau**2 - 1.0) * torch.log(tau) + math.pi * tau - (tau**2 + 1.0)


def tnfw_pull(r2: Tensor, r_s: Tensor, r_t: Tensor) -> Tensor:
    """alpha(r) / r of an NFW halo whose density is cut by r_t^2 / (r^2 + r_t^2).

    Baltz, Marshall & Oguri 2009, doi:10.1088/1475-7516/2009/01/015, equation A11.

    Args:
        r2: Squared radius [arcsec^2], > 0.
        r_s: Scale radius [arcsec].
        r_t: Truncation radius [arcsec].
    """
    tau, x2 = r_t / r_s, r2 / r_s**2
    root = torch.sqrt(tau**2 + x2)
    # ln(x / (root + tau)) with one logarithm and no root of x2
    log = torch.log(x2 / (root + tau) ** 2) * (0.5 * (tau - 1.0 / tau))
    inside = (2.0 * x2 + (tau**2 - 1.0)) * arctan_ratio(x2)
    inside = torch.addcmul(inside, root, log - math.pi)
    constant = math.pi * tau + (tau**2 - 1.0) * torch.log(tau)
    return (inside + constant) / (_tnfw_mass(tau) * r2)


def tnfw_kappa(r2: Tensor, theta_e: Tensor, r_s: Tensor, r_t: Tensor) -> Tensor:
    """Convergence of the same halo; equation A8."""
    tau, x2 = r_t / r_s, r2 / r_s**2
    root = torch.sqrt(tau**2 + x2)
    log = 0.5 * torch.log(x2) - torch.log(root + tau)
    ratio = arctan_ratio(x2)
    offset = x2 - 1.0
    is_near = offset.abs() < 1e-3
    away = torch.where(is_near, 1.0, offset)
    # (1 - R_C(1, 1 + w)) / w = 1/3 - w/5 + w^2/7 - ...
    series = 1.0 / 3.0 - offset / 5.0 + offset**2 / 7.0 - offset**3 / 9.0 + offset**4 / 11.0
    slope = torch.where(is_near, series, (1.0 - ratio) / away)
    inside = (tau**2 + 1.0) * slope + 2.0 * ratio - math.pi / root + (tau - 1.0 / tau) / root * log
    return theta_e**2 / (2.0 * r_s**2 * _tnfw_mass(tau)) * inside


def tnfw_psi(r2: Tensor, theta_e: Tensor, r_s: Tensor, r_t: Tensor) -> Tensor:
    """Potential of the same halo [arcsec^2], 0 at the centre; equation A14."""
    tau, x2 = r_t / r_s, r2 / r_s**2
    tau2, log_tau = tau**2, torch.log(tau)
    root = torch.sqrt(tau2 + x2)
    log = 0.5 * torch.log(x2) - torch.log(root + tau)
    ratio = arctan_ratio(x2)
    growth = 2.0 * math.pi * (tau - root + tau * torch.log(tau + root))
    growth = growth + (tau2 - 1.0) * (2.0 * root * log / tau + log**2 + (x2 - 1.0) * ratio**2)
    growth = growth + 4.0 * (x2 - 1.0) * ratio
    growth = growth + ((tau2 - 1.0) * log_tau - tau2 - 1.0) * torch.log(x2)
    centre = (tau2 - 1.0) * log_tau * torch.log(4.0 * tau) + 2.0 * torch.log(0.5 * tau)
    centre = centre - 2.0 * tau * (tau - math.pi) * torch.log(2.0 * tau)
    return 0.5 * theta_e**2 / _tnfw_mass(tau) * (growth - centre)


def rod_alpha(x: Tensor, y: Tensor, theta_v: Tensor, length: Tensor) -> Vector:
    """Deflection of a straight rod of uniform line mass along x.

    alpha_x - i alpha_y = theta_v^2 / length Log[(w + h) / (w - h)], w = x + i y, h = length / 2:
    the integral of 1 / (w - t) over the rod, with the branch cut on the rod.

    Args:
        x: Along the rod, from its middle [arcsec].
        y: Across the rod [arcsec].
        theta_v: Einstein radius of the total mass as a point [arcsec].
        length: Full length [arcsec].
    """
    half = 0.5 * length
    scale = theta_v**2 / length
    ratio = ((x + half) ** 2 + y**2) / ((x - half) ** 2 + y**2)
    return 0.5 * scale * torch.log(ratio), scale * _subtended(x, y, length)


def rod_psi(x: Tensor, y: Tensor, theta_v: Tensor, length: Tensor) -> Tensor:
    """Potential of the same rod [arcsec^2]: the mean of ln r over it."""
    half = 0.5 * length
    ahead, behind = x + half, x - half
    radial = ahead * torch.log(ahead**2 + y**2) - behind * torch.log(behind**2 + y**2)
    turn = y * _subtended(x, y, length)
    return theta_v**2 / length * (0.5 * radial + turn - length)


def _subtended(x: Tensor, y: Tensor, length: Tensor) -> Tensor:
    """Return the angle under which the rod is seen from (x, y) [rad], with the sign of y."""
    return torch.atan2(length * y, x**2 + y**2 - 0.25 * length**2)


def multipole_alpha(x: Tensor, y: Tensor, strength: Tensor, angle: Tensor, m: int) -> Vector:
    """Deflection of the multipole psi = strength r cos(m (phi - angle)) / (1 - m^2).

    Its convergence is strength cos(m (phi - angle)) / (2 r); Xu et al. 2015,
    doi:10.1093/mnras/stu2673.

    Args:
        x: Along columns [arcsec].
        y: Along rows [arcsec].
        strength: Einstein radius times a_m [arcsec].
        angle: Direction of one of the maxima [rad].
        m: Order, 3 or 4.
    """
    u, v, cos, sin = _wave(x, y, angle, m)
    radial, around = strength / (1 - m**2) * cos, -m * strength / (1 - m**2) * sin
    return radial * u - around * v, radial * v + around * u


def multipole_psi(x: Tensor, y: Tensor, strength: Tensor, angle: Tensor, m: int) -> Tensor:
    """Potential of the same multipole [arcsec^2]."""
    u, v, cos, _ = _wave(x, y, angle, m)
    return strength / (1 - m**2) * (x * u + y * v) * cos


def _wave(x: Tensor, y: Tensor, angle: Tensor, m: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the direction (x, y) / r and cosine and sine of m (phi - angle)."""
    radius = torch.sqrt(x**2 + y**2 + _TINY)
    u, v = x / radius, y / radius
    cos, sin = torch.cos(m * angle), -torch.sin(m * angle)
    for _ in range(m):
        cos, sin = cos * u - sin * v, cos * v + sin * u
    return u, v, cos, sin
