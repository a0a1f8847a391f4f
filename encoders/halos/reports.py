"""Writes what a training and its test have found to the folder of the run, and to TensorBoard."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure

from datagen.files import write_json
from encoders.halos import pictures
from encoders.halos.data import HalosDataModule, HalosDataset
from encoders.halos.judgement import (
    Judged,
    Trio,
    coverage_by_set,
    group_rows,
    judge,
    novelty_by_set,
)
from encoders.halos.metrics import Answers, Collected
from encoders.halos.module import HaloModule
from encoders.halos.saliency import saliency
from encoders.halos.samples import Sample
from encoders.pictures import draw_confusion
from encoders.reports import TableReports, logged, write_arrays, write_table

SPLITS_FILE = "splits.ecsv"
# Levels of the intervals whose coverage is drawn.
LEVELS = np.linspace(0.02, 0.98, 49).round(2).tolist()
# What of the card tells whether two tests can be compared.
ABOUT = ("model", "classes", "cross_sections", "sets", "channels", "splits", "data_hash")
# Groups that are drawn side by side.
N_COLUMNS = 8


class HaloReports(TableReports):
    """Tables and pictures in the folder of the run, written by the first process.

    - `splits.ecsv`: a row per halo with its split and number of maps.
    - In `folder`: `history.ecsv`, a row per validation, and its picture; `test.json` with the
      figures of the test and of each group of maps (one set, one true cross-section);
      `predictions.npz`; pictures of latents, confusion, cross-sections, overlaps, coverage, novelty
      and saliency.

    Args:
        folder: Below the folder of the run.
        every_n_validations: Draw pictures for TensorBoard after each n-th validation.
        n_trained: Training maps with which tested maps are compared.
        n_salient: Maps of each group over which saliency is a mean.
        draws: Whether there are pictures, or tables alone.
    """

    def __init__(
        self,
        folder: str,
        every_n_validations: int,
        n_trained: int,
        n_salient: int,
        draws: bool,
    ) -> None:
        super().__init__(folder, every_n_validations, draws)
        self.n_trained, self.n_salient = n_trained, n_salient

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the splits."""
        if not trainer.is_global_zero:
            return
        data = _data(trainer)
        counts = Counter(data.halos.halo[~data.halos.is_held_out].tolist())
        rows = [(name, split, counts[name]) for split, names in data.ids.items() for name in names]
        table = Table(rows=sorted(rows), names=("halo", "split", "n_maps"))
        write_table(Path(trainer.default_root_dir) / SPLITS_FILE, table)

    def draw_validation(self, trainer: Trainer, module: Any) -> dict[str, Figure]:  # noqa: ANN401
        """Return latents, confusion, cross-sections and saliency."""
        return _draw(module, Sample.of(_data(trainer).halos, module.validated)) | (
            self._saliency(trainer, module, "val")
        )

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what the test has found."""
        if not trainer.is_global_zero:
            return
        module: Any = pl_module
        data = _data(trainer)
        samples = [Sample.of(data.halos, answers_to(module, data, split, n_maps))
                   for split, n_maps in (("train", self.n_trained), ("val", None))]  # fmt: skip
        tested = Sample.of(data.halos, module.tested)
        scale = module.scale if module.has_axis else None
        trio = Trio(samples[0], samples[1], tested, scale, module.judge())
        judged = judge(trio)
        content: dict[str, Any] = logged(trainer, "test")
        content |= {name: module.card[name] for name in ABOUT}
        content |= {"temperature": float(module.temperature), "threshold": judged.threshold}
        content["groups"] = group_rows(trio, judged)
        write_json(self.path(trainer, "test.json"), content)
        write_arrays(self.path(trainer, "predictions.npz"), _arrays(module, tested, judged))
        if not self.draws:
            return
        drawn = _draw(module, tested, judged) | self._saliency(trainer, module, "test")
        for name, figure in (drawn | _draw_judged(trio, judged)).items():
            self.save(trainer, name, figure)

    def _saliency(self, trainer: Trainer, module: HaloModule, split: str) -> dict[str, Figure]:
        """Return the picture of saliency by its name; none where z_0 has no meaning."""
        if not module.has_axis or not self.n_salient:
            return {}
        data = _data(trainer)
        answers = module.validated if split == "val" else module.tested
        assert answers is not None
        sample = Sample.of(data.halos, answers)
        numbers = data.halos.numbers_of(answers.sets.numpy(), answers.index.numpy())
        seen, salient = {}, {}
        for number, name in enumerate(sample.groups.names[:N_COLUMNS]):
            mine = numbers[sample.groups.number == number][: self.n_salient]
            maps = module.inputs(data.halos.read(mine).to(module.device))
            seen[name] = maps.mean(dim=0).cpu()
            salient[name] = saliency(module.network, maps).mean(dim=0).cpu()
        return {"saliency": pictures.draw_saliency(seen, salient, data.channels)}


@torch.no_grad()
def answers_to(
    module: HaloModule, data: HalosDataModule, split: str, n_maps: int | None
) -> Answers:
    """Return what a module answers to maps of a split as they are, in this process alone.

    Args:
        module: In evaluation mode.
        data: Where the maps are.
        split: train, val or test.
        n_maps: How many of them, always the same ones; None takes all.
    """
    dataset: HalosDataset = data.dataset(split)
    chosen = np.sort(np.random.default_rng(0).permutation(len(dataset))[:n_maps])
    collected = Collected(sync_on_compute=False)
    for first in range(0, len(chosen), data.options.batch_size):
        batch = dataset.__getitems__(chosen[first : first + data.options.batch_size].tolist())
        batch = dataset.with_maps({key: value.to(module.device) for key, value in batch.items()})
        collected.update(module(batch["maps"]), batch)
    return collected.answers()


def _draw(module: HaloModule, sample: Sample, judged: Judged | None = None) -> dict[str, Figure]:
    """Return pictures of answers; without a judge the first latent tells the cross-section."""
    groups = sample.groups
    drawn = {
        "latents": pictures.draw_latents(sample.z, groups.number, groups.names),
        "corner": pictures.draw_corner(sample.z, groups.number, groups.names),
    }
    answers = sample.answers
    is_labelled = answers.is_labelled
    if answers.logits.shape[1] and is_labelled.any():
        p = torch.softmax(answers.logits[is_labelled], dim=1)
        classes = module.card["classes"]
        drawn["confusion"] = draw_confusion(p, answers.classes[is_labelled], classes)
    if module.has_axis:
        scale = module.scale
        assert scale is not None
        found = scale.inverse(sample.z[:, 0]) if judged is None else judged.cross_section
        true = groups.cross_sections
        drawn["cross_sections"] = pictures.draw_cross_sections(
            found, groups.number, groups.names, true, scale.zero
        )
    return drawn


def _draw_judged(trio: Trio, judged: Judged) -> dict[str, Figure]:
    names = (trio.tested.groups.names, trio.trained.groups.names)
    drawn = {"overlaps": pictures.draw_overlaps(judged.overlaps, *names)}
    if trio.scale is not None:
        shares = coverage_by_set(trio, LEVELS)
        drawn["coverage"] = pictures.draw_coverage(LEVELS, shares)
    usual, other = novelty_by_set(trio.tested, judged.novelty)
    if other:
        drawn["novelty"] = pictures.draw_novelty(usual, other, judged.threshold)
    return drawn


def _arrays(module: HaloModule, sample: Sample, judged: Judged) -> dict[str, Any]:
    answers = sample.answers
    names = np.array([one.name for one in sample.sets])
    found = {
        "set": names[answers.sets.numpy()],
        "index": answers.index.numpy(),
        "halo": answers.clusters.numpy(),
        "class": answers.classes.numpy(),
        "true_cross_section": sample.cross_section,
        "z": sample.z,
        "cross_section": judged.cross_section,
        "low": judged.low,
        "high": judged.high,
        "novelty": judged.novelty,
    }
    if answers.logits.shape[1]:
        p = torch.softmax(answers.logits / float(module.temperature), dim=1)
        found["probabilities"] = p.numpy()
    return found


def _data(trainer: Trainer) -> HalosDataModule:
    data: HalosDataModule = trainer.datamodule  # type: ignore[attr-defined]
    return data
