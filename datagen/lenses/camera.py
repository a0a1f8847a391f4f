"""How scenes are seen: pixels, PSF and noise of a preset, and the brightness that they call for."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from datagen.lenses.detect import (
    range_basis,
    residual_chi2,
    smooth_jacobian,
)
from datagen.lenses.draws import Draws
from datagen.lenses.observe import add_noise, psf_kernel, variance_map
from datagen.lenses.prior import Macro
from datagen.lenses.render import Grid, render
from datagen.lenses.scene import Scenes, Sersics, Subhalos
from datagen.lenses.settings import ImagingSettings

# Half width of PSF kernels [FWHM]: a Gaussian is down to 1e-11 of its peak there.
PSF_RADIUS = 3.0
# Scenes are rendered in groups that have about equally many subhalos, so that few are padding.
GROUP = 4


@dataclass(frozen=True)
class Camera:
    """Takes images of scenes.

    Args:
        imaging: The settings.
        grid: Pixels and rays.
        psf: Kernel of each band.
        device: Where images are computed.
        dtype: In which they are computed.
    """

    imaging: ImagingSettings
    grid: Grid
    psf: tuple[Tensor, ...]
    device: str
    dtype: torch.dtype

    @classmethod
    def build(cls, imaging: ImagingSettings, device: str, dtype: torch.dtype) -> Self:
        """Draw the PSF kernels of a preset."""
        grid = Grid(imaging.side, imaging.pixel_scale, imaging.supersampling)
        widths = (imaging.psf_fwhm[band] for band in imaging.bands)
        kernels = (psf_kernel(width, PSF_RADIUS * width, grid.ray_scale) for width in widths)
        psf = tuple(kernel.to(device, dtype) for kernel in kernels)
        return cls(imaging, grid, psf, device, dtype)

    def coarse(self) -> Camera:
        """Return the same camera with one ray per pixel, enough to compare draws."""
        imaging = dataclasses.replace(self.imaging, supersampling=1)
        return Camera.build(imaging, self.device, self.dtype)

    @property
    def group(self) -> int:
        """Return how many scenes with subhalos are rendered at once."""
        return GROUP if self.device == "cpu" else 10**6

    @property
    def has_noise(self) -> bool:
        """Tell whether images have noise; doubled ones have none."""
        return not self.imaging.is_doubled

    @property
    def n_seconds(self) -> float:
        """Return the time of all exposures [s]."""
        return self.imaging.exposure_s * self.imaging.n_exposures

    def sky_variance(self) -> float:
        """Return the variance of a pixel of empty sky [counts^2]."""
        imaging = self.imaging
        if imaging.magnitude is None:
            return imaging.sky_sigma**2
        rate = 10.0 ** (0.4 * (imaging.zero_point - imaging.sky_brightness))
        sky = rate * imaging.pixel_scale**2 * self.n_seconds
        return float(sky + imaging.n_exposures * imaging.read_noise**2)

    def per_count(self) -> float:
        """Return the variance that one count of light adds to a pixel [counts]."""
        gain = self.imaging.electrons_per_count
        return 1.0 / gain if gain else 0.0

    def in_bands(self, scenes: Scenes, colours: Tensor) -> list[Scenes]:
        """Return the scenes as each band shows them, where images are computed.

        Args:
            scenes: B scenes with the fluxes of the first band.
            colours: Flux of each source component in each band, relative to it, (B, S, bands).
        """
        seen = []
        for band in range(len(self.psf)):
            source = dataclasses.replace(
                scenes.source, flux=scenes.source.flux * colours[..., band]
            )
            one = dataclasses.replace(scenes, source=source)
            seen.append(one.to(self.device, self.dtype))
        return seen

    def planes(self, scenes: Scenes, colours: Tensor) -> Tensor:
        """Return noise-free images, counts (B, bands, side, side); arguments as in `in_bands`."""
        seen = self.in_bands(scenes, colours)
        planes = (render(one, self.grid, psf) for one, psf in zip(seen, self.psf, strict=True))
        return torch.cat(list(planes), 1)

    def expose(self, smooth: Scenes, macro: Macro) -> Exposure:
        """Give smooth scenes the brightness that was drawn, and take their images.

        Args:
            smooth: Scenes without substructure and with a source flux of 1.
            macro: The drawn quantities.
        """
        unit = self.planes(dataclasses.replace(smooth, lens_light=None), macro.source_colours)
        first = unit[:, 0].flatten(1).double().cpu()
        peak, total = first.amax(-1), first.sum(-1)
        if self.imaging.magnitude is None:
            flux = brightest_pixel(macro.brightness, self.sky_variance(), self.per_count()) / peak
        else:
            rate = 10.0 ** (0.4 * (self.imaging.zero_point - macro.brightness))
            flux = rate * self.n_seconds
        snr = flux * peak / (self.sky_variance() + self.per_count() * flux * peak).sqrt()
        if not self.has_noise:
            # What is added to itself has twice the light.
            flux, snr = 2.0 * flux, torch.full_like(snr, torch.nan)
        source = dataclasses.replace(smooth.source, flux=smooth.source.flux * flux[:, None])
        light = smooth.lens_light
        images = unit * flux.to(unit)[:, None, None, None]
        if light is not None:
            light = dataclasses.replace(light, flux=light.flux * (flux * total)[:, None])
            images = images + self._lens_light(smooth, light)
        scenes = dataclasses.replace(smooth, source=source, lens_light=light)
        return Exposure(self, scenes, macro.source_colours, images, snr)

    def _lens_light(self, smooth: Scenes, light: Sersics) -> Tensor:
        """Return the light of the lenses alone, in all bands."""
        dark = dataclasses.replace(smooth.source, flux=torch.zeros_like(smooth.source.flux))
        scenes = dataclasses.replace(
            smooth, source=dark, lens_light=light, subhalos=None, rods=None, multipoles=None
        )
        return self.planes(
            scenes, torch.ones_like(dark.flux)[..., None].expand(-1, -1, len(self.psf))
        )

    def expected(self, scenes: Scenes, exposure: Exposure) -> Tensor:
        """Return noise-free images of scenes with the light of an exposure."""
        seen = exposure.scenes
        lit = dataclasses.replace(scenes, source=seen.source, lens_light=seen.lens_light)
        if lit.subhalos is None:
            return self.planes(lit, exposure.colours)
        images = torch.empty_like(exposure.smooth)
        n_halos = (lit.subhalos.theta_e > 0.0).sum(-1)
        for rows in torch.split(torch.argsort(n_halos, stable=True), self.group):
            few = lit[rows]
            halos = first_halos(lit.subhalos[rows], int(n_halos[rows].max()))
            group = dataclasses.replace(few, subhalos=halos)
            images[rows.to(images.device)] = self.planes(group, exposure.colours[rows])
        return images

    def variance(self, images: Tensor) -> Tensor:
        """Return the variance of each pixel [counts^2] of noise-free images [counts]."""
        return variance_map(images, *self._noise(images))

    def observed(self, images: Tensor, noise: Draws, photons: Draws) -> Tensor:
        """Return images as they are stored, float32 counts.

        Args:
            images: Noise-free, (B, bands, side, side).
            noise: Random numbers of the sky.
            photons: Random numbers of the light.
        """
        if not self.has_noise:
            return images.float()
        n = images[0].numel()
        normal = noise.normal(n).reshape(images.shape)
        uniform = photons.uniform(n).reshape(images.shape) if self.per_count() else None
        return add_noise(images, *self._noise(images), normal, uniform).float()

    def _noise(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return sky noise [counts] and gain [electrons per count] of each image, (B,)."""
        sigma = torch.full_like(images[:, 0, 0, 0], self.sky_variance() ** 0.5)
        gain = 1.0 / self.per_count() if self.per_count() else math.inf
        return sigma, torch.full_like(sigma, gain)


