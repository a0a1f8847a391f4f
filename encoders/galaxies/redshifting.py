"""Galaxies as they would be seen from farther away."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from datagen.errors import ConfigError
from datagen.fields.cosmology import angular_diameter_distance_mpc
from encoders.galaxies.draws import About, Draw, checked_range, in_order

# Angles under which objects are seen shrink up to z = 1.6 (flat LCDM, Omega_m = 0.3).
Z_MAX = 1.5
N_STEPS = 15_000


class Redshifting:
    """Draws redshifts; `encoders.galaxies.geometry.Resampling` applies them.

    An object at z that is moved to z' is smaller by `D_A(z) / D_A(z')`, and its surface brightness
    in f_nu is lower by `((1 + z) / (1 + z'))^3` at the same wavelength of emission (Hogg 1999,
    arXiv:astro-ph/9905116). What a band sees of it was seen `(1 + z) / (1 + z')` bluewards before:
    see `band_weights`. None becomes smaller than a view is beside its stamp, as the border of the
    stamp would be seen, and none is moved whose redshift is not known or not positive.

    Args:
        step: Limits of z' - z, not negative.
        wavelengths: Of each band, in any one unit; None: the spectrum is flat.
        bands: In the order of the stamps.
        hides: See `encoders.galaxies.draws.Op`.

    Raises:
        ConfigError: The limits are not within 0 and `Z_MAX`, or a band has no positive wavelength.
    """

    def __init__(
        self,
        step: Sequence[float],
        wavelengths: Mapping[str, float] | None,
        bands: Sequence[str],
        hides: Sequence[str],
    ) -> None:
        self.step, self.hides = checked_range(step, "step", 0.0, Z_MAX), tuple(hides)
        known = [] if wavelengths is None else in_order(bands, wavelengths, "wavelengths")
        if not all(0.0 < wavelength < math.inf for wavelength in known):
            raise ConfigError(f"expected wavelengths > 0, but got wavelengths = {known}", known)
        self.logarithms = torch.tensor(known).log()
        distance = angular_diameter_distance_mpc(np.linspace(0.0, Z_MAX, N_STEPS + 1))
        self.distance = torch.from_numpy(distance)

    def drawn(self, about: About, draw: Draw, smallest: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return sizes and surface brightnesses over what they were, and redshifts.

        Args:
            about: What is known of the stamps.
            draw: Random numbers.
            smallest: Sizes over what they were are at least so.

        Returns:
            (B,) each.
        """
        before = about.redshift
        self.distance = self.distance.to(before.device)
        distance = self._distance(before)
        farthest = torch.searchsorted(self.distance, distance / smallest) - 1
        limit = (farthest * (Z_MAX / N_STEPS)).to(before)
        after = torch.minimum(before + draw.between(*self.step, "redshift"), limit)
        is_moved = (before > 0.0) & (after > before)
        after = torch.where(is_moved, after, before)
        size = torch.where(is_moved, distance / self._distance(after), 1.0).to(before)
        return size, torch.where(is_moved, ((1.0 + before) / (1.0 + after)) ** 3, 1.0), after

    def seen_through(
        self, stamps: Tensor, sigma: Tensor, before: Tensor, after: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what bands show at new redshifts.

        Args:
            stamps: (B, bands, H, H).
            sigma: Their noise (B, bands).
            before: Their redshifts (B,).
            after: Their new redshifts (B,).

        Returns:
            Stamps and noise, in the same shapes.
        """
        if not len(self.logarithms):
            return stamps, sigma
        change = ((1.0 + before) / (1.0 + after)).log().nan_to_num(nan=0.0)
        weights = band_weights(self.logarithms.to(stamps), change)
        sigma = (weights.square() @ sigma.square()[..., None]).sqrt()[..., 0]
        return torch.einsum("nbc,nchw->nbhw", weights, stamps), sigma

    def _distance(self, redshift: Tensor) -> Tensor:
        """Return angular diameter distances (B,) [Mpc], float64."""
        place = (redshift.double().nan_to_num(nan=0.0) * (N_STEPS / Z_MAX)).clamp(0, N_STEPS)
        low = place.long().clamp_max(N_STEPS - 1)
        return torch.lerp(self.distance[low], self.distance[low + 1], place - low)


def band_weights(logarithms: Tensor, change: Tensor) -> Tensor:
    """Return how bands mix to show other wavelengths, linearly in ln wavelength.

    What would lie beyond the bluest or reddest band is taken from that band.

    Args:
        logarithms: Of the wavelengths of bands (bands,), all different.
        change: Of ln wavelength (B,).

    Returns:
        (B, bands wanted, bands known); rows sum up to 1.
    """
    knots, order = logarithms.sort()
    below = torch.cat((knots[:1] - 1.0, knots[:-1]))
    above = torch.cat((knots[1:], knots[-1:] + 1.0))
    wanted = (logarithms + change[:, None]).clamp(knots[:1], knots[-1:])[..., None]
    rising, falling = (wanted - below) / (knots - below), (above - wanted) / (above - knots)
    return torch.minimum(rising, falling).clamp(0.0, 1.0)[..., order.argsort()]
