"""Catalogues and their matches in the form in which ClEvaR stores them.

Facts of the format, from github.com/LSSTDESC/clevar (`clevar/catalog/catalog.py`, `tagdata.py`,
`clevar/utils.py`, `clevar/match/parent.py`; the same since version 0.13):

- A catalogue is a FITS table. NAME in its header names it, TAG_<what> the column that holds what,
  LABEL_<what> how plots call it. With these `ClCatalog.read_full(file)` needs nothing else;
  `ClCatalog.read(file, name, tags={...})` takes only the columns that its tags name.
- ClEvaR multiplies `ra` and `dec` by degrees: the columns must have no unit.
- Match columns hold identifiers of the other catalogue, an empty string for none. `mt_self` is whom
  an object chose, `mt_other` who chose it, `mt_cross` both if they are the same; `mt_multi_self`
  and `mt_multi_other` list all within reach, separated by commas.
- `ft_other` says which objects lie in the footprint of the other catalogue.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from inference.survey.matching import Pairs, SkyCatalog, unique_match
from inference.survey.references import ReferenceCatalog

_TAGS = ("id", "ra", "dec", "z", "mass")


@dataclass(frozen=True)
class Side:
    """One of two matched catalogues.

    Args:
        name: What it is called.
        ids: Identifiers, shape (n,).
        sky: What is matched.
        mass: What stands for the mass in ClEvaR, shape (n,).
        mass_label: What that is.
    """

    name: str
    ids: NDArray[np.str_]
    sky: SkyCatalog
    mass: NDArray[np.float64]
    mass_label: str

    @classmethod
    def of_candidates(cls, table: Table, sky: SkyCatalog) -> Side:
        """Return candidates; their richness stands for the mass, or the score if there is none."""
        mass, label = sky.mass, "score"
        if "richness" in table.colnames and np.isfinite(table["richness"]).all():
            mass, label = np.asarray(table["richness"], np.float64), "richness"
        return cls("candidates", np.asarray(table["id"]).astype(str), sky, mass, label)

    @classmethod
    def of_reference(cls, reference: ReferenceCatalog) -> Side:
        """Return reference clusters; their richness stands for the mass."""
        place = (reference.ids, reference.sky)
        return cls("reference", *place, reference.richness, "richness")


def matched_tables(first: Side, second: Side, pairs: Pairs, preference: str) -> tuple[Table, Table]:
    """Return both catalogues with their matches.

    Args:
        first: A catalogue.
        second: Another one.
        pairs: What `multiple_match` gave for them.
        preference: Which partner wins, see `unique_match`.
    """
    mirrored = Pairs(pairs.second, pairs.first, pairs.separation)
    chosen = unique_match(pairs, first.sky, second.sky, preference)
    answered = unique_match(mirrored, second.sky, first.sky, preference)
    return (
        _table(first, second.ids, pairs, (chosen, answered)),
        _table(second, first.ids, mirrored, (answered, chosen)),
    )


def to_fits(table: Table) -> bytes:
    """Return a table as the bytes of a FITS file; equal tables give equal bytes."""
    buffer = io.BytesIO()
    table.write(buffer, format="fits")
    return buffer.getvalue()


def _table(
    mine: Side,
    others: NDArray[np.str_],
    pairs: Pairs,
    choices: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> Table:
    """Return a catalogue with its matches.

    Args:
        mine: The catalogue.
        others: Identifiers of the other one.
        pairs: All pairs within reach, mine first.
        choices: Rows that mine chose of the others, and the others of mine; -1 for none.
    """
    chosen, answered = choices
    chooser = np.full(len(mine.ids), -1)
    rows = np.flatnonzero(answered >= 0)
    chooser[answered[rows]] = rows
    reach: list[list[str]] = [[] for _ in mine.ids]
    for i, j in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
        reach[i].append(str(others[j]))
    table = Table({"id": mine.ids, "ra": mine.sky.ra, "dec": mine.sky.dec})
    table["z"], table["mass"] = mine.sky.redshift, mine.mass
    table["mt_self"] = _names(others, chosen)
    table["mt_other"] = _names(others, chooser)
    table["mt_cross"] = _names(others, np.where(chosen == chooser, chosen, -1))
    # Both sides have one radius: whom an object reaches is reached by it.
    table["mt_multi_self"] = table["mt_multi_other"] = _text([",".join(names) for names in reach])
    table.meta["NAME"] = mine.name
    table.meta |= {f"HIERARCH TAG_{name}": name for name in _TAGS}
    table.meta["HIERARCH LABEL_mass"] = mine.mass_label
    return table


def _names(ids: NDArray[np.str_], rows: NDArray[np.int64]) -> NDArray[np.str_]:
    """Return the identifiers of rows, empty for -1."""
    return _text([str(ids[row]) if row >= 0 else "" for row in rows])


def _text(values: Sequence[str]) -> NDArray[np.str_]:
    # An empty list would become a column of numbers.
    return np.array(values, str)
