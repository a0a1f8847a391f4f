"""Polar maps of lens images: azimuth along one axis, radius in Einstein radii along the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.polar import unwrap
from encoders.statistics import MAD_TO_SIGMA

CENTRES = ("image", "flux")
# Light is what exceeds the sky by so many standard deviations, and this fraction of the range.
N_SIGMA = 3.0
ALWAYS_LIGHT = 0.2
# What keeps divisions and roots defined: far below any brightness and squared distance.
TINY = 1e-20


class PolarMap(nn.Module):
    """Unwraps images about the centre of the lens, from `inner` to `outer` Einstein radii.

    Args:
        side: Side of an image [px], >= 5.
        n_azimuths: Azimuths of a map, evenly around the circle from +x counter-clockwise.
        n_radii: Radii of a map, evenly from the innermost to the outermost.
        inner: Innermost radius [Einstein radii].
        outer: Outermost radius [Einstein radii].
        theta_e_px: Einstein radius [px]; None: estimated from each image, see `ring_radius`.
        centre: `image`: the middle of the image; `flux`: see `light_centroid`.

    Raises:
        ConfigError: A value is out of range, or the outermost radius leaves the image.
    """

    def __init__(
        self,
        side: int,
        n_azimuths: int,
        n_radii: int,
        inner: float,
        outer: float,
        theta_e_px: float | None,
        centre: str,
    ) -> None:
        super().__init__()
        _check(n_azimuths, n_radii, inner, outer, centre)
        # The outermost circle about the middle of the image then stays within the image.
        self.largest_px = (side - 1) / 2 / outer
        if self.largest_px < 1:
            raise ConfigError(f"expected side > {2 * outer:g} px, but got side = {side}", side)
        if theta_e_px is not None and not 0 < theta_e_px <= self.largest_px:
            raise ConfigError(
                f"expected 0 < theta_e_px <= {self.largest_px:g} px, because maps reach to "
                f"{outer:g} Einstein radii of images of {side} px, but got theta_e_px = "
                f"{theta_e_px}; null estimates it from each image",
                theta_e_px,
                self.largest_px,
            )
        self.n_azimuths, self.n_radii, self.inner, self.outer = n_azimuths, n_radii, inner, outer
        self.theta_e_px, self.centre = theta_e_px, centre

    def forward(self, images: Tensor) -> Tensor:
        """Return maps (B, C, n_radii, n_azimuths) of images (B, C, side, side).

        The bands of an image share centre and radius.
        """
        light = light_of(images)
        centre = self._centre(light)
        radii = torch.linspace(self.inner, self.outer, self.n_radii, device=images.device)
        radii_px = self._theta_e(light, centre)[:, None] * radii
        return unwrap(images, centre, radii_px, self.n_azimuths)

    def _centre(self, light: Tensor) -> Tensor:
        if self.centre == "flux":
            return light_centroid(light)
        middle = torch.tensor([(n - 1) / 2 for n in (light.shape[-1], light.shape[-2])])
        return middle.to(light).expand(len(light), 2)

    def _theta_e(self, light: Tensor, centre: Tensor) -> Tensor:
        """Return Einstein radii (B,) [px]."""
        if self.theta_e_px is not None:
            return light.new_full((len(light),), self.theta_e_px)
        return ring_radius(light, centre).clamp(1.0, self.largest_px)


def light_of(images: Tensor) -> Tensor:
    """Return the brightness above the sky, mean over bands (B, H, W), for images (B, C, H, W).

    Sky is the median of an image, for more than half of a lens image is sky, and what exceeds it by
    less than three standard deviations, taken as 1.4826 times the median absolute deviation. The
    brightest fifth of the range always counts: without noise, the deviation is that of the light.
    """
    flat = images.float().flatten(2)
    above = flat - flat.median(dim=-1, keepdim=True).values
    noise = MAD_TO_SIGMA * above.abs().median(dim=-1, keepdim=True).values
    least = torch.minimum(N_SIGMA * noise, (1 - ALWAYS_LIGHT) * above.amax(dim=-1, keepdim=True))
    light = (above - least).clamp(min=0).mean(dim=1)
    return light.view(len(images), *images.shape[-2:])


def light_centroid(light: Tensor) -> Tensor:
    """Return the flux-weighted mean position, column and row (B, 2) [px], of light (B, H, W).

    The middle of the image where there is no light.
    """
    total = light.sum(dim=(-2, -1)) + TINY
    means = []
    for axis, n in ((-2, light.shape[-1]), (-1, light.shape[-2])):
        offsets = torch.arange(n).to(light) - (n - 1) / 2
        means.append((light.sum(dim=axis) * offsets).sum(dim=-1) / total + (n - 1) / 2)
    return torch.stack(means, dim=-1)


def ring_radius(light: Tensor, centre: Tensor) -> Tensor:
    """Return the flux-weighted mean distance from the centre (B,) [px].

    An estimate of the Einstein radius: for the two images of a source at distance beta behind an
    SIS it is theta_E + beta^2 / theta_E. Light of the lens itself makes it smaller.

    Args:
        light: (B, H, W).
        centre: Column and row (B, 2) [px].
    """
    height, width = light.shape[-2:]
    x = torch.arange(width).to(light) - centre[:, :1]
    y = torch.arange(height).to(light) - centre[:, 1:]
    # Not 0 at the centre, where the root would have no gradient.
    distance = (x[:, None, :] ** 2 + y[:, :, None] ** 2 + TINY).sqrt()
    total = light.sum(dim=(-2, -1)) + TINY
    return (light * distance).sum(dim=(-2, -1)) / total


def _check(n_azimuths: int, n_radii: int, inner: float, outer: float, centre: str) -> None:
    if n_azimuths < 1 or n_radii < 1:
        raise ConfigError(
            "expected n_azimuths >= 1 and n_radii >= 1, but got "
            f"n_azimuths = {n_azimuths}, n_radii = {n_radii}",
            (n_azimuths, n_radii),
        )
    if not 0 <= inner < outer:
        raise ConfigError(
            f"expected 0 <= inner < outer, but got inner = {inner}, outer = {outer}",
            (inner, outer),
        )
    if centre not in CENTRES:
        raise ConfigError(
            f"expected centre to be one of {', '.join(CENTRES)}, but got centre = {centre}",
            centre,
            CENTRES,
        )
