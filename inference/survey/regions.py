"""Region files that DS9 and Aladin show.

Both read the format of DS9 (https://ds9.si.edu/doc/ref/region.html). Aladin takes each line apart
at semicolons, knows frames only in a line of their own, and takes a first coordinate that does not
begin with a digit for the name of a frame (`CommandDS9.java` of github.com/cds-astro/aladin).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_HEADER = "# Region file format: DS9 version 4.1\nglobal color=green\nicrs\n"


def region_file(shapes: Iterable[str]) -> str:
    """Return the text of a region file."""
    return _HEADER + "".join(f"{shape}\n" for shape in shapes)


def circle(ra: float, dec: float, radius_arcsec: float, text: str) -> str:
    """Return a circle on the sky; ra and dec [deg, ICRS]."""
    return f'circle({_degrees([ra], [dec])},{radius_arcsec:.2f}") # text={{{_plain(text)}}}'


def polygon(ra: Iterable[float], dec: Iterable[float], text: str) -> str:
    """Return a polygon on the sky; ra and dec [deg, ICRS] of its corners."""
    return f"polygon({_degrees(ra, dec)}) # text={{{_plain(text)}}}"


def _degrees(ra: Iterable[float], dec: Iterable[float]) -> str:
    # Rounding can make 360 of what is a little less; minus zero would begin with a sign.
    return ",".join(
        f"{abs(round(a % 360, 7) % 360):.7f},{d:.7f}" for a, d in zip(ra, dec, strict=True)
    )


def _plain(text: str) -> str:
    """Return a text without what ends a text or a line there."""
    return re.sub(r"[{};\n]", "_", text)
