"""The work of `data_gen=stamps`: one job per file of stamps, and a report of the suite."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.errors import DataFormatError
from datagen.files import Card
from datagen.pipeline import Job, Phase
from datagen.stamps import format as files
from datagen.stamps.config import StampsConfig
from datagen.stamps.drops import Drop, DroppedError
from datagen.stamps.extract import Stamp, make_stamp
from datagen.stamps.names import Image
from datagen.stamps.plan import Plan, make_plan
from datagen.stamps.report import write_report
from datagen.version import VERSION

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lot:
    """The images of one file of stamps.

    Args:
        number: Of the file.
        images: What becomes stamps.
        labels: Alias -> values, one per image.
    """

    number: int
    images: list[Image]
    labels: dict[str, NDArray[np.float64]]


def build_phases(config: StampsConfig) -> list[Phase]:
    """Return a phase that makes stamps and one that tells what became of all images.

    Raises:
        DataNotFoundError: There are no images or labels.
        DataFormatError: No image can be labelled, or a table is damaged.
    """
    plan = make_plan(config)
    if not plan.images:
        reasons = sorted({f"{drop.file}: {drop.reason}" for drop in plan.drops})[:1]
        raise DataFormatError(
            f"expected suite {config.suite.name} to have images with labels, but got none of "
            f"{len(plan.drops)}; {''.join(reasons)}",
            len(plan.drops),
        )
    lots = _lots(config, plan)
    log.info(
        "suite %s: %d images in %d file(s) of stamps, %d images or rows are left out",
        config.suite.name,
        len(plan.images),
        len(lots),
        len(plan.drops),
    )
    jobs = tuple(_job(config, lot) for lot in lots)
    folder = Path(config.data_dir)
    current = {path for job in jobs for path in job.outputs}
    there = (path for kind in ("stamps", "truth") for path in (folder / kind).glob("stamps_*"))
    stale = tuple(sorted(path for path in there if path not in current))
    # Each shard gathers what is there; the last one to finish finds all files.
    outputs = (folder / "report.json", folder / "drops.ecsv")
    run = partial(write_report, config, plan, [lot.number for lot in lots])
    index = config.shard[0]
    report = Job("report", outputs, run, index, config.seed, is_gathering=True)
    return [Phase("stamps", jobs, stale), Phase("report", (report,))]


def _lots(config: StampsConfig, plan: Plan) -> list[Lot]:
    n = config.n_stamps_per_file
    starts = range(0, len(plan.images), n)[: config.nfiles]
    return [
        Lot(
            number,
            plan.images[start : start + n],
            {alias: values[start : start + n] for alias, values in plan.labels.items()},
        )
        for number, start in enumerate(starts)
    ]


def _job(config: StampsConfig, lot: Lot) -> Job:
    folder = Path(config.data_dir)
    outputs = files.truth_path(folder, lot.number), files.stamps_path(folder, lot.number)
    return Job(
        f"suite {config.suite.name}, stamps_{lot.number:06d}",
        outputs,
        partial(make_file, config, lot),
        lot.number,
        config.seed,
        inputs=_inputs(lot),
        may_fail=True,
    )


def _inputs(lot: Lot) -> str:
    """Return a hash of the labels, and of names, sizes and times of the files of a lot."""
    digest = hashlib.sha256()
    for image in lot.images:
        for band, path in image.files.items():
            stat = path.stat()
            digest.update(f"{image.name} {band} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    for alias, values in lot.labels.items():
        digest.update(alias.encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]


def make_file(config: StampsConfig, lot: Lot) -> None:
    """Make the stamps of a lot and write them with their labels.

    Raises:
        DataFormatError: None of the images can be used; nothing is written.
    """
    drops: list[Drop] = []
    made: list[tuple[Image, Stamp]] = []
    rows: list[int] = []
    for k, image in enumerate(lot.images):
        labels = {alias: float(values[k]) for alias, values in lot.labels.items()}
        try:
            stamp = make_stamp(config.suite, config.bands, config.image.store_px, image, labels)
        except DroppedError as error:
            drops.append(Drop(image.name, str(error.value), str(error)))
            continue
        made.append((image, stamp))
        rows.append(k)
    if not made:
        raise DataFormatError(
            f"none of {len(lot.images)} images can be used; {drops[0].file}: {drops[0].reason}",
            drops[0].kind,
        )
    folder, suite = Path(config.data_dir), config.suite
    columns = _columns(suite.name, made) | {a: values[rows] for a, values in lot.labels.items()}
    units = {alias: column.unit for alias, column in suite.columns.items()}
    path = files.truth_path(folder, lot.number)
    files.write_labels(path, columns, units, _meta(config), drops)
    pixels = np.stack([stamp.pixels for _, stamp in made])
    files.write_stamps(files.stamps_path(folder, lot.number), pixels)


def _columns(suite: str, made: list[tuple[Image, Stamp]]) -> dict[str, Any]:
    """Return the columns of stamps that are no labels."""
    identities = [image.identity for image, _ in made]
    return {
        "SUITE": [suite] * len(made),
        "SNAPSHOT": np.array([identity.snapshot for identity in identities], np.int64),
        "OBJECT": np.array([identity.object for identity in identities], np.int64),
        "PROJECTION": np.array([identity.projection for identity in identities], np.int64),
        "FILE": [image.name for image, _ in made],
        **{name: np.array([stamp.row[name] for _, stamp in made]) for name in made[0][1].row},
    }


def _meta(config: StampsConfig) -> dict[str, Card | tuple[Card, str]]:
    """Return the header of a truth file: what its stamps have in common."""
    suite = config.suite
    meta: dict[str, Card | tuple[Card, str]] = {
        "SUITE": suite.name,
        "BANDS": (",".join(config.bands), "planes of a stamp"),
        "SIDE": (config.image.store_px, "side of a stamp [px]"),
        "UNIT": (suite.unit, "of pixels"),
        "CROP": (suite.crop.kind, "what the side is a multiple of"),
        "SEED": config.seed,
        "CONFHASH": config.content_hash(),
        "VERSION": VERSION,
    }
    if suite.zero_point is not None:
        meta |= {"UNIT": ("nanomaggy", "of pixels"), "ZEROPT": (files.ZERO_POINT, "[AB mag]")}
    return meta
