"""Colours of galaxies from redshifted template spectra.

Templates: Sbc, Scd and Im of Coleman, Wu & Weedman 1980, ApJS 43 393, doi:10.1086/190674, as
shipped by GalSim (no evolution), through GalSim's LSST g, r, i, z bands, which are close to
DECam's. The table is made once (`colour_table`), so that drawing galaxies needs no integration.
"""

from __future__ import annotations

import numpy as np

from datagen.fields.tables_io import FloatArray, load_table

TEMPLATES = ("Sbc", "Scd", "Im")
COLOURS = ("gr", "ri", "iz")
REDSHIFTS = np.round(np.arange(0.0, 4.001, 0.04), 2)
_TABLE = "template_colours"


def compute_colours(template: str, z: float) -> FloatArray:
    """Integrate a template through the bands with GalSim.

    Args:
        template: one of Sbc, Scd, Im.
        z: redshift.

    Returns:
        g-r, r-i, i-z [AB mag], shape (3,).
    """
    import galsim

    sed = galsim.SED(f"CWW_{template}_ext.sed", wave_type="Ang", flux_type="flambda").atRedshift(z)
    bands = [galsim.Bandpass(f"LSST_{b}.dat", wave_type="nm").withZeropoint("AB") for b in "griz"]
    mags: FloatArray = np.array([sed.calculateMagnitude(band) for band in bands])
    return mags[:-1] - mags[1:]


def colour_table() -> dict[str, FloatArray]:
    """Compute the columns of ``tables/template_colours.ecsv``: z, Sbc_gr, Sbc_ri, ..."""
    columns: dict[str, FloatArray] = {"z": REDSHIFTS}
    for template in TEMPLATES:
        colours = np.array([compute_colours(template, z) for z in REDSHIFTS])
        for k, name in enumerate(COLOURS):
            columns[f"{template}_{name}"] = np.round(colours[:, k], 4)
    return columns


def template_colours(sequence: FloatArray, z: FloatArray) -> FloatArray:
    """Interpolate colours in redshift and along the sequence of templates.

    Args:
        sequence: position in `TEMPLATES`, 0 (Sbc) to 2 (Im), shape (N,).
        z: redshift, shape (N,); clipped to the table's 0-4.

    Returns:
        g-r, r-i, i-z [AB mag], shape (N, 3).
    """
    table = load_table(_TABLE)
    step = REDSHIFTS[1] - REDSHIFTS[0]
    position = np.clip(np.asarray(z) / step, 0.0, len(REDSHIFTS) - 1.000001)
    row = position.astype(int)
    kind = np.clip(np.asarray(sequence, float), 0.0, len(TEMPLATES) - 1.000001)
    low = kind.astype(int)
    cube = np.array([[table[f"{t}_{c}"] for c in COLOURS] for t in TEMPLATES])  # (4, 3, n_z)
    fz, ft = (position - row)[:, None], (kind - low)[:, None]

    def at(template: FloatArray) -> FloatArray:
        colours: FloatArray = cube[template, :, row] * (1 - fz) + cube[template, :, row + 1] * fz
        return colours

    mixed: FloatArray = at(low) * (1 - ft) + at(low + 1) * ft
    return mixed
