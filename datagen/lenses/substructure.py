"""Substructure: subhalos, rods and halos on the line of sight, and what the main lens gives up.

Masses are counted as squared Einstein radii [arcsec^2]: an isothermal lens holds theta_e R inside
the radius R, a point mass its theta^2. `attempt` numbers the draws of one image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from datagen.lenses import halos
from datagen.lenses.draws import Draws
from datagen.lenses.prior import Macro
from datagen.lenses.scene import Rods, Scenes, Subhalos
from datagen.lenses.settings import LensSettings

# The main lens keeps at least this share of its Einstein radius.
MIN_SHARE = 0.1
Z_MARGIN = 0.01  # halos on the line of sight keep this distance from observer and source


@dataclass(frozen=True)
class Lot:
    """For which images substructure is drawn.

    Args:
        settings: The preset, resolved.
        seed: The run's seed.
        index: Numbers of the images, (B,) int64.
        macro: What all classes share, of these images.
    """

    settings: LensSettings
    seed: int
    index: Tensor
    macro: Macro

    def uniform(self, component: str, n: int) -> Tensor:
        """Return `n` uniform numbers of each image, (B, n)."""
        return Draws(self.seed, self.index, component).uniform(n)

    def mass_inside(self) -> Tensor:
        """Return the lens's mass inside the extent, as squared Einstein radius [arcsec^2], (B,)."""
        return self.settings.substructure.extent * self.macro.scenes.theta_e.square()

    def theta2_per_msun(self) -> Tensor:
        """Return the squared Einstein radius of one solar mass in the lens plane, (B,)."""
        factor = self.settings.radius_factor**2
        return factor * halos.theta2_per_msun(self.macro.z_lens, self.macro.z_source)

    def places(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return positions uniform in area inside the extent around the lens, (B, n) each."""
        lens = self.macro.scenes
        radius = self.settings.substructure.extent * lens.theta_e[:, None] * u.sqrt()
        return _polar(lens.x[:, None], lens.y[:, None], radius, v)


def draw_subhalos(lot: Lot, attempt: int) -> Subhalos:
    """Draw the subhalos of images of the class cdm, the heaviest first."""
    cdm = lot.settings.substructure.cdm
    name = f"cdm_{attempt}"
    theta2_per_msun = lot.theta2_per_msun()
    u = lot.uniform(name, 2)
    wanted = None
    if cdm.mass_fraction is not None:
        wanted = cdm.distribution("mass_fraction").quantile(u[:, 0]) * lot.mass_inside()
    if cdm.n_subhalos is not None:
        mean = torch.full_like(theta2_per_msun, cdm.n_subhalos)
    else:
        assert wanted is not None
        mean = wanted / theta2_per_msun / halos.mean_mass(cdm.m_min, cdm.m_max, cdm.slope)
    n_halos = halos.poisson_quantile(u[:, 1], mean)
    n_most = max(1, int(n_halos.max()))
    is_there = torch.arange(n_most) < n_halos[:, None]
    mass = halos.power_law_mass(
        lot.uniform(f"{name}_mass", n_most), cdm.m_min, cdm.m_max, cdm.slope
    )
    mass = torch.where(is_there, mass, 0.0)
    if wanted is not None and cdm.n_subhalos is not None:
        total = mass.sum(-1).clamp_min(cdm.m_min)
        mass = mass * (wanted / theta2_per_msun / total)[:, None]
    # Places do not depend on masses: sorting these alone puts the heaviest first.
    mass = mass.sort(dim=-1, descending=True).values
    u, v = lot.uniform(f"{name}_radius", n_most), lot.uniform(f"{name}_direction", n_most)
    x, y = lot.places(u, v)
    if cdm.radius_arcsec is not None:
        zero = torch.zeros_like(u[:, :1])
        x, y = _polar(zero, zero, cdm.distribution("radius_arcsec").quantile(u), v)
    return _halos(lot, x, y, mass, theta2_per_msun[:, None], lot.macro.z_lens[:, None])


def draw_line_of_sight(lot: Lot) -> Subhalos | None:
    """Draw halos in front of and behind the lens, with their effective Einstein radii.

    Redshifts are uniform; masses follow the mass function of the subhalos. All act in the plane of
    the lens: deflections of one halo by another are left out.
    """
    mean = lot.settings.substructure.line_of_sight.n_halos
    if mean == 0.0:
        return None
    cdm, macro = lot.settings.substructure.cdm, lot.macro
    u = lot.uniform("line_of_sight", 1)[:, 0]
    n_halos = halos.poisson_quantile(u, torch.full_like(u, mean))
    n_most = max(1, int(n_halos.max()))
    is_there = torch.arange(n_most) < n_halos[:, None]
    mass = lot.uniform("line_of_sight_mass", n_most)
    mass = halos.power_law_mass(mass, cdm.m_min, cdm.m_max, cdm.slope)
    mass = torch.where(is_there, mass, 0.0)
    z_source = macro.z_source[:, None]
    z = lot.uniform("line_of_sight_z", n_most) * (z_source - 2.0 * Z_MARGIN) + Z_MARGIN
    theta2 = halos.theta2_per_msun(z, z_source.expand_as(z))
    u, v = (lot.uniform(f"line_of_sight_{part}", n_most) for part in ("radius", "direction"))
    x, y = lot.places(u, v)
    return heaviest_first(_halos(lot, x, y, mass, theta2, z))


def heaviest_first(halos: Subhalos) -> Subhalos:
    """Return the halos of each scene by falling Einstein radius; padding, of 0, comes last."""
    order = torch.argsort(halos.theta_e, dim=-1, descending=True, stable=True)
    names = ("x", "y", "theta_e", "r_s", "r_t")
    return replace(halos, **{name: getattr(halos, name).gather(-1, order) for name in names})


def _halos(lot: Lot, x: Tensor, y: Tensor, mass: Tensor, theta2: Tensor, z: Tensor) -> Subhalos:
    """Give halos of the given masses [Msun] their radii [arcsec]; all (B, n).

    The mass is that of the whole truncated profile; its radii are those of a halo of that M_200.
    """
    cdm = lot.settings.substructure.cdm
    scale = halos.kpc_per_arcsec(z)
    some = mass.clamp_min(1.0)
    theta_e = (mass * theta2).sqrt()
    r_s = halos.scale_radius_kpc(some, z) / scale
    if cdm.profile == "sis":
        r_t = halos.tidal_radius((some * theta2).sqrt(), lot.macro.scenes.theta_e[:, None])
    else:
        r_t = halos.truncation_radius_kpc(some, cdm.host_radius_kpc) / scale
    return Subhalos(x, y, theta_e, r_s, r_t, profile=cdm.profile)  # type: ignore[arg-type]


def draw_rods(lot: Lot, attempt: int) -> Rods:
    """Draw the rods of images of the class vortex."""
    rod, lens = lot.settings.substructure.rod, lot.macro.scenes
    u = lot.uniform(f"rod_{attempt}", 5)
    if rod.mass_fraction is not None:
        theta2 = rod.distribution("mass_fraction").quantile(u[:, 0]) * lot.mass_inside()
    else:
        theta2 = rod.distribution("mass_msun").quantile(u[:, 0]) * lot.theta2_per_msun()
    x, y = (place[:, 0] for place in lot.places(u[:, 3:4], u[:, 4:5]))
    if rod.is_centred:
        x, y = torch.zeros_like(lens.x), torch.zeros_like(lens.y)
    return Rods(
        x=x,
        y=y,
        angle=math.pi * u[:, 2],
        length=rod.distribution("length").quantile(u[:, 1]),
        theta_v=theta2.sqrt(),
        is_compensated=rod.is_compensated,
    )


def compensated_theta_e(scenes: Scenes) -> Tensor:
    """Return the Einstein radius that the main lens keeps [arcsec], (B,).

    A ring encloses theta_main theta_e of the main lens and theta_i^2 of each subhalo inside it; the
    sum is theta_e^2 for theta_main = theta_e - sum theta_i^2 / theta_e. Subhalos count by their
    centres with all their mass, of which the most massive ones have some outside: rings are too
    small by 0.1 % on average, rods by the part of them that lies in the ring, compensated rods
    not at all.

    Args:
        scenes: Scenes with substructure whose `theta_e` is that of all mass.
    """
    inside = torch.zeros_like(scenes.theta_e)
    if scenes.subhalos is not None:
        found = scenes.subhalos
        dx, dy = found.x - scenes.x[:, None], found.y - scenes.y[:, None]
        is_inside = dx.square() + dy.square() < scenes.theta_e[:, None].square()
        inside = inside + (found.theta_e.square() * is_inside).sum(-1)
    if scenes.rods is not None and not scenes.rods.is_compensated:
        inside = inside + scenes.rods.theta_v.square() * _share_inside(scenes, scenes.rods)
    kept = scenes.theta_e - inside / scenes.theta_e
    return torch.maximum(kept, MIN_SHARE * scenes.theta_e)


def _share_inside(scenes: Scenes, rods: Rods) -> Tensor:
    """Return the share of each rod inside the ring: the chord that the circle cuts from it."""
    dx, dy = rods.x - scenes.x, rods.y - scenes.y
    cos, sin = torch.cos(rods.angle), torch.sin(rods.angle)
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    half_chord = (scenes.theta_e.square() - across.square()).clamp_min(0.0).sqrt()
    half = 0.5 * rods.length
    end = torch.minimum(along + half, half_chord)
    start = torch.maximum(along - half, -half_chord)
    return (end - start).clamp_min(0.0) / rods.length


def _polar(x: Tensor, y: Tensor, radius: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    angle = 2.0 * math.pi * turn
    return x + radius * torch.cos(angle), y + radius * torch.sin(angle)
