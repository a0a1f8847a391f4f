"""The table of template colours against GalSim."""

from __future__ import annotations

import numpy as np
import pytest

from datagen.fields import templates
from datagen.fields.tables_io import TABLES, load_table


@pytest.mark.parametrize(("template", "row"), [("Sbc", 0), ("Scd", 25), ("Im", 50), ("Im", 100)])
def test_rows_of_the_table_are_what_galsim_integrates(template: str, row: int) -> None:
    table = load_table("template_colours")
    stored = [table[f"{template}_{c}"][row] for c in templates.COLOURS]
    computed = templates.compute_colours(template, float(templates.REDSHIFTS[row]))
    assert table["z"][row] == pytest.approx(templates.REDSHIFTS[row])
    assert stored == pytest.approx(computed, abs=2e-3)


def test_interpolation_hits_the_rows_and_stays_between_templates() -> None:
    z = templates.REDSHIFTS[[5, 20]]
    at_scd = templates.template_colours(np.full(2, 1.0), z)
    table = load_table("template_colours")
    assert at_scd[:, 0] == pytest.approx(table["Scd_gr"][[5, 20]], abs=1e-4)
    between = templates.template_colours(np.full(2, 0.5), z)[:, 0]
    assert np.all(between < table["Sbc_gr"][[5, 20]])
    assert np.all(between > table["Scd_gr"][[5, 20]])


def test_redshifts_beyond_the_table_are_clipped() -> None:
    ends = templates.template_colours(np.array([2.0, 2.0]), np.array([4.0, 9.0]))
    assert ends[0] == pytest.approx(ends[1])


@pytest.mark.parametrize("name", ["mstar", "red_sequence", "template_colours"])
def test_tables_state_their_source(name: str) -> None:
    from astropy.table import Table

    table = Table.read(TABLES / f"{name}.ecsv")
    assert "doi:" in table.meta["source"]
    assert table.colnames == list(load_table(name).dtype.names)
