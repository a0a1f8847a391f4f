"""What a suite is made of and how stamps are cut from it; the values stand in `conf/suite/*.yaml`.

The classes are not frozen: OmegaConf makes nested frozen classes read-only before it merges values
into them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from astropy.units import Unit, UnitBase

from datagen.checks import check_choice, check_positive, check_range, check_subset
from datagen.errors import ConfigError
from datagen.stamps.cropping import BEYOND
from datagen.stamps.expressions import Expression
from datagen.stamps.names import compiled
from datagen.stamps.version import IDENTITY, MEASURED, PLACE

READERS = ("fits", "hdf5", "npz")
CROPS = ("fraction", "petrosian", "column")
LABEL_KINDS = ("table", "groups")
CATALOGUES = ("Subhalo", "Group")
KEYS = ("snapshot", "object", "projection")
# sky_sigma that is measured in each image.
MEASURE = "measured"
_ALIAS = re.compile(r"[a-z][a-z0-9_]*")


@dataclass
class ColumnSettings:
    """One label.

    Args:
        expression: How it follows from the columns of the table.
        unit: Its unit, as astropy reads it; "" without one.
        text: What it is, for figures.
        range: [low, high]: rows outside, or without a value, are not used; None keeps all.
    """

    expression: str
    unit: str
    text: str
    range: list[float] | None


@dataclass
class LabelSettings:
    """Where labels stand.

    Args:
        kind: `table`: FITS, ECSV or CSV with a row per image or object; `groups`: FoF and SubFind
            groups of a simulation, HDF5, where the number of an object is its row.
        files: Tables below the folder of the suite, as in a shell; of groups the folder that holds
            groups_NNN/.
        table: HDU of FITS tables, None for the first one; of groups `Subhalo` or `Group`.
        keys: snapshot, object, projection -> column (tables only); those that rows do not tell are
            left out.
    """

    kind: str
    files: str
    table: str | None
    keys: dict[str, str]


@dataclass
class CropSettings:
    """What a stamp shows.

    Args:
        kind: What the side of the stamp is a multiple of: `fraction` of the shorter side of the
            image, `petrosian` r90, or a `column` that is a length, an angle or pixels.
        factor: The multiple.
        column: Alias of the label (kind = column).
        band: Band in which sources are found and measured; None for the first one.
        beyond: Where the square reaches beyond the image: `limit` it, or `drop` the image.
    """

    kind: str
    factor: float
    column: str | None
    band: str | None
    beyond: str


@dataclass
class SuiteSettings:
    """One suite: images of one origin, and their labels.

    Numbers that describe an image (pixel_scale, zero_point, fwhm, sky_sigma) are a number, an
    expression of header keywords, or one of these for each band.

    Args:
        name: Of the suite, and of the folder of its stamps.
        folder: Of its files.
        reader: `fits`, `hdf5` or `npz`.
        images: Which files are images, as in a shell, below the folder.
        pattern: What their names say: a preset or a regular expression.
        bands: Band -> where it stands in its file.
        pixel_scale: [arcsec/px].
        zero_point: Magnitude of one unit of the pixels [AB mag]; None where they are no AB flux.
        unit: Of pixels without a zero point.
        fwhm: Of the PSF [arcsec]; None where it is not known.
        sky_sigma: Noise of the sky per pixel, in the unit of the file; `measured`, or None.
        subtract_sky: Whether the median of the sky of each image is subtracted.
        measure: Whether Petrosian sizes are measured where the crop does not need them.
        crop: What a stamp shows.
        labels: Where labels stand; None: there are none.
        columns: Alias -> label.
        fraction: Share of the objects that is taken.
    """

    name: str
    folder: str
    reader: str
    images: str
    pattern: str
    bands: dict[str, str]
    pixel_scale: Any
    zero_point: Any
    unit: str
    fwhm: Any
    sky_sigma: Any
    subtract_sky: bool
    measure: bool
    crop: CropSettings
    labels: LabelSettings | None
    columns: dict[str, ColumnSettings]
    fraction: float

    def __post_init__(self) -> None:
        where = f"suites.{self.name}"
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            _refuse("suite name", self.name, "letters, digits, _, . or -, as names of folders")
        check_choice(f"{where}.reader", self.reader, READERS)
        compiled(self.pattern, f"{where}.pattern")
        if not self.bands or not all(re.fullmatch(r"\w+", band) for band in self.bands):
            _refuse(f"{where}.bands", self.bands, "band: address, names being words")
        check_range(f"{where}.fraction", self.fraction, 0.0, 1.0)
        check_positive(f"{where}.fraction", self.fraction)
        for name in ("pixel_scale", "zero_point", "fwhm", "sky_sigma"):
            self._check_number(f"{where}.{name}", getattr(self, name))
        if self.pixel_scale is None:
            _refuse(f"{where}.pixel_scale", None, "a number or header keyword [arcsec/px]")
        self._check_labels(where)
        self._check_crop(f"{where}.crop")

    def number(self, name: str, band: str) -> Any:  # noqa: ANN401 - number, text or None
        """Return the setting of a number that describes images, for one band."""
        value = getattr(self, name)
        return value[band] if isinstance(value, dict) else value

    def unit_of(self, alias: str) -> UnitBase:
        """Return the unit of a label."""
        return Unit(self.columns[alias].unit)

    def _check_number(self, where: str, value: Any) -> None:  # noqa: ANN401
        if isinstance(value, dict):
            missing = [band for band in self.bands if band not in value]
            if missing:
                _refuse(where, value, f"an entry for each of {', '.join(self.bands)}")
            if None in value.values():
                _refuse(where, value, "a number or an expression for each band, or null for all")
            for band, inner in value.items():
                self._check_number(f"{where}.{band}", inner)
        elif isinstance(value, bool | list):
            _refuse(where, value, "a number or an expression of header keywords")
        elif isinstance(value, str) and value != MEASURE:
            Expression(value, where)
        elif isinstance(value, float) and not math.isfinite(value):
            _refuse(where, value, "a finite number")

    def _check_labels(self, where: str) -> None:
        if self.labels is None:
            if self.columns:
                _refuse(f"{where}.columns", list(self.columns), "{} without labels")
            return
        check_choice(f"{where}.labels.kind", self.labels.kind, LABEL_KINDS)
        if self.labels.kind == "groups":
            check_choice(f"{where}.labels.table", str(self.labels.table), CATALOGUES)
        else:
            check_subset(f"{where}.labels.keys", list(self.labels.keys), KEYS)
            if "object" not in self.labels.keys:
                _refuse(f"{where}.labels.keys", self.labels.keys, "keys with object: a column")
        taken = {name.lower() for name in (*IDENTITY, *MEASURED, *PLACE)}
        taken |= {f"{name}_{band}".lower() for name in ("fwhm", "skysigma") for band in self.bands}
        for alias in self.columns:
            if not _ALIAS.fullmatch(alias) or alias in taken:
                allowed = f"small letters, digits and _, and none of {', '.join(sorted(taken))}"
                _refuse(f"names of {where}.columns", alias, allowed)
            self._check_column(f"{where}.columns.{alias}", alias)

    def _check_column(self, where: str, alias: str) -> None:
        column = self.columns[alias]
        Expression(column.expression, f"{where}.expression")
        try:
            self.unit_of(alias)
        except ValueError:
            _refuse(f"{where}.unit", column.unit, "a unit as astropy reads it, such as kpc, or ''")
        limits = column.range
        if limits is not None and not (len(limits) == 2 and limits[0] < limits[1]):
            _refuse(f"{where}.range", limits, "[low, high], or null")

    def _check_crop(self, where: str) -> None:
        crop = self.crop
        check_choice(f"{where}.kind", crop.kind, CROPS)
        check_positive(f"{where}.factor", crop.factor)
        check_choice(f"{where}.beyond", crop.beyond, BEYOND)
        if crop.kind == "fraction" and crop.factor > 1:
            _refuse(f"{where}.factor", crop.factor, "<= 1 with kind = fraction")
        if crop.band is not None:
            check_choice(f"{where}.band", crop.band, list(self.bands))
        if crop.kind != "column":
            return
        if crop.column not in self.columns:
            _refuse(f"{where}.column", crop.column, f"one of {', '.join(self.columns) or 'none'}")
        kind = self.unit_of(str(crop.column)).physical_type
        if not {"length", "angle"} & set(kind) and self.columns[str(crop.column)].unit != "pixel":
            _refuse(f"{where}.column", crop.column, "a length, an angle, or in pixel")
        if "length" in kind and "redshift" not in self.columns:
            _refuse(f"{where}.column", crop.column, "an angle, or columns to have redshift as well")


def _refuse(name: str, value: object, allowed: str) -> None:
    raise ConfigError(f"expected {name} to be {allowed}, but got {value!r}", value, allowed)
