"""What a trained encoder says of maps that it has not seen: by map, and by group of maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.halos.conformal import coverage_curve, quantile_shift, shifted
from encoders.halos.judge import Judge
from encoders.halos.likelihood import interval, quantiles
from encoders.halos.metrics import Answers
from encoders.halos.overlap import overlap_with_classes
from encoders.halos.reference import split_views
from encoders.halos.samples import Sample
from encoders.halos.targets import LogScale
from encoders.metrics import area

Array = NDArray[np.float64]
QUANTILES = (0.16, 0.5, 0.84)


@dataclass(frozen=True)
class Trio:
    """Answers of one encoder.

    Args:
        trained: To maps that trained it, some of them.
        validated: To maps that chose its best epoch.
        tested: To maps that did neither, with views.
        scale: From cross-section to the first latent; None where that one has no such meaning.
        judge: What follows from the validation maps.
    """

    trained: Sample
    validated: Sample
    tested: Sample
    scale: LogScale | None
    judge: Judge

    def intervals(self, levels: Sequence[float]) -> tuple[Array, Array]:
        """Return the ends of calibrated intervals of the tested maps, t at each level (levels, n).

        See `Judge`, whose own interval has one level.
        """
        answers = self.validated.answers
        is_known = answers.targets.isfinite()
        known, halo = answers.targets[is_known].numpy(), self.validated.halo[is_known.numpy()]
        usual = self._ends(answers.z[is_known, 0].numpy(), levels)
        asked = self._ends(self.tested.z[:, 0], levels)
        ends = np.empty((2, *asked[0].shape))
        for k, level in enumerate(levels):
            shift = quantile_shift(known, usual[0][k], usual[1][k], halo, level)
            ends[:, k] = shifted(asked[0][k], asked[1][k], shift)
        return ends[0], ends[1]

    def _ends(self, first: Array, levels: Sequence[float]) -> tuple[Array, Array]:
        """Return quantiles of t for z_0 (n,), as many beyond them as between, (levels, n) each."""
        assert self.judge.likelihood is not None
        below = [0.5 * (1.0 - level) for level in levels]
        both = [*below, *(1.0 - share for share in below)]
        found = quantiles(self.judge.likelihood.log_posterior(first), both).T
        return found[: len(below)], found[len(below) :]


@dataclass(frozen=True)
class Judged:
    """What was found of the tested maps.

    Args:
        cross_section: [cm^2/g], NaN where the encoder tells none (n,).
        low: Lower ends of the intervals [cm^2/g] (n,).
        high: Upper ends [cm^2/g] (n,).
        novelty: How unlike the training maps each is (n,).
        threshold: Above it a map is novel.
        overlaps: Of the groups of tested maps with those of training maps (G, G').
    """

    cross_section: Array
    low: Array
    high: Array
    novelty: Array
    threshold: float
    overlaps: Array

    @property
    def is_novel(self) -> NDArray[np.bool_]:
        """Whether the encoder should abstain (n,)."""
        return np.asarray(self.novelty > self.threshold)


def judge(trio: Trio) -> Judged:
    """Return what an encoder says of the tested maps."""
    sample, likelihood = trio.tested, trio.judge.likelihood
    found = np.full((len(sample), 3), np.nan)
    if trio.scale is not None and likelihood is not None:
        found = trio.scale.inverse(
            interval(likelihood.log_posterior(sample.z[:, 0]), trio.judge.shift)
        )
    novelty = trio.judge.score(_views(sample.answers)).numpy()
    overlaps = group_overlaps(sample, trio.trained)
    return Judged(found[:, 1], found[:, 0], found[:, 2], novelty, trio.judge.threshold, overlaps)


def group_overlaps(sample: Sample, trained: Sample) -> Array:
    """Return how much each group of a sample overlaps with each group of training maps (G, G')."""
    groups, known = sample.groups, trained.groups
    found = np.full((len(groups.names), len(known.names)), np.nan)
    for number in range(len(groups.names)):
        z = sample.z[groups.number == number]
        for other, value in overlap_with_classes(z, trained.z, known.number).items():
            found[number, other] = value
    return found


def group_rows(trio: Trio, judged: Judged) -> list[dict[str, Any]]:
    """Return the figures of each group of tested maps, NaN where there are none.

    `set`, `labels`, `cross_section` (true) [cm^2/g], `n_maps`, `n_halos`; quantiles `low`,
    `median`, `high` of the found cross-sections [cm^2/g]; `bias_dex` of the median, `rmse_dex` of
    the maps, share `covered` by their intervals; `accuracy` where the truth is a class; largest
    `overlap` with a group of training maps and all `overlaps`; share that is `novel`, and `auroc`
    of the novelty of held-out groups among the other tested maps.
    """
    sample, rows = trio.tested, []
    groups, names = sample.groups, trio.trained.groups.names
    for number in range(len(groups.names)):
        mine, wanted = groups.number == number, sample.sets[int(groups.sets[number])]
        overlaps = dict(zip(names, judged.overlaps[number].tolist(), strict=True))
        rows.append(
            {
                "set": wanted.name,
                "labels": wanted.labels,
                "cross_section": float(groups.cross_sections[number]),
                "n_maps": int(mine.sum()),
                "n_halos": len(np.unique(sample.halo[mine])),
                **_cross_section_figures(trio.scale, judged, sample, mine),
                "accuracy": _accuracy(sample, mine),
                "overlap": max(overlaps.values(), key=lambda v: -np.inf if np.isnan(v) else v),
                "overlaps": overlaps,
                "novel": float(judged.is_novel[mine].mean()),
                "auroc": _auroc(judged.novelty, mine, ~sample.is_held_out),
            }
        )
    return rows


def coverage_by_set(trio: Trio, levels: Sequence[float]) -> dict[str, Array]:
    """Return share and error (levels, 2) of the tested maps of each set that intervals hold."""
    assert trio.scale is not None
    sample, found = trio.tested, {}
    truth = trio.scale.forward(sample.cross_section)
    low, high = trio.intervals(levels)
    for number, one in enumerate(sample.sets):
        mine = (sample.answers.sets.numpy() == number) & np.isfinite(truth)
        if mine.any():
            found[one.name] = coverage_curve(
                truth[mine], low[:, mine], high[:, mine], sample.halo[mine]
            )
    return found


def novelty_by_set(sample: Sample, novelty: Array) -> tuple[Array, dict[str, Array]]:
    """Return the novelty of maps of the sets that were learned, and of each held-out one."""
    sets = sample.answers.sets.numpy()
    numbers = np.unique(sets[sample.is_held_out]).tolist()
    return novelty[~sample.is_held_out], {sample.sets[k].name: novelty[sets == k] for k in numbers}


def _views(answers: Answers) -> dict[str, Tensor]:
    assert answers.views is not None
    widths = [answers.z.shape[1], *answers.widths]
    return split_views(torch.cat((answers.z, answers.views), dim=1), widths)


def _cross_section_figures(
    scale: LogScale | None, judged: Judged, sample: Sample, mine: NDArray[np.bool_]
) -> dict[str, float]:
    names = ("low", "median", "high", "bias_dex", "rmse_dex", "covered")
    if scale is None:
        return dict.fromkeys(names, float("nan"))
    found = judged.cross_section[mine]
    quantiles = np.quantile(found, QUANTILES, method="inverted_cdf")
    true = np.maximum(sample.cross_section[mine], scale.zero)
    is_held = (judged.low[mine] <= true) & (true <= judged.high[mine])
    covered = float(is_held.mean()) if np.isfinite(true).all() else float("nan")
    away = np.log10(found / true)
    bias, rmse = np.log10(quantiles[1] / true[0]), np.sqrt((away**2).mean())
    return dict(zip(names, (*quantiles.tolist(), float(bias), float(rmse), covered), strict=True))


def _accuracy(sample: Sample, mine: NDArray[np.bool_]) -> float:
    logits, has_class = sample.answers.logits, mine & (sample.classes >= 0)
    if not has_class.any() or not logits.shape[1]:
        return float("nan")
    is_right = logits.argmax(dim=1).numpy() == sample.classes
    return float(is_right[has_class].mean())


def _auroc(novelty: Array, mine: NDArray[np.bool_], usual: NDArray[np.bool_]) -> float:
    if usual[mine].any():
        return float("nan")
    among = mine | usual
    return area(novelty[among], mine[among])
