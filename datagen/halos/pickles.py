"""The work of `data_gen=halos_pickles`: one job per pickle of a public simulation of clusters.

A pickle holds a pair: labels by name, and maps (n, channels, side, side), channels first or last.
Bahamas-SIDM and Darkskies are published in this form (arXiv:2511.09660).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.errors import DataFormatError, DataNotFoundError, SkyfoldError
from datagen.files import Card, sha256_file
from datagen.halos import format as files
from datagen.halos.pickle_labels import (
    STRIDE,
    Simulation,
    array_of,
    clusters,
    is_matched,
    projections,
)
from datagen.halos.pickles_config import HalosPicklesConfig
from datagen.halos.unpickling import read_pickle
from datagen.pipeline import Job, Phase
from datagen.version import VERSION

# Maps that are converted at once.
BLOCK = 256
# Labels of single maps that are kept: name in a pickle -> column.
KEPT = {"BCG_e1": "BCG_E1", "BCG_e2": "BCG_E2", "xrayConc": "XRAY_CONC"}


def build_phases(config: HalosPicklesConfig) -> list[Phase]:
    """Return the only phase.

    Raises:
        DataNotFoundError: There are no pickles.
    """
    folder = Path(config.pickles_dir)
    there = sorted(path for path in folder.glob(config.pattern) if path.is_file())
    if not there:
        raise DataNotFoundError(
            f"data_gen.pickles_dir = {folder} holds no files {config.pattern} (data_gen.pattern)",
            str(folder),
        )
    jobs = [_job(config, path, number) for number, path in enumerate(there[: config.nfiles])]
    kinds = ((Path(config.data_dir) / name).glob("halos_*") for name in ("maps", "truth"))
    wanted = {path for number in range(len(there)) for path in _outputs(config, number)}
    stale = tuple(sorted(path for found in kinds for path in found if path not in wanted))
    return [Phase("pickles", tuple(jobs), stale)]


def _outputs(config: HalosPicklesConfig, number: int) -> tuple[Path, Path]:
    folder = Path(config.data_dir)
    return files.truth_path(folder, number), files.maps_path(folder, number)


def _job(config: HalosPicklesConfig, path: Path, number: int) -> Job:
    return Job(
        f"pickle {path.name}",
        _outputs(config, number),
        partial(convert, config, path, number),
        number,
        config.seed,
        inputs=sha256_file(path),
        may_fail=True,
    )


def convert(config: HalosPicklesConfig, path: Path, number: int) -> None:
    """Write the maps of one pickle and their truth.

    Raises:
        DataFormatError: The pickle is refused or damaged, or its labels or maps are wrong; nothing
            is written.
    """
    try:
        simulation = read_simulation(path)
        columns = truth_columns(simulation, config, number)
        maps = physical_maps(simulation, config)
    except SkyfoldError:
        raise
    except (MemoryError, OverflowError, TypeError, ValueError) as error:
        # Whatever else numpy makes of strange values: this pickle fails, the others go on.
        reason = (str(error).splitlines() or [""])[0][:200]
        raise DataFormatError(
            f"{path}: expected labels and maps that can be converted, but got "
            f"{type(error).__name__}: {reason}",
            str(path),
        ) from error
    truth, images = _outputs(config, number)
    files.write_truth(truth, columns, _meta(simulation, config))
    files.write_maps(images, maps)


def read_simulation(path: Path) -> Simulation:
    """Read a pickle: labels and maps in either order, channels first or last.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is refused, damaged, or holds something else.
    """
    found = read_pickle(path)
    pair = list(found) if isinstance(found, tuple | list) else [found]
    # Labels first.
    pair.sort(key=lambda item: not isinstance(item, dict))
    if [type(item) for item in pair] != [dict, np.ndarray]:
        kinds = ", ".join(type(item).__name__ for item in pair[:5])
        raise DataFormatError(
            f"{path}: expected a pair of labels (a dict) and maps (an array), but got {kinds}",
            kinds,
        )
    labels, images = pair
    if not all(isinstance(name, str) for name in labels):
        raise DataFormatError(
            f"{path}: expected labels whose names are text, but some are numbers", None, "text"
        )
    if images.dtype.kind not in "iuf" or images.ndim != 4 or 0 in images.shape:
        raise _shape_error(path, images)
    if images.shape[2] == images.shape[3]:
        return Simulation(path, labels, images)
    if images.shape[1] != images.shape[2]:
        raise _shape_error(path, images)
    return Simulation(path, labels, np.moveaxis(images, -1, 1))


def truth_columns(
    simulation: Simulation, config: HalosPicklesConfig, number: int
) -> dict[str, NDArray[Any]]:
    """Return the truth of the maps of one pickle, a row per map.

    Args:
        simulation: The pickle.
        config: The settings.
        number: Number of the file, which sets its numbers of maps apart from those of others.

    Raises:
        DataFormatError: A label is missing or wrong; the message names it and the first bad map.
    """
    if len(simulation) > STRIDE:
        raise simulation.error("maps", f"at most {STRIDE}", len(simulation))
    cross_section, mass = simulation.numbers("label"), simulation.numbers("mass")
    redshift = simulation.numbers("redshift")
    # NaN is a cross-section that is not known.
    simulation.check(
        "label", cross_section, ~((cross_section < 0) | np.isinf(cross_section)), "sigma/m >= 0"
    )
    simulation.check("mass", mass, np.isfinite(mass) & (mass > 0), "masses > 0")
    simulation.check(
        "redshift", redshift, np.isfinite(redshift) & (redshift >= 0), "redshifts >= 0"
    )
    cluster = clusters(simulation, config, mass, redshift, number)
    return {
        "INDEX": number * STRIDE + np.arange(len(simulation)),
        "CLUSTER": cluster,
        "PROJECTION": projections(simulation, cluster),
        "CROSS_SECTION": cross_section,
        "M200": mass * config.mass_factor,
        "REDSHIFT": redshift,
        **{column: simulation.numbers(name)
           for name, column in KEPT.items() if name in simulation.labels},
    }  # fmt: skip


def physical_maps(simulation: Simulation, config: HalosPicklesConfig) -> NDArray[np.float32]:
    """Return the maps of the selected channels in their units (n, C, side, side).

    Raises:
        DataFormatError: A pixel is negative or not finite, or no single precision can hold it; the
            message names the first such map.
    """
    images = simulation.images
    planes = config.planes.get(images.shape[1])
    if planes is None:
        allowed = f"{', '.join(map(str, config.planes))} channels (data_gen.planes)"
        raise simulation.error("maps", allowed, images.shape[1])
    scale = np.array([config.factors[channel] for channel in config.channels])
    scale = scale * (_norms(simulation)[:, planes] if config.norms == "multiply" else 1.0)
    scale = np.broadcast_to(scale, (len(images), len(planes)))
    maps = np.empty((len(images), len(planes), *images.shape[2:]), np.float32)
    for first in range(0, len(images), BLOCK):
        rows = slice(first, first + BLOCK)
        exact = images[rows][:, planes] * scale[rows, :, None, None]
        with np.errstate(over="ignore"):
            maps[rows] = exact
        _check_maps(simulation, config, first, exact, maps[rows])
    return maps


def _norms(simulation: Simulation) -> NDArray[np.float64]:
    """Return the norms of all channels (n, channels)."""
    shape = simulation.images.shape[:2]
    if "norms" not in simulation.labels:
        raise simulation.error(
            "norms", "a label, by which maps were divided", "none; data_gen.norms=ignore keeps them"
        )
    norms = array_of(simulation.labels["norms"])
    if norms.dtype.kind not in "iuf" or norms.shape != shape:
        raise simulation.error("norms", f"numbers of shape {shape}", f"{norms.dtype} {norms.shape}")
    is_fine = np.isfinite(norms) & (norms > 0)
    simulation.check("norms", norms, np.asarray(is_fine.all(axis=1)), "numbers > 0")
    return norms.astype(np.float64)


def _check_maps(
    simulation: Simulation,
    config: HalosPicklesConfig,
    first: int,
    exact: NDArray[np.float64],
    maps: NDArray[np.float32],
) -> None:
    """Raise `DataFormatError` at the first map with wrong pixels; there are none in most blocks."""
    lost = (exact.max(axis=(2, 3)) > 0) & (maps.max(axis=(2, 3)) == 0)
    if np.isfinite(maps).all() and (exact >= 0).all() and not lost.any():
        return
    is_wrong = ~np.isfinite(maps).all(axis=(2, 3)) | (exact < 0).any(axis=(2, 3)) | lost
    row, channel = np.argwhere(is_wrong)[0]
    pixels, name = exact[row, channel], config.channels[channel]
    got = f"{pixels.min():g} to {pixels.max():g}"
    if np.isfinite(pixels).all() and (pixels >= 0).all():
        got += f", which single precision cannot hold; set data_gen.factors.{name} and its unit"
    raise simulation.error(f"map {first + row}, {name}", "finite pixels >= 0", got)


def _meta(simulation: Simulation, config: HalosPicklesConfig) -> dict[str, Any]:
    """Return the header of the truth of one pickle."""
    cards: dict[str, Card | tuple[Card, str]] = {
        "SUITE": config.suite,
        "CHANNELS": (",".join(config.channels), "planes of a map"),
        **{f"UNIT_{k}": config.units[name] for k, name in enumerate(config.channels)},
        "SIDE": (simulation.images.shape[-1], "side of a map [px]"),
        "PIXSCALE": (config.pixel_scale, "[kpc/px]"),
        "DEPTH": (config.depth, "length of the line of sight [kpc]"),
        "ENGINE": "pickle",
        "SEED": (config.identity, "equal for equal initial conditions"),
        "MATCHED": (is_matched(simulation, config), "halos keep their CLUSTER in all files"),
        "SOURCE": (_printable(simulation.path.name), "the pickle"),
        "NAME": (_printable(simulation.labels.get("name")), "of the simulation"),
        "CONFHASH": config.content_hash(),
        "VERSION": VERSION,
    }
    return cards


def _printable(text: object) -> str:
    """Return text as a FITS header can hold it, empty for anything else."""
    return ascii(text)[1:-1][:60] if isinstance(text, str) else ""


def _shape_error(path: Path, images: NDArray[Any]) -> DataFormatError:
    allowed = "numbers of shape (n, channels, side, side) or (n, side, side, channels)"
    return DataFormatError(
        f"{path}, maps: expected {allowed}, but got {images.dtype} of shape {images.shape}",
        images.shape,
        allowed,
    )
