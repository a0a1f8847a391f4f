"""Stamps of a suite, from the numbers of its objects alone.

Every random number belongs to an object and a component: suites of one seed and realization share
all of them, and differ only where their physics does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datagen.distributions import parse
from datagen.files import Card
from datagen.galaxies import physics
from datagen.galaxies.cluster import Cluster, make_clusters
from datagen.galaxies.galaxy import Galaxy, make_galaxies
from datagen.galaxies.group import Group, make_groups
from datagen.galaxies.history import Epoch, draw_history
from datagen.galaxies.observe import draw_conditions, neighbours, observe
from datagen.galaxies.render import draw
from datagen.galaxies.settings import GalaxySettings
from datagen.galaxies.streams import Array, Numbers, Streams, quantile
from datagen.galaxies.version import XRAY

Thing = Galaxy | Group | Cluster
_MAKERS: dict[str, Callable[[GalaxySettings, Streams, Epoch], Iterator[Thing]]] = {
    "galaxies": make_galaxies,
    "groups": make_groups,
    "clusters": make_clusters,
}


@dataclass(frozen=True)
class Stamp:
    """The image of one object at one time from one direction.

    Args:
        snapshot: Number of the snapshot.
        number: Of the object.
        projection: Of the direction.
        image: (bands, side, side).
        cards: Of each band: PIXSCALE, FWHM, SKYSIGMA.
        labels: What is true of it.
    """

    snapshot: int
    number: int
    projection: int
    image: NDArray[np.float32]
    cards: list[dict[str, Card]]
    labels: dict[str, float]


@dataclass(frozen=True)
class Simulator:
    """Simulates objects of a suite.

    Args:
        settings: The suite.
        seed: Of all streams, >= 0.
        n_projections: Directions from which each object is seen.
    """

    settings: GalaxySettings
    seed: int
    n_projections: int

    @property
    def streams(self) -> Streams:
        """Return the random streams."""
        return Streams(self.seed, self.settings.realization)

    def __call__(self, numbers: Numbers) -> Iterator[Stamp]:
        """Yield all stamps of objects by their numbers, (n,), snapshot by snapshot."""
        for snapshot in sorted(self.settings.snapshots):
            for number, thing in zip(
                numbers.tolist(), self.objects(numbers, snapshot), strict=True
            ):
                for projection in range(self.n_projections):
                    yield self._stamp(thing, snapshot, number, projection)

    def objects(self, numbers: Numbers, snapshot: int) -> Iterator[Thing]:
        """Yield objects by their numbers, (n,), as they are at a snapshot."""
        settings, streams = self.settings, self.streams
        last = max(settings.snapshots)
        earlier = self._age(last) - self._age(snapshot)
        u = streams.uniform(numbers, "redshift", 1)[0]
        epoch = Epoch(
            numbers=numbers,
            z=quantile(parse(settings.snapshots[snapshot]), u),
            z_last=quantile(parse(settings.snapshots[last]), u),
            past=[
                draw_history(settings.mergers, streams, number).before(earlier)
                for number in numbers.tolist()
            ],
        )
        return _MAKERS[settings.kind](settings, streams, epoch)

    def _age(self, snapshot: int) -> float:
        """Return the age of the universe at the median redshift of a snapshot [Gyr]."""
        z = quantile(parse(self.settings.snapshots[snapshot]), np.array([0.5]))
        return float(physics.cosmic_age(z)[0])

    def _stamp(self, thing: Thing, snapshot: int, number: int, projection: int) -> Stamp:
        axes = self.streams.rotation(number, projection)
        rng = self.streams(number, f"noise_{snapshot}_{projection}")
        if isinstance(thing, Cluster):
            image, cards = self._xray(thing, axes, rng)
        else:
            around = self.streams(number, f"survey_{snapshot}_{projection}")
            image, cards = self._optical(thing, axes, around, rng)
        labels = thing.labels(axes) | thing.history.columns()
        return Stamp(snapshot, number, projection, image, cards, labels)

    def _optical(
        self,
        thing: Galaxy | Group,
        axes: Array,
        around: np.random.Generator,
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.float32], list[dict[str, Card]]]:
        imaging, systematics = self.settings.imaging, self.settings.systematics
        scale, bands = self._scale(thing.z), imaging.bands
        seen = draw_conditions(imaging, systematics, around)
        components = list(thing.components(axes))
        if systematics.is_on and systematics.neighbours is not None:
            width = imaging.side * scale
            components += neighbours(systematics.neighbours, bands, width, around)
        image = draw(components, seen.psf, imaging.side, scale, len(bands))
        cards: list[dict[str, Card]] = [
            {"PIXSCALE": scale, "FWHM": seen.fwhm, "SKYSIGMA": float(sigma)} for sigma in seen.sky
        ]
        return observe(image, imaging.gain, seen, rng), cards

    def _xray(
        self, thing: Cluster, axes: Array, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], list[dict[str, Card]]]:
        imaging = self.settings.imaging
        scale = self._scale(thing.z)
        counts = rng.poisson(thing.expected(axes, imaging, scale)).astype(np.float32)
        sigma = float(np.sqrt(imaging.sky[XRAY]))
        return counts[None], [{"PIXSCALE": scale, "FWHM": imaging.fwhm, "SKYSIGMA": sigma}]

    def _scale(self, z: float) -> float:
        """Return the size of a pixel of an object at a redshift [arcsec]."""
        imaging = self.settings.imaging
        if imaging.pixel_scale is not None:
            return imaging.pixel_scale
        assert imaging.pixel_kpc is not None
        return imaging.pixel_kpc * float(physics.arcsec_per_kpc(z))
