"""How well substructure can be told from a change of the smooth lens.

Delta chi2 = d' C^-1 d - d' C^-1 J (J' C^-1 J)^-1 J' C^-1 d with d the image with minus that without
substructure, C the (diagonal) noise covariance and J the derivatives of the smooth image: what is
left of the chi2 of d after a linear refit of all smooth parameters.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from datagen.lenses.derivatives import lens_derivatives, light_derivatives
from datagen.lenses.render import Grid, deflection, render, to_pixels
from datagen.lenses.scene import Scenes, Sersics

# Directions whose singular value is below this share of the largest one are left out.
_RANK_TOLERANCE = 1e-9
# Smallest ellipticity at which derivatives are taken: at 0 the angle is undefined.
_MIN_ELLIPTICITY = 1e-3
_N_LENS, _N_SERSIC = 7, 7


def smooth_parameters(scenes: Scenes) -> Tensor:
    """Return the parameters of the smooth model, shape (B, 7 + 7 n_components).

    ln theta_e, e1, e2, x, y, gamma_1, gamma_2 of the lens; x, y, e1, e2, ln n, ln r_eff, ln flux of
    each source component, then of each component of the lens light. e = (1 - q) / (1 + q) times the
    cosine and sine of twice the angle. A component without flux has ln flux = -inf.
    """
    columns = [_lens_parameters(scenes), _sersic_parameters(scenes.source).flatten(1)]
    if scenes.lens_light is not None:
        columns.append(_sersic_parameters(scenes.lens_light).flatten(1))
    return torch.cat(columns, 1)


def with_parameters(scenes: Scenes, parameters: Tensor) -> Scenes:
    """Return the scenes with other smooth parameters, in the order of `smooth_parameters`."""
    n_source = scenes.source.x.shape[1]
    components = parameters[:, _N_LENS:].reshape(len(parameters), -1, _N_SERSIC)
    light = scenes.lens_light
    return replace(
        _with_lens(scenes, parameters[:, :_N_LENS]),
        source=_sersics(components[:, :n_source]),
        lens_light=None if light is None else _sersics(components[:, n_source:]),
    )


def _lens_parameters(scenes: Scenes) -> Tensor:
    s = scenes
    e1, e2 = _ellipticity(s.q, s.angle)
    return torch.stack([torch.log(s.theta_e), e1, e2, s.x, s.y, s.gamma_1, s.gamma_2], 1)


def _with_lens(scenes: Scenes, parameters: Tensor) -> Scenes:
    log_theta, e1, e2, x, y, gamma_1, gamma_2 = parameters.unbind(1)
    q, angle = _shape(e1, e2)
    return replace(
        scenes,
        theta_e=torch.exp(log_theta),
        q=q,
        angle=angle,
        x=x,
        y=y,
        gamma_1=gamma_1,
        gamma_2=gamma_2,
    )


def _sersic_parameters(light: Sersics) -> Tensor:
    """Return x, y, e1, e2, ln n, ln r_eff, ln flux, shape (B, S, 7)."""
    e1, e2 = _ellipticity(light.q, light.angle)
    logs = (torch.log(values) for values in (light.n, light.r_eff, light.flux))
    return torch.stack([light.x, light.y, e1, e2, *logs], 2)


def _sersics(parameters: Tensor) -> Sersics:
    x, y, e1, e2, log_n, log_r, log_flux = parameters.unbind(2)
    q, angle = _shape(e1, e2)
    return Sersics(x, y, q, angle, torch.exp(log_n), torch.exp(log_r), torch.exp(log_flux))


def _ellipticity(q: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    size = ((1.0 - q) / (1.0 + q)).clamp(min=_MIN_ELLIPTICITY)
    return size * torch.cos(2.0 * angle), size * torch.sin(2.0 * angle)


def _shape(e1: Tensor, e2: Tensor) -> tuple[Tensor, Tensor]:
    size = torch.sqrt(e1**2 + e2**2)
    return (1.0 - size) / (1.0 + size), 0.5 * torch.atan2(e2, e1)


def smooth_jacobian(scenes: Scenes, grid: Grid, psf: Tensor | None, has_sky: bool) -> Tensor:
    """Return the derivatives of the smooth images with respect to `smooth_parameters`.

    Closed forms for the deflection and the light, joined by the chain rule: a parameter p of the
    lens changes the light at a ray by -grad S . d alpha / d p.

    Args:
        scenes: B scenes; their substructure is left out.
        grid: Pixels and rays.
        psf: Kernel, see `render`.
        has_sky: Whether a constant level is a parameter as well, the last one.

    Returns:
        Shape (B, pixels, P), float64.
    """
    smooth = scenes.without_substructure().to(scenes.theta_e.device, torch.float64)
    psf = None if psf is None else psf.double()
    smooth = with_parameters(smooth, smooth_parameters(smooth))  # off ellipticity 0
    blocks = []
    for rows in grid.chunks(len(smooth), smooth.theta_e):
        planes = torch.stack(_derivatives(smooth[rows], grid), 1)
        images = to_pixels(planes.flatten(0, 1), grid, psf)
        blocks.append(images.reshape(*planes.shape[:2], -1).mT)
    jacobian = torch.cat(blocks)
    return torch.nn.functional.pad(jacobian, (0, 1), value=1.0) if has_sky else jacobian


def _derivatives(smooth: Scenes, grid: Grid) -> list[Tensor]:
    """Return the derivatives of the surface brightness on the rays, each of shape (B, R, R)."""
    axis = grid.axis(smooth.theta_e)
    x, y = axis[None, None, :], axis[None, :, None]
    alpha_x, alpha_y = deflection(smooth, axis)
    source = light_derivatives(smooth.source, x - alpha_x, y - alpha_y)
    # moving a component is moving all rays the other way
    slope_x, slope_y = (-sum(source[k::_N_SERSIC], torch.zeros_like(alpha_x)) for k in (0, 1))
    bends = lens_derivatives(smooth, (alpha_x, alpha_y), axis)
    lens = [-(slope_x * bend[0] + slope_y * bend[1]) for bend in bends]
    light = smooth.lens_light
    return lens + source + ([] if light is None else light_derivatives(light, x, y))


def range_basis(jacobian: Tensor, variance: Tensor) -> Tensor:
    """Return orthonormal columns that span the derivatives in units of the noise, in float64.

    The rank is decided by the singular values of the triangular factor, after the columns were
    brought to the same length; directions without rank become columns of zeros.

    Args:
        jacobian: (B, pixels, P).
        variance: Of each pixel, (B, 1, H, W).

    Returns:
        (B, pixels, P).
    """
    white = jacobian.double() / torch.sqrt(variance.double()).flatten(1)[..., None]
    length = torch.linalg.vector_norm(white, dim=1, keepdim=True)
    q, r = torch.linalg.qr(white / length.clamp(min=torch.finfo(white.dtype).tiny))
    left, values, _ = torch.linalg.svd(r)
    has_rank = values > _RANK_TOLERANCE * values[:, :1]
    basis: Tensor = q @ (left * has_rank[:, None, :])
    return basis


def residual_chi2(difference: Tensor, variance: Tensor, basis: Tensor) -> Tensor:
    """Return the chi2 of a difference of images after a linear refit.

    Args:
        difference: Counts, (B, 1, H, W).
        variance: Of each pixel, (B, 1, H, W).
        basis: Of `range_basis`, (B, pixels, P).

    Returns:
        (B,), float64.
    """
    white = (difference.double() / torch.sqrt(variance.double())).flatten(1)[..., None]
    rest = white - basis @ (basis.mT @ white)
    return rest.square().sum((1, 2))


def delta_chi2(
    scenes: Scenes,
    grid: Grid,
    psf: Tensor | None,
    variance: Tensor,
    smooth: Scenes | None = None,
    has_sky: bool = False,
) -> Tensor:
    """Return the Delta chi2 of the substructure of each scene, see the head of this module.

    Args:
        scenes: B scenes.
        grid: Pixels and rays.
        psf: Kernel, see `render`.
        variance: Of each pixel, (B, 1, side, side).
        smooth: The scenes without substructure, about which the refit is linear; if mass was taken
            from the main lens to make up for subhalos, the lens before that. None: the scenes
            without their substructure.
        has_sky: Whether a constant level is refitted as well.

    Returns:
        (B,), float64.
    """
    smooth = scenes.without_substructure() if smooth is None else smooth
    difference = render(scenes, grid, psf) - render(smooth, grid, psf)
    jacobian = smooth_jacobian(smooth, grid, psf, has_sky)
    return residual_chi2(difference, variance, range_basis(jacobian, variance))
