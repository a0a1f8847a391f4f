"""How fast stamps of galaxies are simulated, against drawing each band of each component.

`python benchmarks/galaxies.py` prints objects per CPU-second on one core: of drawing, where the
PSF-convolved components of unit flux are combined over bands, and where each band of each component
is drawn on its own; of the whole `data_gen=galaxies` with noise, labels and files.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import galsim
import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from datagen.galaxies.config import GalaxiesConfig
from datagen.galaxies.galaxy import Galaxy
from datagen.galaxies.jobs import make_file
from datagen.galaxies.render import Component, draw, moffat
from datagen.galaxies.settings import GalaxySettings, galaxy_settings
from datagen.galaxies.simulate import Simulator

Array = NDArray[np.float64]
SNAPSHOT = 84


def main() -> None:
    """Draw both ways, simulate, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n-objects", type=int, default=60)
    parser.add_argument("--side", type=int, default=64, help="of a stamp [px]")
    parser.add_argument("--suite", default="a")
    options = parser.parse_args()
    settings = suite(options.suite, {"imaging": {"side": options.side}})
    scenes = list(_scenes(settings, options.n_objects))
    both = [_rate(way, settings, scenes) for way in (combined, separate)]
    files = whole_rate(settings, options.n_objects)
    print(f"galaxy={options.suite}, {len(settings.imaging.bands)} bands of {options.side}^2 px")
    print(f"{'combined over bands':32} {both[0]:8.1f} objects per CPU-s")
    print(f"{'each band of each component':32} {both[1]:8.1f} objects per CPU-s")
    print(f"{'ratio':32} {both[0] / both[1]:8.2f}")
    print(f"{'data_gen=galaxies, with files':32} {files:8.1f} objects per CPU-s")


def suite(name: str, changes: Mapping[str, Any] | None = None) -> GalaxySettings:
    """Return a suite of `conf/galaxy` with changes."""
    folder = Path(__file__).resolve().parents[1] / "conf" / "galaxy"
    nodes: list[Any] = [OmegaConf.load(folder / f"{stem}.yaml") for stem in ("a", name)]
    for node in nodes:
        node.pop("defaults", None)
    replaced = dict(changes or {})
    snapshots = replaced.pop("snapshots", None)
    values: Any = OmegaConf.to_container(OmegaConf.merge(*nodes, replaced))
    if snapshots is not None:
        values["snapshots"] = snapshots
    return galaxy_settings(values)


def combined(settings: GalaxySettings, parts: list[Component]) -> Array:
    """Draw as `data_gen=galaxies` does, (bands, side, side)."""
    imaging = settings.imaging
    assert imaging.pixel_scale is not None
    psf = moffat(imaging.fwhm, imaging.moffat)
    return draw(parts, psf, imaging.side, imaging.pixel_scale, len(imaging.bands))


def separate(settings: GalaxySettings, parts: list[Component]) -> Array:
    """Draw each band of each component on its own, (bands, side, side)."""
    imaging = settings.imaging
    assert imaging.pixel_scale is not None
    psf = moffat(imaging.fwhm, imaging.moffat)
    image = np.zeros((len(imaging.bands), imaging.side, imaging.side))
    for band, plane in enumerate(image):
        for part in parts:
            whole = part.profile.shift(*part.place) * float(part.fluxes[band])
            stamp = galsim.ImageD(imaging.side, imaging.side)
            seen = galsim.Convolve([whole, psf])
            plane += seen.drawImage(stamp, scale=imaging.pixel_scale).array
    return image


def whole_rate(settings: GalaxySettings, n_objects: int) -> float:
    """Return objects per CPU-second of a job with all its files."""
    with tempfile.TemporaryDirectory() as folder:
        config = GalaxiesConfig(
            folder, 1, 0, 1, "sequential", [0, 1], False, n_objects, 1, settings
        )
        start = time.process_time()
        make_file(config, 0)
        return n_objects / (time.process_time() - start)


def _scenes(settings: GalaxySettings, n_objects: int) -> Iterator[list[Component]]:
    """Yield what is drawn of each galaxy."""
    simulator = Simulator(settings, 0, 1)
    for number, thing in enumerate(simulator.objects(np.arange(n_objects), SNAPSHOT)):
        assert isinstance(thing, Galaxy)
        yield list(thing.components(simulator.streams.rotation(number, 0)))


def _rate(
    way: Callable[[GalaxySettings, list[Component]], Array],
    settings: GalaxySettings,
    scenes: list[list[Component]],
) -> float:
    """Return objects per CPU-second."""
    way(settings, scenes[0])
    start = time.process_time()
    for parts in scenes:
        way(settings, parts)
    return len(scenes) / (time.process_time() - start)


if __name__ == "__main__":
    main()
