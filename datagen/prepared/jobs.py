"""The work of `data_gen=prepared`: one job that reads the labels of all suites."""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from datagen.files import Card, atomic_path, sha256_file, write_json, write_text
from datagen.pipeline import Job, Phase
from datagen.prepared import format as files
from datagen.prepared.config import PreparedConfig
from datagen.prepared.manifest import build_manifest
from datagen.prepared.prepare import prepare
from datagen.prepared.reading import find_suites, read_planes, read_suite, truth_files
from datagen.prepared.report import report
from datagen.prepared.scaling import fit_labels, frame_noise, sky_noise
from datagen.prepared.tables import fields, numbers
from datagen.version import VERSION

log = logging.getLogger(__name__)


def build_phases(config: PreparedConfig) -> list[Phase]:
    """Return the only job.

    Raises:
        DataNotFoundError: There are no stamps, or none of a suite.
        ConfigError: A setting names a suite that is not prepared.
    """
    stamps, folder = Path(config.stamps_dir), Path(config.data_dir)
    suites = find_suites(stamps, config.suites)
    config.check_suites(suites)
    inputs = hashlib.sha256()
    for suite in suites:
        for path in truth_files(stamps, suite, config.nfiles):
            inputs.update(f"{suite}/{path.name} {sha256_file(path)}\n".encode())
    outputs = tuple(folder / name for name in files.NAMES)
    run = partial(make_files, config, suites)
    return [Phase("prepared", (Job("prepared", outputs, run, 0, config.seed, False,
                                   inputs.hexdigest()),))]  # fmt: skip


def make_files(config: PreparedConfig, names: list[str]) -> None:
    """Prepare suites and write all files.

    Args:
        config: The settings.
        names: Of the suites.

    Raises:
        ConfigError: Suites do not fit each other or the settings, or a suite or split is empty.
        DataFormatError: Files are damaged, or labels of suites do not fit each other.
    """
    folder = Path(config.data_dir)
    suites = [read_suite(Path(config.stamps_dir), name, config.nfiles) for name in names]
    prepared = prepare(suites, config)
    train = prepared.table[np.asarray(prepared.table["SPLIT"]) == "train"]
    scaler = {
        "format_version": files.FORMAT_VERSION,
        "config_hash": config.content_hash(),
        "labels": fit_labels(train, fields(train)),
        "stretch": fit_stretch(config, train, str(suites[0].header["UNIT"])),
    }
    manifest = build_manifest(config, suites, prepared, scaler)
    text = report(manifest)
    meta: dict[str, Card | tuple[Card, str]] = {
        "SUITES": (",".join(names), "suites"),
        "SPLITBY": (config.split.by, "what stays together"),
        "CONFHASH": config.content_hash(),
        "VERSION": VERSION,
    }
    files.write_prepared(folder, prepared.table, meta)
    with atomic_path(folder / "drops.ecsv") as temporary:
        prepared.drops.write(temporary, format="ascii.ecsv", overwrite=True)
    write_json(files.scaler_path(folder), scaler)
    write_json(folder / "manifest.json", manifest)
    write_text(folder / "report.md", text)
    log.info("%d stamps are ready: see %s", len(prepared.table), folder / "report.md")


def fit_stretch(config: PreparedConfig, train: Table, unit: str) -> dict[str, Any]:
    """Return how pixels are stretched: asinh(pixel / softening), the same in all bands.

    Args:
        config: The settings.
        train: Rows of the training split.
        unit: Of the pixels.

    Raises:
        ConfigError: The noise of the sky is 0 or unknown.
    """
    wanted = config.stretch
    result = {"kind": "asinh", "unit": unit}
    if wanted.softening is not None:
        return result | {"softening": wanted.softening, "reason": "as data_gen.stretch says"}
    rows = train
    if wanted.suite is not None:
        rows = train[np.asarray(train["SUITE"]) == wanted.suite]
    sigmas = numbers(rows, "SKYSIGMA") if "SKYSIGMA" in rows.colnames else np.zeros(0)
    how = "SKYSIGMA"
    if not np.isfinite(sigmas).any() and len(rows):
        chosen = np.unique(np.linspace(0, len(rows) - 1, wanted.n_stamps).round().astype(int))
        sigmas = frame_noise(read_planes(Path(config.stamps_dir), rows[chosen]))
        how = "noise in the frame, first band,"
    noise, n = sky_noise(sigmas)
    reason = f"{wanted.sigmas:g} x the median {how} of {n} stamps"
    return result | {"softening": wanted.sigmas * noise, "sky_noise": noise, "reason": reason}
