"""Masses of halos and how they lens: Einstein radii, mass function, concentration, truncation.

A mass m stands for two things, by convention: it is all the mass that lenses, that of the truncated
profile, and it is the M_200 from which concentration, scale radius and truncation radius follow.
Real subhalos have lost mass: one of bound mass m was a larger halo before.

Distances are those of `datagen.fields.cosmology` (flat, H0 = 70 km/s/Mpc, Omega_m = 0.3).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from datagen.fields import cosmology
from datagen.lenses.units import mass_of_arcsec2


def theta2_per_msun(z_halo: Tensor, z_source: Tensor) -> Tensor:
    """Return the squared Einstein radius of a point of one solar mass [arcsec^2].

    Args:
        z_halo: Redshift of the mass, any shape.
        z_source: Redshift of the source, larger, the same shape.
    """
    mass = mass_of_arcsec2(z_halo.cpu().numpy(), z_source.cpu().numpy())
    return 1.0 / torch.as_tensor(mass, device=z_halo.device)


def kpc_per_arcsec(z: Tensor) -> Tensor:
    """Return the proper length that one arcsec subtends [kpc/arcsec]."""
    return 1000.0 / torch.as_tensor(cosmology.arcsec_per_mpc(z.cpu().numpy()), device=z.device)


def power_law_mass(u: Tensor, m_min: float, m_max: float, slope: float) -> Tensor:
    """Return masses of a population with dN/dm ~ m^-slope between m_min and m_max [Msun].

    Args:
        u: Shares of the halos that are lighter, any shape.
        m_min: Smallest mass [Msun].
        m_max: Largest mass [Msun].
        slope: Exponent of the mass function.
    """
    power = 1.0 - slope
    if abs(power) < 1e-9:
        return m_min * torch.exp(u * math.log(m_max / m_min))
    low, high = m_min**power, m_max**power
    mass: Tensor = (low + (high - low) * u) ** (1.0 / power)
    return mass


def mean_mass(m_min: float, m_max: float, slope: float) -> float:
    """Return the mean mass of that population [Msun]."""
    return _moment(2.0 - slope, m_min, m_max) / _moment(1.0 - slope, m_min, m_max)


def _moment(power: float, low: float, high: float) -> float:
    """Integrate m^(power - 1) over [low, high]."""
    if abs(power) < 1e-9:
        return math.log(high / low)
    return float(high**power - low**power) / power


def poisson_quantile(u: Tensor, mean: Tensor) -> Tensor:
    """Return the Poisson number below or at which the share `u` lies.

    The number of k with P(N <= k) = Q(k + 1, mean) < u.

    Args:
        u: Shares, (B,).
        mean: Expectation, (B,).

    Returns:
        (B,) int64.
    """
    # Nine standard deviations hold all but 1e-18 of a Poisson distribution.
    n_max = math.ceil(float((mean + 9.0 * mean.sqrt()).max())) + 20
    k = torch.arange(1, n_max + 1, dtype=mean.dtype, device=mean.device)
    below = torch.special.gammaincc(k.expand(len(mean), -1), mean[:, None].expand(-1, n_max))
    number: Tensor = (below < u[:, None]).sum(-1)
    return number


def scale_radius_kpc(mass: Tensor, z: Tensor) -> Tensor:
    """Return the NFW scale radius r_200 / c_200 [kpc].

    c_200 = 5.71 (M / 2e12 h^-1 Msun)^-0.084 (1 + z)^-0.47 (Duffy et al. 2008, table 1, full sample,
    arXiv:0804.2486), with r_200 against the critical density.

    Args:
        mass: M_200 [Msun], any shape.
        z: Redshift, broadcast against it.
    """
    concentration = (
        5.71 * (mass * cosmology.LITTLE_H / 2e12).clamp_min(1e-12) ** -0.084 * (1.0 + z) ** -0.47
    )
    density = torch.as_tensor(cosmology.critical_density(z.cpu().numpy()), device=z.device)
    r_200 = (3.0 * mass / (800.0 * math.pi * density)) ** (1.0 / 3.0) * 1000.0
    radius: Tensor = r_200 / concentration
    return radius


def truncation_radius_kpc(mass: Tensor, host_radius_kpc: float) -> Tensor:
    """Return the tidal truncation radius in an isothermal host [kpc].

    r_t = 1.4 (m / 1e7 Msun)^(1/3) (r / 50 kpc)^(2/3) kpc (Gilman et al. 2020,
    arXiv:1908.06983, section 3, after Cyr-Racine et al. 2016).

    Args:
        mass: [Msun], any shape.
        host_radius_kpc: Distance r from the centre of the host [kpc].
    """
    radius: Tensor = 1.4 * (mass / 1e7) ** (1.0 / 3.0) * (host_radius_kpc / 50.0) ** (2.0 / 3.0)
    return radius


def tidal_radius(theta_e: Tensor, host_theta_e: Tensor) -> Tensor:
    """Return the tidal radius of an isothermal sphere at the ring of an isothermal host [arcsec].

    r_t = sqrt(b b_host) with b the Einstein radius before truncation (Dalal & Kochanek 2002,
    doi:10.1086/340303, section 2). The truncated sphere has the total mass theta_e^2 = b r_t, hence
    r_t = (theta_e^2 b_host)^(1/3).

    Args:
        theta_e: Einstein radius of a point of the same total mass [arcsec].
        host_theta_e: Einstein radius of the host, broadcast against it [arcsec].
    """
    radius: Tensor = (theta_e**2 * host_theta_e) ** (1.0 / 3.0)
    return radius
