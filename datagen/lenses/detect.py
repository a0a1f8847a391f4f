"""How well substructure can be told from a change of the smooth lens.

Delta chi2 = d' C^-1 d - d' C^-1 J (J' C^-1 J)^-1 J' C^-1 d with d the image with minus that without
substructure, C the (diagonal) noise covariance and J the derivatives of the smooth image: what is
left of the chi2 of d after a linear refit of all smooth parameters.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from datagen.lenses.render import Grid, render
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
    s = scenes
    e1, e2 = _ellipticity(s.q, s.angle)
    lens = [torch.log(s.theta_e), e1, e2, s.x, s.y, s.gamma_1, s.gamma_2]
    columns = [torch.stack(lens, 1), _sersic_parameters(s.source)]
    if s.lens_light is not None:
        columns.append(_sersic_parameters(s.lens_light))
    return torch.cat(columns, 1)


def with_parameters(scenes: Scenes, parameters: Tensor) -> Scenes:
    """Return the scenes with other smooth parameters, in the order of `smooth_parameters`."""
    log_theta, e1, e2, x, y, gamma_1, gamma_2 = parameters[:, :_N_LENS].unbind(1)
    q, angle = _shape(e1, e2)
    n_source = scenes.source.x.shape[1]
    components = parameters[:, _N_LENS:].reshape(len(parameters), -1, _N_SERSIC)
    light = scenes.lens_light
    return replace(
        scenes,
        theta_e=torch.exp(log_theta),
        q=q,
        angle=angle,
        x=x,
        y=y,
        gamma_1=gamma_1,
        gamma_2=gamma_2,
        source=_sersics(components[:, :n_source]),
        lens_light=None if light is None else _sersics(components[:, n_source:]),
    )


def _ellipticity(q: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    size = ((1.0 - q) / (1.0 + q)).clamp(min=_MIN_ELLIPTICITY)
    return size * torch.cos(2.0 * angle), size * torch.sin(2.0 * angle)


def _shape(e1: Tensor, e2: Tensor) -> tuple[Tensor, Tensor]:
    size = torch.sqrt(e1**2 + e2**2)
    return (1.0 - size) / (1.0 + size), 0.5 * torch.atan2(e2, e1)


def _sersic_parameters(light: Sersics) -> Tensor:
    e1, e2 = _ellipticity(light.q, light.angle)
    logs = (torch.log(values) for values in (light.n, light.r_eff, light.flux))
    return torch.stack([light.x, light.y, e1, e2, *logs], 2).flatten(1)


def _sersics(parameters: Tensor) -> Sersics:
    x, y, e1, e2, log_n, log_r, log_flux = parameters.unbind(2)
    q, angle = _shape(e1, e2)
    return Sersics(x, y, q, angle, torch.exp(log_n), torch.exp(log_r), torch.exp(log_flux))


def smooth_jacobian(scenes: Scenes, grid: Grid, psf: Tensor | None, has_sky: bool) -> Tensor:
    """Return the derivatives of the smooth images, by forward-mode differentiation.

    Args:
        scenes: B scenes; their substructure is left out.
        grid: Pixels and rays.
        psf: Kernel, see `render`.
        has_sky: Whether a constant level is a parameter as well.

    Returns:
        Shape (B, pixels, P): P parameters of `smooth_parameters`, then the sky.
    """
    smooth = scenes.without_substructure()
    parameters = smooth_parameters(smooth)

    def image(values: Tensor) -> Tensor:
        return render(with_parameters(smooth, values), grid, psf).flatten(1)

    columns = []
    for k in range(parameters.shape[1]):
        tangent = torch.zeros_like(parameters)
        tangent[:, k] = 1.0
        columns.append(torch.func.jvp(image, (parameters,), (tangent,))[1])
    if has_sky:
        columns.append(torch.ones_like(columns[0]))
    return torch.stack(columns, 2)


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
