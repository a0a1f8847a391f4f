"""What determines noise-free images of strong lenses, as batches of tensors.

B images, N subhalos at most, S light components. Rows that need fewer are padded with theta_e 0 or
flux 0. Positions x (along columns) and y (along rows) [arcsec] count from the image centre, angles
[rad] from +x counter-clockwise. All tensors of a scene share dtype and device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import torch
from torch import Tensor

Profile = Literal["point", "sis", "tnfw"]
PROFILES: tuple[Profile, ...] = ("point", "sis", "tnfw")


@dataclass(frozen=True)
class _Batch:
    """Tensors whose first dimension counts images; other fields hold for the whole batch."""

    def _map(self, change: Callable[[Any], Any]) -> Self:
        return type(self)(
            **{
                f.name: change(value) if isinstance(value, Tensor | _Batch) else value
                for f in fields(self)
                for value in [getattr(self, f.name)]
            }
        )

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """Return the batch with all tensors on `device` in `dtype`."""
        return self._map(lambda value: value.to(device, dtype))

    def __getitem__(self, rows: slice | Tensor) -> Self:
        return self._map(lambda value: value[rows])

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """Join batches along the images; all must have the same parts and padded sizes."""
        joined: dict[str, Any] = {}
        for f in fields(cls):
            values = [getattr(part, f.name) for part in parts]
            first = values[0]
            if isinstance(first, Tensor):
                joined[f.name] = torch.cat(values)
            elif isinstance(first, _Batch):
                joined[f.name] = type(first).cat(values)
            elif all(value == first for value in values):
                joined[f.name] = first
            else:
                raise ValueError(f"scenes differ in {f.name}: {values}; join equal kinds only")
        return cls(**joined)


@dataclass(frozen=True)
class Sersics(_Batch):
    """Sersic profiles, each field of shape (B, S).

    Args:
        x: Centre along columns [arcsec]; of a source in the source plane.
        y: Centre along rows [arcsec].
        q: Axis ratio, 0 < q <= 1.
        angle: Of the major axis [rad].
        n: Sersic index.
        r_eff: Half-light radius on the intermediate axis, sqrt(a b) [arcsec].
        flux: Total flux [counts]; 0 where there is no component.
    """

    x: Tensor
    y: Tensor
    q: Tensor
    angle: Tensor
    n: Tensor
    r_eff: Tensor
    flux: Tensor


@dataclass(frozen=True)
class Subhalos(_Batch):
    """Round subhalos of one kind, each field of shape (B, N).

    Halos on the line of sight count as subhalos with their effective theta_e.

    Args:
        x: Centre along columns [arcsec].
        y: Centre along rows [arcsec].
        theta_e: Einstein radius of the total mass if it were a point [arcsec]; 0 for none.
        r_s: Scale radius of `tnfw` [arcsec], > 0 also in padded rows.
        r_t: Truncation radius of `tnfw` and `sis` [arcsec], > 0 also in padded rows.
        profile: Of all subhalos: "point", "sis" (truncated) or "tnfw".
    """

    x: Tensor
    y: Tensor
    theta_e: Tensor
    r_s: Tensor
    r_t: Tensor
    profile: Profile


@dataclass(frozen=True)
class Rods(_Batch):
    """Straight rods of uniform line mass, the toy model of a vortex; each field of shape (B,).

    Args:
        x: Centre along columns [arcsec].
        y: Centre along rows [arcsec].
        angle: Direction of the rod [rad].
        length: Full length [arcsec], > 0 also without a rod.
        theta_v: Einstein radius of the total mass if it were a point [arcsec]; 0 for none.
        is_compensated: Whether a disc of equal negative mass, as wide as the rod is long, is added.
    """

    x: Tensor
    y: Tensor
    angle: Tensor
    length: Tensor
    theta_v: Tensor
    is_compensated: bool = False


@dataclass(frozen=True)
class Multipoles(_Batch):
    """Multipoles m = 3 and 4 of the main lens, each field of shape (B, 2).

    Args:
        amplitude: a_m, which changes the convergence by theta_e a_m cos(m (phi - phi_m)) / (2 r).
        angle: phi_m [rad].
    """

    amplitude: Tensor
    angle: Tensor


@dataclass(frozen=True)
class Scenes(_Batch):
    """Everything that determines a batch of noise-free images; lens fields of shape (B,).

    Args:
        theta_e: Einstein radius of the main lens on the intermediate axis [arcsec].
        q: Axis ratio of its convergence, 0 < q <= 1.
        angle: Of its major axis [rad].
        x: Its centre along columns [arcsec].
        y: Its centre along rows [arcsec].
        gamma_1: Shear along the axes.
        gamma_2: Shear along the diagonals.
        source: Components of the source, seen through the lens.
        lens_light: Components of the lens galaxy.
        subhalos: Round substructure.
        rods: Vortices.
        multipoles: Of the main lens, about its centre.
    """

    theta_e: Tensor
    q: Tensor
    angle: Tensor
    x: Tensor
    y: Tensor
    gamma_1: Tensor
    gamma_2: Tensor
    source: Sersics
    lens_light: Sersics | None = None
    subhalos: Subhalos | None = None
    rods: Rods | None = None
    multipoles: Multipoles | None = None

    def __len__(self) -> int:
        return len(self.theta_e)

    def without_substructure(self) -> Scenes:
        """Return the scenes without subhalos and rods; the main lens stays as it is."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return Scenes(**{**own, "subhalos": None, "rods": None})
