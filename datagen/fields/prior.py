"""Chooses the prior that fills the sky."""

from __future__ import annotations

from importlib import import_module

from astropy.table import Table

from datagen.fields.config import PriorConfig
from datagen.fields.sky import SkyArea, StreamOf

_MODULES = {
    "analytic": "datagen.fields.analytic",
    "empirical": "datagen.fields.empirical",
}


def draw_sky(prior: PriorConfig, area: SkyArea, rng_of: StreamOf) -> tuple[Table, Table]:
    """Draw sources and clusters with the configured prior.

    Args:
        prior: What the sky contains; `prior.kind` names the module.
        area: Pixel rectangle and depth.
        rng_of: Gives the stream of a component.

    Returns:
        Source catalog and cluster truth.
    """
    tables: tuple[Table, Table] = import_module(_MODULES[prior.kind]).draw_sky(prior, area, rng_of)
    return tables
