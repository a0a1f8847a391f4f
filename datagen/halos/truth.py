"""The rows of the truth tables: what determines a map but its noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datagen.halos.cosmology import Array
from datagen.halos.group import Group
from datagen.halos.render import View

WHOLE_NUMBERS = ("INDEX", "CLUSTER", "PROJECTION", "N_SUB", "IS_COOL")
# Columns that are NaN where there is no core; CROSS_SECTION is where there is no halo.
UNKNOWN = ("RHO_0", "CROSS_SECTION", "SIGMA_EFF")


def row(group: Group, seen: View, s: int) -> dict[str, float]:
    """Return what is true of a cluster under one cross-section from one direction."""
    k, clusters, core = seen.k, group.clusters, group.host.core
    has_halo = group.settings.content == "halos"
    x, y = seen.place(group.wobble(k, s))
    rho_0 = core.rho_0[k, s]
    return {
        "CLUSTER": clusters.number[k],
        "CROSS_SECTION": group.settings.cross_sections[s] if has_halo else np.nan,
        "SIGMA_EFF": core.cross_section[k, s] if has_halo else np.nan,
        "M200": clusters.mass[k],
        "REDSHIFT": clusters.redshift[k],
        "C200": clusters.concentration[k],
        "R200": group.host.halo.r_200[k],
        "AGE": clusters.age[k],
        "R_1": core.r_1[k, s],
        "RHO_0": rho_0 if np.isfinite(rho_0) else np.nan,
        "R_CORE": core.r_half[k, s],
        "S_1D": core.s_1d[k, s],
        "Q": seen.outer.axis_ratio(),
        "ANGLE": seen.outer.angle(),
        "AGN": clusters.agn[k],
        "R_GAS": clusters.gas_core[k],
        "BETA": clusters.beta[k],
        "IS_COOL": clusters.is_cool[k],
        "M_BCG": clusters.bcg.mass[k],
        "BCG_X": x,
        "BCG_Y": y,
        "N_SUB": len(group.subhalos[k].share),
        "M_SUB": group.bound(k, s).sum(),
        "MERGER": clusters.companion.mass[k] / clusters.mass[k],
    }


def columns(rows: Sequence[dict[str, float]]) -> dict[str, Array]:
    """Return rows as columns."""
    return {
        name: np.array([r[name] for r in rows], np.int64 if name in WHOLE_NUMBERS else np.float64)
        for name in rows[0]
    }