def first_halos(halos: Subhalos, n: int) -> Subhalos:
    """Return the first `n` subhalos of each scene; the others are padding."""
    names = ("x", "y", "theta_e", "r_s", "r_t")
    kept = {name: getattr(halos, name)[:, :n] for name in names}
    return Subhalos(**kept, profile=halos.profile)


def brightest_pixel(snr: Tensor, sky_variance: float, per_count: float) -> Tensor:
    """Return the counts p for which p / sqrt(sky_variance + per_count p) = snr."""
    half = 0.5 * per_count * snr.square()
    return half + (half.square() + snr.square() * sky_variance).sqrt()


@dataclass(frozen=True)
class Exposure:
    """Images of smooth scenes.

    Args:
        camera: That took them.
        scenes: Scenes without substructure, with their fluxes.
        colours: See `Camera.planes`.
        smooth: Noise-free images, (B, bands, side, side).
        snr: Signal-to-noise ratio of the brightest pixel of the source, first band, (B,); NaN
            without noise.
        basis: What a smooth model can change, see `datagen/lenses/detect.py`.
    """

    camera: Camera
    scenes: Scenes
    colours: Tensor
    smooth: Tensor
    snr: Tensor
    basis: Tensor | None = None

    def with_basis(self) -> Exposure:
        """Add what `delta_chi2` needs.

        All parameters of the smooth model act in all bands. Derivatives are those of the lens
        without halos on the line of sight.
        """
        camera = self.camera
        parts = [
            smooth_jacobian(one, camera.grid, psf, has_sky=False)
            for one, psf in zip(camera.in_bands(self.scenes, self.colours), camera.psf, strict=True)
        ]
        basis = range_basis(torch.cat(parts, 1), camera.variance(self.smooth))
        return dataclasses.replace(self, basis=basis)

    def seen_by(self, camera: Camera) -> Exposure:
        """Return the exposure of the same scenes and light with another camera, without basis."""
        smooth = camera.planes(self.scenes, self.colours)
        return dataclasses.replace(self, camera=camera, smooth=smooth, basis=None)

    def delta_chi2(self, images: Tensor) -> Tensor:
        """Return the evidence for substructure in noise-free images, (B,) float64."""
        assert self.basis is not None
        variance = self.camera.variance(self.smooth)
        return residual_chi2(images - self.smooth, variance, self.basis)

    def rows(self, rows: Tensor) -> Exposure:
        """Return the exposure of some of the scenes."""
        smooth = self.smooth[rows.to(self.smooth.device)]
        return dataclasses.replace(
            self,
            scenes=self.scenes[rows],
            colours=self.colours[rows],
            smooth=smooth,
            snr=self.snr[rows],
            basis=None if self.basis is None else self.basis[rows.to(self.basis.device)],
        )
