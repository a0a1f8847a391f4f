"""How good is the membership encoder: against a classical baseline and an oracle, on test fields.

Usage: python benchmarks/membership.py [--data-dir data/fields] [--checkpoint outputs/...]

Every method scores the cells of the same held-out fields. The baseline is a smoothed density of
red-sequence galaxies from a detection catalogue, its settings chosen on the validation fields. The
oracle is the same density from the true catalogue with true redshifts. Intervals are from a
bootstrap over fields, because cells of one field are not independent. Of the encoder's scores,
redshifts and richnesses it also says how good they are before and after the calibration on the
validation fields.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import default_collate

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from datagen.errors import CheckpointError, ConfigError, DataNotFoundError, SkyfoldError
from datagen.fields.format import catalog_path, read_catalog, read_file_data
from datagen.files import write_json
from encoders.checkpoint import load_checkpoint
from encoders.data import split_names
from encoders.fields import red_sequence
from encoders.fields.data import FieldsDataset, MapCache, index_file
from encoders.fields.detection import detect_sources
from encoders.fields.normalize import estimate_background

Array = NDArray[np.float64]
N_BOOTSTRAP = 1000
N_THREADS = 2
# The colours of the red sequence are g-r, r-i, i-z, and i decides which galaxies are bright.
RED_SEQUENCE_BANDS = ("g", "r", "i", "z")
USER_ERROR = 2
# Of the encoder, before and after its calibration.
FIGURES = (
    "calibration_error",
    *("redshift_bias", "redshift_nmad", "redshift_within_error"),
    *("richness_bias", "richness_scatter", "richness_within_error"),
)
CACHE_BYTES = 4e9


@dataclass(frozen=True)
class Field:
    """One field with its labels.

    Args:
        images: Counts (bands, H, W).
        meta: What the simulator noted.
        membership: True labels (ny, nx).
        is_counted: Cells that count (ny, nx).
        index: Number of the field's source catalogue.
    """

    images: NDArray[np.float32]
    meta: dict[str, Any]
    membership: NDArray[np.bool_]
    is_counted: NDArray[np.bool_]
    index: int


def main() -> None:
    """Compare, print a table, write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", type=Path, default=Path("data/fields"))
    parser.add_argument("--checkpoint", type=Path, default=Path("outputs/membership/best.ckpt"))
    parser.add_argument("--output", type=Path, default=Path("outputs/membership/comparison.json"))
    options = parser.parse_args()
    # Fields are small: more threads wait for each other longer than they save.
    torch.set_num_threads(1)
    try:
        result = compare(options.data_dir, options.checkpoint)
        write_json(options.output, result)
    except SkyfoldError as error:
        sys.stderr.write(f"skyfold: {error}\n")
        sys.exit(USER_ERROR)
    print(table(result))
    print(f"written to {options.output}")


def compare(data_dir: Path, checkpoint: Path) -> dict[str, Any]:
    """Score the test fields with all three methods.

    Args:
        data_dir: Folder of `data_gen=fields`.
        checkpoint: Encoder that was trained on it; it knows its splits.

    Returns:
        Plain values: average precision of each method with a 95 % interval, differences, counts.

    Raises:
        CheckpointError: The checkpoint is damaged or does not say how it split its files.
        ConfigError: The files are not of fields or lack a band, or none is left for the test.
        DataNotFoundError: There is no checkpoint, or there are no files.
    """
    module = load_checkpoint(checkpoint, "membership")
    card: dict[str, Any] = module.hparams["card"]
    found = split_files(data_dir, card)
    val, test = (read_fields(data_dir, found[split]) for split in ("val", "test"))
    for field in (*val, *test):
        channels(field, RED_SEQUENCE_BANDS)
    scores = {"encoder": [encoder_scores(module, field, card["bands"]) for field in test]}
    with ThreadPoolExecutor(N_THREADS) as pool:
        # Filters release the interpreter; every field is looked at only once.
        list(pool.map(_detections, (*val, *test)))
    detected = functools.partial(detected_counts, cells=card["cell_px"])
    scores["baseline"], settings = density_scores(detected, val, test)
    true = functools.partial(true_counts, data_dir=data_dir, cells=card["cell_px"])
    scores["oracle"], _ = density_scores(true, val, test)
    result = summarise(scores, test)
    files = [index_file(data_dir / "file_data" / name) for name in found["test"]]
    cache = MapCache(CACHE_BYTES) if module.has_heads else None
    result["encoder figures"] = figures(module, FieldsDataset(files, card["bands"], cache))
    result["baseline settings"] = vars(settings)
    result["prior"] = {k: v for k, v in test[0].meta["prior"].items() if k != "empirical"}
    return result


