"""The columns of the truth tables: every number that determines an image but its noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from datagen.lenses.camera import Exposure
from datagen.lenses.format import LINE_OF_SIGHT, ROD, SUBHALO, SUBSTRUCTURE_COLUMNS
from datagen.lenses.prior import Macro
from datagen.lenses.scene import Scenes, Sersics, Subhalos

LIGHT = ("x", "y", "q", "angle", "n", "r_eff", "flux")


def lens_columns(macro: Macro, exposure: Exposure) -> dict[str, Tensor]:
    """Return the columns of LENSES that all classes share, (B,) or (B, S) float64 each.

    Source columns of a source with clumps hold all components, the main one first.
    """
    scenes = exposure.scenes
    names = ("theta_e", "q", "angle", "x", "y", "gamma_1", "gamma_2")
    columns = {name.upper(): getattr(scenes, name) for name in names}
    columns |= {"Z_LENS": macro.z_lens, "Z_SOURCE": macro.z_source, "SNR": exposure.snr}
    camera = exposure.camera
    sky = camera.sky_variance() ** 0.5 if camera.has_noise else 0.0
    columns["SKY_SIGMA"] = torch.full_like(exposure.snr, sky)
    if scenes.multipoles is not None:
        for column, m in enumerate((3, 4)):
            columns[f"MULTIPOLE_{m}"] = scenes.multipoles.amplitude[:, column]
            columns[f"MULTIPOLE_ANGLE_{m}"] = scenes.multipoles.angle[:, column]
    columns |= _light("SRC", scenes.source)
    if scenes.lens_light is not None:
        columns |= _light("LIGHT", scenes.lens_light)
    return columns


def _light(prefix: str, light: Sersics) -> dict[str, Tensor]:
    is_single = light.x.shape[1] == 1
    return {
        f"{prefix}_{name}".upper(): values[:, 0] if is_single else values
        for name in LIGHT
        for values in [getattr(light, name)]
    }


def substructure_rows(
    found: Sequence[tuple[Tensor, Sequence[Scenes]]],
    line_of_sight: tuple[Tensor, Subhalos | None],
) -> dict[str, Tensor]:
    """Return the table SUBSTRUCTURE as columns, sorted by INDEX.

    Args:
        found: Per class the numbers of the images, and the scene of each with the substructure
            that was drawn for it.
        line_of_sight: Numbers of all images, and their halos on the line of sight.
    """
    rows = [_subhalo_rows(*line_of_sight, LINE_OF_SIGHT)]
    for index, scenes in found:
        for number, scene in zip(index, scenes, strict=True):
            rows.append(_subhalo_rows(number[None], scene.subhalos, SUBHALO))
            rows.append(_rod_rows(number[None], scene))
    table = torch.cat(rows)
    table = table[torch.argsort(table[:, 0], stable=True)]
    columns = dict(zip(SUBSTRUCTURE_COLUMNS, table.unbind(-1), strict=True))
    return columns | {name: columns[name].long() for name in ("INDEX", "KIND")}


def _subhalo_rows(index: Tensor, halos: Subhalos | None, kind: int) -> Tensor:
    if halos is None:
        return torch.empty(0, len(SUBSTRUCTURE_COLUMNS), dtype=torch.float64)
    number = index[:, None].double().expand_as(halos.x)
    zero = torch.zeros_like(halos.x)
    values = (halos.x, halos.y, halos.theta_e, halos.r_s, halos.r_t, zero, zero)
    table = torch.stack([number, torch.full_like(number, kind), *values], -1)
    return table[halos.theta_e > 0.0]


def _rod_rows(index: Tensor, scene: Scenes) -> Tensor:
    rods = scene.rods
    if rods is None:
        return torch.empty(0, len(SUBSTRUCTURE_COLUMNS), dtype=torch.float64)
    zero = torch.zeros_like(rods.x)
    values = (rods.x, rods.y, rods.theta_v, zero, zero, rods.length, rods.angle)
    number = index.double()
    return torch.stack([number, torch.full_like(number, ROD), *values], -1)
