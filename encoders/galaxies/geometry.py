"""Turns, mirrors, shifts, sizes, distances and the PSF of stamps, in one interpolation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from datagen.errors import ConfigError
from encoders.augment import turning
from encoders.galaxies.blurring import Blur, transfer
from encoders.galaxies.draws import About, Draw, Op, checked_range
from encoders.galaxies.redshifting import Redshifting
from encoders.galaxies.splines import ORDERS, noise_basis, noise_left, prefilter, sampled


@dataclass(frozen=True)
class Pose:
    """How objects lie in stamps, and how large they are.

    Args:
        turning: See `encoders.augment.turning` (B, 2, 2).
        shift: Of the centre of the result, x and y (B, 2) [px of the stamp].
        size: Enlargement at constant flux (B,).
    """

    turning: Tensor
    shift: Tensor
    size: Tensor


class Geometry:
    """Draws poses.

    Args:
        turns: Whether stamps are turned, by any angle.
        flips: Whether half of them are mirrored.
        jitter: Largest shift of the centre along each axis [px].
        size: Limits of the enlargement, at constant flux.
        order: Of the splines that interpolate: 3 keeps flux to 1e-4; 1 is twice as fast on CPUs,
            keeps it to about 1e-2, and knows the noise of stamps that are not turned to 8 % only.
        hides: See `encoders.galaxies.draws.Op`.

    Raises:
        ConfigError: The jitter is negative, the limits are not within 0.1 and 10, or the order is
            none of `encoders.galaxies.splines.ORDERS`.
    """

    def __init__(
        self,
        turns: bool,
        flips: bool,
        jitter: float,
        size: Sequence[float],
        order: int,
        hides: Sequence[str],
    ) -> None:
        if not 0.0 <= jitter < math.inf:
            raise ConfigError(f"expected jitter >= 0 [px], but got jitter = {jitter}", jitter)
        if order not in ORDERS:
            raise ConfigError(
                f"expected order to be one of {ORDERS}, but got order = {order}", order, ORDERS
            )
        self.turns, self.flips, self.jitter, self.order = turns, flips, jitter, order
        self.size = checked_range(size, "size", 0.1, 10.0)
        self.hides = tuple(hides)

    def drawn(self, draw: Draw) -> Pose:
        """Return a pose for each stamp."""
        angle = 2.0 * math.pi * draw.fractions("angle") * self.turns
        is_mirrored = draw.fractions("mirror") < 0.5 * self.flips
        shift = [draw.between(-self.jitter, self.jitter, f"shift/{axis}") for axis in "xy"]
        size = draw.between(*self.size, "size")
        return Pose(turning(angle, is_mirrored), torch.stack(shift, dim=1), size)


class Resampling(Op):
    """Brings stamps into drawn poses, to drawn redshifts and PSFs, and cuts them.

    Stamps are filtered and then interpolated, once: a PSF is round and may be made wider first,
    which leaves less beyond the frequencies that smaller images hold. What is left of the noise
    follows from filter and interpolation in closed form.

    Args:
        store_px: Side of stamps [px]; its product of small primes makes the filter fast.
        train_px: Side of what comes out [px].
        geometry: Draws poses.
        blur: Draws PSFs; None leaves them.
        redshifting: Draws redshifts; None leaves them.

    Raises:
        ConfigError: `train_px` is not within 1 and `store_px`.
    """

    radius: Tensor
    inverse: Tensor
    basis: Tensor
    rows: Tensor

    def __init__(
        self,
        store_px: int,
        train_px: int,
        geometry: Geometry,
        blur: Blur | None,
        redshifting: Redshifting | None,
    ) -> None:
        parts = [part for part in (geometry, blur, redshifting) if part is not None]
        super().__init__([label for part in parts for label in part.hides])
        if not 1 <= train_px <= store_px:
            raise ConfigError(
                f"expected 1 <= train_px <= store_px, but got train_px = {train_px}, "
                f"store_px = {store_px}",
                train_px,
                (1, store_px),
            )
        self.store_px, self.train_px = store_px, train_px
        self.geometry, self.blur, self.redshifting = geometry, blur, redshifting
        frequency = torch.arange(store_px // 2 + 1) / store_px
        along = prefilter(frequency, geometry.order)
        constants = {
            "radius": torch.hypot(frequency, frequency[:, None]),
            "inverse": torch.outer(along, along),
            "basis": noise_basis(store_px, geometry.order).float(),
            "rows": (torch.fft.fftfreq(store_px) * store_px).abs().round().long(),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(
        self, stamps: Tensor, about: About, draw: Draw, spectra: Tensor | None = None
    ) -> tuple[Tensor, About]:
        """Return stamps of `train_px` (B, bands, train_px, train_px).

        Args:
            stamps: (B, bands, store_px, store_px).
            about: What is known of them.
            draw: Random numbers.
            spectra: `torch.fft.rfft2(stamps)`, where it is known.
        """
        pose = self.geometry.drawn(draw)
        shrunk, gain, redshift = self._far(about, draw)
        larger = pose.size * shrunk
        matrix = pose.turning / larger[:, None, None]
        centre = pose.shift + 0.5 * (self.store_px - 1)

        fwhm = about.fwhm * larger
        target = fwhm if self.blur is None else self.blur.drawn(replace(about, fwhm=fwhm), draw)
        in_px = (about.scale * larger).reciprocal()
        wings = None if self.blur is None else self.blur.wings
        kernel = transfer(self.radius, fwhm * in_px, target * in_px, wings)
        coefficients = self._filtered(stamps, kernel, spectra)

        images = sampled(coefficients, self._places(matrix, centre), self.geometry.order)
        left = noise_left(kernel.square(), self.basis, matrix, centre, self.train_px)
        gain = gain / pose.size.square()
        images = images.mul_(gain[:, None, None, None])
        sigma = about.sigma * (left.sqrt() * gain)[:, None]
        if self.redshifting is not None:
            images, sigma = self.redshifting.seen_through(images, sigma, about.redshift, redshift)
        return images, replace(about, fwhm=target, sigma=sigma, redshift=redshift)

    def _far(self, about: About, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """Return size and surface brightness over what they were, and the new redshift (B,)."""
        if self.redshifting is None:
            same = torch.ones_like(about.redshift)
            return same, same, about.redshift
        return self.redshifting.drawn(about, draw, self.train_px / self.store_px)

    def _filtered(self, stamps: Tensor, kernel: Tensor, spectra: Tensor | None) -> Tensor:
        """Return the coefficients of the spline through stamps under kernels (B, K, K)."""
        spectra = torch.fft.rfft2(stamps) if spectra is None else spectra
        filters = (kernel * self.inverse).index_select(1, self.rows)
        coefficients: Tensor = torch.fft.irfft2(spectra * filters[:, None], s=stamps.shape[-2:])
        return coefficients

    def _places(self, matrix: Tensor, centre: Tensor) -> Tensor:
        """Return where the pixels of the results lie in stamps (B, 2, train_px, train_px) [px]."""
        step = torch.arange(self.train_px, device=matrix.device) - 0.5 * (self.train_px - 1)
        along_x = matrix[:, :, 0, None] * step + centre[:, :, None]
        along_y = matrix[:, :, 1, None] * step
        return along_x[:, :, None, :] + along_y[:, :, :, None]