def split_files(data_dir: Path, card: dict[str, Any]) -> dict[str, list[str]]:
    """Return the names of the file data by split, as the encoder's training had them."""
    names = [path.name for path in sorted((data_dir / "file_data").glob("[!.]*.pt"))]
    if not names:
        raise DataNotFoundError(
            f"expected file data (*.pt) in --data-dir = {data_dir} below file_data/, but found "
            f"none; make them with: python datagen/run.py data_gen=fields "
            f"data_gen.data_dir={data_dir}",
            str(data_dir),
        )
    if "splits" not in card or "split_seed" not in card:
        raise CheckpointError(
            "expected the card of --checkpoint to hold splits and split_seed; train it again with: "
            "python train.py model=membership",
            sorted(card),
        )
    found = split_names(names, card["split_seed"], card["splits"])
    if not found["test"]:
        raise ConfigError(
            f"expected an encoder that left fields for the test, but got data.splits = "
            f"{card['splits']}",
            card["splits"],
        )
    return found


def channels(field: Field, bands: Sequence[str]) -> list[int]:
    """Return the numbers of some bands in the images of a field.

    Raises:
        ConfigError: The field lacks one.
    """
    there = list(field.meta["bands"])
    if not set(bands) <= set(there):
        raise ConfigError(
            f"expected fields with the bands {', '.join(bands)}, but field {field.index} has "
            f"{', '.join(there)}; choose other data with --data-dir",
            there,
            list(bands),
        )
    return [there.index(band) for band in bands]


def read_fields(data_dir: Path, names: Sequence[str]) -> list[Field]:
    """Read the fields of some file data.

    Raises:
        ConfigError: They are not of simulated fields, whose source catalogs are numbered.
    """
    fields = []
    for name in names:
        match = re.fullmatch(r"file_data_(\d+)_size_(\d+)\.pt", name)
        if match is None:
            raise ConfigError(
                "expected --data-dir to hold file data of data_gen=fields, whose true catalogues "
                f"the oracle needs, but got {name}",
                name,
                "file_data_<number>_size_<n>.pt",
            )
        number, size = (int(n) for n in match.groups())
        data = read_file_data(data_dir / "file_data" / name)
        fields += [_field(datum, number * size + j) for j, datum in enumerate(data)]
    return fields


def _field(datum: dict[str, Any], index: int) -> Field:
    cells = datum["tile_catalog"]
    return Field(
        images=datum["images"].numpy(),
        meta=datum["meta"],
        membership=cells["membership"][..., 0, 0].numpy(),
        is_counted=cells["cell_weight"][..., 0, 0].numpy() > 0,
        index=index,
    )


@torch.inference_mode()
def encoder_scores(
    module: Any,  # noqa: ANN401 - a LightningModule
    field: Field,
    bands: Sequence[str],
) -> Array:
    """Return the encoder's logits of one field, shape (ny, nx); it was trained on `bands`."""
    chosen = field.images[channels(field, bands)]
    levels = torch.tensor([estimate_background(image) for image in chosen])
    images = torch.from_numpy(chosen)[None]
    logits = module(images, levels[None, :, 0], levels[None, :, 1])
    return np.asarray(logits[0].double())


@torch.inference_mode()
def figures(
    module: Any,  # noqa: ANN401 - a LightningModule
    fields: FieldsDataset,
) -> dict[str, dict[str, float]]:
    """Return the encoder's `FIGURES` over fields, before and after its calibration.

    Those of redshift and richness are missing if it does not predict them.
    """
    fitted = [module.calibration.clone(), module.error_scale.clone()]
    unchanged = [torch.tensor([1.0, 0.0]), torch.ones_like(module.error_scale)]
    result = {}
    for name, (calibration, scale) in {"before": unchanged, "after": fitted}.items():
        module.calibration.copy_(calibration)
        module.error_scale.copy_(scale)
        module.on_test_epoch_start()
        for number in range(len(fields)):
            module.test_step(default_collate([fields[number]]), 0)
        values = module.test_values()
        result[name] = {key: float(values[key]) for key in FIGURES if key in values}
    return result


def detected_counts(field: Field, settings: red_sequence.DensitySettings, cells: int) -> Array:
    """Return red-sequence weights per cell from detections, shape (redshifts, ny, nx)."""
    found = _detections(field)
    zero_point = field.meta["zero_point"]
    is_clear = (found.flux > found.flux_error).all(axis=1)
    flux = found.flux[is_clear]
    magnitudes = zero_point - 2.5 * np.log10(flux)
    errors = 2.5 / np.log(10.0) * found.flux_error / flux
    weights = red_sequence.red_sequence_weights(
        magnitudes[:, RED_SEQUENCE_BANDS.index("i")],
        magnitudes[:, :-1] - magnitudes[:, 1:],
        np.hypot(errors[:, :-1], errors[:, 1:]),
        settings,
    )
    n_cells = field.membership.shape[0]
    return red_sequence.cell_counts(found.x[is_clear], found.y[is_clear], weights, cells, n_cells)


_CACHE: dict[int, Any] = {}


def _detections(field: Field) -> Any:  # noqa: ANN401 - Detections
    if field.index not in _CACHE:
        chosen = channels(field, RED_SEQUENCE_BANDS)
        fwhm = np.array(field.meta["psf_fwhm"])[chosen] / field.meta["pixel_scale"]
        _CACHE[field.index] = detect_sources(field.images[chosen], fwhm)
    return _CACHE[field.index]


