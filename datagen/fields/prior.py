"""Chooses the prior that fills the sky."""

from __future__ import annotations

from importlib import import_module

from astropy.table import Table

from datagen.fields.config import PRIORS, PriorConfig
from datagen.fields.sky import SkyArea, StreamOf


def draw_sky(prior: PriorConfig, area: SkyArea, rng_of: StreamOf) -> tuple[Table, Table]:
    """Draw sources and clusters with the configured prior.

    Args:
        prior: What the sky contains; `prior.kind` names the module.
        area: Pixel rectangle and depth.
        rng_of: Gives the stream of a component.

    Returns:
        Source catalog and cluster truth.
    """
    tables: tuple[Table, Table] = import_module(PRIORS[prior.kind]).draw_sky(prior, area, rng_of)
    return tables