def true_counts(
    field: Field, settings: red_sequence.DensitySettings, data_dir: Path, cells: int
) -> Array:
    """Return the counts of bright galaxies per cell and redshift slice from the true catalogue."""
    sources = _catalog(data_dir, field.index)
    galaxies = sources[sources["SOURCE_TYPE"] == 0]
    weights = red_sequence.redshift_weights(
        np.asarray(galaxies["MAG_I"], float), np.asarray(galaxies["Z"], float)
    )
    x, y = (np.asarray(galaxies[name], float) for name in "XY")
    return red_sequence.cell_counts(x, y, weights, cells, field.membership.shape[0])


@functools.cache
def _catalog(data_dir: Path, index: int) -> Any:  # noqa: ANN401 - an astropy Table
    return read_catalog(catalog_path(data_dir, index))


def density_scores(
    count: Callable[..., Array], val: Sequence[Field], test: Sequence[Field]
) -> tuple[list[Array], red_sequence.DensitySettings]:
    """Choose the settings with the highest average precision on `val`, then score `test`."""
    best, best_precision = red_sequence.GRID[0], -1.0
    for settings in red_sequence.GRID:
        precision = average_precision(_contrasts(count, settings, val, val), val)
        if precision > best_precision:
            best, best_precision = settings, precision
    return _contrasts(count, best, val, test), best


def _contrasts(
    count: Callable[..., Array],
    settings: red_sequence.DensitySettings,
    val: Sequence[Field],
    fields: Sequence[Field],
) -> list[Array]:
    reference = [count(field, settings) for field in val]
    level = red_sequence.background_counts(reference, [field.membership for field in val])
    counts = reference if fields is val else [count(field, settings) for field in fields]
    return [red_sequence.contrast(c, level, settings) for c in counts]


def average_precision(
    scores: Sequence[Array], fields: Sequence[Field], times: NDArray[np.int64] | None = None
) -> float:
    """Return the average precision over all cells of some fields that count.

    `sum_n (R_n - R_(n-1)) P_n` over the thresholds n, from high to low.

    Args:
        scores: Of any range, one array (ny, nx) per field.
        fields: The fields.
        times: How often each field is drawn, shape (n_fields,); None for once.
    """
    pairs = [
        (s[f.is_counted], f.membership[f.is_counted]) for s, f in zip(scores, fields, strict=True)
    ]
    values, labels = (np.concatenate(part) for part in zip(*pairs, strict=True))
    drawn = np.ones(len(fields), int) if times is None else times
    weight = np.repeat(drawn, [len(part) for part, _ in pairs])
    order = np.argsort(-values, kind="stable")
    # Cells of one score pass a threshold together.
    is_last = np.append(np.diff(values[order]) != 0, True)
    n_true = np.cumsum((weight * labels)[order])[is_last]
    n_chosen = np.cumsum(weight[order])[is_last]
    gained = np.diff(n_true, prepend=0) / n_true[-1]
    return float((gained * n_true / np.maximum(n_chosen, 1)).sum())


def summarise(scores: dict[str, list[Array]], fields: Sequence[Field]) -> dict[str, Any]:
    """Return average precisions, their bootstrap intervals and those of the differences."""
    n = len(fields)
    draws = np.random.default_rng(0).integers(n, size=(N_BOOTSTRAP, n))
    times = [np.bincount(draw, minlength=n) for draw in draws]
    samples = {
        name: np.array([average_precision(s, fields, drawn) for drawn in times])
        for name, s in scores.items()
    }
    counted = np.concatenate([f.membership[f.is_counted] for f in fields])
    result: dict[str, Any] = {
        "n_fields": len(fields),
        "n_cells": len(counted),
        "base rate": float(counted.mean()),
    }
    for name in scores:
        interval = np.percentile(samples[name], [2.5, 97.5]).tolist()
        result[name] = {"AP": average_precision(scores[name], fields), "interval": interval}
    gain = np.percentile(samples["encoder"] - samples["baseline"], [2.5, 97.5]).tolist()
    difference = result["encoder"]["AP"] - result["baseline"]["AP"]
    result["encoder - baseline"] = {"AP": difference, "interval": gain}
    return result


def table(result: dict[str, Any]) -> str:
    """Return the comparison as text."""
    lines = [
        f"{result['n_cells']} held-out cells of {result['n_fields']} fields, "
        f"base rate {result['base rate']:.3f}",
        f"{'':24} average precision   95 % interval",
    ]
    for name in ("encoder", "baseline", "oracle", "encoder - baseline"):
        low, high = result[name]["interval"]
        lines.append(f"{name:24} {result[name]['AP']:17.3f}   {low:.3f} to {high:.3f}")
    before, after = (result["encoder figures"][name] for name in ("before", "after"))
    lines += ["", f"{'encoder':24} {'before':>8} {'after its calibration':>22}"]
    for key, value in before.items():
        lines.append(f"{key.replace('_', ' '):24} {value:8.3f} {after[key]:22.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
